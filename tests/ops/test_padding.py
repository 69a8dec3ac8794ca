"""The image's own area of a padded batch, by hand."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import padding
from mrcnn_tf.ops.native.library import static_shapes


def test_a_padded_size_is_the_size_rounded_up():
    sizes = padding.round_up(tf.constant([[1, 32], [33, 64], [800, 1333]]))
    np.testing.assert_array_equal(sizes, [[32, 32], [64, 64], [800, 1344]])
    np.testing.assert_array_equal(padding.round_up(tf.constant([[1, 9]]), 8), [[8, 16]])


def test_valid_cells_are_the_padded_size_in_cells_rounded_up():
    np.testing.assert_array_equal(padding.count_cells(tf.constant([[32, 96]]), 64), [[1, 2]])
    np.testing.assert_array_equal(padding.count_cells(tf.constant([[32, 96]]), 4), [[8, 24]])
    assert padding.count_cells(None, 4) is None


def test_inside_marks_rows_and_columns_of_each_image():
    marks = padding.valid_mask(tf.constant([[1, 3], [2, 0]]), 2, 4)
    assert marks.shape == (2, 2, 4, 1)
    np.testing.assert_array_equal(marks[..., 0], [[[1, 1, 1, 0], [0, 0, 0, 0]], [[0] * 4] * 2])


@pytest.mark.parametrize("context", [contextlib.nullcontext, static_shapes])
def test_clear_sets_what_lies_beyond_to_zero(context):
    features = tf.ones([2, 2, 3, 5])
    with context():
        cleared = padding.clear_padding(features, tf.constant([[2, 1], [1, 3]])).numpy()
    np.testing.assert_array_equal(cleared[..., 0], [[[1, 0, 0], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]]])
    assert (cleared == cleared[..., :1]).all()


@pytest.mark.parametrize("cells", [None, [[2, 3], [2, 3]], [[4, 4], [2, 3]]])
def test_clear_leaves_a_full_map_alone(cells):
    features = tf.random.stateless_normal([2, 2, 3, 1], [0, 1])
    cells = cells and tf.constant(cells)
    np.testing.assert_array_equal(padding.clear_padding(features, cells), features)


def test_what_lies_beyond_may_be_nan_and_gets_no_gradient():
    features = tf.constant([[[[1.0], [np.nan]]]])
    with tf.GradientTape() as tape:
        tape.watch(features)
        total = tf.reduce_sum(padding.clear_padding(features, tf.constant([[1, 1]])))
    assert float(total) == 1.0
    np.testing.assert_array_equal(tape.gradient(total, features)[0, 0, :, 0], [1, 0])


def test_clear_keeps_the_type():
    assert padding.clear_padding(tf.ones([1, 2, 2, 1], tf.bfloat16), tf.constant([[1, 1]])).dtype == tf.bfloat16


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_cells_of_any_map_of_the_running_batch_are_those_of_its_stride(stride):
    """Padded sizes may be any number of pixels: without a pyramid detectron2 pads a single image not at all."""
    padded_size = tf.constant([[64, 83], [96, 128], [1, 33]])
    features = tf.zeros([3, 96 // stride, 128 // stride, 2])
    assert padding.running_valid_cells(features) is padding.running_padded_size() is None
    with padding.running_batch(tf.zeros([3, 96, 128, 3]), padded_size):
        assert padding.running_padded_size() is padded_size
        cells = padding.running_valid_cells(features)
        with padding.running_batch(tf.zeros([3, 96, 128, 3]), None):
            assert padding.running_valid_cells(features) is padding.running_padded_size() is None
    np.testing.assert_array_equal(cells, np.ceil(padded_size.numpy() / stride))
    assert padding.running_padded_size() is None


def test_a_static_image_size_is_the_map_in_pixels():
    assert padding.static_image_size(tf.zeros([1, 3, 5, 2]), 16) is None
    with static_shapes():
        assert padding.static_image_size(tf.zeros([1, 3, 5, 2]), 16) == (48, 80)
