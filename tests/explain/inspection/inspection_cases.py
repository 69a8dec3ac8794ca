"""Small ground truths and detections for tests of `mrcnn_tf.explain.inspection`: rectangles in 100 x 100 pixels."""

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.evaluation.instance_ground_truth import InstanceGroundTruth

SIZE = 100
CAT, DOG, COW = 3, 18, 90


def rle(box):
    x, y, width, height = box
    mask = np.zeros((SIZE, SIZE), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    return {"size": [SIZE, SIZE], "counts": coco_mask.encode(mask)["counts"].decode()}


def thing(box, category=CAT, image=1, crowd=0):
    """An annotation."""
    record = {"image_id": image, "category_id": category, "bbox": list(box), "iscrowd": crowd}
    return record | {"area": box[2] * box[3], "segmentation": rle(box)}


def found(box, score=0.9, category=CAT, image=1):
    """A detection."""
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score, "segmentation": rle(box)}


def ground_truth(*annotations, images=(1, 2, 3), categories=(CAT, DOG, COW)):
    return InstanceGroundTruth(
        "truth.json",
        [{"id": i, "height": SIZE, "width": SIZE} for i in images],
        [{"id": i, "name": f"class {i}"} for i in categories],
        [annotation | {"id": number} for number, annotation in enumerate(annotations, 1)],
        {},
        [],
    )


def random_case(seed, images=8, objects=6, detections=20, crowds=0.15):
    """(GroundTruth, detections) with ties of scores and overlaps, several classes in one place, and crowds."""
    generator = np.random.default_rng(seed)

    def box():
        width, height = generator.integers(5, 50, 2)
        return [*generator.integers(0, [SIZE - width, SIZE - height]).tolist(), int(width), int(height)]

    annotations, results = [], []
    for image in range(1, images + 1):
        there = []
        for _ in range(generator.integers(0, objects + 1)):
            category = int(generator.choice([CAT, DOG, COW]))
            placed = box() if not there or generator.random() < 0.7 else there[-1]["bbox"]
            there.append(thing(placed, category, image, int(generator.random() < crowds)))
        annotations += there
        for _ in range(generator.integers(0, detections + 1)):
            category, placed = int(generator.choice([CAT, DOG, COW])), box()
            if there and generator.random() < 0.8:
                source = there[generator.integers(len(there))]
                shift = generator.integers(-6, 7, 4) * (generator.random() < 0.8)
                corner = np.clip(np.array(source["bbox"][:2]) + shift[:2], 0, SIZE - 1)
                placed = [*corner.tolist(), *np.clip(source["bbox"][2:] + shift[2:], 1, SIZE - corner).tolist()]
                category = source["category_id"] if generator.random() < 0.7 else category
            results.append(found(placed, int(generator.integers(1, 8)) / 8, category, image))
    shuffled = [results[i] for i in generator.permutation(len(results))]
    return ground_truth(*annotations, images=range(1, images + 1)), shuffled
