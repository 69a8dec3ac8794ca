"""A small dataset with nothing wrong in it, to be spoilt in one way at a time."""

import copy
import json

import numpy as np
from PIL import Image

from mrcnn_tf.datasets.doctor import validate

WIDTH, HEIGHT = 64, 48
BOXES = [(4, 6, 16, 12), (24, 5, 14, 20), (40, 26, 20, 18), (6, 28, 22, 14)]  # x, y, width, height


def outline(x, y, width, height):
    """A rectangle's polygon."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def annotation(number, image, box, **changes):
    """A sound record, then `changes`; a value of ... removes the key."""
    x, y, width, height = box
    record = {
        "id": number,
        "image_id": image,
        "category_id": 3,
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [outline(*box)],
    }
    record.update(changes)
    return {key: value for key, value in record.items() if value is not ...}


class Document:
    """The parts of a `document`, a json of COCO's."""

    @property
    def records(self):
        return self.document["images"]

    @property
    def annotations(self):
        return self.document["annotations"]

    @property
    def categories(self):
        return self.document["categories"]


class Dataset(Document):
    """Three images with four rectangles each; `document` may be changed before `write`."""

    def __init__(self, folder, name="train", seed=0):
        self.json, self.images = folder / f"{name}.json", folder / f"{name} images"
        self.images.mkdir(parents=True)
        self.document = {
            "info": {"description": "made up", "année": 2024},
            "images": [],
            "annotations": [],
            "categories": [{"id": 3, "name": "细胞", "supercategory": "thing"}],
            "own": ["kept", 1],
        }
        for number in (1, 2, 3):
            self.add_image(number, seed)
            for box in BOXES:
                record = annotation(len(self.annotations) + 1, number, box, note="mine")
                self.annotations.append(record)

    def add_image(self, number, seed=0):
        name = f"ünïcode {number}.png"
        self.records.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        picture(number, seed).save(self.images / name)

    def save_as(self, number, name, mode="RGB", **options):
        """Saves the picture of an image anew and names its file so."""
        record = self.records[number - 1]
        (self.images / record["file_name"]).unlink()
        picture(number).convert(mode).save(self.images / name, **options)
        record["file_name"] = name

    def write(self):
        self.json.write_text(json.dumps(self.document, ensure_ascii=False), encoding="utf-8")
        return str(self.json), str(self.images)

    def check(self, **options):
        return validate(*self.write(), **options)

    def copy_of_document(self):
        return copy.deepcopy(self.document)


def picture(number, seed=0):
    """An image that differs from all others: blocks of random colours."""
    blocks = np.random.default_rng([number, seed]).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def counts(report):
    """{kind: number of records} of a Report."""
    return {finding.kind: finding.count for finding in report.findings}
