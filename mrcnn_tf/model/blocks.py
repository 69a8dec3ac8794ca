"""A convolution with its normalisation and ReLU: the brick of backbone, pyramid and heads."""

import keras
import tensorflow as tf

from mrcnn_tf.ops import canvas
from mrcnn_tf.ops.conv import conv2d
from mrcnn_tf.ops.replicas import summed

# Batch normalisation that sees only the images' own area of a padded batch, of one replica or of all of them.
#

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


# Group normalisation that sees only the image's own area of a padded batch.
#

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


HE_FAN_OUT = {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}  # torchvision's kaiming_normal


@keras.saving.register_keras_serializable("mrcnn_tf")
class ConvNorm(keras.layers.Layer):
    """Convolution, then a bias or a normalisation, then ReLU if asked.

    Padding is symmetric, (kernel_size - 1) / 2 on each side, as in the reference systems: TensorFlow's "same" would
    shift strided convolutions by one pixel. A frozen batch norm is folded into the kernel at each call, which costs
    nothing and saves two passes over the output.

    Args:
        filters: output channels.
        kernel_size: odd.
        strides: 1 or 2.
        norm: None (bias), "frozen_bn", "bn", "sync_bn" or "gn".
        activation: None or "relu".
        epsilon: of the normalisation.
        groups: the channels are convolved in that many groups, each by itself.
        dilation: cells from one tap of the kernel to the next; more than 1 with strides 1 only.
        kernel_initializer: as in keras.layers.Conv2D; He normal by fan-out if None.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        norm=None,
        activation=None,
        epsilon=1e-5,
        groups=1,
        dilation=1,
        kernel_initializer=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # the folding of a frozen batch norm stays in float32
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.norm, self.activation, self.epsilon = norm, activation, epsilon
        self.groups, self.dilation = groups, dilation
        default = keras.initializers.VarianceScaling(**HE_FAN_OUT)
        self.kernel_initializer = keras.initializers.get(kernel_initializer or default)
        self.normalization = self._make_normalization()

    def _make_normalization(self):
        if self.norm == "gn":
            return GroupNorm(epsilon=self.epsilon, dtype=self.dtype_policy, name="norm")
        if self.norm in ("bn", "sync_bn"):
            synchronized = self.norm == "sync_bn"
            return BatchNorm(epsilon=self.epsilon, synchronized=synchronized, dtype=self.dtype_policy, name="norm")
        return None

    def build(self, input_shape):
        channels, size = input_shape[-1] // self.groups, self.kernel_size
        self.kernel = self.add_weight(
            name="kernel", shape=(size, size, channels, self.filters), initializer=self.kernel_initializer
        )
        if self.norm is None:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        elif self.norm == "frozen_bn":
            vector = {"shape": (self.filters,), "trainable": False}
            self.gamma = self.add_weight(name="gamma", initializer="ones", **vector)
            self.beta = self.add_weight(name="beta", initializer="zeros", **vector)
            self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **vector)
            self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **vector)
        else:
            self.normalization.build((None, None, None, self.filters))

    def call(self, inputs, extent=None, training=False):
        """[B, H, W, C] -> [B, H / strides, W / strides, filters]; `extent` is the canvas in cells of the input."""
        inputs = tf.cast(inputs, self.compute_dtype)
        kernel, shift = self.kernel_and_shift()
        if self.kernel_size > 1:
            inputs = canvas.clear(inputs, extent)
        # Padding by hand and not as tf.nn.conv2d's argument: oneDNN has no gradient kernels for explicit padding.
        padding = "SAME"
        if self.strides > 1:
            pad, padding = (self.kernel_size - 1) // 2, "VALID"
            inputs = tf.pad(inputs, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        relu = self.activation == "relu"
        if self.normalization is None:
            return conv2d(inputs, kernel, shift, self.strides, padding, relu, self.dilation)
        outputs = conv2d(inputs, kernel, None, self.strides, padding, dilation=self.dilation)
        outputs = self._normalize(outputs, canvas.extent(extent, self.strides), training)
        return tf.nn.relu(outputs) if relu else outputs

    def kernel_and_shift(self):
        """The kernel, with a frozen batch norm folded into it, and what is added to its product, or None."""
        if self.norm != "frozen_bn":
            return self.kernel, None if self.norm else self.bias
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        return self.kernel * scale, self.beta - self.moving_mean * scale

    def _normalize(self, outputs, extent, training):
        if self.norm == "gn":
            return self.normalization(outputs, extent=extent)
        return self.normalization(outputs, extent=extent, training=training)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "norm": self.norm,
            "activation": self.activation,
            "epsilon": self.epsilon,
            "groups": self.groups,
            "dilation": self.dilation,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def conv_stack(count, filters, norm, epsilon, dtype):
    """The hidden layers of a head on RoIs: a list of `count` 3x3 convolutions with ReLU, named conv1, conv2, ..."""
    return [
        ConvNorm(filters, 3, norm=norm, activation="relu", epsilon=epsilon, dtype=dtype, name=f"conv{index}")
        for index in range(1, count + 1)
    ]
