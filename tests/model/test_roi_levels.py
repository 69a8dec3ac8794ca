"""Level assignment at its borders, by hand, under the three rules."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.roi_features import assign_levels

RULES = ["torchvision", "detectron2", "paper"]


def levels(sides, rule, lowest=2, highest=5):
    boxes = [[10.0, 20.0, 10.0 + width, 20.0 + height] for width, height in sides]
    return assign_levels(tf.constant(boxes), lowest, highest, rule).numpy().tolist()


@pytest.mark.parametrize("rule", RULES)
def test_levels_are_computed_by_hand(rule):
    # 4 + log2(side / 224): 223.999 -> 3.99999, 112 -> 3, 111 -> 2.99, 448 -> 5, 447 -> 4.997.
    sides = [(224, 224), (223.999, 223.999), (112, 112), (111, 111), (448, 448), (447, 447), (300, 300)]
    assert levels(sides, rule) == [4, 3, 3, 2, 5, 4, 4]


@pytest.mark.parametrize("rule", RULES)
def test_the_area_counts_not_the_side(rule):
    assert levels([(448, 112), (112, 448), (896, 56)], rule) == [4, 4, 4]


@pytest.mark.parametrize("rule", RULES)
def test_levels_are_clipped(rule):
    assert levels([(1, 1), (55, 55), (900, 900), (4000, 4000)], rule) == [2, 2, 5, 5]
    assert levels([(10, 10), (5000, 5000)], rule, 3, 6) == [3, 6]


@pytest.mark.parametrize("rule", RULES)
def test_padding_goes_to_the_lowest_level(rule):
    assert levels([(0, 0), (0, 50), (-3, 5)], rule) == [2, 2, 2]


def test_the_rules_differ_just_below_a_border():
    # Seven float32 steps below 224, log2(side / 224) is -6.9e-7: torchvision's 1e-6 lifts it over the border,
    # detectron2's 1e-8 doesn't.
    side = float(np.float32(224) - 7 * np.spacing(np.float32(223)))
    assert [levels([(side, side)], rule)[0] for rule in RULES] == [4, 3, 3]


def test_shape_and_type():
    result = assign_levels(tf.zeros([2, 3, 4]), 2, 5, "torchvision")
    assert result.shape == (2, 3) and result.dtype == tf.int32
