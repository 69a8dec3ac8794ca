import gzip
import json
import tarfile
import zipfile

import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.doctor import validate

LABELME = {"version": "5.0", "shapes": [], "imagePath": "a.png", "imageData": None}
VIA = {"a.png123": {"filename": "a.png", "size": 123, "regions": []}}


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "my photos é"
    folder.mkdir()
    return folder


def refused(*arguments):
    with pytest.raises(UserError) as error:
        validate(*arguments)
    sentence = str(error.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


def test_archives(place):
    with zipfile.ZipFile(place / "data.zip", "w") as file:
        file.writestr("a.json", "{}" * 1000)
    assert "unpack it" in refused(place / "data.zip", place)
    whole = (place / "data.zip").read_bytes()
    (place / "half.zip").write_bytes(whole[: len(whole) // 2])
    assert "only the beginning of a zip" in refused(place / "half.zip", place)
    (place / "a.json.gz").write_bytes(gzip.compress(b"{}"))
    assert "gzip archive" in refused(place / "a.json.gz", place)
    with tarfile.open(place / "a.tar", "w") as file:
        file.add(place / "half.zip", "x")
    assert "tar archive" in refused(place / "a.tar", place)
    (place / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert "data.zip is a zip archive" in refused(place / "a.json", place / "data.zip")


@pytest.mark.parametrize(("content", "name"), [(LABELME, "labelme"), (VIA, "via"), ({"_via_img_metadata": VIA}, "via")])
def test_other_programs_jsons(place, content, name):
    (place / "a.json").write_text(json.dumps(content))
    assert f'mrcnn-tf convert {name} "{place}/a.json" --out' in refused(place / "a.json", place)
    assert f'mrcnn-tf convert {name} "{place}" --out' in refused(place, place)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", "0 0.5 0.5 0.1 0.1", "yolo"),
        ("data.yaml", "names: [a]", "yolo"),
        ("a.xml", "<annotation><object/></annotation>", "voc"),
        ("a.xml", "<annotations><version>1.1</version></annotations>", "cvat"),
        ("a.csv", "MaskPath,ImageID,LabelName", "open-images"),
        ("a.json", '[{"id": 1, "data": {"image": "a.png"}, "annotations": []}]', "label-studio"),
    ],
)
def test_other_programs_files(place, name, content, kind):
    (place / name).write_text(content)
    assert f'mrcnn-tf convert {kind} "{place / name}" --out' in refused(place / name, place)
    assert f'mrcnn-tf convert {kind} "{place}" --out' in refused(place, place)


def test_what_is_missing_or_exchanged(place):
    good = place / "a.json"
    good.write_text('{"images": [], "annotations": [], "categories": []}')
    assert "There is no file" in refused(place / "b.json", place)
    assert "There is no folder" in refused(good, place / "c")
    assert "json first and the images after it" in refused(place, good)
    assert f"such as {good}" in refused(place, place)
    (place / "a.png").write_bytes(b"x")
    assert "is an image" in refused(place / "a.png", place)
    assert "is a file" in refused(good, place / "a.png")
    (place / "empty.json").write_text("")
    assert "is empty" in refused(place / "empty.json", place)
    (place / "cut.json").write_text('{"images": [{"id": 1')
    assert "cut off" in refused(place / "cut.json", place)
    (place / "list.json").write_text("[]")
    assert "no json object" in refused(place / "list.json", place)
    (place / "part.json").write_text('{"images": []}')
    assert 'no "annotations"' in refused(place / "part.json", place)
