"""What the keys of a detectron2 config say of a model, in the settings of this package; what it can't be is refused."""

import re

from mrcnn_tf.weights.foreign_yaml import NotPlain
from mrcnn_tf.weights.presets import categories_of

# The settings' values where detectron2 has a name for them.
BACKBONE_NORMS = {
    **{"FrozenBN": "frozen_bn", "BN": "bn", "GN": "gn"},
    **dict.fromkeys(("SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N"), "sync_bn"),
}
# A head's batch norm is as good as frozen where it detects.
HEAD_NORMS = {"": None, None: None} | {
    name: "gn" if norm == "gn" else "frozen_bn" for name, norm in BACKBONE_NORMS.items()
}
POOLERS = {"ROIAlignV2": ("align", True), "ROIAlign": ("align", False), "ROIPool": ("pool", None)}
STAGES, PYRAMID = ["res2", "res3", "res4", "res5"], ["p2", "p3", "p4", "p5", "p6"]
_COCO = r"coco_20(14|17)_(train|val|minival|valminusminival|val_100)"
# The names that detectron2 gives to data -> what `presets.categories_of` calls its classes.
DATA = {
    rf"{_COCO}(_panoptic(_separated)?)?|lvis_v0\.5_(train|val)_cocofied": "coco80",
    rf"keypoints_{_COCO}": "person",
    r"lvis_v0\.5_(train|val|val_rand_100)": "lvis05",
    r"lvis_v1_(train|val)": "lvis1",
    r"cityscapes_fine_instance_seg_(train|val)": "cityscapes",
    r"voc_20(07|12)_(trainval|train|val|test)": "voc",
}
# Remedies.
_STANDARD = "give weights of a model with StandardROIHeads on a pyramid or res5, or with Res5ROIHeads on res4"
_RESNET = "give weights of a model with detectron2's ResNet, such as build_resnet_fpn_backbone"
_ALIKE = "give weights of a model whose heads pool alike"


def settings_of(keys):
    """Name of a setting -> value, of the model that `Keys` describe; UserError for what no model of ours can be."""
    keys.expect(
        "MODEL.META_ARCHITECTURE", ("GeneralizedRCNN", "PanopticFPN"),
        ", which no model of this package is: give weights of a GeneralizedRCNN or PanopticFPN",
    )  # fmt: skip
    features = _features(keys)
    settings = {"features": features, **_pixels(keys), **_backbone(keys, features), **_rpn(keys, features)}
    settings |= _box_head(keys, features) | _mask_head(keys, features) | _keypoint_head(keys) | _semantic_head(keys)
    return {name if name.startswith("file.") else f"model.{name}": value for name, value in settings.items()}


def classes_of(keys):
    """The names of the K foreground classes, where the config trains on one of detectron2's own sets; else None."""
    names, count = keys["DATASETS.TRAIN"], keys.whole("MODEL.ROI_HEADS.NUM_CLASSES")
    names = [names] if isinstance(names, str) else names
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        return None
    data = next((data for pattern, data in DATA.items() if all(re.fullmatch(pattern, name) for name in names)), None)
    categories = categories_of(data) if data else []
    return [category.name for category in categories] if len(categories) == count else None


def _features(keys):
    """FPN, C4 or C5, whose maps the heads then must read."""
    keys.expect(
        "MODEL.BACKBONE.NAME",
        ("build_resnet_backbone", "build_resnet_fpn_backbone"),
        f", which no model of this package has: {_RESNET}",
    )
    keys.expect(
        "MODEL.ROI_HEADS.NAME",
        ("StandardROIHeads", "Res5ROIHeads"),
        f", whose heads no model of this package has: {_STANDARD}",
    )
    if keys["MODEL.BACKBONE.NAME"] == "build_resnet_fpn_backbone":
        features, rpn, heads = "FPN", PYRAMID, PYRAMID[:4]
        keys.expect("MODEL.ROI_HEADS.NAME", ("StandardROIHeads",), f" on a pyramid: {_STANDARD}")
        keys.expect(
            "MODEL.FPN.IN_FEATURES", (STAGES,), f", and a pyramid of this package is built on {STAGES}: {_STANDARD}"
        )
    else:
        features = "C4" if keys["MODEL.ROI_HEADS.NAME"] == "Res5ROIHeads" else "C5"
        rpn = heads = ["res4"] if features == "C4" else ["res5"]
    for key, maps in (("MODEL.RPN.IN_FEATURES", rpn), ("MODEL.ROI_HEADS.IN_FEATURES", heads)):
        keys.expect(key, (maps,), f", and in a model of this package {maps} are read: {_STANDARD}")
    return features


def _pixels(keys):
    keys.expect(
        "INPUT.FORMAT", ("BGR", "RGB"), ", and a model of this package reads RGB or BGR: give weights of such a model"
    )
    mean, std = keys.numbers("MODEL.PIXEL_MEAN", 3), keys.numbers("MODEL.PIXEL_STD", 3)
    if min(std) <= 0:
        keys.refuse("MODEL.PIXEL_STD", ", and pixels are divided by it: correct it")
    order = keys["INPUT.FORMAT"]
    step = -1 if order == "BGR" else 1
    if keys["INPUT.MIN_SIZE_TEST"] == 0:
        keys.refuse(
            "INPUT.MIN_SIZE_TEST",
            ", no resizing, and a model of this package resizes: set it to your images' shorter side",
        )
    return {
        "file.pixel_order": order,
        "pixel_mean": mean[::step],
        "pixel_std": std[::step],
        "resize.min_size": keys.whole("INPUT.MIN_SIZE_TEST", 1),
        "resize.max_size": keys.whole("INPUT.MAX_SIZE_TEST", 1),
    }


def _norm(keys, key, norms):
    keys.expect(
        key, norms, ", a normalisation that no model of this package has: give weights of a model with BN or GN"
    )
    return norms[keys[key]]


def _head_norm(keys, head, key):
    """A function that makes it, as lazy configs may have, isn't read: the tensors tell batch norm from group norm."""
    return {} if isinstance(keys[key], NotPlain) else {f"{head}.norm": _norm(keys, key, HEAD_NORMS)}


def _backbone(keys, features):
    keys.expect(
        "MODEL.RESNETS.DEPTH",
        (18, 34, 50, 101, 152),
        f", a ResNet that this package doesn't have: {_RESNET} of depth 50",
    )
    depth = keys.whole("MODEL.RESNETS.DEPTH")
    for key, only in (("STEM_OUT_CHANNELS", 64), ("RES2_OUT_CHANNELS", 256 if depth >= 50 else 64)):
        keys.expect(f"MODEL.RESNETS.{key}", (only,), f", and in this package it is {only}: {_RESNET} of that width")
    deformed = keys["MODEL.RESNETS.DEFORM_ON_PER_STAGE"]
    if not isinstance(deformed, list) or any(deformed):
        keys.refuse(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE",
            ", and no model of this package has deformable convolutions: give weights of a model without them",
        )
    keys.expect("MODEL.RESNETS.RES5_DILATION", (1, 2), f", and in this package it is 1 or 2: {_RESNET} of 1")
    settings = {
        "backbone.depth": depth,
        "backbone.norm": _norm(keys, "MODEL.RESNETS.NORM", BACKBONE_NORMS),
        "backbone.groups": keys.whole("MODEL.RESNETS.NUM_GROUPS", 1),
        "backbone.width_per_group": keys.whole("MODEL.RESNETS.WIDTH_PER_GROUP", 1),
        "backbone.dilated": features == "C5" and keys["MODEL.RESNETS.RES5_DILATION"] == 2,
    }
    if depth >= 50:  # a basic block has no 1x1 convolution
        settings["backbone.stride_in_1x1"] = keys.flag("MODEL.RESNETS.STRIDE_IN_1X1")
    else:  # and neither groups nor a width of its own
        settings |= {"backbone.groups": 1, "backbone.width_per_group": 64}
    if features != "FPN":
        return settings
    keys.expect(
        "MODEL.FPN.FUSE_TYPE",
        ("sum",),
        ", and a pyramid of this package adds its levels up: give weights of a model with sum",
    )
    return settings | {
        "fpn.channels": keys.whole("MODEL.FPN.OUT_CHANNELS", 1),
        "fpn.norm": _norm(keys, "MODEL.FPN.NORM", HEAD_NORMS),
        "file.fpn_fuse": "sum",
    }


def _rpn(keys, features):
    for key, only in (
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RPN"),
        ("MODEL.RPN.HEAD_NAME", "StandardRPNHead"),
        ("MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerator"),
    ):
        keys.expect(key, (only,), f", which no model of this package has: give weights of a model with {only}")
    if keys.number("MODEL.ANCHOR_GENERATOR.OFFSET") != 0:
        keys.refuse(
            "MODEL.ANCHOR_GENERATOR.OFFSET",
            ", and anchors of this package stand on the corners of a map's cells: give weights of a model with 0.0",
        )
    convs = keys.numbers("MODEL.RPN.CONV_DIMS")
    bottleneck = 4 if keys["MODEL.RESNETS.DEPTH"] >= 50 else 1
    inputs = {"C4": 256 * bottleneck, "C5": 512 * bottleneck}.get(features, int(keys["MODEL.FPN.OUT_CHANNELS"]))
    channels = {inputs if size == -1 else int(size) for size in convs}
    if len(channels) != 1:
        keys.refuse(
            "MODEL.RPN.CONV_DIMS", ", and in this package all have as many channels: give weights of a model with [-1]"
        )
    return {
        "rpn.anchor_sizes": _anchor_sizes(keys, features),
        "rpn.aspect_ratios": _aspect_ratios(keys, features),
        "file.anchor_offset": 0.0,
        "rpn.convs": len(convs),
        "rpn.channels": channels.pop(),
        "rpn.nms_iou": keys.number("MODEL.RPN.NMS_THRESH"),
        "rpn.pre_nms_test": keys.whole("MODEL.RPN.PRE_NMS_TOPK_TEST", 1),
        "rpn.post_nms_test": keys.whole("MODEL.RPN.POST_NMS_TOPK_TEST", 1),
        "rpn.delta_weights": keys.numbers("MODEL.RPN.BBOX_REG_WEIGHTS", 4),
        "conventions.min_proposal_size": float(keys.number("MODEL.PROPOSAL_GENERATOR.MIN_SIZE")),
    }


def _per_map(keys, key, features):
    """A list for each of P2 to P6, or for the only map."""
    maps, lists = 5 if features == "FPN" else 1, keys.lists(key)
    lists = lists * maps if len(lists) == 1 else lists
    if len(lists) != maps:
        keys.refuse(key, f", and there are {maps} maps: give one list for each, or one for all")
    return lists


def _anchor_sizes(keys, features):
    key = "MODEL.ANCHOR_GENERATOR.SIZES"
    lists = _per_map(keys, key, features)
    if len({len(sizes) for sizes in lists}) > 1:
        keys.refuse(key, ", and one head can't read all maps: give each as many sizes")
    if features != "FPN":
        return lists[0]
    return [sizes[0] for sizes in lists] if len(lists[0]) == 1 else lists


def _aspect_ratios(keys, features):
    key = "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"
    lists = _per_map(keys, key, features)
    if any(ratios != lists[0] for ratios in lists):
        keys.refuse(
            key, ", and in this package all maps have the same ratios: give weights of a model with such anchors"
        )
    return lists[0]


def _box_head(keys, features):
    box = "MODEL.ROI_BOX_HEAD."
    if keys[f"{box}USE_SIGMOID_CE"] is not False:
        keys.refuse(
            f"{box}USE_SIGMOID_CE",
            ", and a classifier of this package is a softmax: give weights of a model without it",
        )
    keys.expect(
        f"{box}POOLER_TYPE",
        POOLERS,
        f", which no model of this package has: give weights of one with {' or '.join(POOLERS)}",
    )
    kind, aligned = POOLERS[keys[f"{box}POOLER_TYPE"]]
    settings = {
        "roi_layer.kind": kind,
        "roi_layer.aggregate": "max" if kind == "pool" else "average",
        "conventions.roi_sampling_ratio": keys.whole(f"{box}POOLER_SAMPLING_RATIO"),
        "box_head.pool_size": keys.whole(f"{box}POOLER_RESOLUTION", 1),
        "box_head.class_agnostic": keys.flag(f"{box}CLS_AGNOSTIC_BBOX_REG"),
        "box_head.delta_weights": keys.numbers(f"{box}BBOX_REG_WEIGHTS", 4),
        "detections.score_threshold": keys.number("MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
        "detections.nms_iou": keys.number("MODEL.ROI_HEADS.NMS_THRESH_TEST"),
        "detections.max_per_image": keys.whole("TEST.DETECTIONS_PER_IMAGE", 1),
    }
    if aligned is not None:
        settings["conventions.roi_aligned"] = aligned
    if features == "C4":
        keys.expect(
            f"{box}POOLER_RESOLUTION", (14,), ", and res5 takes 14 bins a side here: give weights of a model with 14"
        )
        return settings | {"box_head.convs": 0, "box_head.fcs": 0}
    keys.expect(
        f"{box}NAME",
        ("FastRCNNConvFCHead",),
        ", which no model of this package has: give weights with FastRCNNConvFCHead",
    )
    convs, fcs = keys.whole(f"{box}NUM_CONV"), keys.whole(f"{box}NUM_FC")
    if not fcs:
        keys.refuse(
            f"{box}NUM_FC", ", and a box head of this package ends in such layers: give weights of a model with some"
        )
    settings |= {"box_head.convs": convs, "box_head.fcs": fcs, "box_head.channels": keys.whole(f"{box}FC_DIM", 1)}
    if convs:
        settings["box_head.conv_channels"] = keys.whole(f"{box}CONV_DIM", 1)
        settings |= _head_norm(keys, "box_head", f"{box}NORM")
    return settings


def _check_pooler(keys, head):
    """Refuse a head that pools otherwise than the box head: here they share one setting."""
    for part, setting in (("POOLER_TYPE", "roi_aligned"), ("POOLER_SAMPLING_RATIO", "roi_sampling_ratio")):
        key, box_key = f"{head}{part}", f"MODEL.ROI_BOX_HEAD.{part}"
        rest = f", and {keys.says(box_key)}, where all heads share model.conventions.{setting}: {_ALIKE}"
        keys.expect(key, (keys[box_key],), rest)


def _mask_head(keys, features):
    if not keys.flag("MODEL.MASK_ON"):
        return {"mask_head": None}
    mask = "MODEL.ROI_MASK_HEAD."
    keys.expect(
        f"{mask}NAME", ("MaskRCNNConvUpsampleHead",),
        ", which no model of this package has: give weights of a model with MaskRCNNConvUpsampleHead",
    )  # fmt: skip
    if features != "C4":  # whose masks are made of the box head's bins
        _check_pooler(keys, mask)
    convs = keys.whole(f"{mask}NUM_CONV")
    settings = {
        "mask_head.pool_size": 7 if features == "C4" else keys.whole(f"{mask}POOLER_RESOLUTION", 1),
        "mask_head.convs": convs,
        "mask_head.channels": keys.whole(f"{mask}CONV_DIM", 1),
        "mask_head.class_agnostic": keys.flag(f"{mask}CLS_AGNOSTIC_MASK"),
    }
    return settings | (_head_norm(keys, "mask_head", f"{mask}NORM") if convs else {})


def _keypoint_head(keys):
    if not keys.flag("MODEL.KEYPOINT_ON"):
        return {"keypoint_head": None}
    head = "MODEL.ROI_KEYPOINT_HEAD."
    keys.expect(
        "MODEL.ROI_HEADS.NAME",
        ("StandardROIHeads",),
        f", which has no keypoints, and MODEL.KEYPOINT_ON is true: {_STANDARD}",
    )
    keys.expect(
        f"{head}NAME", ("KRCNNConvDeconvUpsampleHead",),
        ", which no model of this package has: give weights of a model with KRCNNConvDeconvUpsampleHead",
    )  # fmt: skip
    _check_pooler(keys, head)
    channels = keys.numbers(f"{head}CONV_DIMS")
    if len(set(channels)) != 1:
        keys.refuse(
            f"{head}CONV_DIMS",
            ", and in this package all have as many channels: give weights of a model with such a head",
        )
    return {
        "keypoint_head.pool_size": keys.whole(f"{head}POOLER_RESOLUTION", 1),
        "keypoint_head.convs": len(channels),
        "keypoint_head.channels": int(channels[0]),
    }


def _semantic_head(keys):
    if keys["MODEL.META_ARCHITECTURE"] != "PanopticFPN":
        return {"semantic_head": None}
    head, combine = "MODEL.SEM_SEG_HEAD.", "MODEL.PANOPTIC_FPN.COMBINE."
    keys.expect(
        f"{head}NAME",
        ("SemSegFPNHead",),
        ", which no model of this package has: give weights of a model with SemSegFPNHead",
    )
    keys.expect(
        f"{head}IN_FEATURES", (PYRAMID[:4],), f", and in a model of this package {PYRAMID[:4]} are read: {_STANDARD}"
    )
    keys.expect(f"{head}COMMON_STRIDE", (4,), ", and in this package it is 4: give weights of a model with 4")
    return {
        "semantic_head.channels": keys.whole(f"{head}CONVS_DIM", 1),
        "semantic_head.norm": _norm(keys, f"{head}NORM", HEAD_NORMS),
        "panoptic.score_threshold": keys.number(f"{combine}INSTANCES_CONFIDENCE_THRESH"),
        "panoptic.overlap": keys.number(f"{combine}OVERLAP_THRESH"),
        "panoptic.stuff_area": keys.whole(f"{combine}STUFF_AREA_LIMIT"),
    }
