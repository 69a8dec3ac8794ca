"""A convolution with its normalisation and ReLU: what backbone, pyramid and heads are built of.

The normalisations see only the images' valid cells of a padded batch (`ops.padding`), of one replica or of all.
"""

import dataclasses
import inspect
import typing

import keras
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.conv import conv2d
from mrcnn_tf.ops.replicas import sum_over_replicas

HE_FAN_OUT = {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}  # torchvision's kaiming_normal


class ConfiguredLayer(keras.layers.Layer):
    """A layer that has each of its arguments as an attribute of the same name: its config is read from there.

    Of a saved model, arguments that are layers come back as layers, and settings as the dataclass by which the argument
    is annotated.
    """

    default_name = None  # which begins the paths of its weights; None: Keras's own, numbered

    def __init__(self, **kwargs):
        name = kwargs.pop("name", None) or self.default_name
        super().__init__(**kwargs, **({"name": name} if name else {}))

    def arguments(self):
        """The arguments by name, without those of every Keras layer."""
        parameters = inspect.signature(self.__init__).parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return {each.name: getattr(self, each.name) for each in parameters if each.kind in kinds}

    def get_config(self):
        return super().get_config() | {name: _to_json(value) for name, value in self.arguments().items()}

    @classmethod
    def from_config(cls, config):
        hints = typing.get_type_hints(cls.__init__)
        return super().from_config({name: _from_json(value, hints.get(name)) for name, value in config.items()})


def count_outputs(layers):
    """Channels that the trained convolutions of some layers put out together; for the estimate of memory."""
    return sum(
        variable.shape[-1] for layer in layers for variable in layer.trainable_variables if len(variable.shape) == 4
    )


def _to_json(value):
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    return serialize_part(value) if isinstance(value, keras.layers.Layer) else value


def serialize_part(layer):
    """The config of a layer as an argument of another, as plain JSON; its weights are made by that other one."""
    config = keras.saving.serialize_keras_object(layer)
    return {key: value for key, value in config.items() if key != "build_config"}


def _from_json(value, hint):
    """The argument that `_to_json` made `value` of; `hint` is its annotation, a dataclass or that or None."""
    if not isinstance(value, dict):
        return value
    settings = next((kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)), None)
    if settings:
        return settings(**value)
    return keras.saving.deserialize_keras_object(value) if "registered_name" in value else value


@keras.saving.register_keras_serializable("mrcnn_tf")
class BatchNorm(ConfiguredLayer):
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

    def call(self, inputs, valid_cells=None, training=False):
        """[B, H, W, C] -> the same shape; `valid_cells` [B, 2] as in `ops.padding`."""
        values = tf.cast(inputs, tf.float32)
        mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        if training and self.trainable:
            mean, variance = self._statistics(values, valid_cells)
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        scale = tf.math.rsqrt(variance + self.epsilon) * self.gamma
        return tf.cast(values * scale + (self.beta - mean * scale), inputs.dtype)

    def _statistics(self, values, valid_cells):
        """Mean and variance [C] over all valid cells, from sums of differences to the moving mean.

        Sums of the values' own squares would lose the variance to rounding where the mean is large.
        """
        shape = tf.shape(values)
        moving_mean = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        differences = tf.reshape(values - moving_mean, [-1, values.shape[-1]])
        mask = tf.ones([1, tf.shape(differences)[0]])
        if valid_cells is not None:
            mask = tf.cast(tf.reshape(padding.valid_mask(valid_cells, shape[1], shape[2]), [1, -1]), tf.float32)
        sums = [tf.reduce_sum(mask), tf.matmul(mask, differences)[0], tf.matmul(mask, tf.square(differences))[0]]
        count, total, squares = sum_over_replicas(sums) if self.synchronized else sums
        mean = total / tf.maximum(count, 1.0)
        return mean + moving_mean, tf.maximum(squares / tf.maximum(count, 1.0) - tf.square(mean), 0.0)


@keras.saving.register_keras_serializable("mrcnn_tf")
class GroupNorm(ConfiguredLayer):
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
            raise UserError(
                f"Group norm can't split {channels} channels into {self.groups} groups: give a layer with norm=gn a "
                f"multiple of {self.groups} channels."
            )
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros")

    def call(self, inputs, valid_cells=None):
        """[B, H, W, C] -> the same shape; `valid_cells` [B, 2] as in `ops.padding`."""
        batch, height, width, channels = *tf.unstack(tf.shape(inputs)[:3]), inputs.shape[-1]
        if valid_cells is None:
            valid_cells = tf.fill([batch, 2], 1) * tf.stack([height, width])
        mask = tf.cast(tf.reshape(padding.valid_mask(valid_cells, height, width), [batch, 1, -1]), tf.float32)
        values = tf.cast(tf.reshape(inputs, [batch, -1, channels]), tf.float32)
        count = tf.reshape(tf.cast(tf.reduce_prod(valid_cells, axis=1), tf.float32), [-1, 1, 1])
        mean = self._group_mean(tf.matmul(mask, values), count)  # a masked sum over space, as one product
        square = self._group_mean(tf.matmul(mask, tf.square(values)), count)
        scale = tf.math.rsqrt(tf.maximum(square - tf.square(mean), 0.0) + self.epsilon) * self.gamma
        normalized = values * scale + (self.beta - mean * scale)
        return tf.reshape(tf.cast(normalized, inputs.dtype), tf.shape(inputs))

    def _group_mean(self, sums, count):
        """Mean over each group, [B, 1, C] from the sums over space [B, 1, C] of `count` [B, 1, 1] cells."""
        size = sums.shape[-1] // self.groups
        grouped = tf.reduce_sum(tf.reshape(sums, [-1, self.groups, size]), axis=2, keepdims=True) / (count * size)
        return tf.reshape(tf.tile(grouped, [1, 1, size]), [-1, 1, self.groups * size])


@keras.saving.register_keras_serializable("mrcnn_tf")
class ConvNorm(ConfiguredLayer):
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
        shape = (self.kernel_size, self.kernel_size, input_shape[-1] // self.groups, self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer)
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

    def call(self, inputs, valid_cells=None, training=False):
        """[B, H, W, C] -> [B, H / strides, W / strides, filters]; `valid_cells` [B, 2] of the input."""
        inputs = tf.cast(inputs, self.compute_dtype)
        kernel, shift = self.kernel_and_shift()
        if self.kernel_size > 1:
            inputs = padding.clear_padding(inputs, valid_cells)
        # Padding by hand and not as tf.nn.conv2d's argument: oneDNN has no gradient kernels for explicit padding.
        border = "SAME"
        if self.strides > 1:
            pad, border = (self.kernel_size - 1) // 2, "VALID"
            inputs = tf.pad(inputs, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        relu = self.activation == "relu"
        if self.normalization is None:
            return conv2d(inputs, kernel, shift, self.strides, border, relu, self.dilation)
        outputs = conv2d(inputs, kernel, None, self.strides, border, dilation=self.dilation)
        options = {} if self.norm == "gn" else {"training": training}
        outputs = self.normalization(outputs, valid_cells=padding.count_cells(valid_cells, self.strides), **options)
        return tf.nn.relu(outputs) if relu else outputs

    def kernel_and_shift(self):
        """The kernel, with a frozen batch norm folded into it, and what is added to its product, or None."""
        if self.norm != "frozen_bn":
            return self.kernel, None if self.norm else self.bias
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        return self.kernel * scale, self.beta - self.moving_mean * scale

    def get_config(self):
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return super().get_config() | {"kernel_initializer": initializer}


def conv_stack(count, filters, norm, epsilon, dtype):
    """The hidden layers of a head on RoIs: a list of `count` 3x3 convolutions with ReLU, named conv1, conv2, ..."""
    return [
        ConvNorm(filters, 3, norm=norm, activation="relu", epsilon=epsilon, dtype=dtype, name=f"conv{index}")
        for index in range(1, count + 1)
    ]


def build_in_turn(layers, channels):
    """Builds convolutions (or residual blocks), each of which reads what the one before gives.

    `layers` may be an empty list. Takes the channels of the first one's input, returns those of the last one's output.
    """
    for layer in layers:
        layer.build((None, None, None, channels))
        channels = layer.filters
    return channels


def convolve_rois(convs, roi_features):
    """RoI features [B, R, S, S, C] after a `conv_stack`: [B * R, S, S, C']."""
    outputs = tf.reshape(roi_features, [-1, *roi_features.shape[2:]])
    for conv in convs:
        outputs = conv(outputs)
    return outputs
