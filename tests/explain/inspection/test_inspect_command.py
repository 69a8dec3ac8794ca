"""`mrcnn-tf inspect` as a user runs it."""

import functools
import json
import shlex

import command
import numpy as np
import pytest
from counted_by_hand import DETECTIONS
from panoptic_folder import PanopticFolder
from PIL import Image
from tiny import tiny_config

from mrcnn_tf.model.mask_rcnn import MaskRCNN

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved model, untrained, of the dataset's classes 3 and 17."""
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    MaskRCNN.from_settings(tiny_config("gn"), seed=0).save(path)
    return path


call = functools.partial(command.call, "inspect")


def test_a_json_and_a_folder_are_enough(dataset, tmp_path):
    out = tmp_path / "new folder" / "r.html"
    text = call(dataset[0], "--images", dataset[1], "--out", out)
    assert "3 images, 4 objects, 2 classes; 3 images shown, 1 of them unreadable." in text
    assert text.strip().splitlines()[-1].startswith(f"Report: {out} (") and out.stat().st_size > 10_000


def test_detections_of_a_file_are_judged(dataset, tmp_path):
    out = tmp_path / "r.html"
    text = call(dataset[0], "--images", dataset[1], "--detections", dataset[2], "--out", out)
    assert "AP50" in text and "missed" in text and str(out) in text
    figures = json.loads(
        call(
            dataset[0], "--images", dataset[1], "--detections", dataset[2], "--out", out, "--json", "--images-limit", 2
        )
    )
    assert figures["shown"] == 2 and figures["report"] == str(out)
    assert figures["model"]["results"]["images"] == 3 and figures["statistics"]["objects"] == 4
    assert figures["model"]["errors"]["counts"]["correct"] == 2


def test_a_config_s_splits_are_inspected_with_its_anchors(tmp_path):
    out = tmp_path / "r.html"
    val = json.loads(call("nuclei_r18_fpn", "--out", out, "--json"))
    train = json.loads(call("nuclei_r18_fpn", "--split", "train", "--out", out, "--json"))
    assert (val["statistics"]["images"], train["statistics"]["images"]) == (4, 12)
    anchors = ["model.rpn.anchor_sizes=[4,8,16,32,64]"]
    changed = json.loads(call("nuclei_r18_fpn", *anchors, "--out", out, "--json"))["statistics"]["anchors"]
    assert changed["sizes"] == [4, 8, 16, 32, 64] and changed["resized_to"] == [256, 256]
    assert changed != val["statistics"]["anchors"]


def test_a_model_is_run_on_what_can_be_read(dataset, model, tmp_path):
    out = tmp_path / "r.html"
    arguments = (dataset[0], "--images", dataset[1], "--weights", model, "--out", out, "--json")
    figures = json.loads(call(*arguments))
    assert figures["model"]["results"]["images"] == 2 and figures["unreadable"] == 1
    # The objects of the image without a file are nobody's fault.
    assert sum(np.array(figures["model"]["confusion"]["counts"])[:2].sum(axis=1)) == 3
    assert figures["statistics"]["anchors"]["sizes"] == [8, 16, 32, 64, 128]


def test_a_photo_is_diagnosed_in_sentences_and_a_picture(dataset, model, tmp_path):
    out = tmp_path / "new" / "picture.png"
    photo = dataset[1] / "two with space.png"
    text = call("--image", photo, "--weights", model, "--ground-truth", dataset[0], "--out", out)
    assert "1 annotated object" in text and text.strip().splitlines()[-1] == f"Picture: {out}"
    assert np.asarray(Image.open(out)).std() > 5
    figures = json.loads(call("--image", photo, "--weights", model, "--out", out, "--json"))
    assert figures["sentences"] and figures["objects"] == [] and figures["picture"] == str(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to inspect: name a config, or a COCO json with --images FOLDER"),
        (["a.json"], "Say where the images of a.json are: --images FOLDER"),
        (["a.json", "--images", "."], "a.json"),
        (["a.json", "model.x=1", "--images", "."], "is no config"),
        (["nuclei_r18_fpn", "--images", "."], "set data.val.images instead"),
        (["nuclei_r18_fpn", "--split", "test"], "no split 'test'"),
        (["mask_rcnn_r50_fpn"], "names no annotations"),
        (["no_such_config"], "no config 'no_such_config'"),
        (["nuclei_r18_fpn", "--detections", "d.json", "--weights", "m.keras"], "one of the two"),
        (["nuclei_r18_fpn", "--detections", "d.json"], "Can't read the detections d.json"),
        (["nuclei_r18_fpn", "--weights", "none.keras"], "none.keras"),
        (["--image", "none.png"], "give --weights MODEL.keras"),
        (["--image", "none.png", "--weights", "m.keras"], "There is no image none.png"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call(*arguments, status=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("mrcnn-tf: ") and message in lines[0]
    assert list(tmp_path.glob("*.html")) == []


def test_a_panoptic_json_is_inspected_by_a_config(tmp_path, capsys):
    """Its objects are in PNGs, so without these a page would show none; what the sentence says to do works."""
    folder = tmp_path / "a b"
    folder.mkdir()
    scene = PanopticFolder(folder)
    scene.add(1)
    scene.config()
    path, images, maps = (folder / name for name in ("p.json", "images", "maps"))
    call(path, "--images", images, "--out", tmp_path / "r.html", status=2)
    said = capsys.readouterr().err
    assert f"{path} is a panoptic json: inspect a config, as panoptic_r50_fpn" in said
    command = said.partition("inspect a config, as ")[2].strip().removesuffix(".")
    arguments = shlex.split(command.replace("FOLDER_OF_ITS_PNGS", f'"{maps}"'))
    assert json.loads(call(*arguments, "--out", tmp_path / "r.html", "--json"))["statistics"]["objects"] == 1


def test_detections_of_another_dataset_are_named(dataset, tmp_path, capsys):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([one | {"image_id": 77} for one in DETECTIONS]))
    call(dataset[0], "--images", dataset[1], "--detections", path, "--out", tmp_path / "r.html", status=2)
    assert "A detection belongs to image 77" in capsys.readouterr().err
