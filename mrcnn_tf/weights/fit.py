"""Putting converted weights into a model: everything is checked first, so that a failure changes nothing."""

import dataclasses

import numpy as np

from mrcnn_tf.config import ModelConfig, model_config
from mrcnn_tf.errors import UserError
from mrcnn_tf.weights.classes import fit_classes
from mrcnn_tf.weights.own import weight_path
from mrcnn_tf.weights.report import LoadReport
from mrcnn_tf.weights.source import read_weights

# Settings that decide what a weight means without showing in its shape, and those that show and are better named than
# shapes are. A section that the weights lack, such as the mask head of a Faster R-CNN, isn't compared.
ARCHITECTURE = {
    "backbone": ("depth", "groups", "width_per_group", "stride_in_1x1", "stem_pool", "norm"),
    "fpn": ("channels", "norm"),
    "rpn": ("aspect_ratios", "convs", "channels"),
    "box_head": ("convs", "conv_channels", "fcs", "channels", "norm"),
    "mask_head": ("convs", "channels", "norm"),
}
BATCH_NORMS = ("frozen_bn", "bn", "sync_bn")
NAMED = 5


def load_into(model, source, allow_missing=False, map_classes=False):
    """Loads `source` into `model` and returns a `LoadReport`; arguments and errors as in `MaskRCNN.load_pretrained`."""
    source = read_weights(source, model.config.backbone.depth)
    found = source.converted
    theirs = _their_config(source)
    _check_architecture(source, theirs, model.config)
    variables = {weight_path(variable): variable for variable in model.weights}
    arrays, changes = dict(found.arrays), dict(found.changes)
    _adapt(arrays, changes, theirs, model.config)
    left = fit_classes(model, source, arrays, changes, map_classes)
    skipped = dict(found.skipped) | {name: "unknown to the importer" for name in found.unknown}
    for path in [path for path in arrays if path not in variables]:
        skipped[path] = "the model has no such weight"
        del arrays[path]
    whole = "rpn/head/conv/kernel" in found.arrays
    missing = [path for path in variables if path not in arrays]
    left |= {
        path: "not in the file" if whole or path.startswith("backbone/") else "not part of a backbone"
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
    for section, keys in ARCHITECTURE.items():
        their_section, our_section = getattr(theirs, section), getattr(ours, section)
        if section not in source.converted.settings or their_section is None or our_section is None:
            continue
        for key in keys:
            pair = [_comparable(config, section, key) for config in (theirs, ours)]
            if pair[0] != pair[1]:
                other.append(
                    f"model.{section}.{key}={getattr(their_section, key)} (the model's is {getattr(our_section, key)})"
                )
    if other:
        raise UserError(f"{source.name} holds weights of another architecture: set {', '.join(other)}.")


def _comparable(config, section, key):
    value = getattr(getattr(config, section), key)
    if key == "norm":
        return "batch norm" if value in BATCH_NORMS else value
    if (section, key) == ("rpn", "channels"):
        return value or config.fpn.channels
    if key == "conv_channels" and not config.box_head.convs:
        return None
    return value


def _adapt(arrays, changes, theirs, ours):
    """Rewrites the weights for the model's batch norm epsilon and pixel scale; both are exact."""
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
    if whole:
        pairs["resize.rule"] = (theirs.resize.rule, ours.resize.rule)
        for field in dataclasses.fields(ours.conventions):
            if field.name not in ("batch_norm_epsilon", "mask_target", "rpn_normalizer", "rpn_box_beta", "box_beta"):
                pairs[f"conventions.{field.name}"] = tuple(
                    getattr(each.conventions, field.name) for each in (theirs, ours)
                )
    return [
        f"trained with {key}={pair[0]}, the model has {pair[1]}" for key, pair in pairs.items() if pair[0] != pair[1]
    ]
