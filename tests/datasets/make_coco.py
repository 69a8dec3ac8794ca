"""Makes a COCO dataset of any size: a few image files that repeat under many ids, and polygons like COCO's.

`python tests/datasets/make_coco.py FOLDER --images 118000 --annotations 860000` writes FOLDER/instances.json and
FOLDER/images. With --distinct each image gets a file name of its own (a hard link).
"""

import argparse
import json
import os
import pathlib

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 2 * number + 1, "name": f"thing {number}"} for number in range(80)]  # sparse ids, as COCO's


def make_coco(folder, images, annotations, files=8, distinct=False, points=25, seed=0):
    """Writes the dataset; returns (json path, image folder)."""
    folder = pathlib.Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    sizes = [(640, 480), (480, 640), (500, 375), (640, 427)]
    for number in range(files):
        width, height = sizes[number % len(sizes)]
        pixels = rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((width, height), Image.BICUBIC).save(folder / "images" / f"{number}.jpg")
    with open(folder / "instances.json", "w") as out:
        out.write('{"info": {"description": "made up"}, "licenses": [], "images": [')
        for number in range(images):
            width, height = sizes[number % files % len(sizes)]
            name = f"{number % files}.jpg"
            if distinct:
                name = f"{number:012d}.jpg"
                if not (folder / "images" / name).exists():
                    os.link(folder / "images" / f"{number % files}.jpg", folder / "images" / name)
            record = {"license": 1, "file_name": name, "height": height, "width": width, "id": number}
            out.write((", " if number else "") + json.dumps(record))
        out.write('], "annotations": [')
        for number in range(annotations):
            image = int(rng.integers(images))
            width, height = sizes[image % files % len(sizes)]
            out.write((", " if number else "") + json.dumps(_annotation(rng, number, image, width, height, points)))
        out.write('], "categories": ' + json.dumps(CATEGORIES) + "}")
    return str(folder / "instances.json"), str(folder / "images")


def _annotation(rng, number, image, width, height, points):
    radius = rng.uniform(5, 100)
    centre = rng.uniform(0, 1, 2) * (width, height)
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(points // 2, 2 * points))))
    reach = radius * rng.uniform(0.6, 1.2, (angles.size, 1))
    outline = centre + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    outline = np.clip(outline, 0, (width, height)).round(2)
    low, high = outline.min(axis=0), outline.max(axis=0)
    return {
        "segmentation": [outline.ravel().tolist()],
        "area": float((high - low).prod()),
        "iscrowd": 0,
        "image_id": image,
        "bbox": [*low.tolist(), *(high - low).round(2).tolist()],
        "category_id": CATEGORIES[int(rng.integers(len(CATEGORIES)))]["id"],
        "id": number + 1,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=118000)
    parser.add_argument("--annotations", type=int, default=860000)
    parser.add_argument("--distinct", action="store_true")
    arguments = parser.parse_args()
    print(make_coco(arguments.folder, arguments.images, arguments.annotations, distinct=arguments.distinct))
