"""Pictures of predictions for TensorBoard, and the event files that hold them and the curves."""

import types

import numpy as np
import pytest
import tensorflow as tf
from tiny import CATEGORIES, tiny_batch

from mrcnn_tf.results.detections import Detections
from mrcnn_tf.training import tensorboard
from mrcnn_tf.training.tensorboard import EventFile, ShowPredictions, draw_predictions


class OneDogModel:
    """A model that detects one dog in each image, at a place in original pixels."""

    categories, stuff = CATEGORIES, []
    optimizer = None
    trainable_weights = ()

    def __init__(self, score, box=(40, 20, 80, 60), **extras):
        self.score, self.box, self.extras = score, box, extras

    def detect_batch(self, batch):
        return [
            Detections([self.box], [self.score], [2], size, CATEGORIES, np.ones((1, 28, 28), np.float32), **self.extras)
            for size in batch["original_size"]
        ]


def test_detections_are_drawn_where_they_are_in_the_resized_image():
    """A batch's images are half as large as their originals, and are drawn twelve times as large."""
    batch = tiny_batch()
    with_box, without = (draw_predictions(OneDogModel(score), [batch])["predictions/100"] for score in (0.9, 0.1))
    scale = without.shape[1] / (768 + 768 + 9)
    changed = (np.abs(with_box.astype(int) - without) > 60).any(axis=2)
    rows, columns = np.nonzero(changed)
    left = columns.min() - (without.shape[1] - 768 * scale)
    assert np.abs(left / scale - 20 * 12) < 8
    assert np.abs((columns.max() - columns.min()) / scale - 20 * 12) < 16
    title = without.shape[0] - 768 * scale
    assert np.abs((rows.max() - title) / scale - 30 * 12) < 8


def test_numbers_of_a_head_of_ones_own_are_drawn():
    models = OneDogModel(0.9), OneDogModel(0.9, orientation=[37.2]), OneDogModel(0.9, orientation=[37.3])
    plain, first, second = (draw_predictions(model, [tiny_batch()])["predictions/100"] for model in models)
    assert (plain != first).any() and (first != second).any()


def test_only_the_first_images_are_drawn_and_none_twice():
    drawn = draw_predictions(OneDogModel(0.9), [tiny_batch(), tiny_batch(seed=1)], count=4)
    assert list(drawn) == ["predictions/100", "predictions/101"]
    assert list(draw_predictions(OneDogModel(0.9), [tiny_batch()], count=1)) == ["predictions/100"]
    assert all(picture.dtype == np.uint8 and max(picture.shape) <= 1200 for picture in drawn.values())


def test_they_are_drawn_after_evaluations_and_read_once(monkeypatch):
    reads, written = [], []

    def coco_dataset(config, training):
        reads.append(config)
        return types.SimpleNamespace(take=lambda number: [tiny_batch()][:number])

    monkeypatch.setattr(tensorboard, "coco_dataset", coco_dataset)
    events = types.SimpleNamespace(write_pictures=lambda drawn, step: written.append((sorted(drawn), step)))
    config = types.SimpleNamespace(images_per_batch=2)
    callback = ShowPredictions(events, config, types.SimpleNamespace(step=30), count=1)
    callback.set_model(OneDogModel(0.9))
    callback.on_epoch_end(0, {"loss": 1.0})
    assert not written
    callback.on_epoch_end(1, {"loss": 1.0, "val_bbox_AP": 0.1})
    callback.on_epoch_end(2, {"loss": 1.0, "val_bbox_AP": 0.1})
    assert written == [(["predictions/100"], 30)] * 2 and len(reads) == 1


def test_a_full_disk_stops_nothing(capsys):
    def fail(drawn, step):
        raise OSError(None, "No space left on device", "tensorboard")

    callback = ShowPredictions(types.SimpleNamespace(write_pictures=fail), None, types.SimpleNamespace(step=1), count=1)
    callback.set_model(OneDogModel(0.9))
    callback._batches = [tiny_batch()]
    callback.on_epoch_end(0, {"val_bbox_AP": 0.1})
    assert "No space left on device" in capsys.readouterr().err


def events_of(folder):
    """The `Event`s of all files of a folder, the files in the order of their names."""
    files = sorted(str(path) for path in folder.iterdir())
    return [tf.compat.v1.Event.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset(files)]


def test_events_hold_curves_and_pictures(tmp_path):
    events = EventFile(tmp_path / "tensorboard", 40)
    assert not (tmp_path / "tensorboard").exists()
    events.write({"step": 60, "epoch": 2, "time": 1e9, "loss": 0.5, "val_segm_AP": 0.25})
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:, 15:] = 200
    events.write_pictures({"predictions/7": picture}, 60)
    version, start, values, pictures = events_of(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (41, tf.compat.v1.SessionLog.START)
    assert values.step == pictures.step == 60
    assert {value.tag: value.simple_value for value in values.summary.value} == {
        "training/epoch": 2, "training/loss": 0.5, "evaluation/segm_AP": 0.25,
    }  # fmt: skip
    (image,) = pictures.summary.value
    assert (image.tag, image.image.width, image.image.height) == ("predictions/7", 30, 20)
    decoded = tf.io.decode_jpeg(image.image.encoded_image_string).numpy()
    assert np.abs(decoded.astype(int) - picture).max() < 30


def test_tensorboard_reads_them(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = EventFile(tmp_path)
    for step in (10, 20, 30):
        first.write({"step": step, "loss": 1.0})
    second = EventFile(tmp_path, 20)
    second.write({"step": 30, "loss": 2.0})
    second.write_pictures({"predictions/7": np.zeros((4, 4, 3), np.uint8)}, 30)
    found = accumulator.EventAccumulator(str(tmp_path), {"images": 0, "tensors": 0, "scalars": 0})
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("training/loss")] == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert [event.step for event in found.Images("predictions/7")] == [30]


def test_events_on_a_full_disk_are_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        EventFile(tmp_path / "file" / "tensorboard").write({"step": 1})
