"""Anything that weights can come from, recognised by its content and converted."""

import dataclasses
import pathlib
import zipfile

import keras

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.config.settings import BackboneConfig, ModelConfig
from mrcnn_tf.weights import applications, caffe2, detectron2, keras_applications, matterport, torchvision
from mrcnn_tf.weights.checkpoint import Checkpoint, read_checkpoint
from mrcnn_tf.weights.presets import PRESETS, find_preset, preset_file
from mrcnn_tf.weights.rules import Converted
from mrcnn_tf.weights.structure import num_classes, num_heatmaps, num_stuff

# A model of this package as the weights of another, with the same or other classes.
#

SECTIONS = (
    "features", "backbone", "fpn", "rpn", "roi_layer", "box_head", "mask_head", "keypoint_head", "semantic_head",
    "conventions", "pixel_mean", "pixel_std", "resize",
)  # fmt: skip


def weight_path(variable):
    """The path of a model's weight without the model's name; a norm's weights stand under their convolution."""
    return variable.path.split("/", 1)[1].replace("/norm/", "/")


def convert_own(model):
    """`Converted` weights of a `MaskRCNN`."""
    tree = dataclasses.asdict(model.config)
    arrays = {weight_path(variable): variable.numpy() for variable in model.weights}
    settings = {key: tree[key] for key in SECTIONS}
    return Converted(arrays, {}, {}, [], settings, None, model.config.categories, model.config.stuff or None)


FORMATS = {
    "torchvision": torchvision,
    "detectron2": detectron2,
    "caffe2": caffe2,
    "matterport": matterport,
    "keras.applications": keras_applications,
}
IMAGENET = "imagenet"


@dataclasses.dataclass
class Source:
    """Converted weights with their origin.

    Attributes:
        name: of the file, preset or model, for messages.
        format: a key of FORMATS, or "mrcnn_tf".
        converted: the `Converted` weights.
        checkpoint: the file that they are views of; None for a model in memory.
    """

    name: str
    format: str
    converted: Converted
    checkpoint: Checkpoint | None = None

    def release(self):
        """Frees the memory of what was read from the file so far."""
        if self.checkpoint:
            self.checkpoint.release()

    def categories(self):
        """The K foreground classes, numbered like keypoints if the weights don't name them; None for a backbone."""
        count = num_classes(self.converted.arrays)
        if count is None or self.converted.categories:
            return self.converted.categories
        keypoints = [f"keypoint {number}" for number in range(1, num_heatmaps(self.converted.arrays) + 1)]
        return [Category(id, f"class {id}", keypoints) for id in range(1, count + 1)]

    def stuff(self):
        """The S stuff classes, numbered if the weights don't name them; an empty list without a semantic head."""
        count = num_stuff(self.converted.arrays) or 0
        return self.converted.stuff or [Category(id, f"stuff {id}") for id in range(1, count + 1)]

    def config(self, overrides=()):
        """The `Config` that the weights were made for; `overrides` as in `load_config`.

        Raises:
            UserError: the weights are a bare backbone.
        """
        if self.converted.config is None:
            raise UserError(
                f"{self.name} holds a backbone and no detector: name the config of the model to put it into, such as "
                "mask_rcnn_r50_fpn."
            )
        implied = [f"model.{key}={_yaml(value)}" for key, value in _flat(self.converted.settings)]
        config = load_config(self.converted.config, [*implied, *overrides])
        config.model.categories = config.model.categories or self.categories()
        config.model.stuff = config.model.stuff or self.stuff()
        return config


def read_weights(source, backbone=None):
    """The `Source` of what `MaskRCNN.load_pretrained` takes.

    Args:
        source: a path, a preset's name, "imagenet" (keras.applications downloads the network) or a keras.Model.
        backbone: the `BackboneConfig` that "imagenet" is for; None for a ResNet-50.

    Raises:
        UserError: nothing of that name, an unreadable file, or weights of an unknown model.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, keras.Model):
        return _from_model(source, source.name)
    if str(source) == IMAGENET:
        return _imagenet(backbone or BackboneConfig())
    preset = find_preset(str(source))
    path = preset_file(preset) if preset else pathlib.Path(source)
    if not path.is_file():
        names = ", ".join(preset.name for preset in PRESETS[:3])
        raise UserError(f"There is no file {path}: give a checkpoint's path, imagenet, or a preset such as {names}.")
    if _is_keras_file(path):
        return _from_model(_saved_model(path), str(path))
    checkpoint = read_checkpoint(path)
    return _recognised(checkpoint.tensors, str(path), checkpoint)


def _recognised(tensors, name, checkpoint=None):
    for label, module in FORMATS.items():
        if module.recognise(tensors):
            try:
                return Source(name, label, module.convert(tensors), checkpoint)
            except UserError as error:
                raise UserError(f"{name}: {error}") from error
    some = ", ".join(list(tensors)[:3])
    raise UserError(
        f"{name} holds weights of no model that can be imported (its tensors are named {some}, ...): importable are "
        "torchvision's, detectron2's, Detectron's FPN, matterport's and keras.applications' ResNet models."
    )


def _from_model(model, name):
    if isinstance(getattr(model, "config", None), ModelConfig):
        return Source(name, "mrcnn_tf", convert_own(model))
    return _recognised(keras_applications.tensors_of(model), name)


def _imagenet(backbone):
    if backbone.application:
        found = applications.convert(applications.download(backbone.application), backbone.application, backbone.taps)
        return Source(f"imagenet {backbone.application}", "keras.applications", found)
    return _from_model(_resnet(backbone.depth), f"imagenet ResNet-{backbone.depth}")


def _resnet(depth):
    make = getattr(keras.applications, f"ResNet{depth}", None)
    if make is None:
        raise UserError(f"keras.applications has no ResNet-{depth}: set model.backbone.depth to 50, 101 or 152.")
    try:
        return make(include_top=False, weights="imagenet")
    except Exception as error:  # what Keras raises when it can't download depends on the way it fails
        raise UserError(
            f"Keras can't download the ImageNet weights of ResNet-{depth} ({str(error).splitlines()[0]}): go online, "
            "or give a checkpoint's path."
        ) from error


def _is_keras_file(path):
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"config.json", "model.weights.h5"} <= set(archive.namelist())


def _saved_model(path):
    try:
        model = keras.saving.load_model(path)
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise UserError(f"{path} is no readable Keras model ({str(error).splitlines()[0]}): save it again.") from error
    return model


def _flat(settings, prefix=""):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _yaml(value):
    return "null" if value is None else value
