"""Masks to polygons and back, which pycocotools fills pixel for pixel, and their connected parts, which are SciPy's."""

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from convert_samples import ring
from pycocotools import mask as coco_mask

from mrcnn_tf.datasets.convert.geometry import as_one_polygon, connected_parts, trace_edges
from mrcnn_tf.datasets.run_lengths import join_polygons

SIDES = st.integers(1, 9)
LABEL_SIDES = st.integers(1, 12)
LABEL_VALUES = st.sampled_from([0, 0, 1, 2, 700, 65535])
LABELS = arrays.arrays(np.int32, st.tuples(LABEL_SIDES, LABEL_SIDES), elements=LABEL_VALUES)
MASKS = arrays.arrays(bool, st.tuples(SIDES, SIDES), elements=st.booleans())


def filled(polygon, height, width):
    return coco_mask.decode(coco_mask.frPyObjects([polygon], height, width))[..., 0].astype(bool)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(MASKS)
def test_one_polygon_of_the_outlines_fills_the_mask(mask):
    hypothesis.assume(mask.any())
    assert np.array_equal(filled(join_polygons(trace_edges(mask)), *mask.shape), mask)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(MASKS, st.integers(2, 40), st.integers(2, 40))
def test_ways_between_parts_stay_closed_in_parts_of_the_images_sides(mask, height, width):
    """As in YOLO's files, where a coordinate is rounded to nine digits of the image's side."""
    hypothesis.assume(mask.any())
    mask = np.pad(mask, ((height, 0), (0, width)))
    sides = mask.shape[::-1]
    polygon = join_polygons(trace_edges(mask))
    rounded = [round(value / sides[place % 2], 9) * sides[place % 2] for place, value in enumerate(polygon)]
    assert np.array_equal(filled([round(value, 3) for value in rounded], *mask.shape), mask)


def test_a_square_has_four_corners():
    mask = np.zeros([5, 6], bool)
    mask[1:3, 2:5] = True
    (outline,) = trace_edges(mask)
    assert sorted(zip(outline[0::2], outline[1::2], strict=True)) == [(2, 1), (2, 3), (5, 1), (5, 3)]


def test_a_hole_and_a_touching_corner():
    mask = ring(12, 14)
    assert len(trace_edges(mask)) >= 2
    assert np.array_equal(filled(join_polygons(trace_edges(mask)), *mask.shape), mask)


def test_separate_parts_keep_their_points():
    parts = [[1.5, 1.25, 8.5, 1.0, 7.0, 7.75], [12.0, 2.0, 19.0, 2.5, 18.5, 9.5]]
    polygon = as_one_polygon(parts, 20, 20)
    union = filled(parts[0], 20, 20) | filled(parts[1], 20, 20)
    assert polygon[: len(parts[0])] == parts[0]
    assert np.array_equal(filled(polygon, 20, 20), union)


def test_overlapping_parts_are_joined():
    """The even-odd rule would punch a hole where two parts overlap."""
    parts = [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0], [5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]]
    union = filled(parts[0], 20, 20) | filled(parts[1], 20, 20)
    assert not np.array_equal(filled(join_polygons(parts), 20, 20), union)
    assert np.array_equal(filled(as_one_polygon(parts, 20, 20), 20, 20), union)


COORDINATES = st.integers(0, 12000).map(lambda value: value / 1000)
POLYGONS = st.lists(
    st.lists(COORDINATES, min_size=6, max_size=10).filter(lambda polygon: len(polygon) % 2 == 0), min_size=1, max_size=3
)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(POLYGONS)
def test_one_polygon_fills_what_polygons_fill_together(parts):
    """Crossing themselves and one another as they may."""
    union = np.any([filled(part, 12, 12) for part in parts], axis=0)
    hypothesis.assume(union.any())
    assert np.array_equal(filled(as_one_polygon(parts, 12, 12), 12, 12), union)


def test_opencv_fills_the_same_but_for_a_rim():
    """OpenCV, with which Ultralytics fills outlines, also draws their edges; nothing else may differ."""
    cv2 = pytest.importorskip("cv2")
    mask = np.zeros([40, 50], bool)
    mask[5:35, 5:45] = True
    mask[12:28, 15:35] = False
    polygon = np.array(join_polygons(trace_edges(mask)), np.int32).reshape(-1, 1, 2)
    drawn = cv2.fillPoly(np.zeros(mask.shape, np.uint8), [polygon], 1).astype(bool)
    rim = cv2.dilate(mask.astype(np.uint8), np.ones([3, 3], np.uint8)).astype(bool)
    assert (drawn & mask).sum() == mask.sum()
    way = cv2.polylines(np.zeros(mask.shape, np.uint8), [polygon], True, 1).astype(bool)
    assert not (drawn & ~rim & ~way).any()


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(LABELS)
def test_connected_parts_are_scipys(labels):
    ndimage = pytest.importorskip("scipy.ndimage")
    expected = set()
    for value in set(labels.ravel().tolist()) - {0}:
        parts, count = ndimage.label(labels == value, structure=np.ones([3, 3]))
        expected |= {(parts == number).tobytes() for number in range(1, count + 1)}
    parts = connected_parts(labels)
    assert {(parts == number).tobytes() for number in range(1, parts.max() + 1)} == expected
    assert ((parts == 0) == (labels == 0)).all()


def test_parts_are_numbered_from_the_top_left():
    labels = np.array([[0, 1, 0, 2], [1, 0, 0, 2], [0, 0, 0, 0], [1, 0, 2, 2]])
    assert connected_parts(labels).tolist() == [[0, 1, 0, 2], [1, 0, 0, 2], [0, 0, 0, 0], [3, 0, 4, 4]]
