"""torchvision's detectors and ResNet classifiers, whose names timm's ResNets share.

Names of both generations of detector files are read: torchvision renames the older ones on loading
(`fpn.inner_blocks.0.weight` is now `fpn.inner_blocks.0.0.weight`), the published `_coco` files still carry them.
"""

from mrcnn_tf.config.settings import IMAGENET_MEAN, IMAGENET_STD
from mrcnn_tf.weights import rules
from mrcnn_tf.weights.architecture import COCO_90, add_shapes, published_categories
from mrcnn_tf.weights.facts import Origin
from mrcnn_tf.weights.rules import Rule, drop_background, read_bgr, translate

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
    Rule(rf"{ROI}box_head\.fc6", "box_head/fc1", rules.LINEAR),
    Rule(rf"{ROI}box_head\.fc7", "box_head/fc2", rules.LINEAR),
    Rule(rf"{ROI}box_head\.(\d)\.0", lambda m: f"box_head/conv{int(m[1]) + 1}", rules.CONV),
    Rule(rf"{ROI}box_head\.(\d)\.1", lambda m: f"box_head/conv{int(m[1]) + 1}", rules.NORM),
    Rule(rf"{ROI}box_head\.5", "box_head/fc1", rules.LINEAR),  # 4: Flatten
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


# What torchvision's code always does; all else is a matter of how a model is made.
LIBRARY = (
    "model.conventions.pad_multiple", "model.conventions.delta_limit",
    "model.resize.rule", "model.backbone.stride_in_1x1", "model.backbone.stem_pool", "model.conventions.box_width",
    "model.conventions.anchor_rounding", "model.conventions.anchor_stride", "model.conventions.min_proposal_size",
    "model.conventions.level_assignment", "model.conventions.roi_aligned", "model.roi_layer.kind",
    "model.roi_layer.aggregate", "model.conventions.min_detection_size", "model.mask_head.activation",
    "model.conventions.mask_paste", "model.conventions.keypoint_offset", "model.conventions.keypoint_score",
    "file.fpn_fuse", "file.anchor_offset",
)  # fmt: skip
# A name in the file -> what it is a part of, which no model of this package has.
REFUSED = {
    r"head\.(classification|regression)_head\..*": "a one-stage detector such as RetinaNet, FCOS or SSD",
    r"backbone\.fpn\.extra_blocks\..*": "a pyramid with P6 and P7 of their own, such as RetinaNet's",
}


def convert(tensors, facts, metadata):
    """`ConvertedWeights` of tensors that `matches` accepts; class 0 is the background there too.

    `facts` are known before, and added to.
    """
    is_detector = "backbone.body.conv1.weight" in tensors
    weights = translate(tensors, DETECTOR_RULES if is_detector else BACKBONE_RULES, SKIP, facts)
    drop_background(weights)
    add_shapes(weights)
    facts.add("model.backbone.stride_in_1x1", False, Origin.LIBRARY, "torchvision")
    facts.add("file.pixel_order", "RGB", Origin.ASSUMPTION, "torchvision's transforms")
    facts.add("model.pixel_mean", list(IMAGENET_MEAN), Origin.ASSUMPTION, "torchvision's default")
    facts.add("model.pixel_std", list(IMAGENET_STD), Origin.ASSUMPTION, "torchvision's default")
    read_bgr(weights)
    if not is_detector:
        facts.add("model.conventions.batch_norm_epsilon", 1e-5, Origin.LIBRARY, "torchvision's classifiers")
        return weights
    rules.order_anchors_by_size(weights)
    _add_epsilon(tensors, facts)
    is_second_version = facts.value("model.fpn.norm") is not None
    if facts.value("model.keypoint_head.convs"):
        weights.config = "torchvision_keypointrcnn_resnet50_fpn"
    else:
        detector = "fasterrcnn" if facts.value("model.mask_head", "there") is None else "maskrcnn"
        weights.config = f"torchvision_{detector}_resnet50_fpn{'_v2' if is_second_version else ''}"
    weights.categories = published_categories(weights.arrays, COCO_90)
    return weights


def _add_epsilon(tensors, facts):
    """Frozen batch norm counts no steps and has the epsilon that it is made with: 0 in the models published in 2019."""
    name, counter = "model.conventions.batch_norm_epsilon", "backbone.body.bn1.num_batches_tracked"
    if counter in tensors:
        facts.add(name, 1e-5, Origin.BUFFER, f"its tensor {counter}, which trained batch norm has,")
    elif facts.value("model.fpn.norm") is not None:
        facts.add(name, 1e-5, Origin.ASSUMPTION, "torchvision's second versions")
    else:
        facts.add(name, 0.0, Origin.ASSUMPTION, "torchvision's published models")
