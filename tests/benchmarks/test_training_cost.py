"""What is measured beside the training steps, and the data for it, at small sizes. Nothing is timed."""

import json
import math
import pathlib

import numpy as np
import pytest
from tiny import SMALL_OVERRIDES

from benchmarks import training_cost
from benchmarks.cases import BACKENDS
from benchmarks.comparison import TITLES
from benchmarks.inputs import coco_like_detections, make_jpeg_dataset
from mrcnn_tf.cli.benchmark_measurements import OBJECTS

MODEL = {"config": "nuclei_r18_fpn", "overrides": SMALL_OVERRIDES, "height": 64, "width": 96}


def names_of(task):
    times = task.run()
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in times.values())
    return set(times)


def test_replicas_and_checkpoints_are_timed():
    assert names_of(training_cost.replicas(**MODEL, replicas=1)) == {"step"}
    task = training_cost.checkpoints(**MODEL)
    assert names_of(task) == {"steps", "steps_saving"}
    assert [path.name for path in pathlib.Path(task.folder.name).iterdir()] == ["step-00000001.npz"]
    assert task.facts["every"] == 500


def test_the_pipelines_images_have_seven_objects_at_training_size(tmp_path):
    task = training_cost.pipeline(images=2, batch=1)
    assert names_of(task) == {"image"}
    tree = json.loads(pathlib.Path(make_jpeg_dataset(tmp_path)).read_text())
    assert len(tree["images"]) == 16 and len(tree["annotations"]) == 16 * OBJECTS


def test_the_detections_are_the_same_each_time_and_like_cocos():
    data, results = coco_like_detections(60, 20)
    assert (data, results) == coco_like_detections(60, 20)
    assert len(data["images"]) == 60 and len(results) == 1200
    objects = np.bincount([a["image_id"] for a in data["annotations"]], minlength=61)[1:]
    assert 5 < objects.mean() < 10 and objects.min() < 4
    assert {a["category_id"] for a in data["annotations"]} <= set(range(1, 81))
    assert any(a["iscrowd"] for a in data["annotations"])
    assert len({result["score"] for result in results}) < len(results), "there are ties"


def test_both_backends_are_timed_and_give_the_same_figures():
    tasks = {backend: training_cost.evaluation(backend, images=12, detections=10) for backend in BACKENDS}
    for task in tasks.values():
        assert set(task.run()) == {name for measurement, name in TITLES if measurement == "evaluation"}
        assert task.facts["images"] == 12 and task.facts["detections"] == 120
    first, second = (task.facts["figures"] for task in tasks.values())
    for annotation_type in ("bbox", "segm"):
        assert first[annotation_type]["AP50"] > 0
        assert first[annotation_type]["AP"] == pytest.approx(second[annotation_type]["AP"], rel=0, abs=1e-9)
