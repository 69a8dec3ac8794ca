"""mmdetection's Mask and Faster R-CNN, 2.x and 3.x, whose checkpoints hold the training config as text."""

import re

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import IMAGENET_MEAN, IMAGENET_STD
from mrcnn_tf.weights import architecture, rules
from mrcnn_tf.weights.facts import Origin
from mrcnn_tf.weights.mmdetection_config import read_mmdetection_text
from mrcnn_tf.weights.rules import Rule, read_bgr, translate

# What mmdetection's code always does; all else is a matter of a model's config.
LIBRARY = (
    "model.resize.rule", "model.backbone.stem_pool", "model.conventions.box_width", "model.conventions.anchor_rounding",
    "model.conventions.anchor_stride", "model.conventions.delta_limit", "model.conventions.level_assignment",
    "model.roi_layer.kind", "model.roi_layer.aggregate", "model.conventions.min_detection_size",
    "model.mask_head.activation", "model.conventions.mask_paste", "file.fpn_fuse",
)  # fmt: skip
# A name in the file -> what it is a part of, which no model of this package has.
REFUSED = {
    r"(roi_head\.)?bbox_head\.\d\..*": "a detector with several box heads such as Cascade R-CNN or HTC",
    r"bbox_head\.(?!fc_cls|fc_reg|shared_).*": "a detector without regions of interest such as RetinaNet, FCOS or DETR",
    r"roi_head\.(semantic_head|semantic_roi_extractor|point_head|grid_head|mask_iou_head|glbctx_head)\..*": (
        "a head of HTC, PointRend, Grid R-CNN, Mask Scoring R-CNN or SCNet"
    ),
    r"roi_head\.bbox_head\.(cls|reg)_(convs|fcs)\..*": "a box head with layers of their own for classes and boxes",
    r"rpn_head\.(stages|cls_convs|reg_convs|conv_loc|conv_shape)\..*": "an RPN of another kind, such as Cascade RPN",
    r"neck\.fpn_convs\.[4-9]\..*": "a pyramid with convolutions above P5 (neck.add_extra_convs)",
    r"neck\.(downsample_convs|pafpn_convs|\d)\..*": "a neck of another kind than FPN, such as PAFPN",
    r"backbone\.layer\d\.\d+\.conv2_offset\..*|backbone\.layer\d\.\d+\.conv2\.conv_offset.*": (
        "a backbone with deformable convolutions"
    ),
    r"backbone\.stem\.\d+\..*": "a ResNet with three convolutions in its stem (backbone.deep_stem)",
    r"backbone\.(patch_embed|stages|norm\d|conv2)\..*": "a backbone that is no ResNet, such as Swin or HRNet",
}
UPGRADE = (
    "It's of mmdetection 1.x, whose anchors, boxes and RoIAlign no model of this package has: upgrade it by "
    "tools/model_converters/upgrade_model_version.py of mmdetection 2.x, train it on with a config of 2.x or 3.x, and "
    "import that checkpoint."
)
SKIP = {
    r".*\.num_batches_tracked": "counts training steps",
    r"head\.(fc|layers\.\d+\.fc)\.(weight|bias)": "the classifier of ImageNet's classes",
    r"data_preprocessor\..*": "in the config",
}


def _block(match, layer):
    return f"backbone/res{int(match[1]) + 1}_{match[2]}/{layer}"


def _shared_block(match, layer):
    return f"res5/res5_{match[1]}/{layer}"


def _conv_number(match):
    return "rpn/head/conv" if match[1] == "0" else f"rpn/head/conv{int(match[1]) + 1}"


def _with_norm(pattern, layer):
    """The rules of a convolution that mmcv makes together with its norm, if it has one."""
    return [Rule(rf"{pattern}\.conv", layer, rules.CONV), Rule(rf"{pattern}\.(?:bn|gn)", layer, rules.NORM)]


BLOCK, ROI = r"backbone\.layer(\d)\.(\d+)\.", r"roi_head\."
SHARED = rf"{ROI}shared_head\.layer4\.(\d+)\."
RULES = [
    Rule(r"backbone\.conv1", "backbone/stem", rules.CONV),
    Rule(r"backbone\.(?:bn|gn)1", "backbone/stem", rules.NORM),
    Rule(rf"{BLOCK}(conv\d)", lambda m: _block(m, m[3]), rules.CONV),
    Rule(rf"{BLOCK}(?:bn|gn)(\d)", lambda m: _block(m, f"conv{m[3]}"), rules.NORM),
    Rule(rf"{BLOCK}downsample\.0", lambda m: _block(m, "shortcut"), rules.CONV),
    Rule(rf"{BLOCK}downsample\.1", lambda m: _block(m, "shortcut"), rules.NORM),
    Rule(rf"{SHARED}(conv\d)", lambda m: _shared_block(m, m[2]), rules.CONV),
    Rule(rf"{SHARED}(?:bn|gn)(\d)", lambda m: _shared_block(m, f"conv{m[2]}"), rules.NORM),
    Rule(rf"{SHARED}downsample\.0", lambda m: _shared_block(m, "shortcut"), rules.CONV),
    Rule(rf"{SHARED}downsample\.1", lambda m: _shared_block(m, "shortcut"), rules.NORM),
    *_with_norm(r"neck\.lateral_convs\.(\d)", lambda m: f"fpn/lateral{int(m[1]) + 2}"),
    *_with_norm(r"neck\.fpn_convs\.(\d)", lambda m: f"fpn/output{int(m[1]) + 2}"),
    Rule(r"rpn_head\.rpn_conv", "rpn/head/conv", rules.CONV),
    Rule(r"rpn_head\.rpn_conv\.(\d)\.conv", _conv_number, rules.CONV),
    Rule(r"rpn_head\.rpn_cls", "rpn/head/objectness_logits", rules.CONV),
    Rule(r"rpn_head\.rpn_reg", "rpn/head/anchor_deltas", rules.CONV),
    *_with_norm(rf"{ROI}bbox_head\.shared_convs\.(\d)", lambda m: f"box_head/conv{int(m[1]) + 1}"),
    Rule(rf"{ROI}bbox_head\.shared_fcs\.(\d)", lambda m: f"box_head/fc{int(m[1]) + 1}", rules.LINEAR),
    Rule(rf"{ROI}bbox_head\.fc_cls", "box_head/class_logits", rules.LINEAR),
    Rule(rf"{ROI}bbox_head\.fc_reg", "box_head/box_deltas", rules.LINEAR),
    *_with_norm(rf"{ROI}mask_head\.convs\.(\d)", lambda m: f"mask_head/conv{int(m[1]) + 1}"),
    Rule(rf"{ROI}mask_head\.upsample", "mask_head", rules.DECONV),
    Rule(rf"{ROI}mask_head\.conv_logits", "mask_head", rules.PREDICTOR),
]


def matches(tensors):
    """Whether the names are those of an mmdetection detector, or of a ResNet in one or in mmpretrain's classifiers."""
    return "backbone.layer1.0.conv1.weight" in tensors or any(
        name.startswith(("rpn_head.", "roi_head.", "bbox_head.")) for name in tensors
    )


def convert(tensors, facts, metadata):
    """`ConvertedWeights` of tensors that `matches` accepts; `facts` are known before, and added to.

    UserError for a checkpoint of 1.x, an RPN with a softmax, and a config that no model of this package can follow.
    """
    meta = metadata.get("meta") if isinstance(metadata.get("meta"), dict) else {}
    is_old = _check_version(tensors, meta, facts)
    weights = translate(tensors, RULES, SKIP, facts)
    _check_objectness(weights.arrays)
    rules.move_background_first(weights)
    is_detector = architecture.add_shapes(weights)
    # What 2.x published first was trained while 2.0 was made, and its text may be of neither.
    classes = _add_config(meta, facts) if is_detector and not is_old else None
    _add_assumptions(facts)
    read_bgr(weights)
    if is_detector:
        weights.config = _config(facts)
        _name_classes(weights, meta, classes)
        rules.order_anchors_by_size(weights)
    return weights


def _check_version(tensors, meta, facts):
    """Whether meta says that a published file is of 1.x; UserError for others, told by names without roi_head, too."""
    version = meta.get("mmdet_version")
    is_old = isinstance(version, str) and re.match(r"[01]\.", version) is not None
    if "bbox_head.fc_cls.weight" in tensors or (is_old and not _has(facts, Origin.PUBLISHED)):
        raise UserError(UPGRADE)
    return is_old


def _has(facts, origin):
    return any(fact.origin == origin for fact in facts.values())


def _check_objectness(arrays):
    logits, deltas = (arrays.get(f"rpn/head/{layer}/bias") for layer in ("objectness_logits", "anchor_deltas"))
    if logits is not None and deltas is not None and 2 * len(logits) == len(deltas):
        raise UserError(
            "Its RPN has two scores for an anchor (rpn_head.loss_cls.use_sigmoid=False), and models of this package "
            "have one: train it with use_sigmoid=True."
        )


def _add_config(meta, facts):
    """Add what the config in a checkpoint's meta says; return the names of its classes, or None."""
    key = next((key for key in ("cfg", "config") if isinstance(meta.get(key), str)), None)
    if key is None:
        return None
    try:
        config = read_mmdetection_text(meta[key], f"its meta['{key}']")
    except UserError:
        # A config that the user gives, such as a copy without what can't be represented, counts instead.
        if _has(facts, Origin.COMPANION):
            return None
        raise
    for name, value in config.settings.items():
        facts.add(name, value, Origin.EMBEDDED, config.name)
    return config.classes


def _add_assumptions(facts):
    """Add what is likely where nothing says it: as in mmdetection's own models of this kind."""
    resnext = (facts.value("model.backbone.groups"), facts.value("model.backbone.width_per_group"))
    is_gn, is_32x8d = facts.value("model.backbone.norm") == "gn", resnext == (32, 8)
    is_caffe = facts.value("model.features", "FPN") != "FPN"
    std = [1.0, 1.0, 1.0] if is_gn or is_caffe else list(IMAGENET_STD)
    assumed = {
        "file.pixel_order": "BGR" if is_gn or is_caffe or is_32x8d else "RGB",
        "model.pixel_mean": list(IMAGENET_MEAN),
        "model.pixel_std": std,
        "model.backbone.stride_in_1x1": is_caffe,
        "model.conventions.batch_norm_epsilon": 1e-5,
    }
    if facts.value("model.features") == "C5":
        assumed["model.backbone.dilated"] = True
        if "model.mask_head.convs" in facts:
            assumed["model.mask_head.pool_size"] = 14
    for name, value in assumed.items():
        facts.add(name, value, Origin.ASSUMPTION, "mmdetection's models of this kind")


def _config(facts):
    """The config that comes closest; the facts correct it where the weights differ."""
    if facts.value("model.features") != "FPN":
        return "mmdetection_mask_rcnn_r50_caffe_c4"
    has_masks = facts.value("model.mask_head", "there") is not None
    return f"mmdetection_{'mask' if has_masks else 'faster'}_rcnn_r50_fpn"


def _name_classes(weights, meta, classes):
    """Give the classes the names that meta says, or else the config; COCO's have its ids."""
    dataset = meta.get("dataset_meta") if isinstance(meta.get("dataset_meta"), dict) else {}
    weights.categories = architecture.published_categories(weights.arrays, architecture.COCO_80)
    sources = {
        "meta.dataset_meta.classes": dataset.get("classes", dataset.get("CLASSES")),
        "meta.CLASSES": meta.get("CLASSES"),
        "config": classes,
    }
    for source, names in sources.items():
        is_list = isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names)
        names = [names] if isinstance(names, str) else list(names) if is_list else []
        count = architecture.num_classes(weights.arrays)
        if names and len(names) != count:
            weights.skipped[source] = f"names {len(names)} classes of {count}"
        elif names:
            if names != [category.name for category in weights.categories or ()]:
                weights.categories = [Category(id, name) for id, name in enumerate(names, 1)]
            weights.facts.add("model.categories", names, Origin.EMBEDDED, f"its {source}")
            return
