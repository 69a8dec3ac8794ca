"""The architecture that a set of weights belongs to, read off the weights' names and shapes."""

import re

from mrcnn_tf.common.categories import UNUSED, Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.backbones.resnet import BLOCKS

DEPTHS = {(depth >= 50, blocks): depth for depth, blocks in BLOCKS.items()}  # (bottleneck, blocks of each stage)


def backbone_settings(arrays):
    """`BackboneConfig` values of the backbone in `arrays`: depth, groups and width_per_group, and norm if it is gn.

    Its last stage may stand in the heads, as C4 detectors have it.

    Raises:
        UserError: no ResNet of a known depth.
    """
    stages = tuple(
        len({path.split("/")[1] for path in arrays if re.match(rf"(backbone|res5)/res{s}_", path)})
        for s in (2, 3, 4, 5)
    )
    bottleneck = "backbone/res2_0/conv3/kernel" in arrays
    if (bottleneck, stages) not in DEPTHS:
        raise UserError(
            f"The backbone has {', '.join(map(str, stages))} blocks in its stages and so is no ResNet-18, 34, 50, 101 "
            "or 152: give weights of one of those."
        )
    settings = {"depth": DEPTHS[bottleneck, stages]}
    if bottleneck and "backbone/res2_0/conv2/kernel" in arrays:
        settings["width_per_group"], width = arrays["backbone/res2_0/conv2/kernel"].shape[2:]
        settings["groups"] = width // settings["width_per_group"]
    if "backbone/stem/gamma" in arrays and "backbone/stem/moving_mean" not in arrays:
        settings["norm"] = "gn"
    return settings


def detector_settings(arrays):
    """`ModelConfig` values of the detector in `arrays`, nested, as far as shapes tell them.

    What a missing layer would tell is left out: it is reported as missing later, by name.
    """
    parts = {path.split("/")[0] for path in arrays}
    features = "FPN" if "fpn" in parts else "C4" if "res5" in parts else "C5"
    settings = {
        "backbone": backbone_settings(arrays),
        "features": features,
        "rpn": {"convs": _count(arrays, "rpn/head/conv"), "channels": _outputs(arrays, "rpn/head/conv")},
        "box_head": _box_head(arrays),
        "mask_head": _mask_head(arrays) if "mask_head" in parts else None,
        "keypoint_head": _keypoint_head(arrays) if "keypoint_head" in parts else None,
        "semantic_head": _semantic_head(arrays) if "semantic_head" in parts else None,
    }
    if features == "FPN":
        settings["fpn"] = _known({"channels": _outputs(arrays, "fpn/output2")}) | {"norm": _norm(arrays, "fpn/output2")}
    return settings


def _box_head(arrays):
    sizes = {"channels": _outputs(arrays, "box_head/fc1"), "conv_channels": _outputs(arrays, "box_head/conv1")}
    counts = {"convs": _count(arrays, "box_head/conv"), "fcs": _count(arrays, "box_head/fc")}
    return counts | _known(sizes) | {"norm": _norm(arrays, "box_head/conv1")}


def _mask_head(arrays):
    deconv, classes = arrays.get("mask_head/deconv_kernel"), num_classes(arrays)
    sizes = {"channels": None if deconv is None else deconv.shape[2]}
    single = classes is not None and classes > 1 and len(arrays.get("mask_head/predictor_bias", ())) == 1
    found = {"convs": _count(arrays, "mask_head/conv"), "class_agnostic": single}
    return found | _known(sizes) | {"norm": _norm(arrays, "mask_head/conv1")}


def _keypoint_head(arrays):
    sizes = {"channels": _outputs(arrays, "keypoint_head/conv1")}
    return {"convs": _count(arrays, "keypoint_head/conv")} | _known(sizes)


def _semantic_head(arrays):
    first = "semantic_head/p2_conv1"
    return _known({"channels": _outputs(arrays, first)}) | {"norm": _norm(arrays, first)}


def _known(sizes):
    return {key: size for key, size in sizes.items() if size is not None}


def num_classes(arrays):
    """K, the foreground classes of the detector in `arrays`; None without a classifier."""
    bias = arrays.get("box_head/class_logits/bias")
    return None if bias is None else len(bias) - 1


def num_heatmaps(arrays):
    """How many keypoints the detector in `arrays` tells apart; 0 without a keypoint head."""
    return len(arrays.get("keypoint_head/score_bias", ()))


def num_stuff(arrays):
    """S, the stuff classes of the detector in `arrays`, whose first semantic class is all things; None without any."""
    bias = arrays.get("semantic_head/predictor/bias")
    return None if bias is None else len(bias) - 1


def _count(arrays, prefix):
    return sum(1 for path in arrays if re.fullmatch(rf"{prefix}\d*/kernel", path))


def _outputs(arrays, layer):
    """Output channels of a layer, or None."""
    kernel = arrays.get(f"{layer}/kernel")
    return None if kernel is None else kernel.shape[-1]


def _norm(arrays, layer):
    if f"{layer}/gamma" not in arrays:
        return None
    return "frozen_bn" if f"{layer}/moving_mean" in arrays else "gn"


# The classes, stuff and keypoints that published detectors know: COCO's.
#

def _numbered(names):
    """Categories of {first id: "name, name, ..."}, whose ids count on from the first."""
    return [Category(first + i, name) for first, row in names.items() for i, name in enumerate(row.split(", "))]


_NAMES = {
    1: "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant",
    13: "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe",
    27: "backpack, umbrella",
    31: "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, "
    "skateboard, surfboard, tennis racket, bottle",
    46: "wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, "
    "donut, cake, chair, couch, potted plant, bed",
    67: "dining table",
    70: "toilet",
    72: "tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator",
    84: "book, clock, vase, scissors, teddy bear, hair drier, toothbrush",
}

# COCO's 80 classes with their sparse ids, as detectron2 and matterport count them: without gaps.
COCO_80 = _numbered(_NAMES)

_STUFF_NAMES = {
    92: "banner, blanket",
    95: "bridge",
    100: "cardboard",
    107: "counter",
    109: "curtain",
    112: "door-stuff",
    118: "floor-wood, flower",
    122: "fruit",
    125: "gravel",
    128: "house",
    130: "light",
    133: "mirror-stuff",
    138: "net",
    141: "pillow",
    144: "platform, playingfield",
    147: "railroad, river, road",
    151: "roof",
    154: "sand, sea, shelf",
    159: "snow",
    161: "stairs",
    166: "tent",
    168: "towel",
    171: "wall-brick",
    175: "wall-stone, wall-tile, wall-wood, water-other",
    180: "window-blind, window-other",
    184: "tree-merged, fence-merged, ceiling-merged, sky-other-merged, cabinet-merged, table-merged, "
    "floor-other-merged, pavement-merged, mountain-merged, grass-merged, dirt-merged, paper-merged, food-other-merged, "
    "building-other-merged, rock-merged, wall-other-merged, rug-merged",
}

# The 53 stuff classes of COCO's panoptic task, by id.
COCO_STUFF = _numbered(_STUFF_NAMES)

_BY_ID = {category.id: category for category in COCO_80}

# Every id from 1 to 90, as torchvision counts them: its class is the id.
COCO_90 = [_BY_ID.get(id, Category(id, UNUSED)) for id in range(1, 91)]

# The one class of keypoint detectors, as in COCO's person_keypoints files.
PERSON = Category(
    1,
    "person",
    keypoints=[
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ],
    skeleton=[
        [16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10], [9, 11],
        [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7],
    ],
)  # fmt: skip


def categories_of(arrays, classes):
    """The categories of a published detector's weights, by how many there are; None where these aren't COCO's.

    Args:
        arrays: weight path -> array.
        classes: `COCO_80` or `COCO_90`, as the detector's library counts them.
    """
    if (num_classes(arrays), num_heatmaps(arrays)) == (1, len(PERSON.keypoints)):
        return [PERSON]
    return classes if (num_classes(arrays), num_heatmaps(arrays)) == (len(classes), 0) else None


def stuff_of(arrays):
    """The stuff classes of a published detector's weights, by how many there are; None where these aren't COCO's."""
    return COCO_STUFF if num_stuff(arrays) == len(COCO_STUFF) else None
