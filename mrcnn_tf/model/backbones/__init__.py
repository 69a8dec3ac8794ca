"""Backbones: layers that map a batch of images to feature maps by name, C2 to C5.

`resnet` has ResNet and ResNeXt, `application` any network of keras.applications, `padding_layers` what keeps padding
out of a network of somebody else. Any other Keras layer or model does that maps images [B, H, W, 3] to a dictionary of
maps; it may say their `strides`, pixels per cell by name.
"""

import keras

from mrcnn_tf.common.named_object import import_named
from mrcnn_tf.model.backbones.application import ApplicationBackbone
from mrcnn_tf.model.backbones.resnet import ResNet


def make_backbone(model, dtype=None):
    """The backbone of a `ModelConfig`: ResNet, a network of keras.applications, or one of the user's own."""
    settings = model.backbone
    if settings.callable:
        kind = import_named(settings.callable, "Setting 'model.backbone.callable'")
        is_layer = isinstance(kind, type) and issubclass(kind, keras.layers.Layer)
        return kind(**settings.arguments, **({"dtype": dtype, "name": "backbone"} if is_layer else {}))
    if settings.application:
        taps, freeze_at = settings.taps, settings.freeze_at
        return ApplicationBackbone(settings.application, taps, freeze_at, dtype=dtype)
    last = 4 if model.features == "C4" else 5
    epsilon = model.conventions.batch_norm_epsilon
    return ResNet.from_settings(settings, epsilon=epsilon, last_stage=last, dtype=dtype)
