import json
import pathlib

import numpy as np
import pytest
from sound_dataset import counts
from spoilers import ALONG, CASES, SPOILERS

import mrcnn_tf
from mrcnn_tf.datasets.doctor import validate
from mrcnn_tf.datasets.doctor.findings import PROBLEM_KINDS
from mrcnn_tf.model.anchors import cell_anchors

NUCLEI = pathlib.Path(mrcnn_tf.__file__).parent / "datasets" / "nuclei"


def test_a_sound_dataset_is_called_sound(dataset):
    report = dataset.check()
    assert report.findings == []
    facts = report.to_json()["datasets"][0]["facts"]
    assert (facts["images"], facts["annotations"], facts["classes"]) == (3, 12, {"3 细胞": 12})


def test_there_is_a_case_for_every_kind():
    others = ("comparison", "maps")  # test_doctor_comparison.py and test_doctor_panoptic.py have those
    assert set(SPOILERS) == {name for name, kind in PROBLEM_KINDS.items() if kind.section not in others}


@pytest.mark.parametrize(("kind", "spoil", "count"), CASES)
def test_what_is_wrong_is_found_and_nothing_else(dataset, kind, spoil, count):
    spoil(dataset)
    kinds = counts(dataset.check())
    assert kinds.pop(kind, 0) == count
    assert set(kinds) <= set(ALONG.get(kind, []))


def best_iou(box):
    """Of a box (x, y, width, height) with the default anchors around the same centre."""
    anchors = np.float64(cell_anchors([32, 64, 128, 256, 512], [0.5, 1, 2], rounding=False))
    width, height = np.minimum(anchors[:, 2] - anchors[:, 0], box[2]), np.minimum(anchors[:, 3] - anchors[:, 1], box[3])
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(axis=1)
    return (width * height / (areas + box[2] * box[3] - width * height)).max()


def test_nothing_is_wrong_with_the_bundled_nuclei_at_800_pixels():
    report = validate(NUCLEI / "train.json", NUCLEI / "images", val=(NUCLEI / "val.json", NUCLEI / "images"))
    assert report.findings == []


def test_some_nuclei_are_too_small_at_256_pixels():
    report = validate(NUCLEI / "train.json", NUCLEI / "images", config="nuclei_r18_fpn")
    other, finding = sorted(report.findings, key=lambda finding: finding.kind, reverse=True)
    assert other.kind == "unlisted_file" and other.count == 4  # those of val.json
    annotations = json.loads((NUCLEI / "train.json").read_text())["annotations"]
    boxes = [np.multiply(record["bbox"], 2) for record in annotations]
    expected = sum(best_iou(box) < 0.3 for box in boxes)
    assert (finding.kind, finding.severity, finding.count) == ("tiny_object", "note", expected) and expected > 0
    sides = np.median([np.sqrt(box[2] * box[3]) for box in boxes])
    assert f"half of the objects have sides under {sides:.0f} pixels" in finding.summary
