"""torchvision's detectors and ResNet classifiers, whose names timm's ResNets share.

Names of both generations of detector files are read: torchvision renames the older ones on loading
(`fpn.inner_blocks.0.weight` is now `fpn.inner_blocks.0.0.weight`), the published `_coco` files still carry them.
"""

from mrcnn_tf.weights import rules
from mrcnn_tf.weights.architecture import COCO_90, backbone_settings, detector_settings, published_categories
from mrcnn_tf.weights.rules import Rule, drop_background, translate

BODY = r"(?:backbone\.body\.)?"
SKIP = {
    r".*\.num_batches_tracked": "counts training steps",
    r"(fc|classifier|head\.fc|last_linear)\.(weight|bias)": "the classifier of ImageNet's classes",
}


def _backbone_layer(match, layer):
    return f"backbone/res{int(match[1]) + 1}_{match[2]}/{layer}"


BACKBONE_RULES = [
    Rule(rf"{BODY}conv1", "backbone/stem", rules.CONV),
    Rule(rf"{BODY}bn1", "backbone/stem", rules.NORM),
    Rule(rf"{BODY}layer(\d)\.(\d+)\.conv(\d)", lambda m: _backbone_layer(m, f"conv{m[3]}"), rules.CONV),
    Rule(rf"{BODY}layer(\d)\.(\d+)\.bn(\d)", lambda m: _backbone_layer(m, f"conv{m[3]}"), rules.NORM),
    Rule(rf"{BODY}layer(\d)\.(\d+)\.downsample\.0", lambda m: _backbone_layer(m, "shortcut"), rules.CONV),
    Rule(rf"{BODY}layer(\d)\.(\d+)\.downsample\.1", lambda m: _backbone_layer(m, "shortcut"), rules.NORM),
]
FPN, ROI = r"backbone\.fpn\.", r"roi_heads\."
DETECTOR_RULES = [
    *BACKBONE_RULES,
    Rule(rf"{FPN}inner_blocks\.(\d)(\.0)?", lambda m: f"fpn/lateral{int(m[1]) + 2}", rules.CONV),
    Rule(rf"{FPN}inner_blocks\.(\d)\.1", lambda m: f"fpn/lateral{int(m[1]) + 2}", rules.NORM),
    Rule(rf"{FPN}layer_blocks\.(\d)(\.0)?", lambda m: f"fpn/output{int(m[1]) + 2}", rules.CONV),
    Rule(rf"{FPN}layer_blocks\.(\d)\.1", lambda m: f"fpn/output{int(m[1]) + 2}", rules.NORM),
    Rule(r"rpn\.head\.conv(?:\.0\.0)?", "rpn/head/conv", rules.CONV),
    Rule(r"rpn\.head\.conv\.(\d)\.0", lambda m: f"rpn/head/conv{int(m[1]) + 1}", rules.CONV),
    Rule(r"rpn\.head\.cls_logits", "rpn/head/objectness_logits", rules.CONV),
    Rule(r"rpn\.head\.bbox_pred", "rpn/head/anchor_deltas", rules.CONV),
    Rule(rf"{ROI}box_head\.fc6", "box_head/fc1", rules.POOLED),
    Rule(rf"{ROI}box_head\.fc7", "box_head/fc2", rules.LINEAR),
    Rule(rf"{ROI}box_head\.(\d)\.0", lambda m: f"box_head/conv{int(m[1]) + 1}", rules.CONV),
    Rule(rf"{ROI}box_head\.(\d)\.1", lambda m: f"box_head/conv{int(m[1]) + 1}", rules.NORM),
    Rule(rf"{ROI}box_head\.5", "box_head/fc1", rules.POOLED),  # 4: Flatten
    Rule(rf"{ROI}box_predictor\.cls_score", "box_head/class_logits", rules.LINEAR),
    Rule(rf"{ROI}box_predictor\.bbox_pred", "box_head/box_deltas", rules.LINEAR),
    Rule(rf"{ROI}mask_head\.mask_fcn(\d)", r"mask_head/conv\1", rules.CONV),
    Rule(rf"{ROI}mask_head\.(\d)\.0", lambda m: f"mask_head/conv{int(m[1]) + 1}", rules.CONV),
    Rule(rf"{ROI}mask_head\.(\d)\.1", lambda m: f"mask_head/conv{int(m[1]) + 1}", rules.NORM),
    Rule(rf"{ROI}mask_predictor\.conv5_mask", "mask_head", rules.DECONV),
    Rule(rf"{ROI}mask_predictor\.mask_fcn_logits", "mask_head", rules.PREDICTOR),
    # A ReLU is counted after each convolution.
    Rule(rf"{ROI}keypoint_head\.(\d*[02468])", lambda m: f"keypoint_head/conv{int(m[1]) // 2 + 1}", rules.CONV),
    Rule(rf"{ROI}keypoint_predictor\.kps_score_lowres", "keypoint_head", rules.SCORE),
]


def matches(tensors):
    """Whether the names are those of a torchvision detector or of a ResNet classifier."""
    return "backbone.body.conv1.weight" in tensors or ("conv1.weight" in tensors and "layer1.0.conv1.weight" in tensors)


def convert(tensors):
    """`ConvertedWeights` of tensors that `matches` accepts; class 0 is the background there too."""
    if "backbone.body.conv1.weight" not in tensors:
        return _convert_classifier(tensors)
    weights = translate(tensors, DETECTOR_RULES, SKIP)
    drop_background(weights)
    weights.settings = settings = detector_settings(weights.arrays)
    second_version = "fpn" in settings and settings["fpn"]["norm"] is not None
    # The published models of 2019 were trained with an epsilon of 0 in their frozen batch norm.
    settings["conventions"] = {"batch_norm_epsilon": 1e-5 if second_version else 0.0}
    if settings["keypoint_head"]:
        weights.config = "torchvision_keypointrcnn_resnet50_fpn"
    else:
        detector = "maskrcnn" if settings["mask_head"] else "fasterrcnn"
        weights.config = f"torchvision_{detector}_resnet50_fpn{'_v2' if second_version else ''}"
    weights.categories = published_categories(weights.arrays, COCO_90)
    return weights


def _convert_classifier(tensors):
    weights = translate(tensors, BACKBONE_RULES, SKIP)
    weights.settings = {
        "backbone": {"stride_in_1x1": False} | backbone_settings(weights.arrays),
        "pixel_std": rules.IMAGENET_STD,
        "conventions": {"batch_norm_epsilon": 1e-5},
    }
    return weights
