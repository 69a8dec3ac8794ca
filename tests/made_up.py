"""Small datasets and masks for the tests of data/ and datasets/, and the fixtures that both use."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

import mrcnn_tf
from mrcnn_tf.config.settings import DataConfig, ResizeConfig

NUCLEI = pathlib.Path(mrcnn_tf.__file__).parent / "datasets" / "nuclei"
FACE = [5.0, 6.0, 2, 7.0, 8.0, 1, 0, 0, 0]  # nose visible, left eye hidden, right eye not labelled
SQUARE = [[2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]]


def runs_of(mask):
    """Run lengths of a mask down its columns."""
    line = np.r_[0, mask.flatten(order="F").astype(np.int64)]
    return np.diff(np.r_[0, np.flatnonzero(np.diff(line)), mask.size])


def annotation(number, image=1, **changes):
    """A sound annotation record, then `changes`; a value of ... removes the key."""
    record = {
        "id": number,
        "image_id": image,
        "category_id": 7,
        "bbox": [2.0, 3.0, 10.0, 10.0],
        "area": 100.0,
        "iscrowd": 0,
        "segmentation": SQUARE,
    }
    record.update(changes)
    return {key: value for key, value in record.items() if value is not ...}


class Folder:
    """A dataset being made: images of random pixels and lists of records."""

    def __init__(self, path):
        self.path = path
        self.images, self.annotations = [], []
        self.categories = [{"id": 7, "name": "cell"}, {"id": 3, "name": "dot"}]
        (path / "images").mkdir()

    def add_image(self, number, width=40, height=30, name=None, mode="RGB", **save):
        name = name or f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(self.path / "images" / name, **save)
        self.images.append({"id": number, "file_name": name, "width": width, "height": height})
        return pixels

    def config(self, **settings):
        document = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        (self.path / "a.json").write_text(json.dumps(document))
        settings = {"resize": ResizeConfig(30, 60), "mask_size": 28, "max_instances": 5, **settings}
        return DataConfig(annotations=str(self.path / "a.json"), images=str(self.path / "images"), **settings)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def faces(folder):
    """Category 7 has three keypoints and 3 two; 9 has none."""
    folder.categories = [
        {"id": 7, "name": "face", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2]]},
        {"id": 3, "name": "stick", "keypoints": ["left", "right"]},
        {"id": 9, "name": "ball"},
    ]
    return folder
