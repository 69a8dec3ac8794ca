"""Stages of a detection and what is added to it, at small sizes. Nothing is timed."""

import math

import numpy as np
import pytest
from tiny import SMALL_OVERRIDES, tiny_config

from benchmarks import detection_cost
from benchmarks.cases import FAMILY
from benchmarks.comparison import STAGES, TITLES
from mrcnn_tf.cli.benchmark_measurements import benchmark_config

PANOPTIC = [*SMALL_OVERRIDES, "model.semantic_head.channels=32"]
MODEL = {"config": "nuclei_r18_fpn", "overrides": SMALL_OVERRIDES, "height": 64, "width": 96, "precision": "float32"}


def names_of(task):
    times = task.run()
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in times.values())
    return set(times)


def test_the_stages_of_a_detection_are_timed_under_the_names_of_the_report():
    assert names_of(detection_cost.breakdown(**MODEL | {"overrides": PANOPTIC})) == {*STAGES, "whole"} - {
        "keypoint_head_features",
        "keypoint_head",
    }


def test_a_semantic_head_is_timed_by_itself():
    model = MODEL | {"overrides": [*PANOPTIC, "model.box_head=null", "model.mask_head=null"]}
    names = {"resize", "normalize", "backbone", "fpn", "semantic_head", "whole"}
    assert names_of(detection_cost.breakdown(**model)) == names


def test_what_a_semantic_head_adds_is_timed_beside_the_model_without_it():
    task = detection_cost.panoptic(**MODEL | {"overrides": PANOPTIC}, count=7)
    times = task.run()
    assert set(times) == {"detect", "detect_semantic", "map", "segments", "fusion", "detect_panoptic"}
    added = times["detect_panoptic"] - times["detect_semantic"]
    assert added == pytest.approx(times["map"] + times["segments"])
    assert task.facts["segments"] >= 1


def test_masks_are_pasted_and_encoded():
    task = detection_cost.postprocessing(40, 56, count=3)
    assert names_of(task) == {name for measurement, name in TITLES if measurement == "postprocessing"}


@pytest.mark.parametrize("name", FAMILY)
def test_the_familys_configs_give_what_the_report_says_of_them(name):
    config = benchmark_config(FAMILY[name].config, [], 64, 96).model
    assert ("keypoints" in FAMILY[name].outputs) == bool(config.keypoint_head)
    side = 2 * config.mask_head.pool_size if config.mask_head else None
    assert FAMILY[name].outputs.partition(" masks")[0] == (f"boxes, {side}x{side}" if side else FAMILY[name].outputs)
    assert (config.features, config.backbone.depth) == (name[-3:].strip("-0"), 50)
    assert config.rpn.post_nms_test == 1000 and config.detections.max_per_image == 100
    # Persons with their keypoints, or as many classes as the peers have.
    assert [len(category.keypoints) for category in config.categories] == ([17] if config.keypoint_head else [0] * 80)


def test_batches_and_the_bytes_of_an_answer_are_counted(monkeypatch):
    config = tiny_config()
    config.detections.score_threshold = 0.0
    monkeypatch.setattr(detection_cost, "benchmark_config", lambda *_: type("Settings", (), {"model": config}))
    task = detection_cost.serving("", [], 40, 56, "float32", batches=[1, 2])
    assert set(task.run()) == {"keras", "batch_1", "batch_2"}
    facts = task.facts
    assert (facts["batches"], facts["detections"]) == ([1, 2], 10)
    numbers = 10 * (28 * 28 + 4 + 1 + 1) + 1 + 2  # masks, boxes, scores, classes; their number and the image's size
    assert 4 * numbers < facts["grpc_bytes"] < 4 * numbers + 500
    assert 2 * facts["grpc_bytes"] < facts["rest_bytes"] < 4 * facts["grpc_bytes"]


def test_json_has_the_fewest_digits():
    assert detection_cost._shortest_digits(np.array([0.1, 1 / 3], np.float32)) == [0.1, 0.33333334]
    assert detection_cost._shortest_digits(np.int32(3)) == 3
