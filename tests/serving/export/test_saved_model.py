"""What an export writes, what it refuses, and that a wrong export never gets its name."""

import json

import keras
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from mrcnn_tf import MaskRCNN, UserError
from mrcnn_tf.serving import saved_model_export
from mrcnn_tf.serving.runtime import SavedModelRuntime
from mrcnn_tf.serving.saved_model_export import export_saved_model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return MaskRCNN(tiny_config())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / "one.png", folder / "two.jpg"]
    for path, size in zip(paths, ((40, 60), (70, 30)), strict=True):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return paths


def test_an_export_has_all_that_a_server_needs(model, images, tmp_path):
    folder = tmp_path / "cats" / "7"
    report = export_saved_model(model, folder, max_detections=4, score_threshold=0.02, check_images=images)
    assert {path.name for path in folder.parent.iterdir()} == {"7", "models.config", "batching.config"}
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files >= {"saved_model.pb", "assets/labels.json", "assets.extra/tf_serving_warmup_requests"}
    assert 'name: "cats"' in (folder.parent / "models.config").read_text()
    facts = json.loads((folder / "assets" / "labels.json").read_text())
    assert (facts["precision"], facts["input_size"], facts["masks"], facts["xla"], facts["custom_ops"]) == (
        "float32",
        None,
        "roi",
        False,
        False,
    )
    assert (report.folder, report.precision, report.input_size) == (folder, "float32", None)
    assert report.size == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    differences = report.differences
    assert differences.images == 4 and differences.matched == differences.reference == 4 * 4
    assert differences.box <= 1e-3 and differences.score <= 1e-5
    found = SavedModelRuntime(folder.parent).detect_file(images[1])
    assert len(found) == 4 and found.image_size == (70, 30) and found.scores.min() > 0.02


def test_half_precision_on_a_canvas_is_checked_with_its_own_tolerances(model, images, tmp_path):
    report = export_saved_model(
        model, tmp_path / "1", precision="bfloat16", input_size=(64, 96), custom_ops=False, check_images=images[:1]
    )
    assert (report.precision, report.input_size) == ("bfloat16", (64, 96))
    assert report.differences.score > 1e-7, "This was not computed in bfloat16."
    assert report.differences.tolerances.score == 0.03
    facts = json.loads((tmp_path / "1" / "assets" / "labels.json").read_text())
    assert facts["precision"] == "bfloat16" and facts["input_size"] == [64, 96]


def test_an_export_that_finds_something_else_is_not_kept(model, images, tmp_path, monkeypatch):
    right = saved_model_export._reference

    def wrong(*arguments):
        found = right(*arguments)
        for one in found:
            one.boxes += 0.01
        return found

    monkeypatch.setattr(saved_model_export, "_reference", wrong)
    with pytest.raises(UserError, match="box differs from the Keras model's by 0.01"):
        export_saved_model(model, tmp_path / "1", check_images=images[:1])
    assert not list(tmp_path.iterdir())


def test_folders_that_are_refused(model, tmp_path):
    (tmp_path / "3").mkdir()
    with pytest.raises(UserError, match="3 exists: export to the next number"):
        export_saved_model(model, tmp_path / "3")
    for name in ("model", "1.0", "v1", "²"):
        with pytest.raises(UserError, match="isn't named with a version's number"):
            export_saved_model(model, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"masks": "png"}, "There are no masks 'png': choose roi or rle."),
        ({"xla": True}, "give input_size too"),
        ({"xla": True, "input_size": 64, "custom_ops": True}, "choose xla or custom_ops"),
        ({"input_size": 50}, "give multiples of 32"),
        ({"precision": "int8"}, "no precision 'int8'"),
        ({"max_detections": 0}, "give 1 or more"),
    ],
)
def test_options_that_are_refused(model, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        export_saved_model(model, tmp_path / "1", **options)
    assert not list(tmp_path.iterdir())


def test_heads_that_options_need(tmp_path):
    config = tiny_config()
    config.mask_head = None
    with pytest.raises(UserError, match="no mask head"):
        export_saved_model(MaskRCNN(config), tmp_path / "1", masks="rle")
    with pytest.raises(UserError, match="export without xla"):
        export_saved_model(MaskRCNN(tiny_config("keypoints")), tmp_path / "1", xla=True, input_size=64)


def test_a_check_image_that_is_none(model, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match="text.png isn't a readable image"):
        export_saved_model(model, tmp_path / "1", check_images=[tmp_path / "text.png"])
    assert [path.name for path in tmp_path.iterdir()] == ["text.png"]
