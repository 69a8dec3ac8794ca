"""A network of keras.applications as the backbone: the outputs of four of its layers are C2 to C5."""

import contextlib
import contextvars
import difflib

import keras
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops import canvas
from mrcnn_tf.ops.native.library import shapes_must_be_static

# A network of keras.applications copied so that what stands beyond an image's canvas has no influence.
#
# A layer of Keras is called with features alone. Where the canvases of the running batch end, the layers added here
# read from a context variable that the backbone sets.
#

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


STRIDES = (4, 8, 16, 32)  # of C2 to C5
PROBE = 128  # pixels a side, enough for a network that loses cells at the borders to show it
# Left without their preprocessing, so that padding is the mean pixel. Elsewhere it belongs to the weights.
BARE = ("MobileNetV3Large", "MobileNetV3Small")


@keras.saving.register_keras_serializable("mrcnn_tf")
class ApplicationBackbone(keras.layers.Layer):
    """Feature maps {C2, C3, C4, C5} of a batch of images. Batch norms are frozen, dropout is left out.

    Args:
        application: a network's name in keras.applications, such as MobileNetV3Small.
        taps: names of the layers whose outputs are C2 to C5, at strides 4, 8, 16 and 32. Names that Keras numbers
            ("activation_17") count from the network's first, as in a process that makes no other network.
        freeze_at: 1 freezes the first convolution, 2 all that leads to C2, 3 to C3, and so on; 0 trains every
            convolution.

    Raises:
        UserError: when built, for an unknown application or tap, or a tap at another stride.
    """

    def __init__(self, application, taps, freeze_at=2, **kwargs):
        super().__init__(**kwargs)
        self.settings = {"application": application, "taps": list(taps), "freeze_at": freeze_at}

    def build(self, input_shape):
        whole = application_network(self.settings["application"])
        part = tapped(whole, self.settings["application"], self.settings["taps"])
        self.network = indifferent_to_padding(part, stable_names(whole), self.dtype_policy)
        frozen = self._frozen()
        for layer in self.network.layers:
            layer.trainable = layer not in frozen and not isinstance(layer, keras.layers.BatchNormalization)

    def _frozen(self):
        freeze_at = self.settings["freeze_at"]
        if freeze_at < 2:
            convs = [layer for layer in self.network.layers if isinstance(layer, keras.layers.Conv2D)]
            return convs[:freeze_at]
        return keras.Model(self.network.input, self.network.outputs[: freeze_at - 1]).layers

    @property
    def output_shapes(self):
        """Shapes (None, None, None, C) of C2 to C5."""
        return [tuple(output.shape) for output in self.network.outputs]

    def call(self, images, canvas_size=None, training=False):
        """Images [B, H, W, 3], H and W multiples of 32 -> list of four maps [B, H / s, W / s, C], s = 4, 8, 16, 32."""
        with padded_batch(images, canvas_size):
            return self.network(images, training=False)  # nothing in it learns statistics

    def get_config(self):
        return super().get_config() | self.settings


def application_network(application, weights=None):
    """The network of keras.applications without its classifier, for images of any size.

    Args:
        application: its name.
        weights: as Keras takes them: None (random) or "imagenet" (downloaded).

    Raises:
        UserError: keras.applications has nothing of that name.
    """
    known = [name for name in dir(keras.applications) if name[0].isupper()]
    if application not in known:
        similar = difflib.get_close_matches(application, known, n=3)
        raise UserError(
            f"keras.applications has no '{application}': set model.backbone.application to one of "
            f"{', '.join(similar or known)}."
        )
    options = {"include_preprocessing": False} if application in BARE else {}
    make = getattr(keras.applications, application)
    return make(include_top=False, weights=weights, input_shape=(None, None, 3), **options)


def stable_names(network):
    """The names of a network's layers and operations -> those that they would have in a process without others.

    Keras numbers what it is given no name for, and goes on counting from one network to the next.
    """
    names, numbered = {operation.name: operation.name for operation in network.operations}, {}
    for operation in network.operations:
        base, _, number = operation.name.rpartition("_")
        base, number = (base, int(number)) if number.isdecimal() else (operation.name, 0)
        if base.replace("_", "") == type(operation).__name__.lower():
            numbered.setdefault(base, []).append((number, operation.name))
    for base, found in numbered.items():
        for index, (_, name) in enumerate(sorted(found)):
            names[name] = f"{base}_{index}" if index else base
    return names


def tapped(network, application, taps):
    """The part of a network that leads to the layers `taps`: a keras.Model with their four outputs.

    Raises:
        UserError: for other than four taps, one that the network lacks, or one of another stride.
    """
    names = stable_names(network)
    outputs = {names[operation.name]: operation.output for operation in network.operations}
    strides = _strides(network.input, outputs)
    last = {stride: tap for tap, stride in strides.items()}
    for stride in STRIDES:
        if stride not in last:
            raise UserError(
                f"No layer of {application} has stride {stride} exactly, since its convolutions lose cells at the "
                "borders: set model.backbone.application to another network."
            )
    if len(taps) != len(STRIDES):
        some = ", ".join(last[stride] for stride in STRIDES)
        raise UserError(f"model.backbone.taps names {len(taps)} layers: name four of {application}, such as {some}.")
    for level, (tap, stride) in enumerate(zip(taps, STRIDES, strict=True), start=2):
        if tap not in outputs:
            similar = difflib.get_close_matches(tap, outputs, n=3) or [last[stride]]
            raise UserError(
                f"{application} has no layer '{tap}': set one such as {', '.join(similar)} in model.backbone.taps."
            )
        if strides.get(tap) != stride:
            found = f"has stride {strides[tap]:g}" if tap in strides else "gives no map"
            raise UserError(
                f"Layer '{tap}' of {application} {found}, and C{level} needs stride {stride}: set it in "
                f"model.backbone.taps to another one, such as {last[stride]}."
            )
    return keras.Model(network.input, [outputs[tap] for tap in taps])


def _strides(images, outputs):
    """Of each output that is a map, by name, from an image of PROBE pixels; empty if its maps don't fit together."""
    try:
        shapes = keras.Model(images, list(outputs.values())).compute_output_shape((1, PROBE, PROBE, 3))
    except ValueError:  # NASNet adds maps that agree for some sizes only
        return {}
    return {name: PROBE / shape[1] for name, shape in zip(outputs, shapes, strict=True) if len(shape) == 4}
