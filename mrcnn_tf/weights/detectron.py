"""Detectron's models: detectron2's zoo, and the Caffe2 blobs of its predecessor, whose backbones it starts from.

Both train on BGR pixels and have the same settings; only the names of their tensors and the order of classes differ.
"""

import re

import numpy as np

from mrcnn_tf.weights import architecture, rules
from mrcnn_tf.weights.rules import Parameter, Rule, drop_background, translate

EPSILON = 1e-5  # of batch norm

# detectron2: detectors on FPN, C4 and DC5, and bare backbones.

BODY = r"(?:backbone\.bottom_up\.|backbone\.)?"
SKIP = {
    r".*\.num_batches_tracked": "counts training steps",
    r"proposal_generator\.anchor_generator\.cell_anchors\.\d+": "anchors follow from the config",
    r"pixel_(mean|std)": "in the config",
    r"(stem\.|linear\.|fc\.)?(fc|linear)\.(weight|bias)": "the classifier of ImageNet's classes",
}


def _semantic_conv(match):
    return f"semantic_head/p{match[1]}_conv{int(match[2]) // 2 + 1}"  # every other module doubles the map


BACKBONE_RULES = [
    Rule(rf"{BODY}stem\.conv1", "backbone/stem", rules.CONV),
    Rule(rf"{BODY}stem\.conv1\.norm", "backbone/stem", rules.NORM),
    Rule(rf"{BODY}res(\d)\.(\d+)\.(conv\d|shortcut)", r"backbone/res\1_\2/\3", rules.CONV),
    Rule(rf"{BODY}res(\d)\.(\d+)\.(conv\d|shortcut)\.norm", r"backbone/res\1_\2/\3", rules.NORM),
]
RPN, ROI = r"proposal_generator\.rpn_head\.", r"roi_heads\."
DETECTOR_RULES = [
    *BACKBONE_RULES,
    Rule(r"backbone\.fpn_(lateral|output)(\d)", r"fpn/\1\2", rules.CONV),
    Rule(r"backbone\.fpn_(lateral|output)(\d)\.norm", r"fpn/\1\2", rules.NORM),
    Rule(rf"{RPN}conv(\.conv0)?", "rpn/head/conv", rules.CONV),
    Rule(rf"{RPN}conv\.conv(\d)", lambda m: f"rpn/head/conv{int(m[1]) + 1}", rules.CONV),
    Rule(rf"{RPN}(objectness_logits|anchor_deltas)", r"rpn/head/\1", rules.CONV),
    Rule(rf"{ROI}res5\.(\d+)\.(conv\d|shortcut)", r"res5/res5_\1/\2", rules.CONV),
    Rule(rf"{ROI}res5\.(\d+)\.(conv\d|shortcut)\.norm", r"res5/res5_\1/\2", rules.NORM),
    Rule(rf"{ROI}box_head\.fc1", "box_head/fc1", rules.POOLED),
    Rule(rf"{ROI}box_head\.fc(\d)", r"box_head/fc\1", rules.LINEAR),
    Rule(rf"{ROI}box_head\.conv(\d)", r"box_head/conv\1", rules.CONV),
    Rule(rf"{ROI}box_head\.conv(\d)\.norm", r"box_head/conv\1", rules.NORM),
    Rule(rf"{ROI}box_predictor\.cls_score", "box_head/class_logits", rules.LINEAR),
    Rule(rf"{ROI}box_predictor\.bbox_pred", "box_head/box_deltas", rules.LINEAR),
    Rule(rf"{ROI}mask_head\.mask_fcn(\d)", r"mask_head/conv\1", rules.CONV),
    Rule(rf"{ROI}mask_head\.mask_fcn(\d)\.norm", r"mask_head/conv\1", rules.NORM),
    Rule(rf"{ROI}mask_head\.deconv", "mask_head", rules.DECONV),
    Rule(rf"{ROI}mask_head\.predictor", "mask_head", rules.PREDICTOR),
    Rule(rf"{ROI}keypoint_head\.conv_fcn(\d)", r"keypoint_head/conv\1", rules.CONV),
    Rule(rf"{ROI}keypoint_head\.score_lowres", "keypoint_head", rules.SCORE),
    Rule(r"sem_seg_head\.p(\d)\.(\d+)", _semantic_conv, rules.CONV),
    Rule(r"sem_seg_head\.p(\d)\.(\d+)\.norm", _semantic_conv, rules.NORM),
    Rule(r"sem_seg_head\.predictor", "semantic_head/predictor", rules.CONV),
]


def matches_detectron2(tensors):
    """Whether the names are those of a detectron2 detector or backbone."""
    return any(f"{prefix}stem.conv1.weight" in tensors for prefix in ("", "backbone.bottom_up.", "backbone."))


def convert_detectron2(tensors):
    """`ConvertedWeights` of tensors that `matches_detectron2` accepts."""
    weights = translate(tensors, DETECTOR_RULES, SKIP)
    for path in ("box_head/class_logits/kernel", "box_head/class_logits/bias"):
        if path in weights.arrays:
            weights.arrays[path] = np.roll(weights.arrays[path], 1, axis=-1)
            weights.conversions[path] = "background first"
    return _add_settings(weights)


# Caffe2: detectors on FPN, and the ImageNet backbones.

CAFFE2_SKIP = {
    r"(pred|fc1000)\.[wb]": "the classifier of ImageNet's classes",
    r"(conv1|res\d_\d+_branch\d[abc]?)\.b": "zero beside batch norm",
}
CAFFE2_AFFINE = {"s": Parameter("gamma"), "b": Parameter("beta")}


def _caffe2(parameters):
    """The same module under Caffe2's parameter names: w and b."""
    return {"w": parameters["weight"], "b": parameters["bias"]}


def _caffe2_block(match):
    return f"backbone/res{match[1]}_{match[2]}/{rules.BRANCHES[match[3]]}"


CAFFE2_RULES = [
    Rule(r"conv1", "backbone/stem", _caffe2(rules.CONV)),
    Rule(r"(?:res_)?conv1_(?:bn|gn)", "backbone/stem", CAFFE2_AFFINE),
    Rule(r"res(\d)_(\d+)_branch(1|2[abc])", _caffe2_block, _caffe2(rules.CONV)),
    Rule(r"res(\d)_(\d+)_branch(1|2[abc])_(?:bn|gn)", _caffe2_block, CAFFE2_AFFINE),
    Rule(r"fpn_inner_res(\d)_\d+_sum(?:_lateral)?", r"fpn/lateral\1", _caffe2(rules.CONV)),
    Rule(r"fpn_res(\d)_\d+_sum", r"fpn/output\1", _caffe2(rules.CONV)),
    Rule(r"conv_rpn_fpn2", "rpn/head/conv", _caffe2(rules.CONV)),
    Rule(r"rpn_cls_logits_fpn2", "rpn/head/objectness_logits", _caffe2(rules.CONV)),
    Rule(r"rpn_bbox_pred_fpn2", "rpn/head/anchor_deltas", _caffe2(rules.CONV)),
    Rule(r"fc6", "box_head/fc1", _caffe2(rules.POOLED)),
    Rule(r"fc7", "box_head/fc2", _caffe2(rules.LINEAR)),
    Rule(r"cls_score", "box_head/class_logits", _caffe2(rules.LINEAR)),
    Rule(r"bbox_pred", "box_head/box_deltas", _caffe2(rules.LINEAR)),
    Rule(r"_\[mask\]_fcn(\d)", r"mask_head/conv\1", _caffe2(rules.CONV)),
    Rule(r"conv5_mask", "mask_head", _caffe2(rules.DECONV)),
    Rule(r"mask_fcn_logits", "mask_head", _caffe2(rules.PREDICTOR)),
]


def matches_caffe2(tensors):
    """Whether the names are Caffe2's, such as res2_0_branch2a_w."""
    return "conv1_w" in tensors and "res2_0_branch2a_w" in tensors


def convert_caffe2(tensors):
    """`ConvertedWeights` of tensors that `matches_caffe2` accepts.

    Batch norm is a scale and a shift there, its statistics being folded into them already.
    """
    names = {re.sub(r"_([wbs])$", r".\1", name): name for name in tensors}  # with a dot before the parameter
    weights = translate({dotted: tensors[name] for dotted, name in names.items()}, CAFFE2_RULES, CAFFE2_SKIP)
    weights.skipped = {names[dotted]: reason for dotted, reason in weights.skipped.items()}
    weights.unknown = [names[dotted] for dotted in weights.unknown]
    drop_background(weights)
    if "conv1_gn_s" not in tensors:
        _add_statistics(weights.arrays)
    return _add_settings(weights)


def _add_statistics(arrays):
    """Add those that leave a batch norm with its scale and shift alone; epsilon is added to the variance again."""
    for path in [path for path in arrays if path.endswith("/gamma")]:
        ones = np.ones_like(arrays[path])
        arrays[path.replace("gamma", "moving_mean")] = np.zeros_like(ones)
        arrays[path.replace("gamma", "moving_variance")] = ones - np.float32(EPSILON)


def _add_settings(weights):
    """For both: turn a stem that reads BGR into one that reads RGB, and fill in settings, config and classes."""
    arrays = weights.arrays
    if "backbone/stem/kernel" in arrays:
        arrays["backbone/stem/kernel"] = arrays["backbone/stem/kernel"][:, :, ::-1]
        weights.conversions["backbone/stem/kernel"] = "BGR to RGB"
    if "fpn/output2/kernel" not in arrays and "box_head/class_logits/kernel" not in arrays:
        weights.settings = settings = {"backbone": architecture.backbone_settings(arrays)}
    else:
        weights.settings = settings = architecture.detector_settings(arrays)
        weights.config = _config(settings)
        weights.categories = architecture.published_categories(arrays, architecture.COCO_80)
    weights.stuff = architecture.published_stuff(arrays)
    backbone = settings["backbone"]
    resnext = backbone.get("groups", 1) > 1
    # The zoo's group norm and ResNeXt models stride in the 3x3 convolution, all others in the 1x1 before it.
    backbone["stride_in_1x1"] = backbone.get("norm") != "gn" and not resnext
    settings["pixel_std"] = rules.IMAGENET_STD if resnext else [1.0, 1.0, 1.0]
    settings["conventions"] = {"batch_norm_epsilon": EPSILON}
    return weights


def _config(settings):
    """The name of the config that comes closest; `settings` correct it where the weights differ."""
    heads = {"keypoint": settings["keypoint_head"], "mask": settings["mask_head"]}
    detector = next((name for name, head in heads.items() if head), "faster")
    body = "R_101" if settings["backbone"]["depth"] == 101 else "R_50"
    if settings["semantic_head"]:
        return f"detectron2_panoptic_fpn_{body}"
    # The zoo's C5 is dilated, which no shape shows.
    features = {"C4": "C4", "C5": "DC5"}.get(settings["features"], "FPN")
    if settings["backbone"].get("groups", 1) > 1:
        body, features = "X_101_32x8d", "FPN"
    return f"detectron2_{detector}_rcnn_{body}_{'FPN' if detector == 'keypoint' else features}"
