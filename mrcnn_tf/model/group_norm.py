"""Group normalisation that sees only the image's own area of a padded batch."""

import keras
import tensorflow as tf

from mrcnn_tf.ops import canvas


@keras.saving.register_keras_serializable("mrcnn_tf")
class GroupNorm(keras.layers.Layer):
    """Group normalisation (Wu and He 2018) over 32 groups of channels, statistics in float32.

    keras.layers.GroupNormalization would average over the padding too, so that an image's features would depend on the
    size of its neighbours.
    """

    def __init__(self, groups=32, epsilon=1e-5, **kwargs):
        super().__init__(autocast=False, **kwargs)  # statistics, scale and shift are float32 whatever the inputs are
        self.groups, self.epsilon = groups, epsilon

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.groups:
            raise ValueError(f"Group norm can't split {channels} channels into {self.groups} groups.")
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros")

    def call(self, inputs, extent=None):
        """[B, H, W, C] -> the same shape; `extent` [B, 2] is the canvas in cells, None when it fills the map."""
        batch, channels = tf.shape(inputs)[0], inputs.shape[-1]
        height, width = tf.shape(inputs)[1], tf.shape(inputs)[2]
        cells = tf.fill([batch, 2], 1) * tf.stack([height, width]) if extent is None else extent
        inside = tf.cast(tf.reshape(canvas.inside(cells, height, width), [batch, 1, -1]), tf.float32)
        values = tf.cast(tf.reshape(inputs, [batch, -1, channels]), tf.float32)
        count = tf.cast(tf.reduce_prod(cells, axis=1), tf.float32)[:, None, None]
        mean = self._group_mean(tf.matmul(inside, values)[:, 0], count)  # a masked sum over space, as one product
        square = self._group_mean(tf.matmul(inside, tf.square(values))[:, 0], count)
        scale = tf.math.rsqrt(tf.maximum(square - tf.square(mean), 0.0) + self.epsilon) * self.gamma
        shift = self.beta - mean * scale
        normalized = values * scale[:, None, :] + shift[:, None, :]
        return tf.reshape(tf.cast(normalized, inputs.dtype), tf.shape(inputs))

    def _group_mean(self, sums, cells):
        """Mean over each group, [B, C] from the sums over space [B, C]."""
        size = sums.shape[-1] // self.groups
        grouped = tf.reduce_sum(tf.reshape(sums, [-1, self.groups, size]), axis=2, keepdims=True) / (cells * size)
        return tf.reshape(tf.repeat(grouped, size, axis=2), [-1, self.groups * size])

    def get_config(self):
        return super().get_config() | {"groups": self.groups, "epsilon": self.epsilon}
