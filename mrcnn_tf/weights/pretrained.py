"""Pretrained weights of any origin: recognised by their tensors' names, and converted to this package's terms."""

import dataclasses
import pathlib
import zipfile

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.config.settings import BackboneConfig, ModelConfig
from mrcnn_tf.weights import detectron, keras_applications, matterport, torchvision
from mrcnn_tf.weights.architecture import num_classes, num_heatmaps, num_stuff
from mrcnn_tf.weights.candidates import examples_of, without_shared_prefix
from mrcnn_tf.weights.keras_file import load_keras_file
from mrcnn_tf.weights.presets import find_preset, list_presets, preset_file
from mrcnn_tf.weights.rules import ConvertedWeights
from mrcnn_tf.weights.weight_file import WeightFile, read_weight_file

IMAGENET = "imagenet"
# name -> (whether tensors by name are of that format, what converts them), tried in this order.
FORMATS = {
    "torchvision": (torchvision.matches, torchvision.convert),
    "detectron2": (detectron.matches_detectron2, detectron.convert_detectron2),
    "caffe2": (detectron.matches_caffe2, detectron.convert_caffe2),
    "matterport": (matterport.matches, matterport.convert),
    "keras.applications": (keras_applications.matches, keras_applications.convert),
}
# The settings of a model that its weights depend on, or were trained with.
MODEL_SECTIONS = (
    "features", "backbone", "fpn", "rpn", "roi_layer", "box_head", "mask_head", "keypoint_head", "semantic_head",
    "conventions", "pixel_mean", "pixel_std", "resize",
)  # fmt: skip


@dataclasses.dataclass
class PretrainedWeights:
    """Converted weights with their origin.

    Attributes:
        name: of the file, preset or model, for messages.
        format: a key of FORMATS, or "mrcnn_tf".
        converted: the `ConvertedWeights`.
        file: the `WeightFile` that they are views of; None for a model in memory.
    """

    name: str
    format: str
    converted: ConvertedWeights
    file: WeightFile | None = None

    def release(self):
        """Free the memory of what was read from the file so far."""
        if self.file:
            self.file.release()

    def categories(self):
        """The K foreground classes, numbered like keypoints if the weights don't name them; None for a backbone."""
        arrays, count = self.converted.arrays, num_classes(self.converted.arrays)
        if count is None or self.converted.categories:
            return self.converted.categories
        keypoints = [f"keypoint {number}" for number in range(1, num_heatmaps(arrays) + 1)]
        return [Category(id, f"class {id}", keypoints) for id in range(1, count + 1)]

    def stuff(self):
        """The S stuff classes, numbered if the weights don't name them; an empty list without a semantic head."""
        count = num_stuff(self.converted.arrays) or 0
        return self.converted.stuff or [Category(id, f"stuff {id}") for id in range(1, count + 1)]

    def config(self, overrides=()):
        """The `Config` that the weights were made for, `overrides` as in `load_config`; UserError for a backbone."""
        if self.converted.config is None:
            raise UserError(
                f"{self.name} holds a backbone and no detector: name the config of the model to put it into, such as "
                "mask_rcnn_r50_fpn."
            )
        settings = _flatten(self.converted.settings)
        implied = [f"model.{key}={'null' if value is None else value}" for key, value in settings]
        config = load_config(self.converted.config, [*implied, *overrides])
        config.model.categories = config.model.categories or self.categories()
        config.model.stuff = config.model.stuff or self.stuff()
        return config


def _flatten(settings, prefix=""):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def read_pretrained(source, backbone=None):
    """The `PretrainedWeights` of what `MaskRCNN.load_pretrained` takes.

    UserError if there is nothing of that name, the file can't be read, or the weights are of an unknown model.

    Args:
        source: a path, a preset's name, "imagenet" (keras.applications downloads the network) or a keras.Model.
        backbone: the `BackboneConfig` that "imagenet" is for; None for a ResNet-50.
    """
    import keras

    if isinstance(source, PretrainedWeights):
        return source
    if isinstance(source, keras.Model):
        return _from_model(source, source.name)
    if str(source) == IMAGENET:
        return _from_imagenet(backbone or BackboneConfig())
    preset = find_preset(str(source))
    path = preset_file(preset) if preset else pathlib.Path(source)
    if not path.is_file():
        examples = ", ".join(preset.name for preset in list_presets()[:3])
        raise UserError(f"There is no file {path}: give a checkpoint's path, imagenet, or a preset such as {examples}.")
    if _is_keras_model(path):
        return _from_model(load_keras_file(path), str(path))
    file = read_weight_file(path)
    return _convert(_recognised(file), str(path), file)


def _recognised(file):
    """The first of a file's candidates that a format knows, without the prefix that its names share."""
    for candidate in file.candidates.values():
        for prefix in without_shared_prefix(candidate):
            tensors = candidate.without_prefix(prefix)
            if any(matches(tensors) for matches, _ in FORMATS.values()):
                return tensors
    raise UserError(_unknown_model(file.path, examples_of(file)))


def _unknown_model(name, examples):
    return (
        f"{name} holds weights of no model that can be imported (its tensors are named {examples}): importable "
        "are torchvision's, detectron2's, Detectron's FPN, matterport's and keras.applications' ResNet models."
    )


def _convert(tensors, name, file=None):
    for format_name, (matches, convert) in FORMATS.items():
        if matches(tensors):
            try:
                return PretrainedWeights(name, format_name, convert(tensors), file)
            except UserError as error:
                raise UserError(f"{name}: {error}") from error
    raise UserError(_unknown_model(name, f"{', '.join(list(tensors)[:3])}, ..."))


def _from_imagenet(backbone):
    if backbone.application:
        network = keras_applications.download_network(backbone.application)
        converted = keras_applications.convert_network(network, backbone.application, backbone.taps)
        return PretrainedWeights(f"imagenet {backbone.application}", "keras.applications", converted)
    if backbone.depth not in (50, 101, 152):
        raise UserError(
            f"keras.applications has no ResNet-{backbone.depth}: set model.backbone.depth to 50, 101 or 152."
        )
    network = keras_applications.download_network(f"ResNet{backbone.depth}")
    return _from_model(network, f"imagenet ResNet-{backbone.depth}")


def _from_model(model, name):
    if isinstance(getattr(model, "settings", None), ModelConfig):
        return PretrainedWeights(name, "mrcnn_tf", convert_model(model))
    return _convert(keras_applications.model_tensors(model), name)


def convert_model(model):
    """The `ConvertedWeights` of a `MaskRCNN`."""
    settings = dataclasses.asdict(model.settings)
    return ConvertedWeights(
        arrays={weight_path(variable): variable.numpy() for variable in model.weights},
        settings={section: settings[section] for section in MODEL_SECTIONS},
        categories=model.categories,
        stuff=model.stuff or None,
    )


def weight_path(variable):
    """The path of a model's weight; a norm's weights stand under their convolution."""
    return variable.path.replace("/norm/", "/")


def _is_keras_model(path):
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"config.json", "model.weights.h5"} <= set(archive.namelist())
