"""Semantic labels on their own, moved by the nearest pixel: against numpy, in exact and in float64 arithmetic."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_tf.data.affine import (
    empty_labels,
    resize_labels,
    rotation_matrix,
    scaling_matrix,
    translation_matrix,
    warp_labels,
)

SIDES = st.integers(1, 40)


def drawn(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), SIDES, SIDES, SIDES, SIDES)
def test_a_size_by_exact_arithmetic(seed, height, width, new_height, new_width):
    labels = drawn(seed, height, width)
    found = resize_labels(tf.constant(labels), tf.constant([new_height, new_width])).numpy()
    for row in range(new_height):
        for column in range(new_width):
            source = (2 * row + 1) * height // (2 * new_height), (2 * column + 1) * width // (2 * new_width)
            assert found[row, column] == labels[source]


def test_a_part_is_that_part_by_itself():
    labels = drawn(1, 30, 40)
    found = resize_labels(tf.constant(labels), tf.constant([50, 20]), tf.constant([7, 11]), tf.constant([13, 24]))
    expected = resize_labels(tf.constant(labels[7:20, 11:35]), tf.constant([50, 20]))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "matrix",
    [
        translation_matrix(3.3, -7.2),
        scaling_matrix(1.7, 0.6),
        rotation_matrix(31.0, (30, 40)),
        rotation_matrix(90.0, (30, 40)),
        scaling_matrix(-1.0, 1.0),
    ],
    ids=["shift", "scale", "turn", "quarter", "outside"],
)
def test_a_map_by_its_inverse(matrix):
    labels, matrix = drawn(2, 30, 40), matrix.numpy().astype(np.float64)
    found = warp_labels(tf.constant(labels), tf.constant(matrix, tf.float32), tf.constant([33, 50])).numpy()
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    seen = 0
    for row in range(33):
        for column in range(50):
            x, y, _ = back @ (column + 0.5, row + 0.5, 1)
            if min(abs(x - round(x)), abs(y - round(y))) < 1e-4:
                continue  # on a line between two pixels either may be taken
            inside = 0 <= x < 40 and 0 <= y < 30
            assert found[row, column] == (labels[int(y), int(x)] if inside else 255)
            seen += 1
    assert seen > 1000


def test_none_stay_none():
    moved = [
        resize_labels(empty_labels(), tf.constant([5, 6])),
        resize_labels(empty_labels(), tf.constant([5, 6]), tf.constant([1, 1]), tf.constant([2, 2])),
        warp_labels(empty_labels(), translation_matrix(1.0, 2.0), tf.constant([5, 6])),
    ]
    assert {tuple(one.shape) for one in moved} == {(0, 0)} and {one.dtype for one in moved} == {tf.uint8}
