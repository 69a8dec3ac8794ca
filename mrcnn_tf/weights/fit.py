"""Putting pretrained weights into a model: everything is checked first, so that a failure changes nothing.

What depends on the classes is fitted to the model's, and a report says what became of each weight.
"""

import collections
import dataclasses
from operator import attrgetter

import numpy as np
from rich.table import Table

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import parse_model_config
from mrcnn_tf.config.settings import ModelConfig, settings_in_weights
from mrcnn_tf.weights.fit_classes import fit_classes
from mrcnn_tf.weights.pretrained import read_pretrained, weight_path

STAGE_CHANNELS = {"C4": 256, "C5": 512}  # four times as many with bottlenecks
# Conventions of the losses, and those of keypoints, which don't concern a model without.
LOSS_CONVENTIONS = ("mask_target", "rpn_normalizer", "rpn_box_beta", "box_beta")
KEYPOINT_CONVENTIONS = ("keypoint_offset", "keypoint_score")
NOT_IN_FILE = "not in the file"
BATCH_NORMS = ("frozen_bn", "bn", "sync_bn")
MAX_LISTED = 5  # weights or tensors that a message names; the others are counted
MAX_IN_ROW = 4  # the same in a row of the report's table


@dataclasses.dataclass
class LoadReport:
    """The outcome of `load_pretrained`.

    Attributes:
        source: the file, preset or model that was read.
        format: "torchvision", "detectron2", "caffe2", "matterport", "keras.applications" or "mrcnn_tf".
        loaded: weight path -> what was done beside a plain transpose, or "".
        skipped: name in the file -> why it wasn't loaded.
        not_loaded: weight path -> why the model's weight keeps, or gets anew, an untrained value.
        notes: sentences on conventions in which model and weights differ.
    """

    source: str
    format: str
    loaded: dict[str, str]
    skipped: dict[str, str]
    not_loaded: dict[str, str]
    notes: list[str]

    def to_json(self):
        """The report as plain dictionaries."""
        return dataclasses.asdict(self)

    def table(self):
        """A rich table: each part of the model, what was loaded, converted and not loaded, then what was skipped."""
        table = Table(title=f"{self.source} ({self.format})", title_justify="left", show_lines=False)
        for name in ("part", "weights", "what"):
            table.add_column(name, justify="right" if name == "weights" else "left", overflow="fold")
        parts = collections.defaultdict(dict)
        for path, conversion in self.loaded.items():
            parts[path.split("/")[0]][path] = conversion
        for part, weights in parts.items():
            table.add_row(part, str(len(weights)), "loaded")
            for conversion, paths in _names_by_reason(weights).items():
                if conversion:
                    table.add_row("", str(len(paths)), f"of them {conversion}: {_list_some(paths)}")
        for label, reasons in (("not loaded", self.not_loaded), ("skipped", self.skipped)):
            for reason, names in _names_by_reason(reasons).items():
                table.add_row(label, str(len(names)), f"{reason}: {_list_some(names)}")
        for note in self.notes:
            table.add_row("note", "", note)
        return table


def _names_by_reason(reasons):
    names = collections.defaultdict(list)
    for name, reason in reasons.items():
        names[reason].append(name)
    return names


def _list_some(names):
    more = len(names) - MAX_IN_ROW
    return ", ".join(names[:MAX_IN_ROW]) + (f" and {more} more" if more > 0 else "")


def load_into(model, source, allow_missing=False, map_classes=False):
    """Load `source` into `model`, arguments and errors as in `MaskRCNN.load_pretrained`; return a `LoadReport`."""
    source = read_pretrained(source, model.settings.backbone)
    converted, source_config, settings = source.converted, _source_config(source), model.settings
    _check_architecture(source, source_config, settings)
    variables = {weight_path(variable): variable for variable in model.weights}
    is_detector = not {"rpn/head/conv/kernel", "semantic_head/predictor/kernel"}.isdisjoint(converted.arrays)
    arrays, conversions = dict(converted.arrays), dict(converted.conversions)
    if not is_detector and any(path.startswith("res5/") for path in variables):
        arrays = {path.replace("backbone/res5_", "res5/res5_"): array for path, array in arrays.items()}
    _adapt(arrays, conversions, source_config, settings)
    not_loaded = fit_classes(model, source, arrays, conversions, map_classes)
    skipped = dict(converted.skipped) | {name: "unknown to the importer" for name in converted.unknown}
    for path in [path for path in arrays if path not in variables]:
        skipped[path] = "the model has no such weight"
        del arrays[path]
    missing = [path for path in variables if path not in arrays]
    not_loaded |= _reasons(model, arrays, missing, is_detector)
    if not allow_missing:
        missing = [path for path in missing if not_loaded[path] == NOT_IN_FILE]
        _check_complete(source, missing, [name for name in skipped if name not in converted.skipped])
    _check_arrays(source, arrays, variables)
    for path, array in arrays.items():
        source.release()
        variables[path].assign(np.ascontiguousarray(array, np.float32).reshape(variables[path].shape))
    loaded = {path: conversions.get(path, "") for path in arrays if path not in not_loaded}
    notes = _notes(source_config, settings, is_detector)
    return LoadReport(source.name, source.format, loaded, skipped, not_loaded, notes)


def _reasons(model, arrays, missing, is_detector):
    """{path: why} of the model's weights that aren't among the `arrays`."""
    known = {path.split("/")[0] for path in arrays}
    unknown = {head.name for head in model.heads if not head.section} - known
    reasons = {}
    for path in missing:
        part = path.split("/")[0]
        reasons[path] = "of a head that the file doesn't have" if part in unknown else NOT_IN_FILE
        if not is_detector and part not in ("backbone", "res5"):
            reasons[path] = "not part of a backbone"
    return reasons


def _source_config(source):
    """The `ModelConfig` of the weights; for what a bare backbone doesn't imply, the defaults."""
    if source.converted.config:
        return source.config().model
    settings = dataclasses.asdict(ModelConfig())
    for key, value in source.converted.settings.items():
        settings[key] = {**settings[key], **value} if isinstance(value, dict) and settings.get(key) else value
    return parse_model_config({key: value for key, value in settings.items() if key != "categories"})


def _check_architecture(source, source_config, config):
    """Raise UserError naming every setting in which the model's architecture is another."""
    differences = []
    pyramids = source_config.features == config.features == "FPN"
    for name in settings_in_weights():
        section = name.partition(".")[0]
        is_absent = getattr(source_config, section) is None or getattr(config, section) is None
        # Detectors dilate what they take from classifiers.
        is_known = ("features" if name == "backbone.dilated" else section) in source.converted.settings
        if not is_known or is_absent or (section == "fpn" and not pyramids):
            continue
        if _comparable(source_config, name) != _comparable(config, name):
            setting = attrgetter(name)
            differences.append(f"model.{name}={setting(source_config)} (the model's is {setting(config)})")
    if differences:
        raise UserError(f"{source.name} holds weights of another architecture: set {', '.join(differences)}.")


def _comparable(config, name):
    """The value of a setting, with those made equal that mean the same weights."""
    value = attrgetter(name)(config)
    if name.endswith(".norm"):
        return "batch norm" if value in BATCH_NORMS else value
    if name == "rpn.channels" and not value:  # as many as the maps have that the RPN reads
        if config.features == "FPN":
            return config.fpn.channels
        return STAGE_CHANNELS[config.features] * (4 if config.backbone.depth >= 50 else 1)
    if name == "box_head.conv_channels" and not config.box_head.convs:
        return None
    if name == "box_head.channels" and not config.box_head.fcs:
        return None
    return value


def _adapt(arrays, conversions, source_config, config):
    """Rewrite the weights for the model's delta weights, batch norm epsilon and pixel scale; all are exact.

    A network of keras.applications keeps its own epsilon, and the one pixel scale that it was trained with.
    """
    for section, layer in (("rpn", "rpn/head/anchor_deltas"), ("box_head", "box_head/box_deltas")):
        parts = getattr(source_config, section), getattr(config, section)
        if f"{layer}/kernel" in arrays and all(parts) and parts[0].delta_weights != parts[1].delta_weights:
            scale = np.divide(parts[1].delta_weights, parts[0].delta_weights).astype(np.float32)
            for path in (f"{layer}/kernel", f"{layer}/bias"):
                arrays[path] = arrays[path] * np.tile(scale, arrays[path].shape[-1] // 4)
                conversions[path] = "for the model's delta_weights"
    if source_config.backbone.application:
        return
    old, new = source_config.conventions.batch_norm_epsilon, config.conventions.batch_norm_epsilon
    if old != new:
        for path in [path for path in arrays if path.endswith("/moving_variance")]:
            arrays[path] = arrays[path] + np.float32(old - new)
            conversions[path] = f"epsilon {old:g} to {new:g}"
    path = "backbone/stem/kernel"
    if path in arrays and source_config.pixel_std != config.pixel_std:
        scale = np.divide(config.pixel_std, source_config.pixel_std).astype(np.float32)
        arrays[path] = arrays[path] * scale[:, None]
        conversions[path] = ", ".join(filter(None, [conversions.get(path), "for the model's pixel_std"]))


def _check_complete(source, missing, extra):
    """Raise UserError if the file lacks weights of the model, or has tensors for which the model has no weight."""
    faults = [
        f"{len(names)} {fault} ({', '.join(names[:MAX_LISTED])}{', ...' if len(names) > MAX_LISTED else ''})"
        for names, fault in ((missing, "weights of the model are missing"), (extra, "tensors have no place in it"))
        if names
    ]
    if faults:
        raise UserError(f"{source.name} doesn't fit the model: {' and '.join(faults)}; allow_missing loads the rest.")


def _check_arrays(source, arrays, variables):
    """Raise UserError naming the weights of another shape or type, or with values that are no finite numbers."""
    faults = []
    for path, array in arrays.items():
        shape, expected = list(array.shape), list(variables[path].shape)
        if len(expected) == 2 and len(shape) == 4:
            shape = [shape[0] * shape[1] * shape[2], shape[3]]
        if shape != expected:
            faults.append(f"{path} is {shape} and not {expected}")
        elif array.dtype.kind not in "fiu":
            faults.append(f"{path} holds {array.dtype}")
        elif not np.isfinite(array).all():
            faults.append(f"{path} isn't finite")
    if faults:
        more = f", and {len(faults) - MAX_LISTED} more" if len(faults) > MAX_LISTED else ""
        raise UserError(f"{source.name} doesn't fit the model: {', '.join(faults[:MAX_LISTED])}{more}.")


def _notes(source_config, config, is_detector):
    """Sentences on the conventions that differ, which change results and not weights."""
    names = ["pixel_mean"]
    if source_config.backbone.application:
        names.append("pixel_std")
    if is_detector:
        names.append("resize.rule")
        irrelevant = {"batch_norm_epsilon", *LOSS_CONVENTIONS, *(() if config.keypoint_head else KEYPOINT_CONVENTIONS)}
        for section in ("conventions", "roi_layer"):
            fields = [field.name for field in dataclasses.fields(getattr(config, section))]
            names += [f"{section}.{field}" for field in fields if field not in irrelevant]
    values = {name: (attrgetter(name)(source_config), attrgetter(name)(config)) for name in names}
    return [f"trained with {name}={old}, the model has {new}" for name, (old, new) in values.items() if old != new]
