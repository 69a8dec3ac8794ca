"""Which file a name in a json means, where no file has that name."""

import json

import pytest
from PIL import Image

from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.datasets.coco_records import parse_image
from mrcnn_tf.datasets.doctor import validate
from mrcnn_tf.datasets.image_folder import ImageFolder, locate_images
from mrcnn_tf.datasets.read_coco import load_index

ACCENT = "Z\u00fcrich.png"  # one letter; macOS takes two


def make_files(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / name, "PNG")
    return folder


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("left\\\\a.png", "left/a.png"),
        ("C:\\\\data\\\\left\\\\a.png", "left/a.png"),
        ("/somewhere/else/left/a.png", "left/a.png"),
        ("images/left/a.png", "left/a.png"),
        ("a.png", "left/a.png"),
        ("left/A.PNG", "left/a.png"),
        ("left/a.jpg", "left/a.png"),
        ("left/a", "left/a.png"),
        ("Zu\u0308rich.png", ACCENT),
        ("COCO_val2014_000000000123.jpg", "000000000123.jpg"),
        ("000000000456.jpg", "COCO_train2014_000000000456.jpg"),
        ("b.png", None),  # there are two
        ("right/b.png", "right/b.png"),
        ("train/right/b.png", "right/b.png"),
        ("gone.png", None),
        ("", None),
    ],
)
def test_names(tmp_path, name, file):
    names = ["left/a.png", "left/b.png", "right/b.png", ACCENT, "000000000123.jpg", "COCO_train2014_000000000456.jpg"]
    folder = make_files(tmp_path, names)
    found = ImageFolder(folder).find(name.replace("\\\\", "\\"))
    assert found == (file and folder / file)


def test_a_file_that_a_record_names_is_no_others(tmp_path):
    folder = make_files(tmp_path, ["a.png", "deep/c.png"])
    names = "a.jpg", "a.png", "c.png"
    records = [parse_image({"id": number, "file_name": name}) for number, name in enumerate(names)]
    locations = locate_images(records, str(folder))
    assert [locations[index].is_named for index in range(3)] == [False, True, False]
    assert locations[0].rivals == [] and locations[0].path == str(folder / "a.jpg")
    assert locations[2].path == str(folder / "deep" / "c.png") and locations[2].rivals == ["deep/c.png"]


def test_training_uses_what_validate_says_is_meant(tmp_path, capsys):
    images = make_files(tmp_path / "images", ["deep/a.png", "b.png", "c/x.png", "d/x.png"])
    records = [{"id": n, "file_name": name} for n, name in enumerate(("A.png", "b.jpeg", "x.png", "gone.png"), 1)]
    records += [{"id": 5, "coco_url": "http://images/b.png"}]
    ring = [1, 1, 6, 1, 6, 5, 1, 5]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 5, 4], "segmentation": [ring]} for n in range(1, 6)
    ]
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps({"images": records, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]})
    )
    index = load_index(DataConfig(annotations=str(path), images=str(images)))
    assert index.image_ids.tolist() == [1, 5] and index.classes.size == 2
    assert "A.png" in capsys.readouterr().err
    findings = {finding.kind: finding for finding in validate(path, images).findings}
    assert findings["misnamed_image"].count == 1 and findings["misnamed_image"].severity == "warning"
    ambiguous, gone = sorted(findings["missing_image"].problems, key=lambda problem: problem.record)[1:]
    assert "isn't there (it may be 'c/x.png' or 'd/x.png') and was skipped: correct its" in ambiguous.message
    assert "gone.png) isn't there" in gone.message
