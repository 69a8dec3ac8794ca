"""What is said of the bundled dataset is true."""

import json
import pathlib

import numpy as np

import mrcnn_tf
from mrcnn_tf.datasets.doctor import validate
from mrcnn_tf.model.anchors import cell_anchors

NUCLEI = pathlib.Path(mrcnn_tf.__file__).parent / "datasets" / "nuclei"


def best_iou(box):
    """Of a box (x, y, width, height) with the default anchors around the same centre."""
    anchors = np.float64(cell_anchors([32, 64, 128, 256, 512], [0.5, 1, 2], rounding=False))
    width, height = np.minimum(anchors[:, 2] - anchors[:, 0], box[2]), np.minimum(anchors[:, 3] - anchors[:, 1], box[3])
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(axis=1)
    return (width * height / (areas + box[2] * box[3] - width * height)).max()


def test_at_800_pixels_nothing_is_wrong():
    report = validate(NUCLEI / "train.json", NUCLEI / "images", val=(NUCLEI / "val.json", NUCLEI / "images"))
    assert report.findings == []


def test_at_256_pixels_some_nuclei_are_too_small():
    report = validate(NUCLEI / "train.json", NUCLEI / "images", config="nuclei_r18_fpn")
    other, finding = sorted(report.findings, key=lambda one: one.kind, reverse=True)
    assert other.kind == "unlisted_file" and other.count == 4  # those of val.json
    annotations = json.loads((NUCLEI / "train.json").read_text())["annotations"]
    boxes = [np.multiply(record["bbox"], 2) for record in annotations]
    expected = sum(best_iou(box) < 0.3 for box in boxes)
    assert (finding.kind, finding.severity, finding.count) == ("tiny_object", "note", expected) and expected > 0
    sides = np.median([np.sqrt(box[2] * box[3]) for box in boxes])
    assert f"half of the objects have sides under {sides:.0f} pixels" in finding.summary
