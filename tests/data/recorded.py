"""A dataset with everything that records have to carry, for the tests of TFRecords."""

import numpy as np
from made_up import FACE, annotation, runs_of
from PIL import Image


def varied(folder):
    """Fills a `Folder`: eight images, turned, grey, without objects; polygons, runs, crowds, keypoints."""
    folder.categories = [
        {"id": 7, "name": "face", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2]]},
        {"id": 3, "name": "Würfel"},
    ]
    folder.add_image(11, 53, 37)
    folder.add_image(12, 40, 30, name="12.jpg", quality=90)
    add_turned(folder, 13, 6)
    add_turned(folder, 14, 3)
    add_turned(folder, 15, 6, as_stored=True)
    folder.add_image(16, 64, 48, mode="L", name="grey.png")
    folder.add_image(17, 40, 30)  # without objects
    folder.add_image(18, 200, 160, name="18.jpg")
    rng = np.random.default_rng(0)
    number = 0
    for image in folder.images:
        if image["id"] == 17:
            continue
        for kind in range(3):
            number += 1
            folder.annotations.append(_object(rng, number, image, kind))
    return folder


def add_turned(folder, number, orientation, as_stored=False):
    """A JPEG whose EXIF says to turn it; described as it's seen, or as it's stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder.add_image(number, 44, 28, name=f"{number}.jpg", exif=exif, quality=92)
    if orientation >= 5 and not as_stored:
        folder.images[-1] |= {"width": 28, "height": 44}


def _object(rng, number, image, kind):
    """0: two polygons, 1: a crowd's runs, 2: a polygon with keypoints."""
    height, width = image["height"], image["width"]
    size = np.array([width, height])
    ring = (size * rng.uniform(0.05, 0.95, (7, 2))).round(2)
    other = (size * rng.uniform(0.05, 0.95, (4, 2))).round(1)
    points = np.concatenate([ring, other]) if kind == 0 else ring
    low, high = points.min(axis=0), points.max(axis=0)
    changes = {"bbox": [*low.tolist(), *(high - low).round(2).tolist()], "area": float(rng.uniform(10, 200))}
    if kind == 1:
        mask = np.zeros((height, width), bool)
        mask[5:17, 3:21] = rng.uniform(size=(12, 18)) > 0.3
        changes |= {"segmentation": {"size": [height, width], "counts": runs_of(mask).tolist()}, "iscrowd": 1}
        changes |= {"bbox": [3, 5, 18, 12], "category_id": 3}
    else:
        changes["segmentation"] = [ring.ravel().tolist()] + ([other.ravel().tolist()] if kind == 0 else [])
        changes["category_id"] = 3 if kind == 0 else 7
    if kind == 2:
        changes["keypoints"] = FACE
    return annotation(number, image["id"], **changes)
