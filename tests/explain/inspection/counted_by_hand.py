"""A dataset so small that everything about it can be counted by hand, and detections of it."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 80, 120


def rectangle(x, y, width, height):
    """The compressed RLE of a rectangle of whole pixels."""
    pixels = np.zeros([HEIGHT, WIDTH], np.uint8)
    pixels[y : y + height, x : x + width] = 1
    rle = coco_mask.encode(np.asfortranarray(pixels))
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode("ascii")}


def annotation(number, image, category, box, **more):
    x, y, width, height = box
    ring = [x, y, x + width, y, x + width, y + height, x, y + height]
    record = {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": width * height}
    return record | {"iscrowd": 0, "segmentation": [ring]} | more


def detection(image, category, box, score):
    return {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "score": score,
        "segmentation": rectangle(*box),
    }


def write_dataset(folder, names=("cat", "dog"), files=("one.png", "two with space.png", "broken.jpg")):
    """Three images, the last without a readable file; two objects, one, and one beside a crowd region."""
    images = folder / "pictures of mine"
    images.mkdir(parents=True)
    for shade, name in zip((60, 120), files, strict=False):
        Image.fromarray(np.full([HEIGHT, WIDTH, 3], shade, np.uint8)).save(images / name)
    (images / files[2]).write_bytes(b"this is no image")
    data = {
        "images": [{"id": n, "file_name": f, "width": WIDTH, "height": HEIGHT} for n, f in enumerate(files, 1)],
        "annotations": [
            annotation(1, 1, 3, [10, 10, 40, 30]),
            annotation(2, 1, 17, [60, 20, 30, 40], keypoints=[65, 25, 2, 80, 50, 1], num_keypoints=2),
            annotation(3, 2, 3, [20, 20, 30, 30]),
            annotation(4, 3, 17, [5, 5, 50, 50], keypoints=[0, 0, 0, 30, 30, 2], num_keypoints=1),
            annotation(5, 3, 17, [60, 5, 50, 70], iscrowd=1, segmentation=rectangle(60, 5, 50, 70)),
        ],
        "categories": [
            {"id": 3, "name": names[0]},
            {"id": 17, "name": names[1], "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]},
        ],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path, images


# Right, right, nothing there; wrong class, badly placed; none in the third image.
DETECTIONS = [
    detection(1, 3, [10, 10, 40, 30], 0.9),
    detection(1, 17, [60, 20, 30, 39], 0.6) | {"keypoints": [65, 25, 0.9, 80, 50, 0.9]},
    detection(1, 3, [100, 60, 10, 10], 0.3),
    detection(2, 17, [20, 20, 30, 30], 0.8) | {"keypoints": [25, 25, 0.9, 40, 40, 0.9]},
    detection(2, 3, [35, 20, 30, 30], 0.7),
]
