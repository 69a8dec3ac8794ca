"""Putting pretrained weights into a model: everything is checked first, so that a failure changes nothing.

What depends on the classes is fitted to the model's, and a report says what became of each weight.
"""

import collections
import dataclasses
from operator import attrgetter

import numpy as np
from rich.table import Table

from mrcnn_tf.common.categories import UNUSED, keypoint_channels
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import parse_model_config
from mrcnn_tf.config.settings import ModelConfig
from mrcnn_tf.weights.architecture import num_classes, num_stuff
from mrcnn_tf.weights.pretrained import read_pretrained, weight_path

# Settings that decide what a weight means without showing in its shape, and those that show and are better named than
# shapes are. A section that the weights lack, such as the mask head of a Faster R-CNN, isn't compared.
ARCHITECTURE = (
    "features",
    *(f"backbone.{key}" for key in ("depth", "groups", "width_per_group", "stride_in_1x1", "stem_pool", "norm")),
    *(f"backbone.{key}" for key in ("dilated", "application", "taps")),
    *(f"fpn.{key}" for key in ("channels", "norm")),
    *(f"rpn.{key}" for key in ("aspect_ratios", "convs", "channels")),
    *(f"box_head.{key}" for key in ("convs", "conv_channels", "fcs", "channels", "norm")),
    *(f"mask_head.{key}" for key in ("convs", "channels", "norm", "fcs", "activation", "class_agnostic")),
    *(f"keypoint_head.{key}" for key in ("convs", "channels")),
    *(f"semantic_head.{key}" for key in ("channels", "norm")),
)
STAGE_CHANNELS = {"C4": 256, "C5": 512}  # four times as many with bottlenecks
# Conventions of the losses, and those of keypoints, which don't concern a model without.
LOSS_CONVENTIONS = ("mask_target", "rpn_normalizer", "rpn_box_beta", "box_beta")
KEYPOINT_CONVENTIONS = ("keypoint_offset", "keypoint_score")
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
    source = read_pretrained(source, model.config.backbone)
    converted, source_config = source.converted, _source_config(source)
    _check_architecture(source, source_config, model.config)
    variables = {weight_path(variable): variable for variable in model.weights}
    is_detector = not {"rpn/head/conv/kernel", "semantic_head/predictor/kernel"}.isdisjoint(converted.arrays)
    arrays, conversions = dict(converted.arrays), dict(converted.conversions)
    if not is_detector and model.config.features == "C4":
        arrays = {path.replace("backbone/res5_", "res5/res5_"): array for path, array in arrays.items()}
    _adapt(arrays, conversions, source_config, model.config)
    not_loaded = _fit_classes(model, source, arrays, conversions, map_classes)
    skipped = dict(converted.skipped) | {name: "unknown to the importer" for name in converted.unknown}
    for path in [path for path in arrays if path not in variables]:
        skipped[path] = "the model has no such weight"
        del arrays[path]
    missing = [path for path in variables if path not in arrays]
    not_loaded |= {
        path: "not in the file" if is_detector or path.startswith(("backbone/", "res5/")) else "not part of a backbone"
        for path in missing
    }
    if not allow_missing:
        missing = [path for path in missing if not_loaded[path] == "not in the file"]
        _check_complete(source, missing, [name for name in skipped if name not in converted.skipped])
    _check_arrays(source, arrays, variables)
    for path, array in arrays.items():
        source.release()
        variables[path].assign(np.ascontiguousarray(array, np.float32).reshape(variables[path].shape))
    loaded = {path: conversions.get(path, "") for path in arrays if path not in not_loaded}
    notes = _notes(source_config, model.config, is_detector)
    return LoadReport(source.name, source.format, loaded, skipped, not_loaded, notes)


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
    for name in ARCHITECTURE:
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


# The layers that depend on classes and keypoints, when the file has others than the model.

CLASSES, KEYPOINTS, STUFF = "classes", "keypoints", "stuff classes"
CLASSES_OF_HEAD = {"keypoint_head": KEYPOINTS, "semantic_head": STUFF}  # of the other heads: CLASSES


def _fit_classes(model, source, arrays, conversions, map_classes):
    """Make the `arrays` that depend on classes, keypoints or stuff fit the model's, if they don't.

    They get new initial values, and, with `map_classes`, the values of the classes, of their keypoints and of the stuff
    that file and model have by the same name (UserError if there are none); `conversions` says so. Returned is weight
    path -> why it has a new initial value.
    """
    config, converted = model.config, source.converted
    names = {}  # kind -> (names in the model, names in the file, whether the file says them)
    if num_classes(arrays) is not None and config.box_head:
        categories = (config.categories, source.categories())
        is_named = converted.categories is not None
        names[CLASSES] = (*([category.name for category in group] for group in categories), is_named)
        names[KEYPOINTS] = (*(keypoint_channels(group)[0] for group in categories), is_named)
    if num_stuff(arrays) is not None and config.semantic_head:
        stuff = ([category.name for category in group] for group in (config.stuff, source.stuff()))
        names[STUFF] = (*stuff, converted.stuff is not None)
    same = {
        kind for kind, (new, old, is_named) in names.items() if new == old or (not is_named and len(new) == len(old))
    }
    if len(same) == len(names):
        return {}
    pairs = dict.fromkeys(names, ())
    if map_classes:
        pairs |= {kind: _pair_names(*names[kind][:2]) for kind in (CLASSES, STUFF) if kind in names}
        if not any(pairs.values()):
            examples = [name for kind in (CLASSES, STUFF) if kind in names for name in names[kind][0]][:5]
            raise UserError(
                f"{source.name} knows none of the model's classes ({', '.join(examples)}) by name: load it without "
                "mapping."
            )
        if CLASSES in names:
            pairs[KEYPOINTS] = _pair_keypoints(*categories, pairs[CLASSES])
    initialized = {}
    for variable, initializer in model.class_variables():
        path = weight_path(variable)
        kind = CLASSES_OF_HEAD.get(path.split("/")[0], CLASSES)
        if path not in arrays or kind in same:
            continue
        new, old = map(len, names[kind][:2])
        values = np.array(initializer(variable.shape, "float32"))
        if pairs[kind]:
            _copy_classes(arrays[path], values, path, pairs[kind], config.mask_head)
            conversions[path] = f"{len(pairs[kind])} of {new} {kind} by name, the others new"
        else:
            initialized[path] = f"set anew: {old} {kind} in the file, {new} in the model"
        arrays[path] = values
    return initialized


def _pair_names(new, old):
    """(index in the model, index in the file) of the names that both have."""
    indices = {name.casefold(): index for index, name in enumerate(old) if name != UNUSED}
    return [(index, indices[name.casefold()]) for index, name in enumerate(new) if name.casefold() in indices]


def _pair_keypoints(new, old, class_pairs):
    """(heatmap in the model, heatmap in the file) of the keypoints of paired classes that both have by name."""
    new_channels, old_channels = keypoint_channels(new)[1], keypoint_channels(old)[1]
    pairs = {}
    for new_class, old_class in class_pairs:
        indices = {name: index for index, name in enumerate(old[old_class].keypoints)}
        for index, name in enumerate(new[new_class].keypoints):
            if name in indices:
                channel = int(new_channels[new_class + 1, index])
                pairs.setdefault(channel, int(old_channels[old_class + 1, indices[name]]))
    return list(pairs.items())


def _copy_classes(old, new, path, pairs, mask_head):
    """Copy the values of the paired classes or keypoints, and of the background, from array `old` to array `new`."""
    if path.startswith("keypoint_head/"):
        axis = 2 if path.endswith("kernel") else 0  # of [4, 4, P, channels]
        old, new = np.moveaxis(old, axis, -1), np.moveaxis(new, axis, -1)
        size, first, background = 1, 0, None
    else:
        size, first, background = _columns(path, mask_head)
    if background is not None:
        new[..., background] = old[..., background]
    for new_class, old_class in pairs:
        source = slice(first + old_class * size, first + (old_class + 1) * size)
        new[..., first + new_class * size : first + (new_class + 1) * size] = old[..., source]


def _columns(path, mask_head):
    """(values per class, columns before the first class, the background's column) of a weight's last axis."""
    if path.startswith(("box_head/class_logits/", "semantic_head/")):  # the background, or all things, come first
        return 1, 1, 0
    if path.startswith("box_head/box_deltas/"):
        return 4, 0, None
    if mask_head.fcs:
        return (2 * mask_head.pool_size) ** 2, 0, None
    return 1, 0, -1 if mask_head.activation == "softmax" else None
