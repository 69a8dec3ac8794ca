"""Anchors against the recorded numbers of torchvision and detectron2 for size 32, and by hand on several maps."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import Conventions
from mrcnn_tf.model.anchors import AnchorGenerator, cell_anchors, grid_anchors, usable_anchors
from mrcnn_tf.model.necks import FeatureMaps

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


def maps(cells, strides, image_size=((64, 96),), padded_size=None):
    """`FeatureMaps` of maps with as many (rows, columns) by name."""
    zeros = {name: tf.zeros([len(image_size), *size, 1]) for name, size in cells.items()}
    return FeatureMaps(zeros, strides, tf.constant(image_size), padded_size and tf.constant(padded_size))


def by_hand(rows, columns, stride, sizes, ratios):
    """[rows * columns * sizes * ratios, 4] in float64, without rounding."""
    anchors = []
    for y, x in np.ndindex(rows, columns):
        for size in sizes:
            for ratio in ratios:
                half = np.array([size / ratio**0.5, size * ratio**0.5]) / 2
                centre = np.array([x * stride, y * stride])
                anchors.append([*(centre - half), *(centre + half)])
    return np.array(anchors)


EXACT = Conventions(anchor_rounding=False, anchor_stride="fixed")


def test_each_map_has_anchors_of_its_own_stride_and_sizes():
    """RetinaNet's, whose maps have several sizes each, on maps of which one isn't twice as coarse as the other."""
    generator = AnchorGenerator([[8.0, 12.0], [32.0, 48.0]], [0.5, 2.0], EXACT)
    assert generator.per_cell(2) == 4
    cells, strides = {"fine": (3, 2), "coarse": (1, 1)}, {"fine": 8, "coarse": 24, "unread": 4}
    made = generator.make(maps(cells, strides))
    np.testing.assert_allclose(made[0], by_hand(3, 2, 8, (8, 12), (0.5, 2)), rtol=1e-6)
    np.testing.assert_allclose(made[1], by_hand(1, 1, 24, (32, 48), (0.5, 2)), rtol=1e-6)


def test_numbers_are_one_size_a_map_and_all_the_sizes_of_a_single_one():
    generator = AnchorGenerator([8.0, 16.0], [1.0], EXACT)
    assert generator.per_cell(2) == 1 and generator.per_cell(1) == 2
    pyramid = generator.make(maps({"P2": (2, 2), "P3": (1, 1)}, {"P2": 4, "P3": 8}))
    np.testing.assert_allclose(pyramid[0], by_hand(2, 2, 4, (8,), (1,)))
    np.testing.assert_allclose(pyramid[1], by_hand(1, 1, 8, (16,), (1,)))
    (single,) = generator.make(maps({"C4": (1, 2)}, {"C4": 16}))
    np.testing.assert_allclose(single, by_hand(1, 2, 16, (8, 16), (1,)))
    (single,) = AnchorGenerator([[8.0, 16.0]], [1.0], EXACT).make(maps({"C4": (1, 2)}, {"C4": 16}))
    np.testing.assert_allclose(single, by_hand(1, 2, 16, (8, 16), (1,)))


def test_torchvisions_stride_follows_from_each_images_own_padded_size():
    """160 pixels are three cells of stride 64, and 160 / 3 is rounded down to 53; 64 pixels are one of 64."""
    generator = AnchorGenerator([2.0], [1.0], Conventions(anchor_rounding=False, anchor_stride="padded"))
    padded_size = [[64, 160], [192, 192]]
    (made,) = generator.make(maps({"P6": (3, 3)}, {"P6": 64}, padded_size, padded_size))
    assert made.shape == (2, 9, 4)
    centres = (made[..., :2] + made[..., 2:]).numpy() / 2
    np.testing.assert_array_equal(centres[0, :, 0], [0, 53, 106] * 3)
    np.testing.assert_array_equal(centres[0, :, 1], np.repeat([0, 64, 128], 3))
    np.testing.assert_array_equal(centres[1, :, 0], [0, 64, 128] * 3)
    # Where all images fill the batch, the batch's own size counts.
    (made,) = generator.make(maps({"P6": (3, 3)}, {"P6": 64}, [[192, 192]]))
    np.testing.assert_array_equal(made[0, :3, 0], [-1, 63, 127])


def test_inclusive_boxes_end_at_their_last_pixel():
    rules = dataclasses.replace(EXACT, box_width="inclusive")
    (made,) = AnchorGenerator([8.0], [1.0], rules).make(maps({"C4": (1, 1)}, {"C4": 16}))
    np.testing.assert_array_equal(made, [[-4, -4, 3, 3]])


@pytest.mark.parametrize(
    ("sizes", "count", "message"),
    [
        ([8.0, 16.0, 32.0], 2, r"sizes for 3 maps .\[8.0, 16.0, 32.0\].*reads 2: give a size, or a list"),
        ([[8.0, 16.0]], 2, "sizes for 1 maps .* reads 2"),
        ([[8.0], [16.0, 32.0]], 2, "have 1 or 2 sizes a map .* give each map as many"),
        ([8.0, [16.0, 32.0]], 2, "have 1 or 2 sizes a map"),
    ],
)
def test_sizes_that_dont_fit_the_maps_are_refused(sizes, count, message):
    with pytest.raises(UserError, match=message):
        AnchorGenerator(sizes).per_cell(count)


def test_anchors_at_padding_are_not_usable():
    cells, strides = {"P2": (2, 3), "P3": (1, 2)}, {"P2": 4, "P3": 8}
    features = maps(cells, strides, [(8, 12), (4, 4)], [[8, 12], [4, 4]])
    fine, coarse = usable_anchors(features, 2)
    np.testing.assert_array_equal(fine, [[True] * 12, [True] * 2 + [False] * 10])
    np.testing.assert_array_equal(coarse, [[True] * 4, [True] * 2 + [False] * 2])
    fine, coarse = usable_anchors(maps(cells, strides), 3)  # all images fill the batch
    assert fine.shape == (1, 18) and coarse.shape == (1, 6) and np.all(fine) and np.all(coarse)
