"""The part of the benchmark that compares the backends of COCO's figures. Nothing is timed."""

import numpy as np
import pytest

from benchmarks import cases, training_cost
from benchmarks.comparison import WHAT, Comparison, Result, Times
from benchmarks.display import comparison_table
from benchmarks.inputs import coco_like


def test_the_dataset_is_the_same_each_time_and_like_coco():
    data, results = coco_like(60, 20)
    assert (data, results) == coco_like(60, 20)
    assert len(data["images"]) == 60 and len(results) == 1200
    objects = np.bincount([a["image_id"] for a in data["annotations"]], minlength=61)[1:]
    assert 5 < objects.mean() < 10 and objects.min() < 4
    assert {a["category_id"] for a in data["annotations"]} <= set(range(1, 81))
    assert any(a["iscrowd"] for a in data["annotations"])
    assert len({result["score"] for result in results}) < len(results), "there are ties"


def test_both_backends_are_timed_and_give_the_same_figures():
    tasks = {backend: training_cost.evaluation(backend, images=12, detections=10) for backend in cases.BACKENDS}
    for task in tasks.values():
        assert set(task.run()) == {name for measurement, name in WHAT if measurement == "evaluation"}
        assert task.facts["images"] == 12 and task.facts["detections"] == 120
    one, other = (task.facts["figures"] for task in tasks.values())
    for kind in ("bbox", "segm"):
        assert one[kind]["AP50"] > 0
        assert one[kind]["AP"] == pytest.approx(other[kind]["AP"], rel=0, abs=1e-9)


def test_the_plan_has_a_process_for_each_backend():
    found = cases.make_cases("evaluation", cases.CompareSettings("nuclei_r18_fpn", [], 64, 64, 1), ["float32", "bfloat16"], [])
    assert [contender.arguments for contender in found] == [{"backend": "pycocotools"}, {"backend": "hotcoco"}]


def test_the_report_says_how_much_faster_it_is():
    machine = {
        "processor": "Abacus",
        "cores": 2,
        "memory": 2**33,
        "load": 0.5,
        "system": "L",
        "python": "3",
        "date": "d",
    }
    report = Comparison(cases.CompareSettings("nuclei_r18_fpn", [], 64, 64, 3), machine, {"mrcnn-tf": "1"})
    assert report.evaluation_speedup() is None
    for variant, seconds in (("pycocotools", 60.0), ("hotcoco", 4.0)):
        times = {"evaluate": Times(seconds, seconds, seconds, [seconds])}
        report.entries.append(Result("evaluation", cases.PACKAGE, "float32", variant, times, 2**30, {}))
    assert report.to_json()["evaluation_speedup"] == 15
    sentences = [str(part) for part in comparison_table(report).renderables]
    assert "COCO's figures by hotcoco: 15.0 times as fast as pycocotools" in sentences
