"""Evaluation of a model and during training, with stand-ins for the model and, but for one test, for the reader."""

import json
import pathlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DataConfig, DetectionConfig, ResizeConfig
from mrcnn_tf.evaluation import evaluate_model
from mrcnn_tf.evaluation.average_precision import KEYPOINT_METRICS, METRICS
from mrcnn_tf.evaluation.results import CocoResults
from mrcnn_tf.results.detections import Detections

SIZES = {7: (40, 60), 1000001: (50, 30), 12: (64, 64)}  # image id: (height, width)
BOXES = {7: [5, 5, 45, 35], 1000001: [2, 3, 28, 43]}  # image 12 has no instance


class Oracle:
    """A model that finds every instance exactly, in batches of what the reader gives."""

    def gives(self, *names):
        return {"boxes", "masks", "keypoints"}.issuperset(names)

    def detect_batch(self, batch):
        detected = []
        for image_id, size in zip(batch["image_id"].numpy(), batch["original_size"].numpy(), strict=True):
            boxes = np.array([BOXES[image_id]] if image_id in BOXES else []).reshape(-1, 4)
            classes, scores, masks = np.ones(len(boxes)), np.ones(len(boxes)), np.ones((len(boxes), 28, 28))
            detected.append(Detections(boxes, scores, classes, size, [Category(5, "plate")], masks, "detectron2"))
        return detected


@pytest.fixture
def data_config(tmp_path):
    annotations = [
        {
            "id": i,
            "image_id": image_id,
            "category_id": 5,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
        }
        for i, (image_id, (x1, y1, x2, y2)) in enumerate(BOXES.items())
    ]
    images = [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in SIZES.items()]
    path = tmp_path / "val.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "plate"}]})
    )
    return DataConfig(annotations=str(path), images=str(tmp_path), images_per_batch=2)


def read(monkeypatch, *batches):
    """Makes the reader give batches of these image ids."""

    def coco_dataset(config, training):
        assert training is False
        for ids in batches:
            yield {
                "image_id": tf.constant(ids, tf.int64),
                "original_size": tf.constant([SIZES[i] for i in ids]),
                "image": tf.zeros([len(ids), 64, 64, 3]),
            }

    monkeypatch.setattr(evaluate_model, "coco_dataset", coco_dataset)


def test_a_model_that_knows_the_answers_scores_one(monkeypatch, data_config):
    read(monkeypatch, [7, 1000001], [12])
    outcome, results = evaluate_model.evaluate(Oracle(), data_config, progress=False)
    assert (outcome.images, outcome.bbox["AP"], outcome.segm["AP"]) == (3, pytest.approx(1.0), pytest.approx(1.0))
    assert outcome.skipped == []
    assert [(r["image_id"], r["category_id"], r["segmentation"]["size"]) for r in results] == [
        (7, 5, [40, 60]),
        (1000001, 5, [50, 30]),
    ]


def test_an_image_that_fills_up_the_last_batch_counts_once(monkeypatch, data_config):
    read(monkeypatch, [7, 1000001], [12, 7])
    outcome, results = evaluate_model.evaluate(Oracle(), data_config, progress=False)
    assert [r["image_id"] for r in results] == [7, 1000001]
    assert outcome.bbox["AP"] == pytest.approx(1.0)


def test_an_image_that_was_not_read_is_named_and_not_held_against_the_model(monkeypatch, data_config):
    read(monkeypatch, [7, 12])
    outcome, _ = evaluate_model.evaluate(Oracle(), data_config, progress=False)
    assert outcome.images == 2
    assert outcome.bbox["AP"] == pytest.approx(1.0)
    assert len(outcome.skipped) == 1 and "image 1000001" in outcome.skipped[0]


def test_nothing_read_is_an_error(monkeypatch, data_config):
    read(monkeypatch)
    with pytest.raises(UserError, match="val.json could be read"):
        evaluate_model.evaluate(Oracle(), data_config, progress=False)


def test_progress_is_shown_only_when_asked(monkeypatch, data_config, capsys):
    read(monkeypatch, [7, 12])
    evaluate_model.evaluate(Oracle(), data_config, progress=False)
    assert capsys.readouterr().out == ""


class Copyist(Oracle):
    """A model that gives back the ground truth which the reader put into the batch."""

    def detect_batch(self, batch):
        batch = {name: value.numpy() for name, value in batch.items()}
        detected = []
        for index, size in enumerate(batch["original_size"]):
            real = batch["classes"][index] > 0
            scale = np.tile((size / batch["image_size"][index])[::-1], 2)
            boxes, masks = batch["boxes"][index][real] * scale, batch["masks"][index][real] / 255
            classes = batch["classes"][index][real]
            categories = [Category(1, "nucleus")]
            detected.append(Detections(boxes, np.ones(len(boxes)), classes, size, categories, masks, "detectron2"))
        return detected


def test_ground_truth_survives_the_reader_and_the_way_back():
    folder = pathlib.Path(evaluate_model.__file__).parents[1] / "datasets" / "nuclei"
    config = DataConfig(
        annotations=str(folder / "val.json"),
        images=str(folder / "images"),
        images_per_batch=3,
        resize=ResizeConfig(min_size=200, max_size=200),
        categories=[Category(1, "nucleus")],
    )
    outcome, results = evaluate_model.evaluate(Copyist(), config, progress=False)
    assert outcome.images == len(json.loads((folder / "val.json").read_text())["images"])
    assert outcome.skipped == []
    assert outcome.bbox["AP"] > 0.99
    assert outcome.segm["AP"] > 0.95


class Joiner(Oracle):
    """Finds the instances of BOXES with two keypoints each, their upper corners as the files name pixels."""

    def detect_batch(self, batch):
        for image_id, size in zip(batch["image_id"].numpy(), batch["original_size"].numpy(), strict=True):
            boxes = np.array([BOXES[image_id]] if image_id in BOXES else []).reshape(-1, 4)
            keypoints = np.concatenate([boxes[:, [[0, 1], [2, 1]]], np.ones((len(boxes), 2, 1))], axis=2)
            keypoints[..., :2] += 0.5  # the model's frame, which to_coco leaves
            categories, ones = [Category(5, "plate", ["l", "r"])], np.ones(len(boxes))
            yield Detections(boxes, ones, ones, size, categories, None, "detectron2", keypoints, 0.5)


@pytest.fixture
def plates(data_config):
    """The data of `data_config` with keypoints that lie 4 pixels below those that `Joiner` finds."""
    path = pathlib.Path(data_config.annotations)
    data = json.loads(path.read_text())
    data["categories"][0]["keypoints"] = ["l", "r"]
    for record, (x1, y1, x2, _) in zip(data["annotations"], BOXES.values(), strict=True):
        record["keypoints"] = [x1, y1 + 4, 2, x2, y1 + 4, 2]
    path.write_text(json.dumps(data))
    return data_config


def test_keypoints_are_scored_with_the_sigmas_of_the_data(monkeypatch, plates):
    read(monkeypatch, [7, 1000001], [12])
    outcome, results = evaluate_model.evaluate(Joiner(), plates, progress=False)
    # exp(-16 / (2 * area * 0.1^2)) is 0.51 for 40 x 30 pixels and 0.46 for 26 x 40: one of the two at one threshold.
    assert outcome.keypoints["AR"] == pytest.approx(0.05)
    assert outcome.skipped == [] and "sigma of 0.05" in outcome.notes[0]
    assert results[0]["keypoints"] == [5, 5, 1, 45, 5, 1]
    plates.keypoint_sigmas = {"plate": [1.0, 1.0]}
    outcome, _ = evaluate_model.evaluate(Joiner(), plates, progress=False)
    assert outcome.keypoints["AP"] == pytest.approx(1.0) and outcome.notes == []


def test_wrong_sigmas_are_refused_before_anything_is_detected(monkeypatch, plates):
    read(monkeypatch, [7, 1000001], [12])
    plates.keypoint_sigmas = {"plate": [0.1]}
    with pytest.raises(UserError, match="must be 2"):
        evaluate_model.evaluate(Joiner(), plates, progress=False)


class Doubtful(Oracle):
    """Finds in each image also an object of a class that torchvision's models have and COCO hasn't."""

    def detect_batch(self, batch):
        for size in batch["original_size"].numpy():
            categories = [Category(5, "plate"), Category(12, "N/A")]
            yield Detections([[1, 1, 9, 9]], [0.9], [2], size, categories, np.ones((1, 28, 28)), "detectron2")


def test_classes_without_objects_are_left_out(monkeypatch, data_config):
    read(monkeypatch, [7, 1000001], [12])
    data_config.categories = [Category(5, "plate"), Category(12, "N/A")]
    results, detections = evaluate_model.evaluate(Doubtful(), data_config, progress=False)
    assert [row["name"] for row in results.per_class] == ["plate"] and detections == []


def test_lvis_lists_are_honoured_up_to_the_logs(monkeypatch, data_config):
    content = json.loads(pathlib.Path(data_config.annotations).read_text())
    content["categories"][0]["frequency"] = "r"
    content["annotations"] = content["annotations"][1:]  # what is detected in image 7 is not annotated
    for image in content["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for absent, expected in (([], 1.0), ([5], 0.5)):  # of equal scores, the first image's detection comes first
        content["images"][0]["neg_category_ids"] = absent
        pathlib.Path(data_config.annotations).write_text(json.dumps(content))
        read(monkeypatch, [7, 1000001], [12])
        model = Oracle()
        model.heads = [types.SimpleNamespace(detections=DetectionConfig(max_per_image=100))]
        callback, logs = evaluate_model.CocoAP(data_config, verbose=0), {}
        callback.set_model(model)
        callback.on_epoch_end(0, logs)
        assert logs["val_segm_APr"] == logs["val_bbox_APr"] == pytest.approx(expected)
        assert "val_segm_APc" not in logs, "no ground truth of that kind"
        assert any("at most 100 detections an image" in note for note in callback.results.notes)


# CocoAP within model.fit: other callbacks find its metrics.


def fit(callbacks, epochs):
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=epochs, callbacks=callbacks, verbose=0).history


@pytest.fixture
def precisions(monkeypatch):
    """Evaluations give these mask APs, one after the other; box AP is half of it, small ones have no ground truth.

    Keypoints' AP, where asked for, is four fifths of it.
    """

    def give(*values, with_keypoints=False):
        remaining = list(values)

        def evaluate(model, data_config, progress):
            assert isinstance(model, keras.Model) and data_config.annotations == "val.json"
            segm = dict.fromkeys(METRICS, remaining.pop(0)) | {"APs": None}
            bbox = {name: value and value / 2 for name, value in segm.items()}
            keypoints = dict.fromkeys(KEYPOINT_METRICS, segm["AP"] * 0.8) if with_keypoints else None
            return CocoResults(1, bbox, segm, keypoints, [], []), []

        monkeypatch.setattr(evaluate_model, "evaluate", evaluate)
        return remaining

    return give


def coco_ap(**keys):
    return evaluate_model.CocoAP(DataConfig(annotations="val.json"), **keys)


def test_figures_join_the_logs(precisions, capsys):
    precisions(0.25, 0.5)
    evaluation = coco_ap()
    history = fit([evaluation], epochs=2)
    assert history["val_segm_AP"] == [0.25, 0.5]
    assert history["val_bbox_AP50"] == [0.125, 0.25]
    assert "val_segm_APs" not in history
    assert evaluation.results.segm["AP"] == 0.5
    lines = capsys.readouterr().out.split("\n")
    assert "Epoch 2: val_bbox_AP: 0.250, val_bbox_AP50: 0.250, val_segm_AP: 0.500, val_segm_AP50: 0.500" in lines


def test_figures_of_keypoints_join_them(precisions, capsys):
    precisions(0.25, with_keypoints=True)
    history = fit([coco_ap()], epochs=1)
    assert history["val_keypoints_AP"] == history["val_keypoints_AP75"] == [0.2]
    assert "val_keypoints_AR" not in history
    assert "val_keypoints_AP: 0.200, val_keypoints_AP50: 0.200" in capsys.readouterr().out


def test_the_best_epoch_is_saved(precisions, tmp_path):
    precisions(0.2, 0.6, 0.4)
    path = str(tmp_path / "epoch{epoch}.keras")
    saver = keras.callbacks.ModelCheckpoint(path, monitor="val_segm_AP", mode="max", save_best_only=True)
    fit([coco_ap(verbose=0), saver], epochs=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch1.keras", "epoch2.keras"]


def test_training_stops_when_the_figures_stop_rising(precisions):
    left = precisions(0.3, 0.2, 0.1, 0.9)
    stopper = keras.callbacks.EarlyStopping("val_bbox_AP", mode="max", patience=2)
    history = fit([coco_ap(verbose=0), stopper], epochs=4)
    assert len(history["loss"]) == 3
    assert left == [0.9]


def test_evaluates_each_nth_epoch_and_the_last(precisions, capsys):
    left = precisions(0.1, 0.2, 0.3)
    history = fit([coco_ap(every_epochs=2, prefix="test_", verbose=0)], epochs=5)
    assert history["test_segm_AP"] == [0.1, 0.2, 0.3]
    assert left == []
    assert capsys.readouterr().out == ""
