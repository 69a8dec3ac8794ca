"""`mrcnn-tf convert` as a user runs it."""

import base64
import json
import subprocess
import sys
import zipfile

import pytest
from convert_samples import labelme_shape, save_coco, save_image, save_labelme
from PIL import Image

from mrcnn_tf import cli
from mrcnn_tf.cli.convert import convert_app
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets import convert
from mrcnn_tf.datasets.convert.dataset import read_names
from mrcnn_tf.datasets.convert.inputs import recognise_format


@pytest.fixture
def run(monkeypatch, capsys):
    """A function of arguments that runs the command: (exit status, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mrcnn-tf", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def labelled(tmp_path):
    folder = tmp_path / "meine bilder"
    for stem, label in (("a", "猫"), ("b", "Hund")):
        save_image(folder / f"{stem}.png", 20, 10)
        shapes = [labelme_shape("polygon", [[1, 1], [5, 1], [5, 4]], label), labelme_shape("point", [[1, 1]])]
        save_labelme(folder / f"{stem}.json", shapes, f"{stem}.png", 20, 10)
    return folder


def test_a_newcomers_first_conversion(run, labelled, tmp_path):
    out = tmp_path / "train.json"
    status, said, problems = run("labelme", labelled, "--out", out)
    assert status == 0
    assert f"2 images, 2 objects, 2 classes (猫 1, Hund 1): {out}" in said
    assert f"Check it: mrcnn-tf validate {out} '{labelled}'" in said
    assert "2 x point_shape, e.g. Shape 2 of" in problems
    assert json.loads(out.read_text(encoding="utf-8"))["categories"][0] == {"id": 1, "name": "猫"}
    assert len(json.loads((tmp_path / "train.problems.json").read_text(encoding="utf-8"))["problems"]) == 2


def test_the_validation_set_gets_the_same_ids(run, labelled, tmp_path):
    run("labelme", labelled, "--out", tmp_path / "train.json")
    (labelled / "a.json").unlink()
    status, said, _ = run(
        "labelme", labelled, "--out", tmp_path / "val.json", "--names", tmp_path / "train.json", "--json"
    )
    figures = json.loads(said)
    assert (status, figures["images"], figures["classes"]) == (0, 1, {"猫": 0, "Hund": 1})
    assert figures["problems"] == {"point_shape": 1, "unlabelled_image": 1}
    train, val = (json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("train.json", "val.json"))
    assert train["categories"] == val["categories"]


@pytest.mark.parametrize("form", ["labelme", "via", "yolo", "voc", "label-maps", "masks"])
def test_there_and_back(run, tmp_path, form):
    path, images, _ = save_coco(tmp_path, boxes=False, flat=True)
    out = tmp_path / ("via.json" if form == "via" else "out")
    copies = [] if form in ("via", "label-maps") else ["--copy-images"]
    images_too = [] if form == "label-maps" else ["--images", images]
    status, said, _ = run("coco-to", form, path, "--out", out, *images_too, *copies)
    assert status == 0
    assert f"3 images, 4 objects, 2 classes: {out}" in said
    back = tmp_path / "back.json"
    extra = {"via": ["--images", images], "label-maps": ["--images", images, "--names", out / "names.json"]}
    extra["label-maps"] += ["--class-divisor", 1000]
    status, said, _ = run(form, out, "--out", back, "--json", *extra.get(form, []))
    assert status == 0
    assert (json.loads(said)["objects"], json.loads(said)["classes"]) == (4, {"Zelle groß": 2, "猫": 2})


@pytest.mark.parametrize("form", ["coco-to", "tfrecord"])
def test_numbers_of_the_annotations_own_are_left_out_with_a_word(run, tmp_path, monkeypatch, form):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))
    path, images, _ = save_coco(tmp_path)

    def convert(name):
        out = ["--out", tmp_path / name, "--images", images, "--json"]
        if form == "coco-to":
            return run("coco-to", "labelme", path, *out)
        return run("tfrecord", "--annotations", path, *out, "--processes", 1)

    status, said, told = convert("plain")
    assert (status, json.loads(said)["own_numbers"]) == (0, {}) and "own" not in told
    document = json.loads(path.read_text(encoding="utf-8"))
    first, second, third = document["annotations"][:3]
    first |= {"weight": 2, "angle": -0.5, "score": 0.5, "ignore": 0, "num_keypoints": 1}
    second |= {"weight": 10**400, "angle": 1, "note": "north", "attributes": {"weight": 1}}
    third |= {"weight": float("nan"), "corners": [1, 2]}
    path.write_text(json.dumps(document), encoding="utf-8")
    status, said, told = convert("out")
    assert (status, json.loads(said)["own_numbers"]) == (0, {"angle": 2, "weight": 1})
    sentence = (
        "the format has no place for numbers of the annotations' own, which were left out: 'angle' of 2, 'weight' of 1"
    )
    assert told.count(f"{path}: {sentence}\n") == told.count("own") == 1


FORMS = ["labelme", "cvat", "label-studio", "via", "yolo", "voc", "masks", "label-maps"]
FORMS += ["cityscapes", "mapillary", "open-images"]


@pytest.mark.parametrize("form", FORMS)
def test_archives_missing_and_empty_folders(run, tmp_path, form):
    more = ["--images", tmp_path, "--class-name", "x"] if form == "label-maps" else []
    out = ["--out", tmp_path / "out.json", *more]
    packed = tmp_path / "data.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("a.json", "{}" * 100)
    status, _, said = run(form, packed, *out)
    assert status == 2 and "data.zip is a zip archive: unpack it and give" in said
    packed.write_bytes(packed.read_bytes()[:60])
    status, _, said = run(form, packed, *out)
    assert status == 2 and "download it again" in said
    status, _, said = run(form, tmp_path / "nowhere", *out)
    assert status == 2 and "There is no" in said
    (tmp_path / "empty").mkdir()
    status, _, said = run(form, tmp_path / "empty", *out)
    assert status == 2 and "is empty" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_the_right_command_is_named(run, labelled, tmp_path):
    status, _, said = run("voc", labelled, "--out", tmp_path / "out.json")
    assert status == 2
    assert f'looks like another format: try `mrcnn-tf convert labelme "{labelled}"`' in said


def test_a_folder_of_photos_is_no_folder_of_label_maps(run, tmp_path):
    save_image(tmp_path / "photos" / "a.png", 12, 10)
    status, _, said = run("labelme", tmp_path / "photos", "--out", tmp_path / "out.json")
    assert status == 2 and "label-maps" not in said


def test_a_folder_is_no_json(run, labelled, tmp_path):
    status, _, said = run("labelme", labelled, "--out", tmp_path)
    assert status == 2
    assert f"--out {tmp_path} is a folder: name the json to write" in said


def test_formats_are_guessed(tmp_path, labelled):
    path, images, _ = save_coco(tmp_path)
    assert recognise_format(path) == "coco"
    assert recognise_format(labelled) == "labelme"
    assert recognise_format(labelled / "a.json") == "labelme"
    assert recognise_format(images) is None  # photos
    Image.new("L", (20, 10)).save(images / "map.png")
    assert recognise_format(images) == "label-maps"
    (images / "a.txt").write_text("hello")
    assert recognise_format(images) == "label-maps"


@pytest.mark.parametrize(
    ("form", "files"),
    [
        ("label-maps", {"_classes.csv": "Pixel Value, Class\n0, background\n"}),
        ("via", {"labels.csv": "filename,file_size,region_shape_attributes,region_attributes\n"}),
        (None, {"measured.csv": "name,value\n"}),
        ("labelme", {"a.json": '{"shapes": []}', "settings.yaml": "lr: 0.1\n"}),
        ("yolo", {"set.yml": "names: [a]\n"}),
        ("voc", {"SegmentationClassPNG/a.png": ""}),
        (None, {"drawing.xml": "<svg/>"}),
        ("cityscapes", {"train/aachen/aachen_0_0_gtFine_polygons.json": "{}"}),
    ],
)
def test_formats_are_guessed_by_what_is_in_files(tmp_path, form, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert recognise_format(tmp_path) == form
    if form in ("label-maps", "via", None):
        assert recognise_format(tmp_path / next(iter(files))) == form


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("n.txt", "\n\n", "no class names"),
        ("n.yaml", "names: [a", "can't be read as a list"),
        ("n.json", "3", "isn't a list of class names"),
        ("n.json", '{"categories": [{"id": 1}]}', "categories without id or name"),
    ],
)
def test_bad_lists_of_names(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_names(tmp_path / name)
    with pytest.raises(UserError, match="There is no file"):
        read_names(tmp_path / "gone.txt")


def test_lists_of_names(tmp_path):
    (tmp_path / "n.txt").write_text("﻿a b\n\n猫 \n", encoding="utf-8")
    assert read_names(tmp_path / "n.txt").numbers == {0: "a b", 1: "猫"}
    assert read_names(tmp_path / "n.txt", first=1).numbers == {1: "a b", 2: "猫"}
    (tmp_path / "n.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    assert read_names(tmp_path / "n.txt").numbers == {1: "cat", 2: "dog"}
    (tmp_path / "n.yaml").write_text("names:\n  3: x\n  7: y\n")
    names = read_names(tmp_path / "n.yaml")
    assert (names.numbers, names.categories) == ({3: "x", 7: "y"}, [(1, "x"), (2, "y")])
    assert read_names(None) is None


def test_no_conversion_waits_for_tensorflow(tmp_path, labelled):
    program = (
        "import sys; sys.argv = ['mrcnn-tf', 'convert', 'labelme', *sys.argv[1:]]\n"
        "from mrcnn_tf import cli\n"
        "try:\n    cli.main()\nfinally:\n    assert 'tensorflow' not in sys.modules"
    )
    paths = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"}
    words = [sys.executable, "-c", program, str(labelled), "--out", str(tmp_path / "out.json")]
    subprocess.run(words, env=paths, check=True, capture_output=True)


def test_pictures_out_of_labelmes_jsons_are_one_folder_for_validate(run, labelled, tmp_path):
    for stem in ("a", "b"):
        content = json.loads((labelled / f"{stem}.json").read_text(encoding="utf-8"))
        content["imageData"] = base64.b64encode((labelled / f"{stem}.png").read_bytes()).decode()
        (labelled / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    (labelled / "a.png").unlink()
    out, folder = tmp_path / "out.json", tmp_path / "out_images"
    status, said, _ = run("labelme", labelled, "--out", out)
    assert status == 0 and f"{folder} now has all of them" in said
    assert f"Check it: mrcnn-tf validate {out} {folder}" in said
    names = [image["file_name"] for image in json.loads(out.read_text(encoding="utf-8"))["images"]]
    assert names == sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png"]
    status, said, _ = run("labelme", labelled, "--out", out, "--json")
    assert (status, json.loads(said)["image_folder"]) == (0, str(folder))


@pytest.mark.parametrize(
    ("form", "lost"), [("labelme", 0), ("yolo", 1), ("voc", 1), ("via", 1), ("masks", 1), ("label-maps", 1)]
)
def test_keypoints_that_a_format_cannot_hold_are_reported_once(run, tmp_path, form, lost):
    path, images, content = save_coco(tmp_path, boxes=False, flat=True)
    content["categories"][0]["keypoints"] = ["nose", "tail"]
    for annotation in content["annotations"]:
        if annotation["category_id"] == content["categories"][0]["id"]:
            annotation |= {"keypoints": [0] * 6, "num_keypoints": 0}
    content["annotations"][1] |= {"keypoints": [1, 2, 2, 3, 4, 1], "num_keypoints": 2}
    path.write_text(json.dumps(content), encoding="utf-8")
    out = ["--out", tmp_path / "out.json" if form == "via" else tmp_path / "out", "--json"]
    status, said, told = run("coco-to", form, path, *out, *([] if form == "label-maps" else ["--images", images]))
    assert (status, json.loads(said)["lost_keypoints"]) == (0, lost)
    assert told.count("the format has no place for keypoints, which were left out of 1 objects") == lost


def test_cvat_from_the_command(run, tmp_path):
    save_image(tmp_path / "export/images/a.png", 20, 10)
    polygon = '<polygon label="cat" points="1,1;5,1;5,4"/>'
    xml = f'<annotations><image id="0" name="a.png" width="20" height="10">{polygon}</image></annotations>'
    (tmp_path / "export/annotations.xml").write_text(xml, encoding="utf-8")
    status, said, _ = run("cvat", tmp_path / "export", "--out", tmp_path / "out.json")
    assert status == 0 and "1 images, 1 objects, 1 classes (cat 1)" in said
    assert f"Check it: mrcnn-tf validate {tmp_path / 'out.json'} {tmp_path / 'export/images'}" in said


def test_a_reader_is_listed_tested_and_described():
    """A format that is added has a command, is among those tested here, and stands in the package's docstring."""
    own = convert_app.registered_commands
    assert {one.name or one.callback.__name__.replace("_", "-") for one in own} == {*FORMS, "with", "tfrecord"}
    modules = {"masks": "mask_folders", "label-maps": "label_map_folders"}
    for form in FORMS:
        assert f"`{modules.get(form, form.replace('-', '_'))}" in convert.__doc__
