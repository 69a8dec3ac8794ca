"""A network of keras.applications as the backbone: the outputs of four of its layers are C2 to C5.

The network is copied so that padding has no influence on an image, see `padding_layers`.
"""

import typing

import keras
import tensorflow as tf

from mrcnn_tf.config.settings import BackboneConfig
from mrcnn_tf.model.backbones.padding_layers import ClearPadding, ImageAveragePooling, sees_neighbours
from mrcnn_tf.model.blocks import ConfiguredLayer
from mrcnn_tf.ops.native.library import shapes_must_be_static
from mrcnn_tf.weights.keras_applications import feature_network, make_network, stable_layer_names


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
class ChannelScale(ConfiguredLayer):
    """ConvNeXt's LayerScale, inputs times gamma [C], whose weight Keras leaves without a name."""

    def __init__(self, initial, **kwargs):
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape):
        initializer = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer=initializer)

    def call(self, inputs):
        return inputs * tf.cast(self.gamma, inputs.dtype)


@keras.saving.register_keras_serializable("mrcnn_tf")
class HardSwish(keras.layers.Layer):
    """x * relu6(x + 3) / 6 (Howard et al. 2019, Searching for MobileNetV3)."""

    def call(self, inputs):
        if shapes_must_be_static():
            # TFLite's fast kernels have no hard swish of bytes, but its sum and its products.
            return (inputs * (1 / 6)) * tf.nn.relu6(inputs + 3)
        return keras.activations.hard_silu(inputs)


def copy_without_padding(network, names, policy):
    """A copy of a network, with weights of its own, in which padding has no influence on an image.

    Windows see zeros beyond each image's valid cells, averages over a map leave them out, and there is no dropout, so
    that batch norm is the only layer which behaves otherwise in training.

    Args:
        network: a keras.Model of images [B, H, W, 3]. Its poolings must have no padding of their own.
        names: of the copied layers, by their names in `network`.
        policy: the copy's dtype policy.
    """

    def copy(layer):
        if isinstance(layer, keras.Sequential):  # taken apart by `call`
            return layer
        return _copy_layer(layer, names.get(layer.name, layer.name), policy)

    def call(layer, *inputs, **options):
        if isinstance(layer, keras.layers.Dropout):
            return inputs[0]
        if isinstance(layer, keras.Sequential):
            outputs = inputs[0]
            for inner in layer.layers:
                outputs = call(copy(inner), outputs)
            return outputs
        if sees_neighbours(layer):
            inputs = [ClearPadding(name=f"{layer.name}_padding", dtype=policy)(inputs[0])]
        return layer(*inputs, **options)

    images = keras.Input((None, None, 3), name="images")
    return keras.models.clone_model(network, images, clone_function=copy, call_function=call)


def _copy_layer(layer, name, policy):
    """An unbuilt copy of a layer, or of an operation on tensors such as their sum."""
    config = layer.get_config() | {"name": name}
    if not isinstance(layer, keras.layers.Layer):
        return type(layer).from_config(config)
    config["dtype"] = policy
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return ImageAveragePooling.from_config(config)
    if isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.hard_silu:
        return HardSwish(name=name, dtype=policy)
    if isinstance(layer, keras.layers.Normalization) and layer.weights:
        return ChannelStatistics(name=name, dtype=policy)
    if type(layer).__name__ == "LayerScale":  # keras.applications keeps the class to itself
        return ChannelScale(layer.init_values, name=name, dtype=policy)
    return type(layer).from_config(config)


@keras.saving.register_keras_serializable("mrcnn_tf")
class ApplicationBackbone(ConfiguredLayer):
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

    default_name = "backbone"

    def __init__(self, application, taps, freeze_at=2, **kwargs):
        super().__init__(**kwargs)
        self.application, self.taps, self.freeze_at = application, list(taps), freeze_at

    def build(self, input_shape):
        full_network = make_network(self.application)
        network = feature_network(full_network, self.application, self.taps)
        self.network = copy_without_padding(network, stable_layer_names(full_network), self.dtype_policy)
        frozen = self._frozen()
        for layer in self.network.layers:
            layer.trainable = layer not in frozen and not isinstance(layer, keras.layers.BatchNormalization)

    def _frozen(self):
        if self.freeze_at < 2:
            convs = [layer for layer in self.network.layers if isinstance(layer, keras.layers.Conv2D)]
            return convs[: self.freeze_at]
        return keras.Model(self.network.input, self.network.outputs[: self.freeze_at - 1]).layers

    keeps_padding_out = True
    strides: typing.ClassVar = {"C2": 4, "C3": 8, "C4": 16, "C5": 32}

    needs_weights = True  # batch norms are frozen

    def sections(self):
        """The section of a config's `model` that the layer was made of, by name."""
        settings = {"application": self.application, "taps": list(self.taps), "freeze_at": self.freeze_at}
        return {"backbone": BackboneConfig(**settings)}

    def compute_output_shape(self, input_shape):
        """Shapes (None, None, None, C) of C2 to C5 by name."""
        return dict(zip(self.strides, (tuple(output.shape) for output in self.network.outputs), strict=True))

    def call(self, images, training=False):
        """Images [B, H, W, 3], H and W multiples of 32 -> {"C2": [B, H / 4, W / 4, C], ..., "C5": ...}."""
        maps = self.network(images, training=False)  # nothing in it learns statistics
        return dict(zip(self.strides, maps, strict=True))
