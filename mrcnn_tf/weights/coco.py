"""The classes that published detectors know: COCO's."""

from mrcnn_tf.categories import UNUSED, Category

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
COCO_80 = [Category(first + i, name) for first, names in _NAMES.items() for i, name in enumerate(names.split(", "))]

_BY_ID = {category.id: category for category in COCO_80}

# Every id from 1 to 90, as torchvision counts them: its class is the id.
COCO_90 = [_BY_ID.get(id, Category(id, UNUSED)) for id in range(1, 91)]
