"""The classes, stuff and keypoints that published detectors know: COCO's."""

from mrcnn_tf.common.categories import UNUSED, Category
from mrcnn_tf.weights.structure import num_classes, num_heatmaps, num_stuff


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
