"""The feature pyramid (Lin et al. 2017): every level sees the coarser ones' semantics."""

import keras
import tensorflow as tf

from mrcnn_tf.model.blocks import ConfiguredLayer, ConvNorm
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.gradients import with_gradient
from mrcnn_tf.ops.native.library import shapes_must_be_static

STRIDES = [4, 8, 16, 32, 64]  # of P2 to P6


def upsample(features):
    """Nearest-neighbour doubling: [B, H, W, C] -> [B, 2H, 2W, C]."""
    if shapes_must_be_static():
        return _resized(features)
    batch, height, width = tf.unstack(tf.shape(features)[:3])
    channels = features.shape[-1]
    repeated = tf.broadcast_to(features[:, :, None, :, None, :], [batch, height, 2, width, 2, channels])
    return tf.reshape(repeated, [batch, 2 * height, 2 * width, channels])


def _sum_of_copies(upstream, features):
    """The gradient of `_resized`: of the four cells that each cell was copied to."""
    return 4 * tf.nn.avg_pool2d(upstream, 2, 2, "VALID")


@with_gradient("MrcnnTf>NearestUpsample", _sum_of_copies)
def _resized(features):
    """The same by the operation that TFLite has a fast kernel for; XLA has no gradient of it."""
    return tf.raw_ops.ResizeNearestNeighbor(images=features, size=2 * tf.shape(features)[1:3])


@keras.saving.register_keras_serializable("mrcnn_tf")
class FPN(ConfiguredLayer):
    """Pyramid levels {P2, ..., P6} from {C2, ..., C5}; P6 is P5 subsampled by two (FPN paper, footnote 2).

    Args:
        channels: of every level.
        norm, epsilon: of the convolutions, see `ConvNorm`.
    """

    def __init__(self, channels=256, norm=None, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.norm, self.epsilon = channels, norm, epsilon
        settings = {"norm": norm, "epsilon": epsilon, "dtype": self.dtype_policy}

        def conv(name, size):
            uniform = keras.initializers.VarianceScaling(scale=1.0, mode="fan_in", distribution="uniform")
            return ConvNorm(channels, size, kernel_initializer=uniform, name=name, **settings)

        self.lateral = [conv(f"lateral{level}", 1) for level in range(2, 6)]
        self.output_convs = [conv(f"output{level}", 3) for level in range(2, 6)]

    def build(self, input_shape):
        for shape, lateral, output in zip(input_shape, self.lateral, self.output_convs, strict=True):
            lateral.build(tuple(shape))
            output.build((None, None, None, self.channels))

    def call(self, maps, padded_size=None):
        """List of four maps [B, H_l, W_l, C_l] -> list of five [B, H_l, W_l, channels] at strides 4 to 64.

        The levels are zero beyond each image's padded size, so that heads need not look at it.
        """
        cells_of_level = [padding.count_cells(padded_size, stride) for stride in STRIDES[:-1]]
        laterals = [
            conv(features, cells) for conv, features, cells in zip(self.lateral, maps, cells_of_level, strict=True)
        ]
        merged = [laterals[-1]]
        for finer in laterals[-2::-1]:
            merged.insert(0, finer + upsample(merged[0]))
        outputs = [
            padding.clear_padding(conv(features, cells), cells)
            for conv, features, cells in zip(self.output_convs, merged, cells_of_level, strict=True)
        ]
        return [*outputs, outputs[-1][:, ::2, ::2, :]]
