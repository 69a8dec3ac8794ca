"""The semantic head of Panoptic FPN (Kirillov et al. 2019, section 3): a class for each pixel, from the pyramid."""

import math

import keras
import tensorflow as tf

from mrcnn_tf.model.blocks import ConvNorm
from mrcnn_tf.ops import canvas
from mrcnn_tf.ops.conv import conv2d
from mrcnn_tf.ops.panoptic import STRIDE, doubled

# Small, as a box head's: all classes start out equal. He's by fan-out, detectron2's, grows as the classes get fewer:
# with five of them a training starts at eight times the loss.
INITIAL_STDDEV = 0.01


@keras.saving.register_keras_serializable("mrcnn_tf")
class SemanticHead(keras.layers.Layer):
    """Each level by 3x3 convolutions, normalisation, ReLU and bilinear doubling to stride 4; their sum classified.

    The coarsest level of stride 32 takes three convolutions, the finest one. What follows the last ReLU is linear:
    doubling, sum and the 1x1 classifier. So the coarser levels are added up and classified at stride 8, and only their
    logits are doubled, which is the same and moves a fraction of the numbers.

    Args:
        num_classes: S + 1, all things as one and the stuff classes.
        strides: pixels per cell of the maps, from 4 on, each twice the one before.
        config: a dictionary with the fields of `SemanticHeadConfig`.
        epsilon: of the normalisation.
    """

    def __init__(self, num_classes, strides, config, epsilon=1e-5, **kwargs):
        super().__init__(autocast=False, **kwargs)  # logits are float32 whatever the maps are
        self.num_classes, self.strides, self.config, self.epsilon = num_classes, list(strides), config, epsilon
        self.levels = [self._level(stride) for stride in self.strides]
        # In float32, as the layers that give scores: the likeliest class is a matter of small differences.
        self.predictor = ConvNorm(num_classes, 1, kernel_initializer=_small(), dtype="float32", name="predictor")

    def _level(self, stride):
        """The convolutions of one level, the doublings between them left out."""
        count, level = max(round(math.log2(stride / STRIDE)), 1), round(math.log2(stride))
        settings = {"norm": self.config["norm"], "activation": "relu", "epsilon": self.epsilon}
        return [
            ConvNorm(
                self.config["channels"], 3, **settings, dtype=self.dtype_policy, name=f"p{level}_conv{number}"
            )
            for number in range(1, count + 1)
        ]  # fmt: skip

    def build(self, input_shape):
        hidden = (None, None, None, self.config["channels"])
        for shape, convs in zip(input_shape, self.levels, strict=True):
            convs[0].build(tuple(shape))
            for conv in convs[1:]:
                conv.build(hidden)
        self.predictor.build(hidden)

    def class_variables(self):
        """(variable, initializer) of each weight whose shape depends on the classes."""
        # A new initializer: the layer's own would draw the same numbers again.
        return [(self.predictor.kernel, _small()), (self.predictor.bias, keras.initializers.Zeros())]

    def call(self, maps, canvas_size=None):
        """Maps [B, H_l, W_l, C] of the strides -> logits float32 [B, H, W, S + 1] at stride 4.

        Beyond an image's canvas its last row and column repeat, so that enlarging it needs no care.
        """
        fine, *coarse = [
            tf.cast(self._to_stride(features, convs, stride, canvas_size), tf.float32)
            for features, convs, stride in zip(maps, self.levels, self.strides, strict=True)
        ]
        kernel, bias = self.predictor.kernel_and_shift()
        logits = conv2d(fine, kernel, bias, 1, "SAME")
        if coarse:
            coarser = conv2d(tf.add_n(coarse), kernel, None, 1, "SAME")
            logits += doubled(canvas.extend(coarser, canvas.extent(canvas_size, 2 * STRIDE)))
        return canvas.extend(logits, canvas.extent(canvas_size, STRIDE))

    def _to_stride(self, features, convs, stride, canvas_size):
        """One level up to its last ReLU, which is at stride 8, or 4 for the finest."""
        for number, conv in enumerate(convs):
            extent = canvas.extent(canvas_size, stride)
            if number:
                features = doubled(features)
            features = conv(features, extent=extent)
            if number + 1 < len(convs):
                features, stride = canvas.extend(features, extent), stride // 2
        return features

    def get_config(self):
        return super().get_config() | {
            "num_classes": self.num_classes,
            "strides": self.strides,
            "config": self.config,
            "epsilon": self.epsilon,
        }


def _small():
    return keras.initializers.RandomNormal(stddev=INITIAL_STDDEV)
