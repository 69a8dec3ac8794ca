"""`mrcnn-tf convert with`, by the example that the documentation shows: docs/extending/csv_format.py."""

import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
from command import call
from convert_samples import save_image
from pycocotools.coco import COCO

from mrcnn_tf.config.settings import DataConfig, ResizeConfig
from mrcnn_tf.data.pipeline import coco_dataset

EXAMPLE = pathlib.Path(__file__).parents[3] / "docs" / "extending" / "csv_format.py"
LINES = """\
file,class,orientation,outline
left/a.jpg,car,0.5,12 8 40 8 40 20 12 20
left/a.jpg,tree,,50 5 60 5 60 25
b.png,car,-1.25,1 2 5 2 5 10 1 10
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """The current folder, which holds the example, a csv and its photos; its modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))
    shutil.copy(EXAMPLE, tmp_path)
    save_image(tmp_path / "photos" / "left" / "a.jpg", 64, 48)
    save_image(tmp_path / "photos" / "b.png", 20, 30)
    (tmp_path / "labels.csv").write_text(LINES)
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if pathlib.Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def convert(*arguments, reader="csv_format:read_csv", status=0):
    return call("convert", "with", reader, "labels.csv", "--out", "train.json", *arguments, status=status)


def test_the_example_by_hand():
    assert "2 images, 3 objects, 2 classes (car 2, tree 1): train.json" in convert("--images", "photos")
    coco = COCO("train.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["car", "tree"]
    images = coco.loadImgs(coco.getImgIds())
    assert [(image["file_name"], image["width"], image["height"]) for image in images] == [
        ("b.png", 20, 30),
        ("left/a.jpg", 64, 48),
    ]
    small, car, tree = coco.loadAnns(coco.getAnnIds())
    assert [one["image_id"] for one in (small, car, tree)] == [1, 2, 2]
    assert [one["category_id"] for one in (small, car, tree)] == [1, 1, 2]
    assert (small["bbox"], car["bbox"], tree["bbox"]) == ([1, 2, 4, 8], [12, 8, 28, 12], [50, 5, 10, 20])
    assert (small["area"], car["area"]) == (32, 336)
    assert (small["orientation"], car["orientation"]) == (-1.25, 0.5) and "orientation" not in tree
    mask = np.zeros([48, 64], np.uint8)
    mask[8:20, 12:40] = 1
    np.testing.assert_array_equal(coco.annToMask(car), mask)


def test_its_field_reaches_the_batch():
    convert("--images", "photos")
    config = DataConfig(
        annotations="train.json", images="photos", fields=["orientation"], max_instances=3, resize=ResizeConfig(60, 200)
    )
    first, second = coco_dataset(config, training=False)
    np.testing.assert_array_equal(first["orientation"], [[-1.25, np.nan, np.nan]])
    np.testing.assert_array_equal(second["orientation"], [[0.5, np.nan, np.nan]])


def test_names_give_the_ids_and_a_reader_gets_what_the_options_say(tmp_path):
    (tmp_path / "names.txt").write_text("tree\ncar\n")
    figures = json.loads(convert("--images", "photos", "--names", "names.txt", "--json"))
    assert figures["classes"] == {"tree": 1, "car": 2}
    (tmp_path / "own_echo.py").write_text("def read(*given): raise LookupError(given)\n")
    with pytest.raises(LookupError) as error:
        call("convert", "with", "own_echo:read", "labels.csv", "--out", "train.json", "--images", "photos")
    assert error.value.args == ((pathlib.Path("labels.csv"), pathlib.Path("photos"), None),)


def test_what_the_example_leaves_out(tmp_path):
    bad = ["gone.png,car,1,1 1 5 1 5 5", "gone.png,car,1,1 1 5 1 5 5", "b.png,car,north,1 1 5 1 5 5", "b.png,car"]
    bad += ["b.png,car,1,1 1 5 1 5 5 7", "b.png,car,1,1 1 5 1", "b.png,,1,1 1 5 1 5 5"]
    (tmp_path / "labels.csv").write_text(LINES + "\n".join(bad))
    assert "2 images, 3 objects" in convert("--images", "photos")
    problems = json.loads((tmp_path / "train.problems.json").read_text())["problems"]
    assert [problem["kind"] for problem in problems] == [
        *("missing_image", "broken_line", "too_few_points", "bad_coordinate", "too_few_points", "no_class")
    ]
    assert problems[0]["message"].startswith("labels.csv names the image gone.png, which isn't in photos and was left")
    assert problems[1]["message"].startswith("Line 7 of labels.csv can't be read (could not convert string to float")
    assert problems[3]["message"].startswith("Line 9 of labels.csv has an outline with an x without its y and was left")


def test_a_file_of_another_form(tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("x,y\n1,2\n")
    convert("--images", "photos", status=2)
    assert "labels.csv begins with the columns ['x', 'y']: make them file,class,orientation" in capsys.readouterr().err
    (tmp_path / "labels.csv").unlink()
    convert("--images", "photos", status=2)
    assert "There is no labels.csv: give the csv file with the outlines." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        ("csv_format.read_csv", "Reader 'csv_format.read_csv' isn't of the form package.module:Name: give it as"),
        ("cvs_format:read_csv", "Reader 'cvs_format:read_csv' is in no module that Python finds: there is no 'cvs_for"),
        ("csv_format:read", "csv_format.py: did you mean 'read_"),
        ("csv_format:COLUMNS", "csv_format.py is of type list: give the name of a function or class."),
        (
            "own_pairs:read",
            "Reader 'own_pairs:read' gave an object of type zip for labels.csv: let it return a mrcnn_tf",
        ),
    ],
)
def test_a_reader_that_cant_be(reader, message, capsys, tmp_path):
    (tmp_path / "own_pairs.py").write_text("def read(source, images, names): return zip()\n")
    convert(reader=reader, status=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "train.json").exists()
