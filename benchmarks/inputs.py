"""What everyone is measured on, as arrays and files that follow from their sizes alone."""

import json
import pathlib

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.cli.benchmark_measurements import training_objects

# RoIAlign alone: on the pyramid's finest level, with the paper's bins and two samples on each side of one.
ROI_STRIDE, ROI_BINS, ROI_SAMPLES = 4, 7, 2
# Ranges of the root of an RoI's area in pixels: what the pyramid's rule sends to the finest level, and everything.
ROI_SIZES = {"level": (16, 112), "spread": (16, 600)}
DETECTION_SIZES = (16, 400)  # pixels, the root of the area
# For the family. Random weights let features grow from block to block: on the pixels' own scale, as detectron2 has it,
# until no proposal is finite. So they come out near 1, and the peers have the 1000 proposals that ours always computes.
PIXEL_STD = 1000.0

JPEG_HEIGHT, JPEG_WIDTH = 480, 640  # of the input pipeline's images, pixels
JPEG_FILES, JPEG_CLASSES = 16, 3
JPEG_CORNERS = 40  # of an object's polygon

COCO_HEIGHT, COCO_WIDTH = 480, 640  # of the images whose detections are evaluated
COCO_CATEGORIES = 80
COCO_OBJECTS = 7.3  # on average, of an image
CROWD_SHARE = 0.01  # of objects
NEAR_SHARE = 0.7  # of detections: near an object
RIGHT_CLASS_SHARE = 0.8  # of these
COCO_CORNERS = 24  # of an outline


def random_features(height, width, channels):
    """A random feature map, float32 [1, H, W, C]."""
    return np.random.default_rng(1).standard_normal((1, height, width, channels), np.float32)


def mask_probabilities(count, side=28):
    """Smooth blobs as a mask head predicts them, float32 [N, side, side] in 0..1."""
    centre = np.random.default_rng(3).uniform(0.35, 0.65, (count, 2, 1, 1))
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    distance = np.hypot(y - centre[:, 0], x - centre[:, 1])
    return (1 / (1 + np.exp(20 * (distance - 0.4)))).astype(np.float32)


def make_jpeg_dataset(folder):
    """Write JPEG files and a COCO json of seven polygons on each into `folder`; returns the json's path."""
    folder, generator = pathlib.Path(folder), np.random.default_rng(0)
    images, annotations = [], []
    for image_id in range(1, JPEG_FILES + 1):
        coarse = generator.integers(0, 256, (JPEG_HEIGHT // 8, JPEG_WIDTH // 8, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((JPEG_WIDTH, JPEG_HEIGHT), Image.Resampling.BICUBIC)
        picture.save(folder / f"{image_id}.jpg")
        images.append({"id": image_id, "file_name": f"{image_id}.jpg", "height": JPEG_HEIGHT, "width": JPEG_WIDTH})
        for box, category_id in zip(*training_objects(JPEG_HEIGHT, JPEG_WIDTH, JPEG_CLASSES), strict=True):
            annotations.append(_ellipse_annotation(len(annotations) + 1, image_id, box.tolist(), int(category_id)))
    categories = [{"id": number, "name": str(number)} for number in range(1, JPEG_CLASSES + 1)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return str(path)


def _ellipse_annotation(annotation_id, image_id, box, category_id):
    """The ellipse that fills the box, as a polygon."""
    x1, y1, x2, y2 = box
    angles = np.linspace(0, 2 * np.pi, JPEG_CORNERS, endpoint=False)
    outline = np.stack([np.cos(angles) * (x2 - x1) + x1 + x2, np.sin(angles) * (y2 - y1) + y1 + y2], 1) / 2
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1) * np.pi / 4,
        "iscrowd": 0,
        "segmentation": [outline.round(2).ravel().tolist()],
    }


def coco_like_detections(images, detections):
    """Ground truth as large as COCO's val2017 and what a detector might find in it, without any image; always the same.

    Args:
        images: how many.
        detections: of each image.

    Returns:
        (a COCO json as a dict, list of detections in COCO's result format).
    """
    generator = np.random.default_rng(0)
    annotations, results = [], []
    for image_id in range(1, images + 1):
        count = generator.poisson(COCO_OBJECTS)
        boxes, classes = _random_xywh(generator, count), generator.integers(1, COCO_CATEGORIES + 1, count)
        crowds = generator.random(count) < CROWD_SHARE
        for box, rle, category, crowd in zip(
            boxes, _ellipse_rles(boxes), classes.tolist(), crowds.tolist(), strict=True
        ):
            record = _record(image_id, category, box, rle)
            annotations.append(
                record | {"id": len(annotations) + 1, "iscrowd": int(crowd), "area": float(coco_mask.area(rle))}
            )
        detected = _random_xywh(generator, detections)
        detected_classes = generator.integers(1, COCO_CATEGORIES + 1, detections)
        near = (generator.random(detections) < NEAR_SHARE) & (count > 0)
        source = generator.integers(0, max(count, 1), detections)[near]
        detected[near] = boxes[source] * (1 + generator.normal(0, 0.1, (near.sum(), 4)))
        is_right = generator.random(near.sum()) < RIGHT_CLASS_SHARE
        detected_classes[near] = np.where(is_right, classes[source], detected_classes[near])
        scores = np.round(generator.random(detections) ** 3, 3).tolist()  # many low ones, and ties
        rles = _ellipse_rles(detected)
        for box, rle, category, score in zip(detected, rles, detected_classes.tolist(), scores, strict=True):
            results.append(_record(image_id, category, box, rle) | {"score": score})
    size = {"height": COCO_HEIGHT, "width": COCO_WIDTH}
    frames = [{"id": number, "file_name": f"{number}.jpg"} | size for number in range(1, images + 1)]
    categories = [{"id": number, "name": str(number)} for number in range(1, COCO_CATEGORIES + 1)]
    return {"images": frames, "categories": categories, "annotations": annotations}, results


def _random_xywh(generator, count):
    """[N, 4] x, y, width, height in the image; as many sides of each order of magnitude."""
    sides = np.exp(generator.uniform(np.log(12), np.log(400), (count, 2)))
    corners = generator.random((count, 2)) * (np.array([COCO_WIDTH, COCO_HEIGHT]) - sides)
    return np.concatenate([corners, sides], 1)


def _ellipse_rles(boxes):
    """Compressed RLEs of the ellipses that fill the boxes x, y, width, height."""
    if not len(boxes):
        return []
    angles = np.linspace(0, 2 * np.pi, COCO_CORNERS, endpoint=False)
    unit = np.stack([np.cos(angles), np.sin(angles)], 1) / 2 + 0.5
    outlines = boxes[:, None, :2] + unit * boxes[:, None, 2:]
    rles = coco_mask.frPyObjects(outlines.reshape(len(boxes), -1).tolist(), COCO_HEIGHT, COCO_WIDTH)
    return [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in rles]


def _record(image_id, category_id, box, rle):
    return {"image_id": image_id, "category_id": category_id, "bbox": box.tolist(), "segmentation": rle}
