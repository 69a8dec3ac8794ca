"""Putting converted weights into a model: everything is checked first, so that a failure changes nothing."""

import collections
import dataclasses

import numpy as np
from rich.table import Table

from mrcnn_tf.common.categories import UNUSED, keypoint_channels
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import parse_model_config
from mrcnn_tf.config.settings import ModelConfig
from mrcnn_tf.weights.architecture import num_classes, num_stuff
from mrcnn_tf.weights.pretrained import read_pretrained, weight_path

# The layers that depend on classes and keypoints, when the weights know others than the model.
#

CLASSES, KEYPOINT_KIND, STUFF = "classes", "keypoints", "stuff classes"
OWN_KINDS = {"keypoint_head": KEYPOINT_KIND, "semantic_head": STUFF}  # of the other heads: CLASSES


def fit_classes(model, source, arrays, changes, map_classes):
    """Makes the `arrays` that depend on classes, keypoints or stuff fit the model's, if they don't; `changes` says how.

    They get new initial values, and, with `map_classes`, the values of the classes, of their keypoints and of the stuff
    that both know by name.

    Returns:
        weight path -> why it has a new initial value.

    Raises:
        UserError: `map_classes`, and no class and no stuff in common.
    """
    names, named = {}, {}
    if num_classes(arrays) is not None and model.config.box_head:
        both = model.config.categories, source.categories()
        names[CLASSES] = [[category.name for category in each] for each in both]
        names[KEYPOINT_KIND] = [keypoint_channels(each)[0] for each in both]
        named[CLASSES] = named[KEYPOINT_KIND] = source.converted.categories is not None
    if num_stuff(arrays) is not None and model.config.semantic_head:
        names[STUFF] = [[category.name for category in each] for each in (model.config.stuff, source.stuff())]
        named[STUFF] = source.converted.stuff is not None
    same = {
        what: own == theirs or (not named[what] and len(own) == len(theirs)) for what, (own, theirs) in names.items()
    }
    if all(same.values()):
        return {}
    pairs = dict.fromkeys(names, ())
    if map_classes:
        pairs |= {what: _pairs(*names[what]) for what in (CLASSES, STUFF) if what in names}
        _refuse_strangers(names, pairs, source)
        if CLASSES in names:
            pairs[KEYPOINT_KIND] = _keypoint_pairs(*both, pairs[CLASSES])
    left = {}
    for variable, initializer in model.class_variables():
        path = weight_path(variable)
        what = OWN_KINDS.get(path.split("/")[0], CLASSES)
        if path not in arrays or same[what]:
            continue
        own, theirs = map(len, names[what])
        fresh = np.array(initializer(variable.shape, "float32"))
        if pairs[what]:
            _copy(fresh, arrays[path], path, pairs[what], model.config.mask_head)
            changes[path] = f"{len(pairs[what])} of {own} {what} by name, the others new"
        else:
            left[path] = f"set anew: {theirs} {what} in the file, {own} in the model"
        arrays[path] = fresh
    return left


def _pairs(own, theirs):
    """(index in the model, index in the file) of the classes that both know."""
    places = {name.casefold(): index for index, name in enumerate(theirs) if name != UNUSED}
    return [(index, places[name.casefold()]) for index, name in enumerate(own) if name.casefold() in places]


def _refuse_strangers(names, pairs, source):
    if not any(pairs.values()):
        own = [name for what in (CLASSES, STUFF) for name in names.get(what, [()])[0]]
        raise UserError(
            f"{source.name} knows none of the model's classes ({', '.join(own[:5])}) by name: load it without mapping."
        )


def _keypoint_pairs(own, theirs, classes):
    """(heatmap in the model, heatmap in the file) of the keypoints of paired classes that both know by name."""
    tables, pairs = [keypoint_channels(each)[1] for each in (own, theirs)], {}
    for mine, their in classes:
        places = {name: index for index, name in enumerate(theirs[their].keypoints)}
        for index, name in enumerate(own[mine].keypoints):
            if name in places:
                pairs.setdefault(int(tables[0][mine + 1, index]), int(tables[1][their + 1, places[name]]))
    return list(pairs.items())


def _copy(fresh, array, path, pairs, mask_head):
    """Puts what `array` has for the paired classes or keypoints, and for the background, in its place in `fresh`."""
    if path.startswith("keypoint_head/"):
        axis = 2 if path.endswith("kernel") else 0  # of [4, 4, P, channels]
        fresh, array, size, first, background = np.moveaxis(fresh, axis, -1), np.moveaxis(array, axis, -1), 1, 0, None
    else:
        size, first, background = _columns(path, mask_head)
    if background is not None:
        fresh[..., background] = array[..., background]
    for mine, their in pairs:
        source = slice(first + their * size, first + (their + 1) * size)
        fresh[..., first + mine * size : first + (mine + 1) * size] = array[..., source]


def _columns(path, mask_head):
    """(values per class, columns before the first class, the background's column) of a weight's last axis."""
    if path.startswith(("box_head/class_logits/", "semantic_head/")):  # the background, or all things, come first
        return 1, 1, 0
    if path.startswith("box_head/box_deltas/"):
        return 4, 0, None
    if mask_head.fcs:
        return (2 * mask_head.pool_size) ** 2, 0, None
    return 1, 0, -1 if mask_head.activation == "softmax" else None


# What became of each weight when a checkpoint was loaded.
#

NAMES_IN_A_ROW = 4  # names given in a row; the rest are counted


@dataclasses.dataclass
class LoadReport:
    """The outcome of `load_pretrained`.

    Attributes:
        source: the file, preset or model that was read.
        format: "torchvision", "detectron2", "caffe2", "matterport", "keras.applications" or "mrcnn_tf".
        loaded: weight path -> what was done beside a plain transpose, or "".
        skipped: name in the file -> why it wasn't loaded.
        left: weight path -> why it keeps, or gets anew, an untrained value.
        notes: sentences on conventions in which model and weights differ.
    """

    source: str
    format: str
    loaded: dict[str, str]
    skipped: dict[str, str]
    left: dict[str, str]
    notes: list[str]

    def to_json(self):
        """The report as plain dictionaries."""
        return dataclasses.asdict(self)

    def table(self):
        """A rich table: each part of the model, what was loaded, transformed and left, then what was skipped."""
        table = Table(title=f"{self.source} ({self.format})", title_justify="left", show_lines=False)
        for name in ("part", "weights", "what"):
            table.add_column(name, justify="right" if name == "weights" else "left", overflow="fold")
        for part, weights in _by_part(self.loaded).items():
            table.add_row(part, str(len(weights)), "loaded")
            for change, paths in _by_reason(weights).items():
                if change:
                    table.add_row("", str(len(paths)), f"of them {change}: {_some(paths)}")
        for what, names in (("left", self.left), ("skipped", self.skipped)):
            for reason, paths in _by_reason(names).items():
                table.add_row(what, str(len(paths)), f"{reason}: {_some(paths)}")
        for note in self.notes:
            table.add_row("note", "", note)
        return table


def _by_part(loaded):
    parts = collections.defaultdict(dict)
    for path, change in loaded.items():
        parts[path.split("/")[0]][path] = change
    return parts


def _by_reason(names):
    reasons = collections.defaultdict(list)
    for name, reason in names.items():
        reasons[reason].append(name)
    return reasons


def _some(names):
    more = len(names) - NAMES_IN_A_ROW
    return ", ".join(names[:NAMES_IN_A_ROW]) + (f" and {more} more" if more > 0 else "")


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
LOSSES = ("mask_target", "rpn_normalizer", "rpn_box_beta", "box_beta")
KEYPOINTS = ("keypoint_offset", "keypoint_score")
BATCH_NORMS = ("frozen_bn", "bn", "sync_bn")
NAMED = 5


def load_into(model, source, allow_missing=False, map_classes=False):
    """Loads `source` into `model` and returns a `LoadReport`; arguments and errors as in `MaskRCNN.load_pretrained`."""
    source = read_pretrained(source, model.config.backbone)
    found = source.converted
    theirs = _their_config(source)
    _check_architecture(source, theirs, model.config)
    variables = {weight_path(variable): variable for variable in model.weights}
    whole = "rpn/head/conv/kernel" in found.arrays or "semantic_head/predictor/kernel" in found.arrays
    arrays, changes = dict(found.arrays), dict(found.changes)
    if not whole and model.config.features == "C4":
        arrays = {path.replace("backbone/res5_", "res5/res5_"): array for path, array in arrays.items()}
    _adapt(arrays, changes, theirs, model.config)
    left = fit_classes(model, source, arrays, changes, map_classes)
    skipped = dict(found.skipped) | {name: "unknown to the importer" for name in found.unknown}
    for path in [path for path in arrays if path not in variables]:
        skipped[path] = "the model has no such weight"
        del arrays[path]
    missing = [path for path in variables if path not in arrays]
    left |= {
        path: "not in the file" if whole or path.startswith(("backbone/", "res5/")) else "not part of a backbone"
        for path in missing
    }
    if not allow_missing:
        _refuse_leftovers(source, found, skipped, [path for path in missing if left[path] == "not in the file"])
    _check_arrays(source, arrays, variables)
    for path, array in arrays.items():
        source.release()
        variables[path].assign(np.ascontiguousarray(array, np.float32).reshape(variables[path].shape))
    loaded = {path: changes.get(path, "") for path in arrays if path not in left}
    return LoadReport(source.name, source.format, loaded, skipped, left, _notes(theirs, model.config, whole))


def _their_config(source):
    """The `ModelConfig` of the weights; for what a bare backbone doesn't imply, the defaults."""
    if source.converted.config:
        return source.config().model
    tree = dataclasses.asdict(ModelConfig())
    for key, value in source.converted.settings.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) and tree.get(key) else value
    return parse_model_config({key: value for key, value in tree.items() if key != "categories"})


def _check_architecture(source, theirs, ours):
    """Raises UserError naming every setting in which the model's architecture is another."""
    other = []
    for name in ARCHITECTURE:
        section = name.partition(".")[0]
        pyramids = {theirs.features, ours.features} == {"FPN"}
        absent = getattr(theirs, section) is None or getattr(ours, section) is None
        # Detectors dilate what they take from classifiers.
        known = ("features" if name == "backbone.dilated" else section) in source.converted.settings
        if not known or absent or (section == "fpn" and not pyramids):
            continue
        if _comparable(theirs, name) != _comparable(ours, name):
            other.append(f"model.{name}={_setting(theirs, name)} (the model's is {_setting(ours, name)})")
    if other:
        raise UserError(f"{source.name} holds weights of another architecture: set {', '.join(other)}.")


def _setting(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _comparable(config, name):
    value = _setting(config, name)
    if name.endswith(".norm"):
        return "batch norm" if value in BATCH_NORMS else value
    if name == "rpn.channels":
        return value or _rpn_inputs(config)
    if name == "box_head.conv_channels" and not config.box_head.convs:
        return None
    if name == "box_head.channels" and not config.box_head.fcs:
        return None
    return value


def _rpn_inputs(config):
    """Channels of the maps that the RPN reads."""
    if config.features == "FPN":
        return config.fpn.channels
    return STAGE_CHANNELS[config.features] * (4 if config.backbone.depth >= 50 else 1)


def _adapt(arrays, changes, theirs, ours):
    """Rewrites the weights for the model's batch norm epsilon and pixel scale; both are exact.

    A network of keras.applications keeps its own epsilon, and the one pixel scale that it was trained with.
    """
    if theirs.backbone.application:
        return
    epsilons = [config.conventions.batch_norm_epsilon for config in (theirs, ours)]
    if epsilons[0] != epsilons[1]:
        for path in [path for path in arrays if path.endswith("/moving_variance")]:
            arrays[path] = arrays[path] + np.float32(epsilons[0] - epsilons[1])
            changes[path] = f"epsilon {epsilons[0]:g} to {epsilons[1]:g}"
    path = "backbone/stem/kernel"
    if path in arrays and theirs.pixel_std != ours.pixel_std:
        scale = np.divide(ours.pixel_std, theirs.pixel_std).astype(np.float32)
        arrays[path] = arrays[path] * scale[:, None]
        changes[path] = ", ".join(filter(None, [changes.get(path), "for the model's pixel_std"]))


def _refuse_leftovers(source, found, skipped, missing):
    extra = [name for name in skipped if name not in found.skipped]
    sentences = [
        f"{len(names)} {what} ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})"
        for names, what in ((missing, "weights of the model are missing"), (extra, "tensors have no place in it"))
        if names
    ]
    if sentences:
        raise UserError(
            f"{source.name} doesn't fit the model: {' and '.join(sentences)}; allow_missing loads the rest."
        )


def _check_arrays(source, arrays, variables):
    """Raises UserError naming the weights of another shape or type, or with values that are no finite numbers."""
    odd = []
    for path, array in arrays.items():
        shape, wanted = list(array.shape), list(variables[path].shape)
        if len(wanted) == 2 and len(shape) == 4:
            shape = [shape[0] * shape[1] * shape[2], shape[3]]
        if shape != wanted:
            odd.append(f"{path} is {shape} and not {wanted}")
        elif array.dtype.kind not in "fiu":
            odd.append(f"{path} holds {array.dtype}")
        elif not np.isfinite(array).all():
            odd.append(f"{path} isn't finite")
    if odd:
        more = f", and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
        raise UserError(f"{source.name} doesn't fit the model: {', '.join(odd[:NAMED])}{more}.")


def _notes(theirs, ours, whole):
    """Sentences on the conventions that differ, which change results and not weights."""
    pairs = {"pixel_mean": (theirs.pixel_mean, ours.pixel_mean)}
    if theirs.backbone.application:
        pairs["pixel_std"] = (theirs.pixel_std, ours.pixel_std)
    if whole:
        pairs["resize.rule"] = (theirs.resize.rule, ours.resize.rule)
        silent = {"batch_norm_epsilon", *LOSSES, *(() if ours.keypoint_head else KEYPOINTS)}
        for section in ("conventions", "roi_layer"):
            for field in dataclasses.fields(getattr(ours, section)):
                if field.name not in silent:
                    name = f"{section}.{field.name}"
                    pairs[name] = tuple(_setting(each, name) for each in (theirs, ours))
    return [
        f"trained with {key}={pair[0]}, the model has {pair[1]}" for key, pair in pairs.items() if pair[0] != pair[1]
    ]
