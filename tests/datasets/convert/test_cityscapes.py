"""Cityscapes, made up of rectangles: what a PNG of instanceIds says and what its polygons say is the same."""

import json
import shutil

import numpy as np
import pytest
from convert_samples import kinds, pixels, save_image
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.cityscapes import CLASSES, read_cityscapes
from mrcnn_tf.datasets.convert.dataset import read_names
from mrcnn_tf.datasets.convert.inputs import recognise_format

HEIGHT, WIDTH = 20, 30
# (label, first and last column and row, both within, number in instanceIds) in the order of drawing; None: not drawn.
SHAPES = [
    ("road", (0, 10, 29, 19), 7),
    ("car", (1, 1, 8, 6), 26000),
    ("license plate", (2, 5, 4, 6), None),
    ("car", (5, 4, 12, 9), 26001),  # in front of the other one
    ("cargroup", (15, 1, 20, 4), 26),
    ("cargroup", (15, 6, 20, 8), 26),
    ("person", (22, 1, 24, 8), 24000),
    ("polegroup", (23, 2, 23, 9), 18),  # a class of its own, in front of the person
    ("caravan", (26, 1, 28, 3), 29000),
    ("trailergroup", (26, 5, 28, 7), 30),
    ("bicycle", (1, 12, 6, 16), 33000),
]


def save_city(root, split="train", city="aachen", shapes=SHAPES):
    """Writes an image, instanceIds.png, polygons.json and what else lies there; gives the pixels [H, W]."""
    name, labels, objects = f"{city}_000001_000019", np.zeros([HEIGHT, WIDTH], np.uint16), []
    for label, (x1, y1, x2, y2), number in shapes:
        objects.append({"label": label, "polygon": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]})
        if number is not None:
            labels[y1 : y2 + 1, x1 : x2 + 1] = number
    objects.insert(3, {"label": "car", "polygon": [[0, 0], [29, 0], [29, 19], [0, 19]], "deleted": 1})
    save_image(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", WIDTH, HEIGHT)
    folder = root / "gtFine" / split / city
    folder.mkdir(parents=True)
    Image.fromarray(labels).save(folder / f"{name}_gtFine_instanceIds.png")
    Image.fromarray((labels % 256).astype(np.uint8)).save(folder / f"{name}_gtFine_labelIds.png")
    content = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects}
    (folder / f"{name}_gtFine_polygons.json").write_text(json.dumps(content))
    return labels


@pytest.mark.parametrize("polygons", [False, True])
def test_objects_and_groups(tmp_path, polygons):
    labels = save_city(tmp_path)
    dataset = read_cityscapes(tmp_path, polygons=polygons)
    coco = dataset.to_coco()
    file_name = "leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png"
    assert coco["images"] == [{"id": 1, "file_name": file_name, "width": WIDTH, "height": HEIGHT}]
    assert [(record["id"], record["name"]) for record in coco["categories"]] == [
        (24, "person"),
        (25, "rider"),
        (26, "car"),
        (27, "truck"),
        (28, "bus"),
        (31, "train"),
        (32, "motorcycle"),
        (33, "bicycle"),
    ]
    found = [(record["category_id"], record["iscrowd"]) for record in coco["annotations"]]
    assert found == [(26, 1), (24, 0), (26, 0), (26, 0), (33, 0)]
    for record, number in zip(coco["annotations"], (26, 24000, 26000, 26001, 33000), strict=True):
        np.testing.assert_array_equal(pixels(record, coco["images"][0]), labels == number)
    assert kinds(dataset) == ["ignored_class", "ignored_class"]
    assert any("has 29000, a caravan: the benchmark has none" in problem.message for problem in dataset.problems)


def test_splits_need_a_json_each(tmp_path):
    save_city(tmp_path)
    save_city(tmp_path, "val", "lindau")
    with pytest.raises(UserError, match="gtFine has the splits train, val: convert one at a time by --split train"):
        read_cityscapes(tmp_path)
    coco = read_cityscapes(tmp_path, split="val").to_coco()
    assert [image["file_name"].split("/")[1] for image in coco["images"]] == ["val"]
    with pytest.raises(UserError, match="has no split 'test': it has train, val"):
        read_cityscapes(tmp_path, split="test")
    (tmp_path / "leftImg8bit").rename(tmp_path / "photos")
    coco = read_cityscapes(tmp_path / "gtFine/val", tmp_path / "photos").to_coco()
    assert coco["images"][0]["file_name"] == "val/lindau/lindau_000001_000019_leftImg8bit.png"


def test_one_of_the_two_forms_is_there(tmp_path):
    save_city(tmp_path)
    folder = tmp_path / "gtFine/train/aachen"
    (folder / "aachen_000001_000019_gtFine_polygons.json").rename(tmp_path / "kept.json")
    with pytest.raises(UserError, match="has no polygons.json: leave --polygons out"):
        read_cityscapes(tmp_path, polygons=True)
    (folder / "aachen_000001_000019_gtFine_instanceIds.png").unlink()
    with pytest.raises(UserError, match="holds nothing of the kind"):
        read_cityscapes(tmp_path)
    (tmp_path / "kept.json").rename(folder / "aachen_000001_000019_gtFine_polygons.json")
    with pytest.raises(UserError, match="has no instanceIds.png: give --polygons"):
        read_cityscapes(tmp_path)
    shutil.rmtree(tmp_path / "leftImg8bit")
    dataset = read_cityscapes(tmp_path, polygons=True)
    assert kinds(dataset) == ["missing_image"]


def test_what_is_none_of_cityscapes(tmp_path):
    """A class of one's own hides what is behind it; a json of another kind and a PNG's unknown class are noted."""
    tree = ("tree", (2, 2, 7, 5), 60000)
    labels = save_city(tmp_path, shapes=[SHAPES[1], tree])
    for polygons in (False, True):
        dataset = read_cityscapes(tmp_path, polygons=polygons)
        coco = dataset.to_coco()
        assert kinds(dataset) == ["unknown_class"]
        np.testing.assert_array_equal(pixels(coco["annotations"][0], coco["images"][0]), labels == 26000)
    for text in ("[]", '{"imgWidth": 30, "imgHeight": 20, "objects": [{"label": "car", "polygon": [[1]]}]}', "{"):
        (tmp_path / "gtFine/train/aachen/aachen_000001_000019_gtFine_polygons.json").write_text(text)
        assert kinds(read_cityscapes(tmp_path, polygons=True)) == ["broken_file"]


def test_names_of_another_json(tmp_path):
    save_city(tmp_path)
    (tmp_path / "names.txt").write_text("car\nbicycle\n")
    dataset = read_cityscapes(tmp_path, names=read_names(tmp_path / "names.txt"))
    assert [record["category_id"] for record in dataset.to_coco()["annotations"]] == [1, 1, 1, 2]
    assert kinds(dataset) == ["ignored_class", "ignored_class", "unknown_class"]


def test_it_is_recognised(tmp_path):
    save_city(tmp_path)
    assert recognise_format(tmp_path) == recognise_format(tmp_path / "gtFine/train/aachen") == "cityscapes"
    assert CLASSES[26] == "car" and len(CLASSES) == 8
