"""Mapillary Vistas, made up: class * 256 + object, where class 0 has objects, too."""

import json

import numpy as np
import pytest
from convert_samples import kinds, pixels, save_image
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.inputs import recognise_format
from mrcnn_tf.datasets.convert.mapillary import read_mapillary

LABELS = [
    ("animal--bird", "Bird", True),
    ("construction--flat--road", "Road", False),
    ("human--person--individual", "Person", True),
    ("human--person--person-group", "Person Group", False),
    ("object--vehicle--car", "Car", True),
    ("object--vehicle--vehicle-group", "Vehicle Group", False),
]
PLACES = {0: np.s_[0:2, 0:2], 1: np.s_[0:2, 3:5], 512: np.s_[3:6, 0:2], 768: np.s_[3:6, 3:6], 1027: np.s_[7:9, 0:4]}


def save_vistas(root, versions=("v2.0",), splits=("training",), places=PLACES):
    """Writes the splits and configs; gives the pixels [H, W] of each map."""
    pixels = np.full([10, 12], 256, np.uint16)
    for number, place in places.items():
        pixels[place] = number
    for split in splits:
        save_image(root / split / "images/a_b.jpg", 12, 10)
        for version in versions:
            folder = root / split / version / "instances"
            folder.mkdir(parents=True)
            Image.fromarray(pixels).save(folder / "a_b.png")
    labels = [{"name": name, "readable": readable, "instances": has} for name, readable, has in LABELS]
    for version in versions:
        (root / (f"config_{version}.json" if version else "config.json")).write_text(json.dumps({"labels": labels}))
    return pixels


@pytest.mark.parametrize("version", ["v2.0", "v1.2", ""])
def test_objects_and_groups(tmp_path, version):
    labels = save_vistas(tmp_path, [version])
    dataset = read_mapillary(tmp_path)
    coco = dataset.to_coco()
    assert coco["images"] == [{"id": 1, "file_name": "training/images/a_b.jpg", "width": 12, "height": 10}]
    assert coco["categories"] == [{"id": 1, "name": "Bird"}, {"id": 3, "name": "Person"}, {"id": 5, "name": "Car"}]
    found = [(record["category_id"], record["iscrowd"]) for record in coco["annotations"]]
    assert found == [(1, 0), (1, 0), (3, 0), (3, 1), (5, 0)]
    for record, number in zip(coco["annotations"], PLACES, strict=True):
        np.testing.assert_array_equal(pixels(record, coco["images"][0]), labels == number)
    assert kinds(dataset) == []


def test_a_group_of_several_classes(tmp_path):
    save_vistas(tmp_path, places=PLACES | {1280: np.s_[7:9, 6:9]})
    dataset = read_mapillary(tmp_path)
    assert kinds(dataset) == ["group_of_classes"] and len(dataset.to_coco()["annotations"]) == 5


def test_a_split_and_a_version_are_chosen(tmp_path, monkeypatch):
    save_vistas(tmp_path, ["v1.2", "v2.0"], ["training", "validation"])
    with pytest.raises(UserError, match="has the splits training, validation: convert one at a time by"):
        read_mapillary(tmp_path)
    with pytest.raises(UserError, match="training has the versions v1.2, v2.0: name one, as --version v2.0"):
        read_mapillary(tmp_path, split="training")
    with pytest.raises(UserError, match="training has no v3: leave --version out or name one"):
        read_mapillary(tmp_path, split="training", version="v3")
    coco = read_mapillary(tmp_path, split="validation", version="v1.2").to_coco()
    assert [image["file_name"] for image in coco["images"]] == ["validation/images/a_b.jpg"]
    monkeypatch.chdir(tmp_path / "validation")
    coco = read_mapillary(".", version="v2.0").to_coco()
    assert [image["file_name"] for image in coco["images"]] == ["images/a_b.jpg"]


def test_what_is_missing(tmp_path):
    save_vistas(tmp_path)
    assert recognise_format(tmp_path) == "mapillary"
    (tmp_path / "training/images/a_b.jpg").unlink()
    assert kinds(read_mapillary(tmp_path)) == ["missing_image"]
    (tmp_path / "config_v2.0.json").write_text('{"labels": [{"name": "x"}]}')
    with pytest.raises(UserError, match="config_v2.0.json has no list of labels with name and instances"):
        read_mapillary(tmp_path)
    (tmp_path / "config_v2.0.json").unlink()
    with pytest.raises(UserError, match="There is no .*config_v2.0.json, which lists Mapillary's classes"):
        read_mapillary(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("")
    with pytest.raises(UserError, match="holds nothing of the kind"):
        read_mapillary(tmp_path / "other")
