"""A network of keras.applications copied so that what stands beyond an image's canvas has no influence.

A layer of Keras is called with features alone. Where the canvases of the running batch end, the layers added here read
from a context variable that the backbone sets.
"""

import contextlib
import contextvars

import keras
import tensorflow as tf

from mrcnn_tf.ops import canvas
from mrcnn_tf.ops.native.library import shapes_must_be_static

# (canvas_size int32 [B, 2] in pixels, rows of the padded batch), or None: canvases fill the batch.
_PADDED = contextvars.ContextVar("padded", default=None)


@contextlib.contextmanager
def padded_batch(images, canvas_size):
    """Within it, copied networks run on `images` [B, H, W, 3] with canvases `canvas_size` [B, 2] in pixels, or None."""
    token = _PADDED.set(None if canvas_size is None else (canvas_size, tf.shape(images)[1]))
    try:
        yield
    finally:
        _PADDED.reset(token)


def extent_of(features):
    """int32 [B, 2]: the running batch's canvases in cells of `features` [B, H, W, C], or None."""
    padded = _PADDED.get()
    if padded is None:
        return None
    canvas_size, rows = padded
    return canvas_size * tf.shape(features)[1] // rows  # exact: both sides are multiples of the stride


@keras.saving.register_keras_serializable("mrcnn_tf")
class ClearPadding(keras.layers.Layer):
    """Zeros beyond each image's canvas: [B, H, W, C] -> the same."""

    def call(self, inputs):
        return canvas.clear(inputs, extent_of(inputs))


@keras.saving.register_keras_serializable("mrcnn_tf")
class CanvasAveragePooling(keras.layers.GlobalAveragePooling2D):
    """The average over each image's canvas: [B, H, W, C] -> [B, C], or [B, 1, 1, C] with `keepdims`."""

    def call(self, inputs):
        cells = extent_of(inputs)
        if cells is None:
            return super().call(inputs)
        inside = tf.cast(canvas.clear(inputs, cells), tf.float32)
        count = tf.cast(tf.reduce_prod(cells, axis=1), tf.float32)[:, None, None, None]
        mean = tf.reduce_sum(inside, axis=[1, 2], keepdims=True) / count
        return tf.cast(mean if self.keepdims else mean[:, 0, 0, :], inputs.dtype)


@keras.saving.register_keras_serializable("mrcnn_tf")
class ChannelStatistics(keras.layers.Layer):
    """(inputs - mean) / sqrt(variance) for each channel, by weights.

    keras.layers.Normalization computes with constants made of its weights when they came from a file; what is assigned
    to the weights has no effect on it.
    """

    def build(self, input_shape):
        vector = {"shape": (input_shape[-1],), "trainable": False}
        self.mean = self.add_weight(name="mean", initializer="zeros", **vector)
        self.variance = self.add_weight(name="variance", initializer="ones", **vector)

    def call(self, inputs):
        deviation = tf.cast(tf.sqrt(self.variance), inputs.dtype)
        return (inputs - tf.cast(self.mean, inputs.dtype)) / deviation


@keras.saving.register_keras_serializable("mrcnn_tf")
class ChannelScale(keras.layers.Layer):
    """ConvNeXt's LayerScale, inputs times gamma [C], whose weight Keras leaves without a name."""

    def __init__(self, initial, **kwargs):
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape):
        initializer = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer=initializer)

    def call(self, inputs):
        return inputs * tf.cast(self.gamma, inputs.dtype)

    def get_config(self):
        return super().get_config() | {"initial": self.initial}


@keras.saving.register_keras_serializable("mrcnn_tf")
class HardSwish(keras.layers.Layer):
    """x * relu6(x + 3) / 6 (Howard et al. 2019, Searching for MobileNetV3)."""

    def call(self, inputs):
        if shapes_must_be_static():
            # TFLite's fast kernels have no hard swish of bytes, but its sum and its products.
            return (inputs * (1 / 6)) * tf.nn.relu6(inputs + 3)
        return keras.activations.hard_silu(inputs)


def indifferent_to_padding(network, names, policy):
    """A copy with weights of its own.

    Windows see zeros outside each image's canvas, averages over a map leave the outside out, and there is no dropout,
    so that batch norm is the only layer which behaves otherwise in training.

    Args:
        network: a keras.Model of images [B, H, W, 3]. Its poolings must have no padding of their own.
        names: of the copied layers, by their names in `network`.
        policy: the copy's dtype policy.
    """

    def copy(layer):
        # A Sequential is taken apart by `call`.
        return (
            layer if isinstance(layer, keras.Sequential) else _copied(layer, names.get(layer.name, layer.name), policy)
        )

    def call(layer, *inputs, **options):
        if isinstance(layer, keras.layers.Dropout):
            return inputs[0]
        if isinstance(layer, keras.Sequential):
            outputs = inputs[0]
            for inner in layer.layers:
                outputs = call(copy(inner), outputs)
            return outputs
        if _sees_neighbours(layer):
            inputs = [ClearPadding(name=f"{layer.name}_canvas", dtype=policy)(inputs[0])]
        return layer(*inputs, **options)

    images = keras.Input((None, None, 3), name="images")
    return keras.models.clone_model(network, images, clone_function=copy, call_function=call)


def _copied(layer, name, policy):
    """The layer, or the operation on tensors such as their sum, unbuilt."""
    config = layer.get_config() | {"name": name}
    if not isinstance(layer, keras.layers.Layer):
        return type(layer).from_config(config)
    config["dtype"] = policy
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return CanvasAveragePooling.from_config(config)
    if isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.hard_silu:
        return HardSwish(name=name, dtype=policy)
    if isinstance(layer, keras.layers.Normalization) and layer.weights:
        return ChannelStatistics(name=name, dtype=policy)
    if type(layer).__name__ == "LayerScale":  # keras.applications keeps the class to itself
        return ChannelScale(layer.init_values, name=name, dtype=policy)
    return type(layer).from_config(config)


def _sees_neighbours(layer):
    """Whether its windows reach over a canvas's edge; those that tile the map don't."""
    if isinstance(layer, keras.layers.ZeroPadding2D):  # before windows without padding of their own
        return True
    convolves = getattr(layer, "padding", None) == "same" and hasattr(layer, "kernel_size")
    return convolves and max(layer.kernel_size) > min(layer.strides)
