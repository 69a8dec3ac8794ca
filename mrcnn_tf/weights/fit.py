"""Putting converted weights into a model: everything is checked first, so that a failure changes nothing."""

import dataclasses

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.config import model_config
from mrcnn_tf.config.settings import ModelConfig
from mrcnn_tf.weights.classes import fit_classes
from mrcnn_tf.weights.own import weight_path
from mrcnn_tf.weights.report import LoadReport
from mrcnn_tf.weights.source import read_weights

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
    source = read_weights(source, model.config.backbone)
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
    return model_config({key: value for key, value in tree.items() if key != "categories"})


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
