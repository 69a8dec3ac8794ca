"""Ultralytics' datasets against annotations worked out by hand."""

import pytest
import yaml
from convert_samples import kinds, save_image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.dataset import ClassNames, read_names
from mrcnn_tf.datasets.convert.yolo import read_yolo

OUTLINE = "1 0.05 0.1 0.25 0.1 0.25 0.4"  # of an image of 20 x 10: (1, 1), (5, 1), (5, 4)
BOX = "0 0.5 0.5 0.2 0.4"  # centre (10, 5), 4 x 4


def save_yolo(folder, labels, settings=None, split=""):
    """Images and labels of {stem: lines}, and data.yaml."""
    for stem, lines in labels.items():
        save_image(folder / "images" / split / f"{stem}.png", 20, 10)
        if lines is not None:
            file = folder / "labels" / split / f"{stem}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if settings is not None:
        (folder / "data.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")


def test_outlines_boxes_and_backgrounds(tmp_path):
    save_yolo(tmp_path, {"a": [OUTLINE, "", BOX], "b ü": None}, {"train": "images", "names": {0: "猫", 1: "dog"}})
    dataset = read_yolo(tmp_path)
    coco = dataset.to_coco()
    assert [image["file_name"] for image in coco["images"]] == ["images/a.png", "images/b ü.png"]
    common = {"image_id": 1, "iscrowd": 0}
    assert coco["annotations"] == [
        {"id": 1, "category_id": 2, "bbox": [1, 1, 4, 3], "area": 6, "segmentation": [[1, 1, 5, 1, 5, 4]]} | common,
        {"id": 2, "category_id": 1, "bbox": [8, 3, 4, 4], "area": 16, "segmentation": []} | common,
    ]
    assert coco["categories"] == [{"id": 1, "name": "猫"}, {"id": 2, "name": "dog"}]
    assert kinds(dataset) == []


def test_lines_that_cannot_be_read(tmp_path):
    lines = [
        OUTLINE,
        "1 0.5 0.5 0.2 0.4 0.9",
        "1 0.5 0.5",
        "1 0.05 0.1 0.25 0.1 0.25 x",
        "1.5 0.5 0.5 0.2 0.4",
        "1 nan 0.5 0.2 0.4",
        "7 0.5 0.5 0.2 0.4",
        "1 10 5 4 4",
        "1 0.9 0.9 0 0",
    ]
    save_yolo(tmp_path, {"a": lines}, {"train": "images", "names": ["x", "y"]})
    (tmp_path / "labels/gone.txt").write_text(BOX)
    (tmp_path / "labels/classes.txt").write_text("x\ny\n")
    dataset = read_yolo(tmp_path)
    assert len(dataset.to_coco()["annotations"]) == 1
    expected = ["broken_line"] * 5 + ["missing_image", "not_normalised", "outside", "unknown_class"]
    assert kinds(dataset) == expected
    assert "Line 3 of" in dataset.problems[1].message and "a.txt has 3 numbers" in dataset.problems[1].message


def test_splits_are_converted_one_at_a_time(tmp_path):
    settings = {"path": "/elsewhere", "train": "images/train", "val": ["images/val"], "nc": 2, "names": ["x", "y"]}
    save_yolo(tmp_path, {"a": [OUTLINE]}, settings, "train")
    save_yolo(tmp_path, {"b": [BOX], "c": [BOX]}, None, "val")
    (tmp_path / "labels/val/lost.txt").write_text(BOX)
    with pytest.raises(UserError, match="splits train, val: convert one at a time by --split train"):
        read_yolo(tmp_path)
    with pytest.raises(UserError, match="no split 'test': it has train, val"):
        read_yolo(tmp_path, split="test")
    train, val = (read_yolo(tmp_path / "data.yaml", split=split) for split in ("train", "val"))
    assert [one["file_name"] for one in train.to_coco()["images"]] == ["images/train/a.png"]
    assert [one["file_name"] for one in val.to_coco()["images"]] == ["images/val/b.png", "images/val/c.png"]
    assert train.to_coco()["categories"] == val.to_coco()["categories"]
    assert (kinds(train), kinds(val)) == ([], ["missing_image"])


def test_roboflows_folders_and_lists_of_images(tmp_path):
    save_image(tmp_path / "train/images/a.jpg", 20, 10)
    (tmp_path / "train/labels").mkdir()
    (tmp_path / "train/labels/a.txt").write_text(OUTLINE)
    (tmp_path / "README.roboflow.txt").write_text("Provided by a Roboflow user")
    settings = {"train": "../train/images", "val": "../valid/images", "names": ["x", "y"]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(settings))
    dataset = read_yolo(tmp_path)
    assert [one["file_name"] for one in dataset.to_coco()["images"]] == ["train/images/a.jpg"]
    assert kinds(dataset) == []
    (tmp_path / "some.txt").write_text("./train/images/a.jpg\n")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(settings | {"train": "some.txt"}))
    assert read_yolo(tmp_path).to_coco() == dataset.to_coco()


def test_names_from_lists(tmp_path):
    save_yolo(tmp_path, {"a": [OUTLINE]})
    with pytest.raises(UserError, match="doesn't name its classes"):
        read_yolo(tmp_path)
    (tmp_path / "classes.txt").write_text("Zelle\nKern\n", encoding="utf-8")
    coco = read_yolo(tmp_path).to_coco()
    assert coco["annotations"][0]["category_id"] == 2
    assert coco["categories"] == [{"id": 1, "name": "Zelle"}, {"id": 2, "name": "Kern"}]
    ids = ClassNames([(50, "Kern"), (60, "Zelle")])  # as of a COCO json
    assert read_yolo(tmp_path, names=ids).to_coco()["annotations"][0]["category_id"] == 50
    (tmp_path / "other.txt").write_text("one\ntwo\n")
    assert read_yolo(tmp_path, names=read_names(tmp_path / "other.txt")).to_coco()["categories"][1]["name"] == "two"


def test_pose_datasets_keep_boxes(tmp_path):
    settings = {"train": "images", "names": ["x"], "kpt_shape": [2, 3]}
    save_yolo(tmp_path, {"a": [f"{BOX} 0.1 0.1 2 0.2 0.2 1"]}, settings)
    dataset = read_yolo(tmp_path)
    assert dataset.to_coco()["annotations"][0]["bbox"] == [8, 3, 4, 4]
    assert kinds(dataset) == ["keypoints"]


def test_other_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="is empty"):
        read_yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [a\ntrain: b: c")
    with pytest.raises(UserError, match="data.yaml isn't valid yaml .line 2."):
        read_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text("<annotation/>")
    with pytest.raises(UserError, match="try `mrcnn-tf convert voc"):
        read_yolo(tmp_path)
