"""docs/extending.md: a backbone, a head and an annotation format of a user's own, each in one file outside the package.

One small model with all three trains on bars that point somewhere, and goes the way of any other.
"""

import csv
import dataclasses
import math
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from command import call
from documents import Document
from PIL import Image, ImageDraw
from tiny import tiny_batch

import mrcnn_tf
from mrcnn_tf.parts import Category, Regions

DOCS = pathlib.Path(__file__).parents[1] / "docs"
SIDE = 96  # pixels of an image
SETTINGS = """
base: nuclei_r18_fpn
model:
  resize: {min_size: 96, max_size: 96}
  fpn: {channels: 16, norm: null}
  backbone: {callable: "small_convnext:SmallConvNeXt", arguments: {widths: [16, 32, 32, 32], depths: [1, 1, 1, 1]}}
  rpn: {anchor_sizes: [8, 16, 32, 64, 96], pre_nms_train: 60, post_nms_train: 30, pre_nms_test: 60, post_nms_test: 20}
  rois: {batch_per_image: 16, positive_fraction: 0.5}
  box_head: {channels: 32, pool_size: 3}
  mask_head: {convs: 1, channels: 8, pool_size: 7}
  detections: {max_per_image: 6, score_threshold: 0.01}
  own_heads:
    - {callable: "orientation_head:OrientationHead", name: orientation_head, arguments: {pool_size: 5, units: 32}}
data:
  train:
    annotations: train.json
    images: photos
    fields: [orientation]
    augment: {horizontal_flip: 0.5, quarter_turns: true}
  val: {annotations: train.json, images: photos}
train: {images_per_batch: 4, learning_rate: 0.02, learning_rate_batch: 4, warmup_steps: 5, steps: 60, clip_norm: 1.0}
"""


def draw_bar(draw, x, y, degrees, length=34, width=12):
    """A dark bar that ends in a bright tip; its outline, [x, y, ...]."""
    along = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
    across = np.array([-along[1], along[0]]) * width / 2
    corners = [
        np.array([x, y]) + side * length / 2 * along + turn * across
        for side, turn in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    draw.polygon([tuple(corner) for corner in corners], fill=(40, 60, 160))
    tip = [corners[1] - length / 3 * along, corners[1], corners[2], corners[2] - length / 3 * along]
    draw.polygon([tuple(corner) for corner in tip], fill=(255, 220, 40))
    return np.concatenate(corners).clip(0, SIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The examples' files, photos of bars, their csv and a config; the current folder while the tests run."""
    folder, random = tmp_path_factory.mktemp("extending"), np.random.default_rng(0)
    for example in (DOCS / "extending").glob("*.py"):
        shutil.copy(example, folder)
    (folder / "photos").mkdir()
    rows = []
    for number in range(12):
        image = Image.new("RGB", (SIDE, SIDE), (120, 120, 120))
        draw = ImageDraw.Draw(image)
        for x, y in ((25, 28), (68, 66)):
            degrees = random.uniform(0, 360)
            outline = draw_bar(draw, x, y, degrees)
            text = " ".join(f"{value:.1f}" for value in outline)
            rows.append([f"{number}.png", "bar", "" if number == 11 else f"{degrees:.1f}", text])
        image.save(folder / "photos" / f"{number}.png")
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "class", "orientation", "outline"], *rows])
    (folder / "bars.yaml").write_text(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call("convert", "with", "csv_format:read_csv", "labels.csv", "--images", "photos", "--out", "train.json")
        yield folder
    for name in ("small_convnext", "orientation_head", "csv_format", "cascade_head"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def config(folder):
    return mrcnn_tf.load_config("bars.yaml")


@pytest.fixture(scope="module")
def trained(config):
    """(the model, `fit`'s history) after 60 steps."""
    keras.utils.set_random_seed(0)
    model = mrcnn_tf.MaskRCNN.from_settings(config.model)
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    train = mrcnn_tf.coco_dataset(config.data.train, training=True)
    return model, model.fit(train.repeat(), epochs=6, steps_per_epoch=20, verbose=0).history


def page_code(language):
    """The texts of docs/extending.md's code in a language."""
    return [block.text for block in Document(DOCS / "extending.md").blocks if block.language == language]


def read_photo(folder, number):
    return np.asarray(Image.open(folder / "photos" / f"{number}.png"))


def test_the_configs_of_the_page_are_those_of_the_test(config):
    blocks = [yaml.safe_load(block) for block in page_code("yaml")]
    backbone = blocks[0]["model"]["backbone"]
    assert backbone["callable"] == config.model.backbone.callable
    assert backbone["arguments"].keys() <= config.model.backbone.arguments.keys()
    own = blocks[1]["model"]["own_heads"][0]
    assert (own["callable"], own["name"]) == (config.model.own_heads[0].callable, config.model.own_heads[0].name)
    assert blocks[1]["data"]["train"]["fields"] == config.data.train.fields


@pytest.mark.usefixtures("eagerly")
def test_the_model_by_hand_of_the_page_detects():
    (code,) = (block for block in page_code("python") if "MaskRCNN" in block)
    scope = {}
    code = code.replace("ResNet(50", "ResNet(10").replace("channels=256", "channels=32")
    small = "preprocess=Preprocess(resize=ResizeConfig(64, 64)), categories"
    exec("from mrcnn_tf.parts import Preprocess, ResizeConfig\n" + code.replace("categories", small), scope)
    detections = scope["model"].detect(np.zeros([64, 64, 3], np.uint8))
    assert detections.masks.shape[1:] == (64, 64) and scope["model"].categories[1].name == "dog"


def test_it_learns(trained):
    _, history = trained
    losses = history["loss_orientation"]
    assert losses[-1] < 0.5 * losses[0] and history["loss_mask"][-1] < history["loss_mask"][0]


def test_padding_has_no_influence(trained, recwarn):
    from mrcnn_tf.parts import padding_leaks

    assert padding_leaks(trained[0].features) == {}


@pytest.mark.usefixtures("eagerly")
def test_a_saved_model_is_the_same(trained, folder):
    model, photo = trained[0], read_photo(folder, 0)
    model.save(folder / "bars.keras")
    loaded = keras.saving.load_model(folder / "bars.keras")
    expected, found = model.detect(photo), loaded.detect(photo)
    assert len(expected) > 0
    for name in ("boxes", "scores", "orientation", "mask_probabilities"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_another_process_needs_the_classes_and_nothing_else(trained, folder):
    """`mrcnn-tf predict` with the modules imported; without them the error says so."""
    trained[0].save(folder / "bars.keras")
    command = [sys.executable, "-m", "mrcnn_tf"]
    arguments = ["predict", "photos/0.png", "--weights", "bars.keras", "--out", "predicted"]
    environment = os.environ | {"PYTHONPATH": str(DOCS.parent)}
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
    imports = ["--import", "small_convnext", "--import", "orientation_head"]
    done = subprocess.run([*command, *imports, *arguments], **options)
    assert done.returncode == 0, done.stderr
    failed = subprocess.run([*command, *arguments], **options)
    assert failed.returncode == 2 and "--import" in failed.stderr and "SmallConvNeXt" in failed.stderr


def test_results_and_pictures_hold_the_number(trained, folder):
    model, photo = trained[0], read_photo(folder, 0)
    detections = model.detect(photo)
    result = detections.to_coco(1)[0]
    assert result["orientation"] == pytest.approx(float(detections.orientation[0]))
    assert 0 <= result["orientation"] < 360
    plain = mrcnn_tf.Detections(
        detections.boxes, detections.scores, detections.classes, detections.image_size, model.categories
    )
    with_number = mrcnn_tf.Detections(
        detections.boxes,
        detections.scores,
        detections.classes,
        detections.image_size,
        model.categories,
        orientation=detections.orientation,
    )
    assert not np.array_equal(plain.draw(photo), with_number.draw(photo))


def test_it_is_evaluated(trained, config):
    results, detections = mrcnn_tf.evaluate(trained[0], config.data.val)
    assert results.bbox["AP50"] > 0.1 and all(0 <= each["orientation"] < 360 for each in detections)


def test_exports_give_the_number(trained, folder):
    from mrcnn_tf.serving.runtime import SavedModelRuntime

    model, photo = trained[0], read_photo(folder, 1)
    mrcnn_tf.export_saved_model(model, folder / "served" / "1")
    expected, found = model.detect(photo), SavedModelRuntime(folder / "served").detect(photo)
    np.testing.assert_allclose(found.orientation, expected.orientation, atol=0.01)


def test_tflite_gives_the_number(trained, folder):
    from mrcnn_tf.serving.tflite_model import TFLiteModel

    model, photo = trained[0], read_photo(folder, 1)
    mrcnn_tf.export_tflite(model, folder / "bars.tflite", input_size=96)
    expected, found = model.detect(photo), TFLiteModel(folder / "bars.tflite").detect(photo)
    count = min(len(found), len(expected))
    assert count > 0
    np.testing.assert_allclose(found.orientation[:count], expected.orientation[:count], atol=0.1)


def test_a_batch_without_the_field_is_a_sentence(trained, config):
    batch = next(iter(mrcnn_tf.coco_dataset(config.data.val, training=True)))
    with pytest.raises(mrcnn_tf.UserError, match=r"no 'orientation'.*data.train.fields=\[orientation\]"):
        trained[0].compute_losses(batch)


def test_the_diagnosis_goes_on(trained, folder):
    diagnosis = mrcnn_tf.diagnose(trained[0], read_photo(folder, 0))
    assert diagnosis.detections.orientation.shape == diagnosis.detections.scores.shape


def test_a_cascade_learns_and_is_saved_with_one_pooling_layer(folder, tiny_config):
    settings = dataclasses.replace(
        tiny_config, box_head=dataclasses.replace(tiny_config.box_head, callable="cascade_head:CascadeHead")
    )
    keras.utils.set_random_seed(0)
    model = mrcnn_tf.MaskRCNN.from_settings(settings)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    batch = {name: tf.constant(values) for name, values in tiny_batch().items()}
    history = model.fit(tf.data.Dataset.from_tensors(batch).repeat(), steps_per_epoch=15, epochs=2, verbose=0).history
    assert {f"loss_{name}{number}" for name in ("class", "box") for number in (1, 2, 3)} <= history.keys()
    assert all(history[f"loss_class{number}"][1] < history[f"loss_class{number}"][0] for number in (1, 2, 3))

    model.save(folder / "cascade.keras")
    loaded = keras.saving.load_model(folder / "cascade.keras")
    assert all(stage.pooling is loaded.heads[0].pooling for stage in loaded.heads[0].stages)
    photo = read_photo(folder, 0)
    np.testing.assert_array_equal(loaded.detect(photo).boxes, model.detect(photo).boxes)
    np.testing.assert_array_equal(mrcnn_tf.diagnose(model, photo).detections.boxes, model.detect(photo).boxes)


def test_weights_of_a_cascade_go_into_one_with_other_classes(folder, tiny_config):
    settings = dataclasses.replace(
        tiny_config, box_head=dataclasses.replace(tiny_config.box_head, callable="cascade_head:CascadeHead")
    )
    first = mrcnn_tf.MaskRCNN.from_settings(settings)
    assert first.settings == settings
    more = [Category(number, name) for number, name in enumerate(("dot", "new", "cell"), 1)]
    model = mrcnn_tf.MaskRCNN.from_settings(dataclasses.replace(settings, categories=more))
    model.load_pretrained(first, map_classes=True, verbose=False)
    for old, new in zip(first.heads[0].stages, model.heads[0].stages, strict=True):
        np.testing.assert_array_equal(new.class_logits.kernel[:, 0], old.class_logits.kernel[:, 0])
        np.testing.assert_array_equal(new.class_logits.kernel[:, 1], old.class_logits.kernel[:, 2])  # dot
        np.testing.assert_array_equal(new.class_logits.kernel[:, 3], old.class_logits.kernel[:, 1])  # cell


def test_the_cascade_by_hand(folder, tiny_config):
    """Three stages whose biases are set: boxes move thrice, by each one's weights; probabilities are their mean."""
    settings = dataclasses.replace(
        tiny_config, box_head=dataclasses.replace(tiny_config.box_head, callable="cascade_head:CascadeHead")
    )
    model = mrcnn_tf.MaskRCNN.from_settings(settings)
    head, probabilities = model.heads[0], 0.0
    for number, stage in enumerate(head.stages, 1):
        for layer in (stage.class_logits, stage.box_deltas):
            layer.kernel.assign(np.zeros(layer.kernel.shape))
        logits = np.float32([0.0, number, -number])
        stage.class_logits.bias.assign(logits)
        probabilities += np.exp(logits) / np.exp(logits).sum() / 3
        stage.box_deltas.bias.assign([1.0, 0.0, 0.0, 0.0])  # to the right by 1/10, 1/20, 1/30 of the width
    features = model.stages(tiny_batch(), step=0).features
    boxes = np.float32([[[8, 8, 28, 48]]] * 2)
    regions = Regions(tf.constant(boxes), tf.ones([2, 1]), tf.zeros([2, 1], tf.int32), tf.ones([2, 1], bool))
    refined = head.refine(features, regions)
    shift = 20 * (1 / 10 + 1 / 20 + 1 / 30)
    np.testing.assert_allclose(refined.boxes[0, 0], [8 + shift, 8, 28 + shift, 48], rtol=1e-5)
    np.testing.assert_allclose(refined.scores[0, 0], probabilities[1], rtol=1e-5)
