"""Pretrained weights of any origin: recognised by their tensors' names, and converted to this package's terms."""

import dataclasses
import functools
import re
import zipfile
from collections.abc import Callable

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config, parse_overrides
from mrcnn_tf.config.settings import BackboneConfig, ModelConfig
from mrcnn_tf.weights import detectron, hugging_face, keras_applications, matterport, mmdetection, torchvision
from mrcnn_tf.weights.architecture import num_classes, num_heatmaps, num_stuff
from mrcnn_tf.weights.candidates import examples_of, without_shared_prefix
from mrcnn_tf.weights.facts import (
    FILE_SETTINGS,
    REPRESENTED,
    Fact,
    Facts,
    Origin,
    check_represented,
    deciding_settings,
    flatten,
    nest,
    same_value,
    setting_of,
)
from mrcnn_tf.weights.keras_file import load_keras_file
from mrcnn_tf.weights.presets import Preset, locate
from mrcnn_tf.weights.rules import ConvertedWeights
from mrcnn_tf.weights.source_config import find_companion, read_source_config
from mrcnn_tf.weights.weight_file import WeightFile, read_weight_file

IMAGENET = "imagenet"
MODEL = "mrcnn_tf"  # the format of a model of this package
YOU = "your statement"


@dataclasses.dataclass(frozen=True)
class Format:
    """How the files of a library are read.

    Attributes:
        matches: whether tensors by name are of that library.
        convert: what makes `ConvertedWeights` of them; takes the tensors, the `Facts` known before, to which it adds,
            and the plain values that stand in the file beside the tensors.
        library: the settings that the library's code fixes.
        refused: pattern of names in a file -> what it is a part of, which no model of this package has.
    """

    matches: Callable
    convert: Callable
    library: tuple[str, ...] = ()
    refused: dict[str, str] = dataclasses.field(default_factory=dict)


# By name, in the order in which they are tried.
FORMATS = {
    "torchvision": Format(torchvision.matches, torchvision.convert, torchvision.LIBRARY, torchvision.REFUSED),
    "detectron2": Format(
        detectron.matches_detectron2, detectron.convert_detectron2, detectron.LIBRARY, detectron.REFUSED
    ),
    "caffe2": Format(detectron.matches_caffe2, detectron.convert_caffe2, detectron.LIBRARY),
    "mmdetection": Format(mmdetection.matches, mmdetection.convert, mmdetection.LIBRARY, mmdetection.REFUSED),
    "transformers": Format(hugging_face.matches, hugging_face.convert, hugging_face.LIBRARY),
    "matterport": Format(matterport.matches, matterport.convert, matterport.LIBRARY),
    "keras.applications": Format(keras_applications.matches, keras_applications.convert, keras_applications.LIBRARY),
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
        format: a key of FORMATS, or MODEL.
        converted: the `ConvertedWeights`.
        file: the `WeightFile` that they are views of; None for a model in memory.
        statements: the overrides by which the user says what the file doesn't; see `load_config`.
        published: the `Preset` that the file is; None for other files.
        notes: sentences on the file for the report.
        origin: the provenance of a model of this package, see `MaskRCNN`; else empty.
    """

    name: str
    format: str
    converted: ConvertedWeights
    file: WeightFile | None = None
    statements: tuple[str, ...] = ()
    published: Preset | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    origin: dict = dataclasses.field(default_factory=dict)

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

    def config(self):
        """The `Config` that the weights were made for; UserError for a backbone."""
        if self.converted.config is None:
            raise UserError(
                f"{self.name} holds a backbone and no detector: name the config of the model to put it into, such as "
                "mask_rcnn_r50_fpn."
            )
        config = self._load(self.converted.config)
        config.model.categories = config.model.categories or self.categories()
        config.model.stuff = config.model.stuff or self.stuff()
        return config

    def model_config(self):
        """The `ModelConfig` that the weights were made for; of a backbone, defaults for what doesn't concern it."""
        return self._load(None).model if self.converted.config is None else self.config().model

    def _load(self, base):
        facts = {
            name: fact.value
            for name, fact in self.converted.facts.items()
            if name.startswith("model.") and name != "model.categories"
        }
        tree = base if isinstance(base, dict) else {"base": base} | nest(facts)
        return load_config(tree, self.statements, self.name)

    def is_assumed(self, name):
        """Whether nothing says a setting of the file."""
        fact = self.converted.facts.get(name)
        return not self.converted.facts.is_stated(name) and (fact is None or fact.origin is Origin.ASSUMPTION)

    def provenance_json(self):
        """`provenance` as plain dictionaries; of a model of this package what it was imported with."""
        if self.format == MODEL:
            return self.origin.get("settings", {})
        return {name: fact.to_json() for name, fact in self.provenance().items()}

    def provenance(self):
        """Name of a setting -> `Fact`: of all that decide what the weights detect, and of those that the tensors tell.

        What nobody says has the origin LIBRARY where the library has but one way, else ASSUMPTION.
        """
        is_detector, facts, model = self.converted.config is not None, self.converted.facts, self.model_config()
        fixed, result = FORMATS[self.format].library, {}
        for name in dict.fromkeys([*deciding_settings(model if is_detector else None), *facts]):
            if name.startswith("model.") and facts.is_stated(name):
                result[name] = Fact(setting_of(model, name), Origin.STATEMENT, YOU)
            elif name in facts:
                result[name] = facts[name]
            else:
                origin = Origin.LIBRARY if name in fixed else Origin.ASSUMPTION
                result[name] = Fact(setting_of(model, name), origin, self.format)
        return result


def read_pretrained(source, backbone=None, statements=(), source_config=None, class_names=None):
    """The `PretrainedWeights` of what `MaskRCNN.load_pretrained` takes.

    UserError if there is nothing of that name, the file can't be read, the weights are of an unknown model, or what is
    said of them contradicts itself.

    Args:
        source: a path; what is downloaded unless it was before: a preset's name, https://host/path/file, hf://owner/name
            or "imagenet" (by keras.applications); or a keras.Model.
        backbone: the `BackboneConfig` that "imagenet" is for; None for a ResNet-50.
        statements: overrides as in `load_config`, and of `FILE_SETTINGS`: what the user knows of the file.
        source_config: the path of the training config that belongs to the file; None: looked for beside the file;
            False: none.
        class_names: the names of the K foreground classes, which the file may not know.
    """
    import keras

    if isinstance(source, PretrainedWeights):
        return source
    if isinstance(source, keras.Model):
        return _from_model(source, source.name, statements)
    if str(source) == IMAGENET:
        return _from_imagenet(backbone or BackboneConfig(), statements)
    path, published = locate(source)
    if _is_keras_model(path):
        return _from_model(load_keras_file(path), str(path), statements)
    weights = _read_file(path, published, statements, source_config)
    if class_names is not None:
        _name_classes(weights, class_names, Origin.STATEMENT, YOU)
    return weights


def _read_file(path, published, statements, source_config):
    """The `PretrainedWeights` of a file of another library; `published` is the `Preset` that it seems to be."""
    facts = _stated_facts(statements)
    file = read_weight_file(path)
    tensors, format_name, notes = _recognise(file, facts)
    companion = _read_companion(path, format_name, source_config, notes)
    for setting, value in (companion.settings if companion else {}).items():
        facts.add(setting, value, Origin.COMPANION, companion.name)
    if published:
        _add_published(facts, published)
    try:
        converted = FORMATS[format_name].convert(tensors, facts, file.metadata)
        check_represented(facts)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _check_count(companion, num_classes(converted.arrays), path)
    unlike = published and _unlike(converted, published)
    if unlike:
        notes.append(f"has the name of {published.name}, and isn't it by {', '.join(unlike)}")
        again = _read_file(path, None, statements, source_config)
        return dataclasses.replace(again, notes=notes + [note for note in again.notes if note not in notes])
    if published and published.config:
        converted.config, converted.categories = published.config, published.categories()
    model_statements = tuple(each for each in statements if not each.startswith("file."))
    weights = PretrainedWeights(str(path), format_name, converted, file, model_statements, published, notes)
    if companion and companion.classes:
        _name_classes(weights, companion.classes, Origin.COMPANION, companion.name)
    elif converted.categories and not published and "model.categories" not in facts:
        notes.append(f"the names of its {len(converted.categories)} classes are assumed, by their number: COCO's")
    return weights


def _stated_facts(statements):
    """`Facts` with the user's statements on the file; those on the model have their names in it alone."""
    stated = dict(flatten(parse_overrides(statements)))
    facts = Facts(stated)
    for name, value in stated.items():
        if name.startswith("file."):
            if name not in FILE_SETTINGS:
                raise UserError(f"There is no setting '{name}' of a file: known are {', '.join(FILE_SETTINGS)}.")
            value = value.upper() if name == "file.pixel_order" and isinstance(value, str) else value
            facts.add(name, value, Origin.STATEMENT, YOU)
    return facts


def _read_companion(path, format_name, source_config, notes):
    """The `SourceConfig` that belongs to a file of a format; None without."""
    if source_config is False:
        return None
    if source_config is not None:
        return read_source_config(source_config, format_name)
    beside = find_companion(path, format_name)
    if beside is None:
        return None
    notes.append(f"read with {beside}, the training config beside it")
    return read_source_config(beside, format_name)


def _check_count(companion, count, path):
    """Raise UserError for a `SourceConfig` of another number of classes than the weights'."""
    if companion and count is not None and companion.num_classes not in (None, count):
        raise UserError(
            f"{companion.name} is of a model of {companion.num_classes} classes, and {path} has {count}: give the "
            "config that belongs to the file, or --source-config none."
        )


def _add_published(facts, preset):
    """Add what is known of a published model: its settings, of which some decide what it detects."""
    settings = dict(flatten(parse_overrides(preset.settings)))
    for name, value in settings.items():
        facts.add(name, value, Origin.PUBLISHED, preset.name)
    if preset.config:
        model = _published_model(preset)
        for name in deciding_settings(model):
            if name.startswith("model.") or name in REPRESENTED:
                facts.add(name, setting_of(model, name), Origin.PUBLISHED, preset.name)


@functools.cache
def _published_model(preset):
    """The `ModelConfig` of a published detector, without its classes. Not to be changed."""
    return load_config(preset.config, [each for each in preset.settings if each.startswith("model.")]).model


def _unlike(weights, preset):
    """The settings in which `ConvertedWeights` aren't those of a published model, whose name their file has."""
    unlike = list(weights.facts.unlike_published)
    if preset.config:
        model = _published_model(preset)
        ours, theirs = num_classes(weights.arrays), len(preset.categories())
        unlike += ["the number of classes"] if model.box_head and ours != theirs else []
        unlike += [
            f"model.{name}"
            for name in ("backbone.depth", "backbone.groups", "fpn.channels", "features")
            if not same_value(weights.facts.value(f"model.{name}", setting_of(model, name)), setting_of(model, name))
        ]
    return unlike


def _name_classes(weights, names, origin, source):
    """Give the classes names; UserError unless there are as many as the weights have."""
    categories = weights.categories()
    if categories is None:
        return
    if len(names) != len(categories):
        raise UserError(
            f"{source} names {len(names)} classes, and {weights.name} has {len(categories)}: give a name for each."
        )
    known = weights.converted.categories
    same = known is not None and [each.name for each in known] == list(names)
    if not same:
        weights.converted.categories = [
            dataclasses.replace(category, id=id, name=name)
            for id, (category, name) in enumerate(zip(categories, names, strict=True), 1)
        ]
    weights.converted.facts.add("model.categories", list(names), origin, source)


def _recognise(file, facts):
    """(tensors, format's name, notes) of the first set of tensors in a `WeightFile` that is of a known format."""
    entry = facts.value("file.entry")
    if entry is not None and entry not in file.candidates:
        known = ", ".join(place or "''" for place in file.candidates)
        raise UserError(f"{file.path} holds no tensors under '{entry}': set file.entry to one of {known}.")
    places = file.candidates if entry is None else {entry: file.candidates[entry]}
    known = {place: found for place, tensors in places.items() if (found := _format_of(tensors, file.path))}
    if not known:
        raise UserError(
            f"{file.path} holds weights of no model that can be imported (its tensors are named {examples_of(file)}): "
            "importable are torchvision's, detectron2's, Detectron's, mmdetection's, matterport's and "
            "keras.applications' models."
        )
    (place, found), *others = known.items()
    found[0].check()
    notes = [
        f"these are the weights under {place or 'its top level'}; there are others: file.entry={other} takes them"
        for other, _ in others
    ]
    return *found, notes


def _format_of(tensors, path):
    """(tensors without a prefix that all names share, format's name); None for tensors of an unknown model.

    UserError for those of a model that is known and can't be represented.
    """
    for prefix in without_shared_prefix(tensors):
        plain = tensors.without_prefix(prefix)
        for format_name, format in FORMATS.items():
            if format.matches(plain):
                for pattern, part in format.refused.items():
                    name = next((name for name in plain if re.fullmatch(pattern, name)), None)
                    if name:
                        raise UserError(
                            f"{path} holds {part} (its tensor {name}), which no model of this package has: import "
                            "other weights."
                        )
                return plain, format_name
    return None


def _from_imagenet(backbone, statements):
    if backbone.application:
        network = keras_applications.download_network(backbone.application)
        converted = keras_applications.convert_network(network, backbone.application, backbone.taps)
        return PretrainedWeights(f"imagenet {backbone.application}", "keras.applications", converted)
    if backbone.depth not in (50, 101, 152):
        raise UserError(
            f"keras.applications has no ResNet-{backbone.depth}: set model.backbone.depth to 50, 101 or 152."
        )
    network = keras_applications.download_network(f"ResNet{backbone.depth}")
    return _from_model(network, f"imagenet ResNet-{backbone.depth}", statements)


def _from_model(model, name, statements):
    statements = tuple(statements)
    if isinstance(getattr(model, "settings", None), ModelConfig):
        converted = convert_model(model, statements)
        return PretrainedWeights(name, MODEL, converted, statements=statements, origin=model.provenance)
    tensors, facts = keras_applications.model_tensors(model), _stated_facts(statements)
    if not keras_applications.matches(tensors):
        examples = ", ".join(list(tensors)[:3])
        raise UserError(
            f"{name} is no ResNet of keras.applications (its weights are named {examples}, ...): give another model."
        )
    converted = keras_applications.convert(tensors, facts, {})
    return PretrainedWeights(name, "keras.applications", converted, statements=statements)


def convert_model(model, statements=()):
    """The `ConvertedWeights` of a `MaskRCNN`, whose config is the model's own."""
    settings = dataclasses.asdict(model.settings)
    facts = _stated_facts(statements)
    facts.add_all({section: settings[section] for section in MODEL_SECTIONS}, Origin.LIBRARY, "the model")
    return ConvertedWeights(
        arrays={weight_path(variable): variable.numpy() for variable in model.weights},
        facts=facts,
        config={"model": {name: value for name, value in settings.items() if name not in ("categories", "stuff")}},
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
