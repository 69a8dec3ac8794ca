"""From a PyTorch module's parameters to this package's layers: which name goes where, and in what layout."""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.facts import Facts

# Caffe's names of the convolutions in a residual block, which Detectron and the older Keras networks took over.
BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}


@dataclasses.dataclass
class ConvertedWeights:
    """Weights under this package's names and in Keras's layouts, and what they imply for the config.

    Attributes:
        arrays: weight path without the model's name -> float32 array, mostly a view of the file. Batch norm always
            stands under its convolution (`backbone/stem/gamma`), frozen or not. A dense kernel behind RoI features may
            have its inputs as three axes, [7, 7, C, units].
        conversions: weight path -> what was done beside a plain transpose, such as "background first".
        skipped: name in the file -> why the model has no use for it.
        unknown: names in the file that no rule accounts for.
        facts: what the file says of the settings, and what is assumed where its tensors make that likely.
        config: the name of the config that comes closest, or its tree; None for a bare backbone.
        categories: the K foreground classes; None where the file can't tell.
        stuff: the S stuff classes of a semantic head; None where there is none, or the file can't tell.
    """

    arrays: dict[str, np.ndarray]
    conversions: dict[str, str] = dataclasses.field(default_factory=dict)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    unknown: list[str] = dataclasses.field(default_factory=list)
    facts: Facts = dataclasses.field(default_factory=Facts)
    config: str | dict | None = None
    categories: list[Category] | None = None
    stuff: list[Category] | None = None


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a kind of module: our weight's name, its rank in the file, and how its axes are rearranged."""

    name: str
    rank: int = 1
    layout: Callable[[np.ndarray], np.ndarray] = np.asarray


def _pointwise(weight):
    """[out, in, 1, 1] -> [in, out]."""
    return weight.reshape(weight.shape[:2]).T


CONV = {"weight": Parameter("kernel", 4, lambda w: w.transpose(2, 3, 1, 0)), "bias": Parameter("bias")}
NORM = {
    "weight": Parameter("gamma"),
    "bias": Parameter("beta"),
    "running_mean": Parameter("moving_mean"),
    "running_var": Parameter("moving_variance"),
}
LINEAR = {"weight": Parameter("kernel", 2, lambda w: w.T), "bias": Parameter("bias")}
# [in, out, 2, 2] -> [2, 2, out, in]
DECONV = {"weight": Parameter("deconv_kernel", 4, lambda w: w.transpose(2, 3, 1, 0)), "bias": Parameter("deconv_bias")}
# The keypoints' deconvolution: [in, out, 4, 4] -> [4, 4, out, in]
SCORE = {"weight": Parameter("score_kernel", 4, lambda w: w.transpose(2, 3, 1, 0)), "bias": Parameter("score_bias")}
PREDICTOR = {"weight": Parameter("predictor_kernel", 4, _pointwise), "bias": Parameter("predictor_bias")}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Modules whose name matches `pattern` become `layer`: a template of `re.Match.expand` or a function of it."""

    pattern: str
    layer: str | Callable[[re.Match], str]
    parameters: dict[str, Parameter]


def translate(tensors, rules, skip, facts=None):
    """The `ConvertedWeights` with `facts` so far, by the first rule that matches each module.

    UserError for a tensor of the wrong rank, or two that mean the same weight.

    Args:
        tensors: name in the file -> array; the last part of a name is the parameter ("rpn.head.conv.weight").
        rules: list of `Rule`.
        skip: pattern of full names -> why they aren't needed.
        facts: the `Facts` that are known before.
    """
    weights = ConvertedWeights({}, facts=Facts() if facts is None else facts)
    for name, array in tensors.items():
        reason = next((reason for pattern, reason in skip.items() if re.fullmatch(pattern, name)), None)
        if reason:
            weights.skipped[name] = reason
            continue
        module, _, parameter_name = name.rpartition(".")
        layer, parameter = _match_rule(rules, module, parameter_name)
        if layer is None:
            weights.unknown.append(name)
            continue
        path = f"{layer}/{parameter.name}"
        if path in weights.arrays:
            raise UserError(f"Tensor '{name}' stands for {path}, which another tensor holds already: keep one of them.")
        weights.arrays[path] = _rearrange(name, array, parameter)
    return weights


def drop_background(weights):
    """Drop boxes and masks of the background, the first class, from `ConvertedWeights`: they are never looked at."""
    for name in ("kernel", "bias"):
        for path, values_per_class in ((f"box_head/box_deltas/{name}", 4), (f"mask_head/predictor_{name}", 1)):
            if path in weights.arrays:
                weights.arrays[path] = weights.arrays[path][..., values_per_class:]
                weights.conversions[path] = "background dropped"


def move_background_first(weights):
    """Bring the background, the last class of `ConvertedWeights`' classifier, to the front."""
    for name in ("kernel", "bias"):
        path = f"box_head/class_logits/{name}"
        if path in weights.arrays:
            weights.arrays[path] = np.roll(weights.arrays[path], 1, axis=-1)
            weights.conversions[path] = "background first"


def read_bgr(weights):
    """Turn the stem of `ConvertedWeights` to RGB, as all models of this package read it, if the file's reads BGR."""
    path = "backbone/stem/kernel"
    if path in weights.arrays and weights.facts.value("file.pixel_order") == "BGR":
        weights.arrays[path] = weights.arrays[path][:, :, ::-1]
        weights.conversions[path] = "BGR to RGB"


def order_anchors_by_size(weights):
    """Bring the RPN's outputs for a cell, all sizes of a ratio in a row, into our order: all ratios of a size.

    How many sizes there are, says the fact of the aspect ratios; three of them without.
    """
    ratios = len(weights.facts.value("model.rpn.aspect_ratios", [0.5, 1.0, 2.0]))
    for layer, values in (("objectness_logits", 1), ("anchor_deltas", 4)):
        for name in ("kernel", "bias"):
            path = f"rpn/head/{layer}/{name}"
            array = weights.arrays.get(path)
            if array is None or array.shape[-1] == ratios * values:  # one size
                continue
            if array.shape[-1] % (ratios * values):
                raise UserError(
                    f"The RPN's {array.shape[-1] // values} anchors a cell are no multiple of {ratios} aspect ratios: "
                    "state them by model.rpn.aspect_ratios."
                )
            grid = array.reshape(*array.shape[:-1], ratios, -1, values)
            weights.arrays[path] = np.swapaxes(grid, -3, -2).reshape(array.shape)
            weights.conversions[path] = "anchors by size, then ratio"


def _match_rule(rules, module, parameter_name):
    """(our layer, `Parameter`) by the first rule that fits; (None, None) if none does."""
    for rule in rules:
        match = re.fullmatch(rule.pattern, module)
        if match and parameter_name in rule.parameters:
            layer = rule.layer(match) if callable(rule.layer) else match.expand(rule.layer)
            return layer, rule.parameters[parameter_name]
    return None, None


def check_rank(name, array, rank):
    """Raise UserError unless the tensor of that name in the file has `rank` dimensions."""
    if np.ndim(array) != rank:
        raise UserError(f"Tensor '{name}' is of shape {list(np.shape(array))} and should have {rank} dimensions.")


def _rearrange(name, array, parameter):
    check_rank(name, array, parameter.rank)
    try:
        return parameter.layout(array)
    except ValueError as error:
        raise UserError(f"Tensor '{name}' of shape {list(array.shape)} doesn't fit ({error}).") from error
