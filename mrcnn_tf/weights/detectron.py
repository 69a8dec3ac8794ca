"""Detectron's models: detectron2's, and the Caffe2 blobs of its predecessor, whose backbones it starts from.

Both have the same settings; only the names of their tensors and the order of classes differ.
"""

import re

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import IMAGENET_MEAN, IMAGENET_STD
from mrcnn_tf.weights import architecture, rules
from mrcnn_tf.weights.facts import Origin, same_value
from mrcnn_tf.weights.rules import Parameter, Rule, drop_background, read_bgr, translate

EPSILON = 1e-5  # of batch norm
# What detectron2's code always does; all else is a matter of a model's config.
LIBRARY = (
    "model.conventions.pad_multiple", "model.conventions.delta_limit",
    "model.resize.rule", "model.backbone.stem_pool", "model.conventions.batch_norm_epsilon",
    "model.conventions.box_width", "model.conventions.anchor_rounding", "model.conventions.anchor_stride",
    "model.conventions.min_proposal_size", "model.conventions.level_assignment", "model.roi_layer.kind",
    "model.roi_layer.aggregate", "model.conventions.min_detection_size", "model.mask_head.activation",
    "model.conventions.mask_paste", "model.conventions.keypoint_offset", "model.conventions.keypoint_score",
)  # fmt: skip

# detectron2: detectors on FPN, C4 and DC5, and bare backbones.

BODY = r"(?:backbone\.bottom_up\.|backbone\.)?"
SKIP = {
    r".*\.num_batches_tracked": "counts training steps",
    r"proposal_generator\.anchor_generator\.cell_anchors\.\d+": "told model.rpn.anchor_sizes and aspect_ratios",
    r"pixel_(mean|std)": "told model.pixel_mean and pixel_std",
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
    Rule(rf"{ROI}box_head\.fc1", "box_head/fc1", rules.LINEAR),
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


# A name in the file -> what it is a part of, which no model of this package has.
REFUSED = {
    r"roi_heads\.box_(head|predictor)\.\d\..*": "a Cascade R-CNN (ROI_HEADS.NAME: CascadeROIHeads)",
    r"(backbone\.)?(bottom_up\.)?res\d\.\d+\.conv2_offset\..*": "a backbone with deformable convolutions",
    r"roi_heads\.mask_(head\.)?(point_head|coarse_head)\..*": "a PointRend mask head",
    r"backbone\.top_block\..*": "a pyramid with P6 and P7 of their own, such as RetinaNet's",
    r"head\.(cls|bbox)_subnet\..*": "a RetinaNet",
}


def convert_detectron2(tensors, facts, metadata):
    """`ConvertedWeights` of tensors that `matches_detectron2` accepts; `facts` are known before, and added to."""
    weights = translate(tensors, DETECTOR_RULES, SKIP, facts)
    rules.move_background_first(weights)
    if metadata.get("__author__") == "torchvision":  # as tools/convert-torchvision-to-d2.py marks its files
        source = "__author__ torchvision"
        for name, value in _TORCHVISION.items():
            facts.add(name, value, Origin.AUTHOR, source)
    _add_pixel_buffers(tensors, facts)
    _add_anchor_buffers(tensors, facts)
    return _add_settings(weights)


_TORCHVISION = {
    "file.pixel_order": "RGB",
    "model.pixel_mean": list(IMAGENET_MEAN),
    "model.pixel_std": list(IMAGENET_STD),
    "model.backbone.stride_in_1x1": False,
}


def _add_pixel_buffers(tensors, facts):
    """What the buffers pixel_mean and pixel_std tell, [C, 1, 1] in the file's order of channels.

    detectron2 saved them from April 2020 to February 2021. Means of ImageNet tell the order of channels, too.
    """
    buffers = {name: np.ravel(tensors[name]) for name in ("pixel_mean", "pixel_std") if name in tensors}
    if "pixel_mean" in buffers:
        for order, mean in (("RGB", IMAGENET_MEAN), ("BGR", IMAGENET_MEAN[::-1])):
            if same_value(buffers["pixel_mean"], mean):
                facts.add("file.pixel_order", order, Origin.BUFFER, "its tensor pixel_mean")
    order = facts.value("file.pixel_order", "BGR")
    for name, values in buffers.items():
        values = values.astype(np.float64).round(5)
        values = (values[::-1] if order == "BGR" else values).tolist()
        facts.add(f"model.{name}", values, Origin.BUFFER, f"its tensor {name}")


def _add_anchor_buffers(tensors, facts):
    """What the buffers cell_anchors, [A, 4] of each map, tell; detectron2 saved them until May 2021.

    UserError if they are no anchors of sizes and aspect ratios around a cell's corner, the same ratios on each map.
    """
    names = [name for name in tensors if ".anchor_generator.cell_anchors." in name]
    maps = [np.asarray(tensors[name], np.float64) for name in sorted(names, key=lambda name: int(name.split(".")[-1]))]
    if not maps:
        return
    grids = [_anchor_grid(anchors) for anchors in maps]
    ratios = grids[0] and grids[0][1]
    if any(grid is None or not same_value(grid[1], ratios) for grid in grids):
        raise UserError(
            "Its cell_anchors aren't sizes times aspect ratios, the same ratios on each map, and no model of this "
            "package has such anchors: import other weights."
        )
    sizes = [sizes if len(sizes) > 1 else sizes[0] for sizes, _ in grids]
    source = "its tensor cell_anchors"
    facts.add("model.rpn.anchor_sizes", sizes[0] if len(sizes) == 1 else sizes, Origin.BUFFER, source)
    facts.add("model.rpn.aspect_ratios", ratios, Origin.BUFFER, source)


def _anchor_grid(anchors):
    """(sizes, aspect ratios) of a map's anchors [A, 4], in pixels and height / width; None where it is no such grid."""
    if anchors.ndim != 2 or anchors.shape[1] != 4 or not np.allclose(anchors[:, :2], -anchors[:, 2:], rtol=1e-4):
        return None
    widths, heights = anchors[:, 2] * 2, anchors[:, 3] * 2
    if (widths <= 0).any() or (heights <= 0).any():
        return None
    sizes, ratios = (np.array([_neat(v) for v in values]) for values in (np.sqrt(widths * heights), heights / widths))
    count = int(np.argmax(~np.isclose(sizes, sizes[0], rtol=1e-4))) or len(sizes)  # of ratios; those of a size in a row
    if len(sizes) % count:
        return None
    grid_sizes, grid_ratios = sizes.reshape(-1, count), ratios.reshape(-1, count)
    if not np.allclose(grid_sizes, grid_sizes[:, :1], rtol=1e-4) or not np.allclose(
        grid_ratios, grid_ratios[:1], rtol=1e-4
    ):
        return None
    return grid_sizes[:, 0].tolist(), grid_ratios[0].tolist()


def _neat(value):
    """The number of few digits that a float32 anchor was made of, such as 32.0 for 31.999998."""
    neat = round(float(value), 3)
    return neat if np.isclose(neat, value, rtol=1e-5) else float(value)


# Caffe2: detectors on FPN and C4, and the ImageNet backbones.

CAFFE2_SKIP = {
    r"(pred|fc1000)\.[wb]": "the classifier of ImageNet's classes",
    r"(conv1|res\d_\d+_branch\d[abc]?)\.b": "zero beside batch norm",
    r"kps_score\.[wb]": "fixed weights of a bilinear enlargement",
}
CAFFE2_AFFINE = {"s": Parameter("gamma"), "b": Parameter("beta")}
# In the zoo's ImageNet backbones batch norm isn't folded into its scale and shift.
CAFFE2_NORM = {
    "gamma": Parameter("gamma"),
    "beta": Parameter("beta"),
    "running_mean": Parameter("moving_mean"),
    "running_var": Parameter("moving_variance"),
}


def _caffe2(parameters):
    """The same module under Caffe2's parameter names: w and b."""
    return {"w": parameters["weight"], "b": parameters["bias"]}


def _caffe2_block(match):
    return f"backbone/res{match[1]}_{match[2]}/{rules.BRANCHES[match[3]]}"


CAFFE2_RULES = [
    Rule(r"conv1", "backbone/stem", _caffe2(rules.CONV)),
    Rule(r"(?:res_)?conv1_(?:bn|gn)", "backbone/stem", CAFFE2_AFFINE | CAFFE2_NORM),
    Rule(r"res(\d)_(\d+)_branch(1|2[abc])", _caffe2_block, _caffe2(rules.CONV)),
    Rule(r"res(\d)_(\d+)_branch(1|2[abc])_(?:bn|gn)", _caffe2_block, CAFFE2_AFFINE | CAFFE2_NORM),
    Rule(r"fpn_inner_res(\d)_\d+_sum(?:_lateral)?", r"fpn/lateral\1", _caffe2(rules.CONV)),
    Rule(r"fpn_res(\d)_\d+_sum", r"fpn/output\1", _caffe2(rules.CONV)),
    Rule(r"conv_rpn(?:_fpn2)?", "rpn/head/conv", _caffe2(rules.CONV)),
    Rule(r"rpn_cls_logits(?:_fpn2)?", "rpn/head/objectness_logits", _caffe2(rules.CONV)),
    Rule(r"rpn_bbox_pred(?:_fpn2)?", "rpn/head/anchor_deltas", _caffe2(rules.CONV)),
    Rule(r"fc6", "box_head/fc1", _caffe2(rules.LINEAR)),
    Rule(r"fc7", "box_head/fc2", _caffe2(rules.LINEAR)),
    Rule(r"cls_score", "box_head/class_logits", _caffe2(rules.LINEAR)),
    Rule(r"bbox_pred", "box_head/box_deltas", _caffe2(rules.LINEAR)),
    Rule(r"_\[mask\]_fcn(\d)", r"mask_head/conv\1", _caffe2(rules.CONV)),
    Rule(r"conv5_mask", "mask_head", _caffe2(rules.DECONV)),
    Rule(r"mask_fcn_logits", "mask_head", _caffe2(rules.PREDICTOR)),
    Rule(r"conv_fcn(\d)", r"keypoint_head/conv\1", _caffe2(rules.CONV)),
    Rule(r"kps_score_lowres", "keypoint_head", _caffe2(rules.SCORE)),
]


def matches_caffe2(tensors):
    """Whether the names are Caffe2's, such as res2_0_branch2a_w."""
    return "conv1_w" in tensors and "res2_0_branch2a_w" in tensors


def convert_caffe2(tensors, facts, metadata):
    """`ConvertedWeights` of tensors that `matches_caffe2` accepts; `facts` are known before, and added to.

    In Detectron's own files batch norm is a scale and a shift, its statistics being folded into them already.
    """
    names = {CAFFE2_PARAMETER.sub(r".\1", name): name for name in tensors}  # with a dot before the parameter
    weights = translate({dotted: tensors[name] for dotted, name in names.items()}, CAFFE2_RULES, CAFFE2_SKIP, facts)
    weights.skipped = {names[dotted]: reason for dotted, reason in weights.skipped.items()}
    weights.unknown = [names[dotted] for dotted in weights.unknown]
    drop_background(weights)
    is_folded = "conv1_gn_s" not in tensors and "res_conv1_bn_gamma" not in tensors
    if is_folded:
        _add_statistics(weights.arrays)
        # Detectron subtracts the mean and divides by nothing, whatever the backbone.
        facts.add("model.pixel_std", [1.0, 1.0, 1.0], Origin.LIBRARY, "Detectron")
    if "box_head/class_logits/kernel" in weights.arrays:
        if "box_head/fc1/kernel" not in weights.arrays:
            _move_res5(weights)
        facts.add("model.conventions.roi_aligned", False, Origin.ASSUMPTION, "Detectron's RoIAlign")
        facts.add("model.conventions.roi_sampling_ratio", 2, Origin.ASSUMPTION, "Detectron's configs")
    return _add_settings(weights)


# The end of a blob's name, after its layer's.
CAFFE2_PARAMETER = re.compile(r"_(w|b|s|gamma|beta|running_mean|running_var)$")


def _move_res5(weights):
    """For C4: res5 stands in the heads, and the RPN's outputs, aspect ratios first there, in our order: sizes first."""
    arrays = weights.arrays
    for path in [path for path in arrays if path.startswith("backbone/res5_")]:
        arrays[path.replace("backbone/", "res5/")] = arrays.pop(path)
    rules.order_anchors_by_size(weights)


def _add_statistics(arrays):
    """Add those that leave a batch norm with its scale and shift alone; epsilon is added to the variance again."""
    for path in [path for path in arrays if path.endswith("/gamma")]:
        ones = np.ones_like(arrays[path])
        arrays[path.replace("gamma", "moving_mean")] = np.zeros_like(ones)
        arrays[path.replace("gamma", "moving_variance")] = ones - np.float32(EPSILON)


def _add_settings(weights):
    """For both: add what the tensors tell and what is likely, the config and the classes; make the stem read RGB."""
    arrays, facts = weights.arrays, weights.facts
    is_detector = architecture.add_shapes(weights)
    if is_detector:
        weights.config = _config(architecture.detector_settings(arrays))
        weights.categories = architecture.published_categories(arrays, architecture.COCO_80)
    weights.stuff = architecture.published_stuff(arrays)
    is_resnext = facts.value("model.backbone.groups", 1) > 1
    like = "detectron2's models of this kind"
    # The zoo's group norm and ResNeXt models stride in the 3x3 convolution, all others in the 1x1 before it.
    stride_in_1x1 = facts.value("model.backbone.norm") != "gn" and not is_resnext
    facts.add("model.backbone.stride_in_1x1", stride_in_1x1, Origin.ASSUMPTION, like)
    facts.add("model.pixel_std", list(IMAGENET_STD) if is_resnext else [1.0, 1.0, 1.0], Origin.ASSUMPTION, like)
    facts.add("model.conventions.batch_norm_epsilon", EPSILON, Origin.LIBRARY, "detectron2")
    facts.add("file.pixel_order", "BGR", Origin.ASSUMPTION, "detectron2's default")
    read_bgr(weights)
    return weights


def _config(settings):
    """The name of the config that comes closest; the facts correct it where the weights differ."""
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
