"""Label maps of several kinds."""

import json

import numpy as np
import pytest
from convert_samples import kinds, pixels, save_image
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.dataset import ClassNames, read_names
from mrcnn_tf.datasets.convert.label_map_folders import read_label_maps


@pytest.fixture
def folders(tmp_path):
    """Images a.jpg and deep/b.png of 12 x 8, and a folder of maps."""
    save_image(tmp_path / "images/a.jpg", 12, 8)
    save_image(tmp_path / "images/deep/b.png", 12, 8)
    (tmp_path / "maps/deep").mkdir(parents=True)
    return tmp_path


def save_map(path, values, dtype=np.uint8, size=(8, 12)):
    """A map with {value: (slice, slice)}."""
    labels = np.zeros(size, dtype)
    for value, place in values.items():
        labels[place] = value
    Image.fromarray(labels).save(path)
    return labels


def test_each_number_is_an_object(folders):
    labels = save_map(folders / "maps/a.png", {1: np.s_[1:3, 1:4], 700: np.s_[4:8, 6:9], 701: np.s_[5, 7]}, np.uint16)
    save_map(folders / "maps/deep/b_mask.png", {})
    dataset = read_label_maps(folders / "maps", folders / "images", class_name="Zelle")
    coco = dataset.to_coco()
    assert [image["file_name"] for image in coco["images"]] == ["a.jpg", "deep/b.png"]
    assert coco["categories"] == [{"id": 1, "name": "Zelle"}]
    for annotation, value in zip(coco["annotations"], (1, 700, 701), strict=True):
        assert np.array_equal(pixels(annotation, coco["images"][0]), labels == value)
    assert [annotation["bbox"] for annotation in coco["annotations"]] == [[1, 1, 3, 2], [6, 4, 3, 4], [7, 5, 1, 1]]
    assert [annotation["area"] for annotation in coco["annotations"]] == [6, 11, 1]
    assert kinds(dataset) == []


def test_numbers_of_classes_and_their_parts(folders):
    labels = save_map(
        folders / "maps/a.png", {1: np.s_[0:2, 0:2], 2: np.s_[0:2, 5:7], 9: np.s_[7, 0], 255: np.s_[7, 5]}
    )
    labels[4:6, 9:11] = 1
    Image.fromarray(labels).save(folders / "maps/a.png")
    (folders / "names.json").write_text(json.dumps({"1": "cat", "2": "dog"}))
    names = read_names(folders / "names.json", first=1)
    dataset = read_label_maps(folders / "maps", folders / "images", names, ignore=[255], split_parts=True)
    coco = dataset.to_coco()
    assert [(annotation["category_id"], annotation["bbox"]) for annotation in coco["annotations"]] == [
        (1, [0, 0, 2, 2]),
        (2, [5, 0, 2, 2]),
        (1, [9, 4, 2, 2]),
    ]
    assert kinds(dataset) == ["unknown_class", "unlabelled_image"]


def test_cityscapes(tmp_path):
    save_image(tmp_path / "leftImg8bit/train/x/x_1_leftImg8bit.png", 12, 8)
    (tmp_path / "gtFine/train/x").mkdir(parents=True)
    values = {24: np.s_[0, 0], 26000: np.s_[1:3, 1:4], 26001: np.s_[4:8, 6:9], 24000: np.s_[3, 3], 33000: np.s_[7, 1]}
    save_map(tmp_path / "gtFine/train/x/x_1_gtFine_instanceIds.png", values, np.uint16)
    save_map(tmp_path / "gtFine/train/x/x_1_gtFine_labelIds.png", {})
    names = ClassNames([(1, "person"), (2, "car")], {24: "person", 26: "car"})
    roots = tmp_path / "gtFine/train", tmp_path / "leftImg8bit/train"
    dataset = read_label_maps(*roots, names, class_divisor=1000, ending="_gtFine_instanceIds")
    coco = dataset.to_coco()
    assert [annotation["category_id"] for annotation in coco["annotations"]] == [1, 2, 2]
    assert kinds(dataset) == ["below_divisor", "missing_image", "unknown_class"]


def test_what_cannot_be_used_is_counted(folders):
    save_map(folders / "maps/a.png", {1: np.s_[0, 0]}, size=(9, 12))
    save_map(folders / "maps/lonely.png", {1: np.s_[0, 0]})
    save_map(folders / "maps/b.png", {1: np.s_[0, 0]})
    dataset = read_label_maps(folders / "maps", folders / "images", class_name="x")
    assert [image["file_name"] for image in dataset.to_coco()["images"]] == ["deep/b.png"]
    assert kinds(dataset) == ["missing_image", "other_size"]


def test_what_is_missing_is_asked_for(folders):
    with pytest.raises(UserError, match="--images FOLDER"):
        read_label_maps(folders / "maps", None)
    with pytest.raises(UserError, match="--class-name NAME, or --names FILE"):
        read_label_maps(folders / "maps", folders / "images")
    (folders / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        read_label_maps(folders / "empty", folders / "images", class_name="x")
