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
    assert (kinds(train), kinds(val)) == (["moved_path"], ["missing_image", "moved_path"])
    assert "train in" in train.problems[0].message
    assert "is /elsewhere/images/train, which isn't there" in train.problems[0].message


def test_roboflows_folders_and_lists_of_images(tmp_path):
    save_image(tmp_path / "train/images/a.jpg", 20, 10)
    (tmp_path / "train/labels").mkdir()
    (tmp_path / "train/labels/a.txt").write_text(OUTLINE)
    (tmp_path / "README.roboflow.txt").write_text("Provided by a Roboflow user")
    settings = {"train": "../train/images", "val": "../valid/images", "names": ["x", "y"]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(settings))
    dataset = read_yolo(tmp_path)
    assert [one["file_name"] for one in dataset.to_coco()["images"]] == ["train/images/a.jpg"]
    assert kinds(dataset) == ["moved_path"]
    assert (
        "is ../valid/images, which isn't there: no folder or list of that name is here" in dataset.problems[0].message
    )
    with pytest.raises(
        UserError, match="no split 'val': it has train .val in .* is ../valid/images, which isn't there"
    ):
        read_yolo(tmp_path, split="valid")
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


def names_of(dataset):
    return [image["file_name"] for image in dataset.to_coco()["images"]]


def save_splits(folder, places):
    """Images and labels of {path of an image: class}."""
    for place, number in places.items():
        image = folder / place
        save_image(image, 20, 10)
        parts = ["labels" if part == "images" else part for part in image.parts]
        file = type(image)(*parts).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{number} 0.5 0.5 0.2 0.4\n")


LAYOUTS = {
    "ultralytics": ("images/train/a.jpg", "images/val/b.jpg", "images/test/c.jpg"),
    "roboflow": ("train/images/a.jpg", "valid/images/b.jpg", "test/images/c.jpg"),
    "coco": ("images/train2017/a.JPG", "images/val2017/b.JPG", "images/test2017/c.JPG"),
    "beside": ("training/a.png", "validation/b.png", "testing/c.png"),
    "deep": ("data/set/images_train/a.png", "data/set/images_val/b.png", "data/set/images_test/c.png"),
}
ELSEWHERE = {
    "none": None,
    "no paths": {},
    "kaggle": {"train": "/kaggle/working/x/{0}", "val": "/kaggle/working/x/{1}", "test": "/kaggle/working/x/{2}"},
    "colab": {"path": "/content/drive/MyDrive/x", "train": "{0}", "val": "{1}", "test": "{2}"},
    "windows": {"train": "C:\\Users\\me\\{0}", "val": "C:\\Users\\me\\{1}", "test": "D:\\{2}"},
    "other names": {"train": "/x/first", "val": "/x/second", "test": "/x/third"},
    "one place": {"train": "/x/images", "val": "/y/images", "test": "/z/images"},
    "all of it": {"train": ".", "val": ".", "test": "."},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_splits_never_end_in_one_json(tmp_path, layout, elsewhere):
    places = LAYOUTS[layout]
    save_splits(tmp_path, dict(zip(places, (0, 1, 0), strict=True)))
    paths = ELSEWHERE[elsewhere]
    if paths is None:
        (tmp_path / "classes.txt").write_text("x\ny\n")
    else:
        folders = [place.rsplit("/", 1)[0] for place in places]
        paths = {name: path.format(*folders) for name, path in paths.items()}
        (tmp_path / "data.yaml").write_text(yaml.safe_dump(paths | {"names": ["x", "y"]}))
    with pytest.raises(UserError, match="has the splits train, val, test: convert one at a time by --split train"):
        read_yolo(tmp_path)
    for split, place, number in zip(("train", "val", "test"), places, (1, 2, 1), strict=True):
        dataset = read_yolo(tmp_path, split=split)
        assert names_of(dataset) == [place]
        assert [one["category_id"] for one in dataset.to_coco()["annotations"]] == [number]
        assert kinds(dataset) == (["moved_path"] if paths else [])
        folders = [tmp_path / place.split("/")[0], (tmp_path / place).parent]
        endings = [text for folder in folders for text in (f": {folder} was taken.", f" were found in {folder}.")]
        assert not paths or dataset.problems[0].message.endswith(tuple(endings))
    assert names_of(read_yolo(tmp_path, split="valid")) == [places[1]]


@pytest.mark.parametrize("has_yaml", [False, True])
def test_lists_with_paths_of_another_machine(tmp_path, has_yaml):
    """As in CVAT's exports and darknet's, where no folder says the split."""
    for stem, number in {"a": 0, "b": 1, "c": 1}.items():
        save_image(tmp_path / f"obj_data/{stem}.jpg", 20, 10)
        (tmp_path / f"obj_data/{stem}.txt").write_text(f"{number} 0.5 0.5 0.2 0.4\n")
    (tmp_path / "train.txt").write_text("/home/me/data/obj_data/a.jpg\nC:\\data\\obj_data\\b.jpg\n./gone.jpg\n")
    (tmp_path / "valid.txt").write_text("data/obj_data/c.jpg\n")
    if has_yaml:
        settings = {"train": "/home/me/data/train.txt", "val": "/home/me/data/valid.txt", "names": ["x", "y"]}
        (tmp_path / "data.yaml").write_text(yaml.safe_dump(settings))
    else:
        (tmp_path / "obj.names").write_text("x\ny\n")
    with pytest.raises(UserError, match="has the splits train, val: convert one at a time by --split train"):
        read_yolo(tmp_path)
    train, val = (read_yolo(tmp_path, split=split) for split in ("train", "val"))
    assert (names_of(train), names_of(val)) == (["obj_data/a.jpg", "obj_data/b.jpg"], ["obj_data/c.jpg"])
    moved = ["moved_path"] * has_yaml
    assert (kinds(train), kinds(val)) == (["missing_image", *moved], moved)


@pytest.mark.parametrize(
    "line", ["images/{0}.jpg", "./images/{0}.jpg", "lists/../images/{0}.jpg", "{1}/images/{0}.jpg"]
)
def test_lists_with_paths_that_lead_somewhere(tmp_path, monkeypatch, line):
    save_splits(tmp_path / "set", {"images/a.jpg": 0, "images/b.jpg": 0})
    (tmp_path / "set/lists").mkdir()
    for split, stem in {"train": "a", "val": "b"}.items():
        (tmp_path / f"set/{split}.txt").write_text(line.format(stem, tmp_path / "set") + "\n")
    (tmp_path / "set/classes.txt").write_text("x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="has the splits train, val: convert"):
        read_yolo("set")
    assert names_of(read_yolo("set", split="val")) == ["images/b.jpg"]


def test_images_outside_of_the_splits(tmp_path):
    save_splits(tmp_path, {"images/a.jpg": 0, "images/test/b.jpg": 0})
    (tmp_path / "classes.txt").write_text("x\n")
    with pytest.raises(UserError, match="splits test, other, where other are images outside of them: .* --split test"):
        read_yolo(tmp_path)
    assert names_of(read_yolo(tmp_path, split="other")) == ["images/a.jpg"]
    (tmp_path / "labels/a.txt").unlink()  # now it may be a picture of a loss curve
    dataset = read_yolo(tmp_path)
    assert (names_of(dataset), kinds(dataset)) == (["images/test/b.jpg"], ["outside_splits"])


def test_a_place_for_train_and_val_is_one_set(tmp_path):
    save_yolo(tmp_path, {"a": [BOX]}, {"train": "images", "val": "images", "names": ["x"]})
    assert names_of(read_yolo(tmp_path)) == ["images/a.png"]
    settings = {"train": "/there/images", "val": "/there/images", "names": ["x"]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(settings))
    dataset = read_yolo(tmp_path)
    assert (names_of(dataset), kinds(dataset)) == (["images/a.png"], ["moved_path"] * 2)


def test_paths_of_a_set_without_splits_are_reported(tmp_path):
    """Nothing here tells train from val, so all of it is one set, and the report says so."""
    settings = {"train": "/x/images/train", "val": "/x/images/val", "names": ["x"]}
    save_yolo(tmp_path, {"a": [BOX], "b": [BOX]}, settings)
    dataset = read_yolo(tmp_path)
    assert (len(dataset.images), kinds(dataset)) == (2, ["moved_path"] * 2)
    assert "/x/images/train, which isn't there: no folder or list of that name" in dataset.problems[0].message


def test_one_of_several_folders_is_not_there(tmp_path):
    save_splits(tmp_path, {"images/train/a.jpg": 0})
    settings = {"train": ["images/train", "images/more"], "names": ["x"]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(settings))
    dataset = read_yolo(tmp_path)
    assert (names_of(dataset), kinds(dataset)) == (["images/train/a.jpg"], ["moved_path"])
    assert "is images/more, which isn't there: it was left out" in dataset.problems[0].message


def test_a_yaml_elsewhere_says_where_its_dataset_is(tmp_path, monkeypatch):
    save_splits(tmp_path / "set", {"images/train/a.jpg": 0})
    settings = {"path": "../set", "train": "images/train", "names": ["x"]}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/set.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path / "configs")
    dataset = read_yolo(tmp_path / "configs/set.yaml")
    assert (names_of(dataset), kinds(dataset)) == (["images/train/a.jpg"], [])


def test_other_yaml_files_beside_it(tmp_path):
    save_yolo(tmp_path, {"a": [BOX]}, {"task": "segment", "data": "x.yaml", "val": True})
    (tmp_path / "data.yaml").rename(tmp_path / "args.yaml")
    settings = yaml.safe_dump({"train": "images", "names": ["x"]})
    (tmp_path / "cells.yaml").write_text(settings)
    assert names_of(read_yolo(tmp_path)) == ["images/a.png"]
    (tmp_path / "other.yml").write_text(settings)
    with pytest.raises(UserError, match="several yaml files, cells.yaml, other.yml: give the one"):
        read_yolo(tmp_path)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.JPG", "labels/a.txt"),
        ("Images/a.jpg", "Labels/a.TXT"),
        ("photos/a.jpg", "labels/a.txt"),
        ("photos/a.jpg", "photos/labels/a.txt"),
        ("images/a.jpg", "images/a.txt"),
        ("images/a.jpg", "annotations/yolo/a.txt"),
        ("images/train/a.jpg", "train/labels/a.txt"),
        ("images/a.b.c.jpg", "labels/a.b.c.txt"),
        ("images/x/images/a.jpg", "images/x/labels/a.txt"),
        ("images/x/images/a.jpg", "labels/x/images/a.txt"),
    ],
)
def test_places_of_labels(tmp_path, image, label):
    save_image(tmp_path / image, 20, 10)
    (tmp_path / label).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / label).write_text(f"{BOX}\n")
    (tmp_path / label).with_name("classes.txt").write_text("x\n")
    dataset = read_yolo(tmp_path)
    assert (len(dataset.to_coco()["annotations"]), kinds(dataset)) == (1, [])


def test_labels_of_another_split_are_not_a_backgrounds(tmp_path):
    """An image of val without objects, and labels of its name in train whose image is lost."""
    save_splits(tmp_path, {"images/train/a.jpg": 0, "images/val/b.jpg": 0, "images/val/c.jpg": 0})
    (tmp_path / "labels/val/c.txt").rename(tmp_path / "labels/train/c.txt")
    (tmp_path / "classes.txt").write_text("x\n")
    train, val = (read_yolo(tmp_path, split=split) for split in ("train", "val"))
    assert (len(train.to_coco()["annotations"]), kinds(train)) == (1, ["missing_image"])
    assert (len(val.to_coco()["images"]), len(val.to_coco()["annotations"]), kinds(val)) == (2, 1, [])


def test_classes_of_the_same_name_stay_apart(tmp_path):
    """Roboflow's category 0 is the project's name, which a class may have too."""
    lines = [f"{number} 0.5 0.5 0.2 0.4" for number in (0, 1, 1, 2)]
    save_yolo(tmp_path, {"a": lines}, {"train": "images", "names": ["facade", "facade", "window"]})
    dataset = read_yolo(tmp_path)
    coco = dataset.to_coco()
    expected = [{"id": 1, "name": "facade"}, {"id": 2, "name": "facade"}, {"id": 3, "name": "window"}]
    assert coco["categories"] == expected
    assert [one["category_id"] for one in coco["annotations"]] == [1, 2, 2, 3]
    assert kinds(dataset) == ["repeated_name"]
    assert "data.yaml has the class 'facade' twice" in dataset.problems[0].message
    summary = dataset.write(tmp_path / "out.json")
    assert summary.classes == {"facade (1)": 1, "facade (2)": 2, "window": 1}
    # The ids of a json go to classes of one name in their order.
    names = ClassNames([(5, "window"), (7, "facade"), (9, "facade")])
    assert [one["category_id"] for one in read_yolo(tmp_path, names=names).to_coco()["annotations"]] == [7, 9, 9, 5]
    (tmp_path / "names.txt").write_text("a\na\na\n")
    listed = read_yolo(tmp_path, names=read_names(tmp_path / "names.txt")).to_coco()
    assert [one["category_id"] for one in listed["annotations"]] == [1, 2, 2, 3]


def test_lists_of_classes_that_differ_ask(tmp_path):
    save_yolo(tmp_path, {"a": [OUTLINE]})
    for folder in ("labels", "images"):
        (tmp_path / folder / "classes.txt").write_text("x\ny\n")
    assert len(read_yolo(tmp_path).to_coco()["annotations"]) == 1
    (tmp_path / "images/classes.txt").write_text("y\nx\n")
    with pytest.raises(UserError, match="images/classes.txt and .*labels/classes.txt list other classes: .* --names"):
        read_yolo(tmp_path)


def test_keypoints_of_pose_datasets(tmp_path):
    settings = {"train": "images", "names": ["x"], "kpt_shape": [2, 3], "flip_idx": [1, 0]}
    lines = [f"{BOX} 0.1 0.1 2 0.2 0.3 1", f"{BOX} 0 0 0 0.2 0.2 2.0", BOX]
    save_yolo(tmp_path, {"a": [*lines, f"{BOX} 0.1 0.1 2", f"{BOX} 0.1 0.1 0.7 0.2 0.2 1"]}, settings)
    dataset = read_yolo(tmp_path)
    coco = dataset.to_coco()
    assert coco["categories"][0]["keypoints"] == ["keypoint_1", "keypoint_2"]
    assert [one["bbox"] for one in coco["annotations"]] == [[8, 3, 4, 4]] * 3
    assert [one["keypoints"] for one in coco["annotations"]] == [[2, 1, 2, 4, 3, 1], [0, 0, 0, 4, 2, 2], [0] * 6]
    assert kinds(dataset) == ["broken_line"] * 2


def test_keypoints_without_visibility_and_with_names(tmp_path):
    settings = {"train": "images", "names": ["x"], "kpt_shape": [2, 2], "kpt_names": {0: ["nose", "tail"]}}
    save_yolo(tmp_path, {"a": [f"{BOX} 0.1 0.1 -1 -1"]}, settings)
    coco = read_yolo(tmp_path).to_coco()
    assert coco["categories"][0]["keypoints"] == ["nose", "tail"]
    assert coco["annotations"][0]["keypoints"] == [2, 1, 2, 0, 0, 0]
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(settings | {"kpt_shape": [3, 2]}))
    with pytest.raises(UserError, match="kpt_shape or kpt_names that can't be"):
        read_yolo(tmp_path)


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
