"""A network of keras.applications as the backbone: the outputs of four of its layers are C2 to C5.

Keras builds the network; its graph is then copied with additions that keep padding out of the results. Which values lie
in an image's own canvas is known per batch, so the added layers read it from a context variable.
"""

import contextvars
import difflib

import keras
import tensorflow as tf

from mrcnn_tf.errors import UserError
from mrcnn_tf.ops import canvas

STRIDES = (4, 8, 16, 32)  # of C2 to C5
PROBE = 128  # pixels; a side that all strides divide
# Its preprocessing stays outside, so that the zeros of padding are mean pixels, as with a ResNet.
WITHOUT_PREPROCESSING = ("MobileNetV3Large", "MobileNetV3Small")

# (canvas_size int32 [B, 2] in pixels, height of the padded batch) while a network runs on padded images.
_PADDED = contextvars.ContextVar("padded", default=None)


def cells_within(features):
    """int32 [B, 2]: the canvases of the running batch in cells of `features` [B, H, W, C]; None: they fill the map."""
    padded = _PADDED.get()
    if padded is None:
        return None
    canvas_size, height = padded
    return canvas_size * tf.shape(features)[1] // height


@keras.saving.register_keras_serializable("mrcnn_tf")
class ClearPadding(keras.layers.Layer):
    """Zeros beyond each image's canvas: [B, H, W, C] -> the same."""

    def call(self, inputs):
        return canvas.clear(inputs, cells_within(inputs))


@keras.saving.register_keras_serializable("mrcnn_tf")
class CanvasAveragePooling(keras.layers.GlobalAveragePooling2D):
    """The average over each image's canvas: [B, H, W, C] -> [B, C], or [B, 1, 1, C] with `keepdims`."""

    def call(self, inputs):
        cells = cells_within(inputs)
        if cells is None:
            return super().call(inputs)
        total = tf.reduce_sum(tf.cast(canvas.clear(inputs, cells), tf.float32), [1, 2], keepdims=self.keepdims)
        count = tf.cast(tf.reduce_prod(cells, axis=1), tf.float32)
        return tf.cast(total / tf.reshape(count, [-1] + [1] * (len(total.shape) - 1)), inputs.dtype)


@keras.saving.register_keras_serializable("mrcnn_tf")
class ChannelStatistics(keras.layers.Layer):
    """(inputs - mean) / sqrt(variance) for each channel, by weights.

    keras.layers.Normalization computes with constants that it made of its weights when they were last loaded from a
    file, and would ignore what is assigned to them.
    """

    def build(self, input_shape):
        vector = {"shape": (input_shape[-1],), "trainable": False}
        self.mean = self.add_weight(name="mean", initializer="zeros", **vector)
        self.variance = self.add_weight(name="variance", initializer="ones", **vector)

    def call(self, inputs):
        mean, deviation = (tf.cast(each, inputs.dtype) for each in (self.mean, tf.sqrt(self.variance)))
        return (inputs - mean) / deviation


@keras.saving.register_keras_serializable("mrcnn_tf")
class ApplicationBackbone(keras.layers.Layer):
    """Feature maps {C2, C3, C4, C5} of a batch of images. Batch norms are frozen, dropout is left out.

    Args:
        application: a name in keras.applications, such as MobileNetV3Small.
        taps: names of the layers whose outputs are C2 to C5, at strides 4, 8, 16 and 32. Layers that Keras numbers
            count from the network's first, as in a process that builds no other network before.
        freeze_at: 1 freezes the first convolution, 2 everything that leads to C2, 3 to C3, and so on; 0 trains all
            convolutions.

    Raises:
        UserError: when built, for an unknown application or tap, or taps at other strides.
    """

    def __init__(self, application, taps, freeze_at=2, **kwargs):
        super().__init__(**kwargs)
        self.application, self.taps, self.freeze_at = application, list(taps), freeze_at

    def build(self, input_shape):
        whole = application_network(self.application)
        self.network = _copied(tapped(whole, self.application, self.taps), self.dtype_policy)
        for layer in self.network.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        for layer in self._frozen():
            layer.trainable = False

    def _frozen(self):
        if self.freeze_at < 2:
            convs = (layer for layer in self.network.layers if hasattr(layer, "kernel_size") and layer.weights)
            return [next(convs)] if self.freeze_at else []
        return keras.Model(self.network.inputs, self.network.outputs[: self.freeze_at - 1]).layers

    @property
    def output_shapes(self):
        """Shapes (None, None, None, C) of C2 to C5."""
        return [tuple(output.shape) for output in self.network.outputs]

    def call(self, images, canvas_size=None, training=False):
        """Images [B, H, W, 3], H and W multiples of 32 -> list of four maps [B, H / s, W / s, C], s = 4, 8, 16, 32."""
        padded = None if canvas_size is None else (canvas_size, tf.shape(images)[1])
        token = _PADDED.set(padded)
        try:
            return self.network(images, training=False)
        finally:
            _PADDED.reset(token)

    def get_config(self):
        return super().get_config() | {
            "application": self.application,
            "taps": self.taps,
            "freeze_at": self.freeze_at,
        }


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
    options = {"include_preprocessing": False} if application in WITHOUT_PREPROCESSING else {}
    make = getattr(keras.applications, application)
    return make(include_top=False, weights=weights, input_shape=(None, None, 3), **options)


def tapped(network, application, taps):
    """The part of a network that leads to the layers `taps`: a keras.Model with their four outputs.

    Raises:
        UserError: for other than four taps, one that the network lacks, or one of another stride.
    """
    outputs = {stable: operation.output for operation, stable in stable_names(network)}
    sides = _sides(network.inputs, outputs)
    wanted = [PROBE // stride for stride in STRIDES]
    last = {side: tap for tap, side in sides.items()}
    for stride, side in zip(STRIDES, wanted, strict=True):
        if side not in last:
            raise UserError(
                f"No layer of {application} has stride {stride} exactly, since its convolutions lose cells at the "
                "borders: set model.backbone.application to another network."
            )
    if len(taps) != len(STRIDES):
        some = ", ".join(last[side] for side in wanted)
        raise UserError(f"model.backbone.taps names {len(taps)} layers: name four of {application}, such as {some}.")
    for level, (tap, side) in enumerate(zip(taps, wanted, strict=True), start=2):
        if tap not in outputs:
            similar = difflib.get_close_matches(tap, outputs, n=3) or [last[side]]
            raise UserError(
                f"{application} has no layer '{tap}': set it in model.backbone.taps to one such as {', '.join(similar)}."
            )
        if sides.get(tap) != side:
            found = f"has stride {PROBE / sides[tap]:g}" if tap in sides else "gives no map"
            raise UserError(
                f"Layer '{tap}' of {application} {found}, and C{level} needs stride {PROBE // side}: set it in "
                f"model.backbone.taps to another one, such as {last[side]}."
            )
    return keras.Model(network.inputs, [outputs[tap] for tap in taps])


def stable_names(network):
    """(layer or operation, name) pairs; those that Keras numbered are numbered anew from the network's first."""
    numbered = {}
    for operation in network.operations:
        base, _, number = operation.name.rpartition("_")
        base, number = (base, int(number)) if number.isdecimal() else (operation.name, 0)
        if base.replace("_", "") == type(operation).__name__.lower():
            numbered.setdefault(base, []).append((number, operation.name))
    names = {}
    for base, found in numbered.items():
        for index, (_, name) in enumerate(sorted(found)):
            names[name] = f"{base}_{index}" if index else base
    return [(operation, names.get(operation.name, operation.name)) for operation in network.operations]


def _sides(inputs, outputs):
    """Rows of each output that is a map, for an image of PROBE pixels, by name; of none if they don't fit together."""
    try:
        shapes = keras.Model(inputs, list(outputs.values())).compute_output_shape((1, PROBE, PROBE, 3))
    except ValueError:  # maps of different sizes are added
        return {}
    return {name: shape[1] for name, shape in zip(outputs, shapes, strict=True) if len(shape) == 4}


def _copied(network, policy):
    """The network with new weights under stable names, indifferent to padding, without dropout.

    Args:
        network: a keras.Model.
        policy: the copy's dtype policy.
    """
    names = {operation.name: name for operation, name in stable_names(network)}

    def copy(operation):
        if isinstance(operation, keras.Sequential):  # taken apart below
            return operation
        config = operation.get_config() | {"name": names.get(operation.name, operation.name)}
        if not isinstance(operation, keras.layers.Layer):
            return type(operation).from_config(config)
        config["dtype"] = policy
        if isinstance(operation, keras.layers.GlobalAveragePooling2D):
            return CanvasAveragePooling.from_config(config)
        if isinstance(operation, keras.layers.Normalization) and operation.weights:
            return ChannelStatistics(name=config["name"], dtype=policy)
        return type(operation).from_config(config)

    def call(operation, *args, **kwargs):
        if isinstance(operation, keras.layers.Dropout):
            return args[0]
        if isinstance(operation, keras.Sequential):
            outputs = args[0]
            for layer in operation.layers:
                outputs = call(copy(layer), outputs)
            return outputs
        if _sees_neighbours(operation):
            args = [ClearPadding(name=f"{operation.name}_canvas", dtype=policy)(args[0]), *args[1:]]
        return operation(*args, **kwargs)

    images = keras.Input((None, None, 3), name="images")
    return keras.models.clone_model(network, [images], clone_function=copy, call_function=call)


def _sees_neighbours(layer):
    """Whether padding beside a canvas would get into it: not by windows that tile the map, nor where zeros are added."""
    if isinstance(layer, keras.layers.ZeroPadding2D):
        return True
    return getattr(layer, "padding", None) == "same" and max(layer.kernel_size) > min(layer.strides)
