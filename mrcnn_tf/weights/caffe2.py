"""Detectron's Caffe2 blobs: its FPN detectors, and the ImageNet backbones that detectron2 too starts from."""

import re

import numpy as np

from mrcnn_tf.weights import detectron2
from mrcnn_tf.weights.rules import CONV, DECONV, LINEAR, POOLED, PREDICTOR, Parameter, Rule, drop_background, translate

SKIP = {
    r"(pred|fc1000)\.[wb]": "the classifier of ImageNet's classes",
    r"(conv1|res\d_\d+_branch\d[abc]?)\.b": "zero beside batch norm",
}
BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
AFFINE = {"s": Parameter("gamma", 1), "b": Parameter("beta", 1)}


def _short(parameters):
    """The same module under Caffe2's parameter names: w and b."""
    return {"w": parameters["weight"], "b": parameters["bias"]}


def _block(match):
    return f"backbone/res{match[1]}_{match[2]}/{BRANCHES[match[3]]}"


RULES = [
    Rule(r"conv1", lambda m: "backbone/stem", _short(CONV)),
    Rule(r"(?:res_)?conv1_(?:bn|gn)", lambda m: "backbone/stem", AFFINE),
    Rule(r"res(\d)_(\d+)_branch(1|2[abc])", _block, _short(CONV)),
    Rule(r"res(\d)_(\d+)_branch(1|2[abc])_(?:bn|gn)", _block, AFFINE),
    Rule(r"fpn_inner_res(\d)_\d+_sum(?:_lateral)?", lambda m: f"fpn/lateral{m[1]}", _short(CONV)),
    Rule(r"fpn_res(\d)_\d+_sum", lambda m: f"fpn/output{m[1]}", _short(CONV)),
    Rule(r"conv_rpn_fpn2", lambda m: "rpn/head/conv", _short(CONV)),
    Rule(r"rpn_cls_logits_fpn2", lambda m: "rpn/head/objectness_logits", _short(CONV)),
    Rule(r"rpn_bbox_pred_fpn2", lambda m: "rpn/head/anchor_deltas", _short(CONV)),
    Rule(r"fc6", lambda m: "box_head/fc1", _short(POOLED)),
    Rule(r"fc7", lambda m: "box_head/fc2", _short(LINEAR)),
    Rule(r"cls_score", lambda m: "box_head/class_logits", _short(LINEAR)),
    Rule(r"bbox_pred", lambda m: "box_head/box_deltas", _short(LINEAR)),
    Rule(r"_\[mask\]_fcn(\d)", lambda m: f"mask_head/conv{m[1]}", _short(CONV)),
    Rule(r"conv5_mask", lambda m: "mask_head", _short(DECONV)),
    Rule(r"mask_fcn_logits", lambda m: "mask_head", _short(PREDICTOR)),
]


def recognise(tensors):
    """Whether the names are Caffe2's, such as res2_0_branch2a_w."""
    return "conv1_w" in tensors and "res2_0_branch2a_w" in tensors


def convert(tensors):
    """`Converted` weights of a file that `recognise` knows.

    Batch norm is a scale and a shift there, its statistics being folded into them already.
    """
    names = {re.sub(r"_([wbs])$", r".\1", name): name for name in tensors}
    found = translate({parted: tensors[name] for parted, name in names.items()}, RULES, SKIP)
    found.skipped = {names[parted]: reason for parted, reason in found.skipped.items()}
    found.unknown = [names[parted] for parted in found.unknown]
    drop_background(found)
    if "conv1_gn_s" not in tensors:
        _add_statistics(found.arrays)
    return detectron2.assemble(found)


def _add_statistics(arrays):
    """Those that leave a batch norm with its scale and shift alone; the epsilon is added to the variance again."""
    for path in [path for path in arrays if path.endswith("/gamma")]:
        ones = np.ones_like(arrays[path])
        arrays[path.replace("gamma", "moving_mean")] = np.zeros_like(ones)
        arrays[path.replace("gamma", "moving_variance")] = ones - np.float32(1e-5)
