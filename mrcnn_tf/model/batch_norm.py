"""Batch normalisation that sees only the images' own area of a padded batch, of one replica or of all of them."""

import keras
import tensorflow as tf

from mrcnn_tf.ops import canvas
from mrcnn_tf.ops.replicas import summed


@keras.saving.register_keras_serializable("mrcnn_tf")
class BatchNorm(keras.layers.Layer):
    """Batch normalisation (Ioffe and Szegedy 2015), statistics in float32.

    Not keras.layers.BatchNormalization: given a mask, it leaves out the synchronisation without a word.

    Args:
        momentum: of the moving statistics, which inference uses.
        epsilon: added to the variance.
        synchronized: take the statistics over the images of all replicas (Peng et al. 2018).
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, synchronized=False, **kwargs):
        super().__init__(autocast=False, **kwargs)  # statistics, scale and shift are float32 whatever the inputs are
        self.momentum, self.epsilon, self.synchronized = momentum, epsilon, synchronized

    def build(self, input_shape):
        vector = {"shape": (input_shape[-1],), "aggregation": "mean"}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **vector)
        self.beta = self.add_weight(name="beta", initializer="zeros", **vector)
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", trainable=False, **vector)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", trainable=False, **vector)

    def call(self, inputs, extent=None, training=False):
        """[B, H, W, C] -> the same shape; `extent` [B, 2] is the canvas in cells, None when it fills the map."""
        values = tf.cast(inputs, tf.float32)
        mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        if training and self.trainable:
            mean, variance = self._statistics(values, extent)
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        scale = tf.math.rsqrt(variance + self.epsilon) * self.gamma
        return tf.cast(values * scale + (self.beta - mean * scale), inputs.dtype)

    def _statistics(self, values, extent):
        """Mean and variance [C] over all cells that count, from sums of distances to where the mean was before.

        Sums of the values' own squares would lose the variance to rounding where the mean is large.
        """
        shape = tf.shape(values)
        near = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        apart = tf.reshape(values - near, [-1, values.shape[-1]])
        cells = tf.ones([1, tf.shape(apart)[0]])
        if extent is not None:
            inside = canvas.inside(extent, shape[1], shape[2])[..., 0]
            cells = tf.cast(tf.reshape(inside, [1, -1]), tf.float32)
        sums = [tf.reduce_sum(cells), tf.matmul(cells, apart)[0], tf.matmul(cells, tf.square(apart))[0]]
        count, total, squares = summed(sums) if self.synchronized else sums
        mean = total / tf.maximum(count, 1.0)
        return mean + near, tf.maximum(squares / tf.maximum(count, 1.0) - tf.square(mean), 0.0)

    def get_config(self):
        return super().get_config() | {
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "synchronized": self.synchronized,
        }
