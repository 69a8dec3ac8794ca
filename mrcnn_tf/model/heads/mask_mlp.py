"""The mask head as a multi-layer perceptron, which Table 2e of the paper compares the convolutional one with."""

import keras
import tensorflow as tf

from mrcnn_tf.model.conv import HE_FAN_OUT
from mrcnn_tf.model.heads.mask_head import MaskHead, MaskScores


@keras.saving.register_keras_serializable("mrcnn_tf")
class MaskMLP(MaskHead):
    """Fully connected hidden layers on the flattened RoI features, and K masks of independent pixels.

    Arguments as of `MaskHead`; `config` has the number of hidden layers in `fcs` and their width in `channels`.
    """

    def __init__(self, num_classes, config, conventions, **kwargs):
        super().__init__(num_classes, config, conventions, **kwargs)
        self.fcs = [self._hidden(f"fc{index}") for index in range(1, config["fcs"] + 1)]

    def _hidden(self, name):
        he = keras.initializers.VarianceScaling(**HE_FAN_OUT)  # shared, it would draw equal layers
        return keras.layers.Dense(
            self.config["channels"], "relu", kernel_initializer=he, dtype=self.dtype_policy, name=name
        )

    @staticmethod
    def predictor_initializer():
        """torch.nn.Linear's initial weights; He's by fan-out would be tiny for so many outputs."""
        return keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")

    def build(self, input_shape):
        side, units = input_shape[-2], input_shape[-3] * input_shape[-2] * input_shape[-1]
        for layer in self.fcs:
            layer.build((None, units))
            units = layer.units
        self._add_predictor(units, self.masks * 4 * side * side)

    def call(self, roi_features, classes):
        """As `MaskHead.call`."""
        side, count = roi_features.shape[-2], roi_features.shape[1]
        hidden = tf.reshape(roi_features, [-1, self.fcs[0].kernel.shape[0]])
        for layer in self.fcs:
            hidden = layer(hidden)
        every = tf.cast(tf.matmul(hidden, tf.cast(self.kernel, hidden.dtype)), tf.float32) + self.bias
        every = tf.reshape(every, [-1, self.masks, 2 * side, 2 * side])
        logits = tf.gather(every, self._mask_of(classes), batch_dims=1)
        logits = tf.reshape(logits, [-1, count, 2 * side, 2 * side])
        return MaskScores(tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits))
