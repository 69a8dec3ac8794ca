import array

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.datasets import polygons
from mrcnn_tf.datasets.coco_records import parse_annotation
from mrcnn_tf.datasets.doctor.coco_source import AnnotationRecords
from mrcnn_tf.datasets.doctor.mask_checks import measure_masks
from mrcnn_tf.datasets.polygons import find_self_crossing


def records_of(segmentations):
    records = AnnotationRecords("a.json", True)
    for number, segmentation in enumerate(segmentations, 1):
        record = {"id": number, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}
        records.add(parse_annotation(record | {"segmentation": segmentation}))
    records.finish()
    return records


def crosses(ring, depth=polygons.CROSSING_DEPTH):
    """Whether two edges of a ring cross, by trying all pairs."""

    def side(a, b, p):
        return ((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])) / max(np.hypot(*(b - a)), 1e-30)

    edges = list(zip(ring, np.roll(ring, -1, axis=0), strict=True))
    for number, (a, b) in enumerate(edges):
        for c, d in edges[number + 1 :]:
            sides = [side(a, b, c), side(a, b, d), side(c, d, a), side(c, d, b)]
            if sides[0] * sides[1] < 0 and sides[2] * sides[3] < 0 and min(map(abs, sides)) > depth:
                return True
    return False


@pytest.mark.parametrize("pairs", [1, polygons.PAIRS])
def test_crossings_are_those_of_all_pairs_of_edges(monkeypatch, pairs):
    monkeypatch.setattr(polygons, "PAIRS", pairs)
    rng = np.random.default_rng(0)
    rings = []
    for size in rng.integers(3, 12, 300):
        angles = np.sort(rng.uniform(0, 2 * np.pi, size))
        star = rng.uniform(1, 30, (size, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        rings.append(star if rng.random() < 0.6 else rng.uniform(0, 9, (size, 2)).round())
    expected = [crosses(ring) for ring in rings]
    assert 30 < sum(expected) < 270
    is_crossing = find_self_crossing(np.concatenate(rings), np.array([len(ring) for ring in rings]))
    assert is_crossing.tolist() == expected


def test_touching_and_repeated_points_do_not_cross():
    rings = [
        [(0, 0), (10, 0), (10, 10), (10, 10), (0, 10), (0, 0)],  # closed, with a point given twice
        [(0, 0), (10, 0), (10, 10), (10, 0), (20, 0), (20, 20)],  # there and back along the same line
        [(0, 0), (5, 5), (10, 0), (10, 10), (5, 5), (0, 10)],  # two triangles that meet in a point
        [(0, 0), (10, 0), (10.0, 0.02), (9.99, -0.02), (10, 10)],  # a loop of rounding errors
    ]
    points = np.concatenate([np.array(ring, np.float64) for ring in rings])
    assert not find_self_crossing(points, np.array([len(ring) for ring in rings])).any()


def masks_of(rng):
    """Masks of random rectangles, empty columns and single pixels, of images of 20 x 30 pixels."""
    for _ in range(40):
        mask = np.zeros([20, 30], np.uint8)
        for _ in range(rng.integers(1, 4)):
            top, left = rng.integers(0, (20, 30))
            mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 12)] = 1
        yield mask


def test_run_lengths_have_the_boxes_and_areas_of_pycocotools(monkeypatch):
    monkeypatch.setattr(polygons, "BLOCK", 50)
    encoded = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks_of(np.random.default_rng(1))]
    segmentations = []
    for number, rle in enumerate(encoded):
        text = rle["counts"].decode()
        counts = text if number % 2 else coco_mask.decode(rle).flatten(order="F")
        if number % 2 == 0:
            line = np.r_[0, counts.astype(np.int64)]
            counts = np.diff(np.r_[0, np.flatnonzero(np.diff(line)), counts.size]).tolist()
        segmentations.append({"size": [20, 30], "counts": counts})
    masks = measure_masks(records_of(segmentations))
    boxes = np.stack([coco_mask.toBbox(rle) for rle in encoded])
    boxes[:, 2:] += boxes[:, :2]
    np.testing.assert_array_equal(masks.boxes, boxes)
    np.testing.assert_array_equal(masks.areas, [coco_mask.area(rle) for rle in encoded])


def test_polygons_are_measured_ring_by_ring():
    square, triangle = [2, 3, 12, 3, 12, 13, 2, 13], [20, 5, 26, 5, 20, 13]
    bow_tie = [0, 0, 10, 10, 10, 0, 0, 10]  # its two lobes cancel out
    masks = measure_masks(records_of([[square, triangle], [triangle], [bow_tie], [[1, 1, 5, 5, 9, 9]]]))
    expected = [[2, 3, 26, 13], [20, 5, 26, 13], [0, 0, 10, 10], [1, 1, 9, 9]]
    assert masks.boxes.tolist() == expected
    assert masks.areas.tolist() == [124, 24, 0, 0]
    assert masks.polygon_areas.tolist() == [100, 24, 24, 0, 0] and masks.owner.tolist() == [0, 0, 1, 2, 3]
    assert masks.is_crossing.tolist() == [False, False, False, True, False]
    assert masks.is_flat.tolist() == [False, False, False, False, True]


def test_what_cannot_be_measured_does_not_disturb_the_rest():
    not_finite = [[0, 0, float("nan"), 5, 5, 5]]  # isn't among the records
    masks = measure_masks(records_of([not_finite, {"size": [0, 0], "counts": [3, -2]}, [[0, 0, 4, 0, 4, 4]]]))
    assert masks.boxes[-1].tolist() == [0, 0, 4, 4] and masks.areas[-1] == 8
    assert isinstance(records_of([]).positions, array.array) and measure_masks(records_of([])).areas.size == 0
