"""The measurement of an export."""

import numpy as np
from tiny import tiny_config

from mrcnn_tf.benchmark import serving


def test_batches_and_the_bytes_of_an_answer_are_counted(monkeypatch):
    config = tiny_config()
    config.detections.score_threshold = 0.0
    monkeypatch.setattr(serving, "benchmark_config", lambda *_: type("Settings", (), {"model": config}))
    task = serving.prepare("", [], 40, 56, "float32", batches=[1, 2])
    assert set(task.run()) == {"keras", "batch_1", "batch_2"}
    facts = task.facts
    assert (facts["batches"], facts["detections"]) == ([1, 2], 10)
    numbers = 10 * (28 * 28 + 4 + 1 + 1) + 1 + 2  # masks, boxes, scores, classes; their number and the image's size
    assert 4 * numbers < facts["grpc_bytes"] < 4 * numbers + 500
    assert 2 * facts["grpc_bytes"] < facts["rest_bytes"] < 4 * facts["grpc_bytes"]


def test_json_has_the_fewest_digits():
    assert serving._shortest(np.array([0.1, 1 / 3], np.float32)) == [0.1, 0.33333334]
    assert serving._shortest(np.int32(3)) == 3
