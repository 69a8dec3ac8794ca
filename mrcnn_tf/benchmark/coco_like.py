"""A dataset as large as COCO's val2017 and what a detector might find in it, without any image."""

import numpy as np
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 480, 640
CATEGORIES = 80
OBJECTS = 7.3  # on average, of an image
CROWDS = 0.01  # the share of objects
NEAR = 0.7  # the share of detections near an object
CORNERS = 24  # of an outline


def coco_like(images, detections):
    """Ground truth and detections with masks, the same in each call.

    Args:
        images: how many.
        detections: of each image.

    Returns:
        (a COCO json as a dict, list of detections in COCO's result format).
    """
    generator = np.random.default_rng(0)
    annotations, results = [], []
    for image_id in range(1, images + 1):
        number = generator.poisson(OBJECTS)
        boxes, classes = _boxes(generator, number), generator.integers(1, CATEGORIES + 1, number)
        crowds = generator.random(number) < CROWDS
        for box, rle, category, crowd in zip(boxes, _masks(boxes), classes.tolist(), crowds.tolist(), strict=True):
            record = _record(image_id, category, box, rle)
            annotations.append(
                record | {"id": len(annotations) + 1, "iscrowd": int(crowd), "area": float(coco_mask.area(rle))}
            )
        found, labels = _boxes(generator, detections), generator.integers(1, CATEGORIES + 1, detections)
        near = (generator.random(detections) < NEAR) & (number > 0)
        source = generator.integers(0, max(number, 1), detections)[near]
        found[near] = boxes[source] * (1 + generator.normal(0, 0.1, (near.sum(), 4)))
        labels[near] = np.where(generator.random(near.sum()) < 0.8, classes[source], labels[near])
        scores = np.round(generator.random(detections) ** 3, 3)  # many low ones, and ties
        for box, rle, category, score in zip(found, _masks(found), labels.tolist(), scores.tolist(), strict=True):
            results.append(_record(image_id, category, box, rle) | {"score": score})
    sizes = [{"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(1, images + 1)]
    categories = [{"id": i, "name": str(i)} for i in range(1, CATEGORIES + 1)]
    return {"images": sizes, "categories": categories, "annotations": annotations}, results


def _boxes(generator, number):
    """[number, 4] x, y, width, height in the image; as many sides of each order of magnitude."""
    sides = np.exp(generator.uniform(np.log(12), np.log(400), (number, 2)))
    corners = generator.random((number, 2)) * (np.array([WIDTH, HEIGHT]) - sides)
    return np.concatenate([corners, sides], 1)


def _masks(boxes):
    """Compressed RLEs of the ellipses that fill the boxes."""
    if not len(boxes):
        return []
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    unit = np.stack([np.cos(angles), np.sin(angles)], 1) / 2 + 0.5
    outlines = boxes[:, None, :2] + unit * boxes[:, None, 2:]
    rles = coco_mask.frPyObjects(outlines.reshape(len(boxes), -1).tolist(), HEIGHT, WIDTH)
    return [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in rles]


def _record(image_id, category_id, box, rle):
    return {"image_id": image_id, "category_id": category_id, "bbox": box.tolist(), "segmentation": rle}
