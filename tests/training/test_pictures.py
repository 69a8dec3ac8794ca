"""Pictures of detections for TensorBoard."""

import types

import numpy as np
from tiny import CATEGORIES, tiny_batch

from mrcnn_tf.results.detections import Detections
from mrcnn_tf.training import tensorboard
from mrcnn_tf.training.tensorboard import ShowPredictions, draw_predictions


class Finds:
    """A model that finds one dog in each image, at a place in original pixels."""

    config = types.SimpleNamespace(categories=CATEGORIES, stuff=[])
    optimizer = None
    trainable_weights = ()

    def __init__(self, score, box=(40, 20, 80, 60)):
        self.score, self.box = score, box

    def detect_batch(self, batch):
        return [
            Detections([self.box], [self.score], [2], size, CATEGORIES, np.ones((1, 28, 28), np.float32))
            for size in batch["original_size"]
        ]


def test_detections_are_drawn_where_they_are_in_the_resized_image():
    """A batch's images are half as large as their originals, and are drawn twelve times as large."""
    batch = tiny_batch()
    with_box, without = (draw_predictions(Finds(score), [batch])["predictions/100"] for score in (0.9, 0.1))
    scale = without.shape[1] / (768 + 768 + 9)
    changed = (np.abs(with_box.astype(int) - without) > 60).any(axis=2)
    rows, columns = np.nonzero(changed)
    left = columns.min() - (without.shape[1] - 768 * scale)
    assert np.abs(left / scale - 20 * 12) < 8
    assert np.abs((columns.max() - columns.min()) / scale - 20 * 12) < 16
    title = without.shape[0] - 768 * scale
    assert np.abs((rows.max() - title) / scale - 30 * 12) < 8


def test_only_the_first_images_are_drawn_and_none_twice():
    drawn = draw_predictions(Finds(0.9), [tiny_batch(), tiny_batch(seed=1)], count=4)
    assert list(drawn) == ["predictions/100", "predictions/101"]
    assert list(draw_predictions(Finds(0.9), [tiny_batch()], count=1)) == ["predictions/100"]
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
    callback.set_model(Finds(0.9))
    callback.on_epoch_end(0, {"loss": 1.0})
    assert not written
    callback.on_epoch_end(1, {"loss": 1.0, "val_bbox_AP": 0.1})
    callback.on_epoch_end(2, {"loss": 1.0, "val_bbox_AP": 0.1})
    assert written == [(["predictions/100"], 30)] * 2 and len(reads) == 1


def test_a_full_disk_stops_nothing(capsys):
    def fail(drawn, step):
        raise OSError(None, "No space left on device", "tensorboard")

    callback = ShowPredictions(types.SimpleNamespace(write_pictures=fail), None, types.SimpleNamespace(step=1), count=1)
    callback.set_model(Finds(0.9))
    callback._batches = [tiny_batch()]
    callback.on_epoch_end(0, {"val_bbox_AP": 0.1})
    assert "No space left on device" in capsys.readouterr().err
