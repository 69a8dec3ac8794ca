"""Anchors against the recorded numbers of torchvision and detectron2 for size 32."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.anchors import cell_anchors, grid_anchors

RATIOS = [0.5, 1.0, 2.0]


def test_rounded_cell_anchors_are_torchvisions():
    expected = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    np.testing.assert_array_equal(cell_anchors([32], RATIOS, True), expected)


def test_unrounded_cell_anchors_are_detectron2s():
    expected = [[-22.627, -11.314, 22.627, 11.314], [-16, -16, 16, 16], [-11.314, -22.627, 11.314, 22.627]]
    anchors = cell_anchors([32], RATIOS, False)
    assert anchors.dtype == np.float32
    np.testing.assert_allclose(anchors, expected, atol=5e-4)


def test_a_ratio_is_height_over_width_and_keeps_the_area():
    anchors = cell_anchors([100], [0.25, 3.0], False)
    widths, heights = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    np.testing.assert_allclose(heights / widths, [0.25, 3.0], rtol=1e-6)
    np.testing.assert_allclose(widths * heights, 100**2, rtol=1e-6)


@pytest.mark.parametrize(("size", "half"), [(33, 16), (35, 18)])
def test_halves_are_rounded_to_even(size, half):
    np.testing.assert_array_equal(cell_anchors([size], [1.0], True), [[-half, -half, half, half]])


def test_the_grid_runs_over_ratios_then_columns_then_rows_without_offset():
    cell = np.float32([[-1, -2, 1, 2], [-3, -1, 3, 1]])
    anchors = grid_anchors(cell, 2, 3, 4).numpy()
    centres = [(0, 0), (4, 0), (8, 0), (0, 4), (4, 4), (8, 4)]
    expected = [[x + a, y + b, x + c, y + d] for x, y in centres for a, b, c, d in cell]
    np.testing.assert_array_equal(anchors, expected)


def test_the_grid_takes_sizes_known_only_at_run_time():
    cell = np.float32([[-1, -2, 1, 2]])
    anchors = tf.function(lambda size: grid_anchors(cell, size[0], size[1], 16))(tf.constant([3, 2]))
    np.testing.assert_array_equal(anchors[-1], [16 - 1, 32 - 2, 16 + 1, 32 + 2])
    assert anchors.shape == (6, 4) and anchors.dtype == tf.float32


def test_several_sizes_of_one_map_come_one_after_another():
    """detectron2's order on C4: all ratios of a size in a row."""
    both = cell_anchors([32, 64], RATIOS, False)
    np.testing.assert_array_equal(both, np.concatenate([cell_anchors([size], RATIOS, False) for size in (32, 64)]))
