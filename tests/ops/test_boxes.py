"""Box arithmetic against hand-computed cases, float64 and the laws of Fast R-CNN's parameterisation."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_tf.ops import boxes as box_ops

ONE = (1.0, 1.0, 1.0, 1.0)
HEAD = (10.0, 10.0, 5.0, 5.0)


def test_area_is_half_open_and_never_negative():
    areas = box_ops.area(tf.constant([[1.0, 2, 4, 6], [5, 5, 5, 9], [4, 4, 2, 9], [4, 4, 2, 2]]))
    np.testing.assert_array_equal(areas, [12, 0, 0, 0])


def test_overlap_is_computed_by_hand():
    box = tf.constant([0.0, 0, 4, 4])
    others = tf.constant([[2.0, 2, 6, 6], [0, 0, 4, 4], [4, 0, 8, 4], [1, 1, 3, 3], [6, 6, 9, 9]])
    np.testing.assert_array_equal(box_ops.intersection(box, others), [4, 16, 0, 4, 0])
    np.testing.assert_allclose(box_ops.iou(box, others), [4 / 28, 1, 0, 4 / 16, 0], rtol=1e-6)


def test_overlap_of_empty_boxes_is_zero_not_nan():
    empty = tf.constant([3.0, 3, 3, 3])
    assert float(box_ops.iou(empty, empty)) == 0.0
    assert float(box_ops.iou(empty, tf.constant([0.0, 0, 9, 9]))) == 0.0
    assert float(box_ops.iou(tf.constant([8.0, 8, 2, 2]), tf.constant([0.0, 0, 9, 9]))) == 0.0


def test_overlap_broadcasts():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 20, (9, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    table = box_ops.iou(boxes[:5, None], boxes[None, 5:]).numpy()
    assert table.shape == (5, 4)
    for (row, column), value in np.ndenumerate(table):
        a, b = np.float64(boxes[row]), np.float64(boxes[5 + column])
        sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
        union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - np.prod(sides)
        assert value == pytest.approx(np.prod(sides) / union, abs=1e-6)


def test_clip_takes_each_image_size_as_height_width():
    boxes = tf.constant([[[-5.0, -6, 30, 40], [25, 13, 28, 14]]] * 2)
    clipped = box_ops.clip(boxes, tf.constant([[10, 20], [50, 26]]))
    np.testing.assert_array_equal(clipped, [[[0, 0, 20, 10], [20, 10, 20, 10]], [[0, 0, 26, 40], [25, 13, 26, 14]]])


def test_encode_is_computed_by_hand():
    # Centres (5, 10) and (10, 20); sides (10, 20) and (10, 40).
    deltas = [0.5, 0.5, 0.0, math.log(2.0)]
    reference, box = tf.constant([0.0, 0, 10, 20]), tf.constant([5.0, 0, 15, 40])
    np.testing.assert_allclose(box_ops.encode(box, reference, ONE), deltas, rtol=1e-6)
    np.testing.assert_allclose(box_ops.encode(box, reference, HEAD), np.multiply(deltas, HEAD), rtol=1e-6)


def test_decode_is_computed_by_hand():
    deltas = tf.constant([5.0, 5.0, 0.0, 5 * math.log(2.0)])
    np.testing.assert_allclose(box_ops.decode(deltas, tf.constant([0.0, 0, 10, 20]), HEAD), [5, 0, 15, 40], rtol=1e-6)


@pytest.mark.parametrize("weights", [ONE, HEAD])
def test_decoded_sides_grow_at_most_a_thousand_sixteenths(weights):
    """Both reference systems cut dw and dh, after the weights, at ln(1000 / 16)."""
    reference = tf.constant([0.0, 0, 16, 8])
    at_limit = np.float32(math.log(1000 / 16)) * np.float32([weights[2], weights[3]])
    for scale in ([1000.0, 88.0], at_limit):
        box = box_ops.decode(tf.constant([0.0, 0, *scale], tf.float32), reference, weights)
        np.testing.assert_allclose(box, [8 - 500, 4 - 250, 8 + 500, 4 + 250], rtol=1e-5)
    below = box_ops.decode(tf.constant([0.0, 0, *(at_limit - 0.5)], tf.float32), reference, weights).numpy()
    np.testing.assert_allclose(below[2] - below[0], 1000 * math.exp(-0.5 / weights[2]), rtol=1e-5)


@pytest.mark.parametrize(("limit", "side"), [("above", 100 * math.exp(-6)), ("both", 100 * 16 / 1000)])
def test_shrinking_is_cut_where_mmdetection_does(limit, side):
    box = box_ops.decode(tf.constant([0.0, 0, -6, -6]), tf.constant([0.0, 0, 100, 100]), ONE, limit).numpy()
    np.testing.assert_allclose(box[2:] - box[:2], side, rtol=1e-4)


sides = st.tuples(st.floats(8, 400), st.floats(8, 400))
corners = st.tuples(st.floats(-50, 900), st.floats(-50, 900))


@settings(max_examples=60, deadline=None)
@given(corners, sides, corners, sides, st.sampled_from([ONE, HEAD]))
def test_decode_inverts_encode(corner, side, reference_corner, reference_side, weights):
    box = np.float32([*corner, *np.add(corner, side)])
    reference = np.float32([*reference_corner, *np.add(reference_corner, reference_side)])
    deltas = box_ops.encode(tf.constant(box), tf.constant(reference), weights)
    np.testing.assert_allclose(box_ops.decode(deltas, reference, weights), box, atol=5e-3)


def test_padding_encodes_to_finite_numbers():
    zero, box = tf.zeros([4]), tf.constant([0.0, 0, 1333, 1333])
    for a, b in ((zero, zero), (zero, box), (box, zero)):
        assert np.isfinite(box_ops.encode(a, b, HEAD)).all()


def test_boxes_stay_float32_when_deltas_are_bfloat16():
    box = box_ops.decode(tf.zeros([4], tf.bfloat16), tf.constant([801.25, 0, 803.5, 7]), ONE)
    assert box.dtype == tf.float32
    np.testing.assert_array_equal(box, [801.25, 0, 803.5, 7])


def test_large_enough_needs_area_and_the_shorter_side():
    boxes = tf.constant([[0.0, 0, 9, 2], [0, 0, 2, 9], [0, 0, 1.5, 9], [0, 0, 0, 9], [5, 5, 4, 9]])
    np.testing.assert_array_equal(box_ops.large_enough(boxes, 2.0), [True, True, False, False, False])
    np.testing.assert_array_equal(box_ops.large_enough(boxes, 0.0), [True, True, True, False, False])


def test_each_axis_of_each_image_has_its_own_ratio_to_the_original():
    boxes = tf.constant([[[10.0, 20, 30, 40]], [[10.0, 20, 30, 40]]])
    # (height, width): first 100x200 from 50x400 (y halves, x doubles); second unchanged in y, x thirds.
    result = box_ops.to_original(boxes, tf.constant([[100, 200], [90, 90]]), tf.constant([[50, 400], [90, 30]]))
    np.testing.assert_allclose(result, [[[20, 10, 60, 20]], [[10 / 3, 20, 10, 40]]], rtol=1e-6)


def test_the_whole_resized_image_is_the_whole_original():
    box = box_ops.to_original(tf.constant([[[0.0, 0, 993, 799]]]), tf.constant([[799, 993]]), tf.constant([[161, 200]]))
    np.testing.assert_allclose(box, [[[0, 0, 200, 161]]], rtol=1e-6)
