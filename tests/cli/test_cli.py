"""The commands as a user runs them: a small demo run, then what can be done with its model."""

import json
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from command import call
from PIL import Image

import mrcnn_tf
from mrcnn_tf.config.load import load_config
from mrcnn_tf.model.mask_rcnn import load_model
from mrcnn_tf.training.callbacks import Interrupted

NUCLEI = pathlib.Path(mrcnn_tf.__file__).parent / "datasets" / "nuclei"
SMALL = [
    "model.resize={min_size: 64, max_size: 64}",
    "model.backbone.depth=10",
    "model.fpn.channels=32",
    "model.box_head.channels=32",
    "model.mask_head={channels: 16, convs: 1}",
    "model.rois.batch_per_image=8",
    "model.rpn.pre_nms_train=50",
    "model.rpn.post_nms_train=20",
    "model.rpn.post_nms_test=20",
    "model.detections.score_threshold=0.01",
    "train.precision=float32",
    "train.steps=4",
    "train.epoch_steps=2",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, printed text) of a demo of four steps."""
    folder = tmp_path_factory.mktemp("demo") / "with space"
    text = call("demo", *SMALL, "--out", folder)
    return folder, text


def refused(capsys, *arguments):
    """The one sentence on stderr of a command that ends with status 2."""
    call(*arguments, status=2)
    text = capsys.readouterr().err
    assert text.startswith("mrcnn-tf: ") and "Traceback" not in text
    return text.strip().splitlines()[-1]


def test_the_demo_leaves_model_figures_and_pictures_and_says_where(run):
    folder, text = run
    history = json.loads((folder / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    assert {"loss", "loss_mask", "val_bbox_AP", "val_segm_AP", "images_per_second"} <= history[0].keys()
    results = json.loads((folder / "results.json").read_text())
    assert results["images"] == 4 and set(results["bbox"]) == set(results["segm"])
    for picture in sorted((folder / "pictures").glob("*.png")):
        assert str(picture) in text
        assert np.asarray(Image.open(picture)).std() > 5
    assert len(list((folder / "pictures").iterdir())) == 4
    assert str(folder / "model.keras") in text and "AP50" in text
    assert yaml.safe_load((folder / "config.yaml").read_text())["train"]["steps"] == 4
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]  # no temporary file is left


def test_a_demo_that_is_stopped_says_how_it_goes_on(run, tmp_path, monkeypatch):
    """The command that it prints goes on from the last checkpoint and finishes the training."""

    def stop(config, folder, verbose):
        shutil.copytree(run[0], folder)
        (folder / "model.keras").unlink()
        *_, last = sorted((folder / "checkpoints").iterdir())
        last.unlink()
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("mrcnn_tf.cli.demo.run_demo", stop)
    text = call("demo", "--out", tmp_path / "a demo", status=143)
    program, *arguments = shlex.split(text.strip().splitlines()[-1].partition("goes on with: ")[2])
    assert program == "mrcnn-tf" and "--resume" in arguments
    call(*arguments)
    assert (tmp_path / "a demo" / "model.keras").exists()


def test_the_config_of_a_run_can_be_run_again(run):
    again = load_config(run[0] / "config.yaml")
    assert again == load_config("nuclei_r18_fpn", SMALL)


def test_evaluate_gives_the_demos_figures_and_cocos_files(run, tmp_path):
    folder, _ = run
    printed = call(
        "evaluate", "nuclei_r18_fpn", *SMALL, "--weights", folder / "model.keras", "--out", tmp_path / "out", "--json"
    )
    figures = json.loads(printed)
    demo = json.loads((folder / "results.json").read_text())
    assert figures["bbox"]["AP"] == pytest.approx(demo["bbox"]["AP"], abs=1e-6)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == figures
    detections = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["image_id"] for row in detections} <= {13, 14, 15, 16} and detections
    assert {"image_id", "category_id", "bbox", "score", "segmentation"} == set(detections[0])


def test_predict_writes_a_json_and_a_picture_of_each_image(run, tmp_path):
    source = tmp_path / "some pictures"
    source.mkdir()
    for name in ("val_000_384.png", "val_128_384.png"):
        (source / name).write_bytes((NUCLEI / "images" / name).read_bytes())
    Image.new("L", (50, 80), 120).save(source / "grau ü.jpg")
    Image.new("RGBA", (33, 20), (255, 0, 0, 50)).save(source / "alpha.png")
    out = tmp_path / "out"
    call("predict", source, "--weights", run[0] / "model.keras", "--out", out, "--min-score", "0.0")
    assert sorted(path.name for path in out.iterdir()) == [
        "alpha.json", "alpha.png", "grau ü.json", "grau ü.png", "val_000_384.json", "val_000_384.png",
        "val_128_384.json", "val_128_384.png",
    ]  # fmt: skip
    record = json.loads((out / "grau ü.json").read_text())
    assert (record["height"], record["width"]) == (80, 50)
    tile = json.loads((out / "val_000_384.json").read_text())
    assert tile["detections"] and {row["category"] for row in tile["detections"]} == {"nucleus"}
    assert {row["category_id"] for row in tile["detections"]} == {1}


def test_predict_takes_globs_and_goes_on_after_a_bad_file(run, tmp_path, capsys):
    good, bad = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGB", (30, 30)).save(good)
    bad.write_bytes(good.read_bytes()[:40])
    out = tmp_path / "out"
    call("predict", tmp_path / "*.png", "--weights", run[0] / "model.keras", "--out", out, status=2)
    assert "b.png begins as PNG and can't be read" in capsys.readouterr().err
    assert (out / "a.png").is_file() and not (out / "b.png").exists()


def test_training_starts_from_given_weights(run, tmp_path):
    call("train", "nuclei_r18_fpn", *SMALL, "train.steps=1", "train.learning_rate=0.000001",
         "--weights", run[0] / "model.keras", "--out", tmp_path)  # fmt: skip
    before, after = load_model(run[0] / "model.keras"), load_model(tmp_path / "model.keras")
    for old, new in zip(before.trainable_weights, after.trainable_weights, strict=True):
        np.testing.assert_allclose(new.numpy(), old.numpy(), atol=1e-3)


def test_build_ops_says_where_the_library_is():
    text = call("build-ops", "--cuda", "none")
    path = pathlib.Path(text.split("Works: ")[1].splitlines()[0])
    assert path.is_file() and "Built for the CPU." in text


def test_importing_the_package_is_all_that_keras_needs_to_load_a_model(run):
    code = f"import keras, mrcnn_tf; print(type(keras.saving.load_model({str(run[0] / 'model.keras')!r})).__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "MaskRCNN", result.stderr[-2000:]


def _lateral(model):
    return model.features.lateral[0].kernel


def test_a_models_weights_move_to_other_classes_but_not_to_other_layers(run):
    weights = run[0] / "model.keras"
    config = load_config("nuclei_r18_fpn", [*SMALL, "model.categories=[{id: 1, name: a}, {id: 2, name: b}]"])
    model = mrcnn_tf.MaskRCNN.from_settings(config.model)
    report = model.load_pretrained(weights)
    class_weights = {"box_head/class_logits/kernel", "box_head/box_deltas/bias", "mask_head/predictor_kernel"}
    assert class_weights < set(report.not_loaded)
    assert not any("conv" in path for path in report.not_loaded)
    np.testing.assert_array_equal(_lateral(model), _lateral(load_model(weights)))
    model = mrcnn_tf.MaskRCNN.from_settings(load_config("nuclei_r18_fpn", [*SMALL, "model.fpn.channels=64"]).model)
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(mrcnn_tf.UserError, match="another architecture: set model.fpn.channels=32"):
        model.load_pretrained(weights)
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["demo", "data.val.annotations=''"], "needs held-out images"),
        (["train", "nuclei_r19"], "no config 'nuclei_r19'"),
        (["train", "nuclei_r18_fpn", "train.stepz=1"], "train.stepz"),
        (["train", "nuclei_r18_fpn", "data.train.annotations=nowhere.json"], "no file"),
        (["train", "nuclei_r18_fpn", "data.train.images=nowhere"], "no folder 'nowhere'"),
        (["train", "mask_rcnn_r50_fpn"], "data.train.annotations"),
        (["train", "nuclei_r18_fpn", "model.backbone.freeze_at=2"], "would stay random"),
        (["train", "nuclei_r18_fpn", "model.backbone.norm=frozen_bn"], "model.backbone.norm=gn"),
        (["evaluate", "nuclei_r18_fpn"], "--weights"),
        (["evaluate", "nuclei_r18_fpn", "--weights", "nowhere.keras"], "no file nowhere.keras"),
        (["predict", "x.png", "--weights", "nowhere.keras"], "'x.png' names no image"),
        (["predict", "x.png"], "--weights"),
        (["build-ops", "--cuda", "turing"], "'turing'"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(arguments, words, capsys):
    assert words in refused(capsys, *arguments)


def test_a_file_that_is_no_model_is_refused(tmp_path, capsys):
    (tmp_path / "m.keras").write_text("not a model")
    assert "is no readable Keras model" in refused(
        capsys, "predict", NUCLEI / "images" / "val_000_384.png", "--weights", tmp_path / "m.keras"
    )


def test_unknown_options_are_status_2(capsys):
    call("demo", "--nonsense", status=2)
    assert "nonsense" in capsys.readouterr().err
