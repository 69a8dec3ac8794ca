"""From a PyTorch module's parameters to this package's layers: which name goes where, and in what layout."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError

POOL_SIDE = 7  # of the RoI features that the first fully connected layer of every published box head reads


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a kind of module: our weight's name, its rank in the file, and how it is laid out anew."""

    name: str
    rank: int
    layout: Callable[[np.ndarray], np.ndarray] = np.asarray
    change: str = ""


def _pooled(weight):
    """[units, C * 7 * 7] -> [7, 7, C, units]: PyTorch flattens channels first.

    A view: flattened, the largest weight of all would be copied before its turn.
    """
    units, inputs = weight.shape
    if inputs % POOL_SIDE**2:
        raise ValueError(f"{inputs} inputs aren't C x {POOL_SIDE} x {POOL_SIDE}")
    return weight.reshape(units, -1, POOL_SIDE, POOL_SIDE).transpose(2, 3, 1, 0)


def _pointwise(weight):
    """[out, in, 1, 1] -> [in, out]."""
    return weight.reshape(weight.shape[:2]).T


def _vector(name):
    return Parameter(name, 1)


CONV = {"weight": Parameter("kernel", 4, lambda w: w.transpose(2, 3, 1, 0)), "bias": _vector("bias")}
NORM = {
    "weight": _vector("gamma"),
    "bias": _vector("beta"),
    "running_mean": _vector("moving_mean"),
    "running_var": _vector("moving_variance"),
}
LINEAR = {"weight": Parameter("kernel", 2, lambda w: w.T), "bias": _vector("bias")}
POOLED = {"weight": Parameter("kernel", 2, _pooled, "inputs channels last"), "bias": _vector("bias")}
# [in, out, 2, 2] -> [2, 2, out, in]
DECONV = {
    "weight": Parameter("deconv_kernel", 4, lambda w: w.transpose(2, 3, 1, 0)),
    "bias": _vector("deconv_bias"),
}
# The keypoints' deconvolution: [in, out, 4, 4] -> [4, 4, out, in]
SCORE = {
    "weight": Parameter("score_kernel", 4, lambda w: w.transpose(2, 3, 1, 0)),
    "bias": _vector("score_bias"),
}
PREDICTOR = {"weight": Parameter("predictor_kernel", 4, _pointwise), "bias": _vector("predictor_bias")}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Modules whose name matches `pattern` become the layer that `layer` makes of the match."""

    pattern: str
    layer: Callable[[re.Match], str]
    parameters: dict[str, Parameter]


@dataclasses.dataclass
class Translation:
    """What the rules made of a file; fields as in `Converted`."""

    arrays: dict[str, np.ndarray]
    changes: dict[str, str]
    skipped: dict[str, str]
    unknown: list[str]


def translate(tensors, rules, skip):
    """Applies the first rule that matches each tensor's module.

    Args:
        tensors: name in the file -> array; the last part of a name is the parameter ("rpn.head.conv.weight").
        rules: list of `Rule`.
        skip: pattern of whole names -> why they aren't needed.

    Raises:
        UserError: a tensor of the wrong rank, or two that mean the same weight.
    """
    result = Translation({}, {}, {}, [])
    for name, array in tensors.items():
        reason = next((reason for pattern, reason in skip.items() if re.fullmatch(pattern, name)), None)
        if reason:
            result.skipped[name] = reason
            continue
        module, _, parameter = name.rpartition(".")
        found = _find(rules, module, parameter)
        if found is None:
            result.unknown.append(name)
            continue
        layer, rule = found
        path = f"{layer}/{rule.name}"
        if path in result.arrays:
            raise UserError(f"Tensor '{name}' stands for {path}, which another tensor holds already: keep one of them.")
        result.arrays[path] = _laid_out(name, array, rule)
        if rule.change:
            result.changes[path] = rule.change
    return result


def drop_background(found):
    """Drops boxes and masks of the background, the first class, from a `Translation`: they are never looked at."""
    for name in ("kernel", "bias"):
        for path, values in ((f"box_head/box_deltas/{name}", 4), (f"mask_head/predictor_{name}", 1)):
            if path in found.arrays:
                found.arrays[path] = found.arrays[path][..., values:]
                found.changes[path] = "background dropped"


def _find(rules, module, parameter):
    for rule in rules:
        match = re.fullmatch(rule.pattern, module)
        if match and parameter in rule.parameters:
            return rule.layer(match), rule.parameters[parameter]
    return None


def _laid_out(name, array, rule):
    if array.ndim != rule.rank:
        raise UserError(f"Tensor '{name}' is of shape {list(array.shape)} and should have {rule.rank} dimensions.")
    try:
        return rule.layout(array)
    except ValueError as error:
        raise UserError(f"Tensor '{name}' of shape {list(array.shape)} doesn't fit ({error}).") from error


# A published checkpoint in this package's terms: what each format module makes of a file.
#

@dataclasses.dataclass
class Converted:
    """Weights under this package's names and in Keras's layouts, and what they imply for the config.

    Attributes:
        arrays: weight path without the model's name -> float32 array, mostly a view of the file. Batch norm always
            stands under its convolution (`backbone/stem/gamma`), frozen or not. A dense kernel behind RoI features may
            have its inputs as three axes, [7, 7, C, units].
        changes: weight path -> what was done beside a plain transpose, such as "background first".
        skipped: name in the file -> why the model has no use for it.
        unknown: names in the file that nothing accounts for.
        settings: `ModelConfig` values that the weights imply, nested, such as {"backbone": {"depth": 101}}.
        config: the name of the matching config; None for a bare backbone.
        categories: the K foreground classes; None where the file can't tell.
        stuff: the S stuff classes of a semantic head; None where there is none, or the file can't tell.
    """

    arrays: dict[str, np.ndarray]
    changes: dict[str, str]
    skipped: dict[str, str]
    unknown: list[str]
    settings: dict[str, Any]
    config: str | None
    categories: list[Category] | None
    stuff: list[Category] | None = None
