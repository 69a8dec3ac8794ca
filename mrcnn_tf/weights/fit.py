"""Putting pretrained weights into a model: everything is checked first, so that a failure changes nothing.

What depends on the classes is fitted to the model's, and a report says what became of each weight.
"""

import collections
import dataclasses
from operator import attrgetter

import numpy as np
from rich.table import Table

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import settings_in_weights
from mrcnn_tf.weights.facts import BATCH_NORMS, Origin, override, overrides_by_origin, same_value
from mrcnn_tf.weights.fit_classes import fit_classes
from mrcnn_tf.weights.pretrained import read_pretrained, weight_path

STAGE_CHANNELS = {"C4": 256, "C5": 512}  # four times as many with bottlenecks
# Conventions of the losses, and those of keypoints, which don't concern a model without.
LOSS_CONVENTIONS = ("mask_target", "rpn_normalizer", "rpn_box_beta", "box_beta")
KEYPOINT_CONVENTIONS = ("keypoint_offset", "keypoint_score")
NOT_IN_FILE = "not in the file"
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
        notes: sentences on the file, and on conventions in which model and weights differ.
        provenance: what decides what the weights detect: name of a setting -> {"value", "origin", "source"}, see
            `weights.facts`.
    """

    source: str
    format: str
    loaded: dict[str, str]
    skipped: dict[str, str]
    not_loaded: dict[str, str]
    notes: list[str]
    provenance: dict[str, dict]

    def assumptions(self):
        """The overrides that stand for what nobody says of the file; others change it."""
        return overrides_by_origin(self.provenance).get(Origin.ASSUMPTION.value, [])

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
        assumptions = self.assumptions()
        if assumptions:
            said = "nothing says so: where your model was made otherwise, state it in the same form"
            table.add_row("assumed", str(len(assumptions)), f"{said}\n" + "\n".join(assumptions))
        return table


def _names_by_reason(reasons):
    names = collections.defaultdict(list)
    for name, reason in reasons.items():
        names[reason].append(name)
    return names


def _list_some(names):
    more = len(names) - MAX_IN_ROW
    return ", ".join(names[:MAX_IN_ROW]) + (f" and {more} more" if more > 0 else "")


def load_into(model, source, allow_missing=False, map_classes=False, **facts):
    """Load `source` into `model`, arguments and errors as in `MaskRCNN.load_pretrained`; return a `LoadReport`.

    Args:
        **facts: what is said of the file, as in `read_pretrained`.
    """
    source = read_pretrained(source, model.settings.backbone, **facts)
    converted, source_config, settings = source.converted, source.model_config(), model.settings
    others = _check_architecture(source, source_config, settings, allow_missing)
    variables = {weight_path(variable): variable for variable in model.weights}
    is_detector = not {"rpn/head/conv/kernel", "semantic_head/predictor/kernel"}.isdisjoint(converted.arrays)
    arrays, conversions = dict(converted.arrays), dict(converted.conversions)
    if not is_detector and any(path.startswith("res5/") for path in variables):
        arrays = {path.replace("backbone/res5_", "res5/res5_"): array for path, array in arrays.items()}
    if not allow_missing:
        _check_anchors(source, source_config, arrays)
    _adapt(arrays, conversions, source_config, settings)
    not_loaded = fit_classes(model, source, arrays, conversions, map_classes)
    if allow_missing:
        not_loaded |= _drop_unlike(arrays, variables, others)
    skipped = dict(converted.skipped) | {name: "unknown to the importer" for name in converted.unknown}
    for path in [path for path in arrays if path not in variables]:
        skipped[path] = "the model has no such weight"
        del arrays[path]
    missing = [path for path in variables if path not in arrays and path not in not_loaded]
    not_loaded |= _reasons(model, arrays, missing, is_detector)
    if not allow_missing:
        missing = [path for path in missing if not_loaded[path] == NOT_IN_FILE]
        _check_complete(source, missing, [name for name in skipped if name not in converted.skipped])
    _check_arrays(source, arrays, variables)
    for path, array in arrays.items():
        source.release()
        variables[path].assign(np.ascontiguousarray(array, np.float32).reshape(variables[path].shape))
    loaded = {path: conversions.get(path, "") for path in arrays if path not in not_loaded}
    notes = [*source.notes, *_notes(source_config, settings, is_detector)]
    provenance = source.provenance_json()
    model.provenance = {"file": source.name, "format": source.format, "settings": provenance}
    return LoadReport(source.name, source.format, loaded, skipped, not_loaded, notes, provenance)


def _drop_unlike(arrays, variables, others):
    """Drop the arrays that another setting of the model makes unusable: {path: why} of them.

    Those are of another shape, or of the RPN's anchors where these have other aspect ratios; `others` are the settings.
    """
    dropped = {}
    for path in list(arrays):
        shape = _dense_shape(arrays[path], variables[path].shape) if path in variables else None
        if shape is not None and shape != list(variables[path].shape):
            dropped[path] = f"set anew: {shape} in the file, {list(variables[path].shape)} in the model"
        elif "rpn.aspect_ratios" in others and path.startswith(
            ("rpn/head/objectness_logits", "rpn/head/anchor_deltas")
        ):
            dropped[path] = "set anew: the model's anchors have other aspect ratios"
    for path in dropped:
        del arrays[path]
    return dropped


def _check_anchors(source, source_config, arrays):
    """Raise UserError where the RPN's outputs are of another number of anchors than sizes and aspect ratios make."""
    bias = arrays.get("rpn/head/objectness_logits/bias")
    if bias is None or np.ndim(bias) != 1:
        return
    rpn = source_config.rpn
    sizes = rpn.anchor_sizes if source_config.features != "FPN" else np.atleast_1d(rpn.anchor_sizes[0])
    sizes = np.atleast_1d(sizes[0]) if isinstance(sizes[0], list) else sizes
    if len(bias) != len(sizes) * len(rpn.aspect_ratios):
        raise UserError(
            f"{source.name} has {len(bias)} anchors a cell, and {override('model.rpn.anchor_sizes', rpn.anchor_sizes)} "
            f"with {override('model.rpn.aspect_ratios', rpn.aspect_ratios)} makes "
            f"{len(sizes) * len(rpn.aspect_ratios)}: state what it was trained with by overrides of these two."
        )


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


# Settings whose weights can't be set anew by themselves: all others would read other features than they learnt from.
_OF_FEATURES = ("features", "backbone.")


def _check_architecture(source, source_config, config, allow_missing):
    """The settings in which the model's architecture is another, those of the backbone aside.

    UserError naming every such setting of the backbone, and without `allow_missing` every other, too.
    """
    differences, facts = {}, source.converted.facts
    pyramids = source_config.features == config.features == "FPN"
    for name in settings_in_weights():
        section = name.partition(".")[0]
        is_absent = getattr(source_config, section) is None or getattr(config, section) is None
        # Detectors dilate what they take from classifiers.
        key = "features" if name == "backbone.dilated" else section
        is_known = any(fact == f"model.{key}" or fact.startswith(f"model.{key}.") for fact in facts)
        if not is_known or is_absent or (section == "fpn" and not pyramids):
            continue
        old, new = _comparable(source_config, name), _comparable(config, name)
        if not same_value(old, new):
            setting = attrgetter(name)
            differences[name] = f"model.{name}={setting(source_config)} (the model's is {setting(config)})"
    forbidden = [name for name in differences if not allow_missing or name.startswith(_OF_FEATURES)]
    if forbidden:
        assumed = [name for name in forbidden if source.is_assumed(f"model.{name}")]
        hint = f"; that {' and '.join(assumed)} is so is assumed: state what is so of the file" if assumed else ""
        listed = ", ".join(differences[name] for name in forbidden)
        raise UserError(f"{source.name} holds weights of another architecture: set {listed}{hint}.")
    return list(differences)


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
        expected = list(variables[path].shape)
        shape = _dense_shape(array, expected)
        if shape != expected:
            faults.append(f"{path} is {shape} and not {expected}")
        elif array.dtype.kind not in "fiu":
            faults.append(f"{path} holds {array.dtype}")
        elif not np.isfinite(array).all():
            faults.append(f"{path} isn't finite")
    if faults:
        more = f", and {len(faults) - MAX_LISTED} more" if len(faults) > MAX_LISTED else ""
        raise UserError(f"{source.name} doesn't fit the model: {', '.join(faults[:MAX_LISTED])}{more}.")


def _dense_shape(array, expected):
    """The shape of an array; that of a dense kernel may have its inputs as three axes."""
    shape = list(array.shape)
    if len(expected) == 2 and len(shape) == 4:
        return [shape[0] * shape[1] * shape[2], shape[3]]
    return shape


def _notes(source_config, config, is_detector):
    """Sentences on the conventions that differ, which change results and not weights."""
    names = ["pixel_mean"]
    if source_config.backbone.application:
        names.append("pixel_std")
    if is_detector:
        names += ["resize.rule", "rpn.anchor_sizes"]
        irrelevant = {"batch_norm_epsilon", *LOSS_CONVENTIONS, *(() if config.keypoint_head else KEYPOINT_CONVENTIONS)}
        for section in ("conventions", "roi_layer"):
            fields = [field.name for field in dataclasses.fields(getattr(config, section))]
            names += [f"{section}.{field}" for field in fields if field not in irrelevant]
    values = {name: (attrgetter(name)(source_config), attrgetter(name)(config)) for name in names}
    return [
        f"trained with {name}={old}, the model has {new}"
        for name, (old, new) in values.items()
        if not same_value(old, new)
    ]
