"""The semantic head of Panoptic FPN (Kirillov et al. 2019, section 3): a class for each pixel, from the pyramid."""

import math

import keras
import tensorflow as tf

from mrcnn_tf.model.blocks import ConfiguredLayer, ConvNorm, build_in_turn
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.conv import conv2d
from mrcnn_tf.ops.panoptic_maps import STRIDE, double_size

# Small, as a box head's: all classes start out equal. He's by fan-out, detectron2's, grows as the classes get fewer:
# with five of them a training starts at eight times the loss.
INITIAL_STDDEV = 0.01


@keras.saving.register_keras_serializable("mrcnn_tf")
class SemanticHead(ConfiguredLayer):
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
        self.predictor = ConvNorm(
            num_classes, 1, kernel_initializer=_predictor_initializer(), dtype="float32", name="predictor"
        )

    def _level(self, stride):
        """The convolutions of one level, without the doublings between them."""
        count, level = max(round(math.log2(stride / STRIDE)), 1), round(math.log2(stride))
        settings = {"norm": self.config["norm"], "activation": "relu", "epsilon": self.epsilon}
        settings |= {"filters": self.config["channels"], "kernel_size": 3, "dtype": self.dtype_policy}
        return [ConvNorm(**settings, name=f"p{level}_conv{number}") for number in range(1, count + 1)]

    def build(self, input_shape):
        for shape, convs in zip(input_shape, self.levels, strict=True):
            build_in_turn(convs, shape[-1])
        self.predictor.build((None, None, None, self.config["channels"]))

    def class_variables(self):
        """(variable, initializer) of each weight whose shape depends on the classes."""
        # A new initializer: the layer's own would draw the same numbers again.
        return [(self.predictor.kernel, _predictor_initializer()), (self.predictor.bias, keras.initializers.Zeros())]

    def call(self, maps, padded_size=None):
        """Maps [B, H_l, W_l, C] of the strides -> logits float32 [B, H, W, S + 1] at stride 4.

        Beyond an image's valid cells its last row and column repeat, so that enlarging it needs no care.
        """
        finest, *coarser = [
            tf.cast(self._convolve_level(features, convs, stride, padded_size), tf.float32)
            for features, convs, stride in zip(maps, self.levels, self.strides, strict=True)
        ]
        kernel, bias = self.predictor.kernel_and_shift()
        logits = conv2d(finest, kernel, bias, 1, "SAME")
        if coarser:
            at_stride_8 = conv2d(tf.add_n(coarser), kernel, None, 1, "SAME")
            logits += double_size(padding.repeat_edges(at_stride_8, padding.count_cells(padded_size, 2 * STRIDE)))
        return padding.repeat_edges(logits, padding.count_cells(padded_size, STRIDE))

    def _convolve_level(self, features, convs, stride, padded_size):
        """One level up to its last ReLU, which is at stride 8, or 4 for the finest."""
        for index, conv in enumerate(convs):
            valid_cells = padding.count_cells(padded_size, stride)
            if index:
                features = double_size(features)
            features = conv(features, valid_cells=valid_cells)
            if index + 1 < len(convs):
                features, stride = padding.repeat_edges(features, valid_cells), stride // 2
        return features


def _predictor_initializer():
    return keras.initializers.RandomNormal(stddev=INITIAL_STDDEV)
