import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_tf.config import AugmentConfig
from mrcnn_tf.data.augment import augment, flip_horizontal, flip_vertical, quarter_turn


def sample(seed=0):
    """An image whose object's pixels are marked, with each object's box and mask crop (4 x 4 cells of 2 pixels)."""
    rng = np.random.default_rng(seed)
    image = np.zeros((20, 30, 3), np.float32)
    boxes, masks = [], []
    for channel, (left, top) in enumerate([(2, 3), (15, 8), (21, 1)]):
        mask = rng.random((4, 4)) < 0.5
        image[top : top + 8, left : left + 8, channel] = np.kron(mask, np.ones((2, 2)))
        boxes.append([left, top, left + 8, top + 8])
        masks.append(mask * 255)
    return tf.constant(image), tf.constant(boxes, tf.float32), tf.constant(np.array(masks), tf.uint8)


def paste(image, boxes, masks):
    """The image that the boxes and crops describe."""
    result = np.zeros(image.shape, np.float32)
    for channel, (box, mask) in enumerate(zip(boxes.numpy().astype(int), masks.numpy(), strict=True)):
        result[box[1] : box[3], box[0] : box[2], channel] = np.kron(mask == 255, np.ones((2, 2)))
    return result


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("move", [flip_horizontal, flip_vertical, quarter_turn])
def test_masks_stay_on_their_objects(move):
    moved = move(*sample())
    assert not np.array_equal(moved[1], sample()[1])
    np.testing.assert_array_equal(paste(*moved), moved[0])


@pytest.mark.parametrize(("move", "times"), [(flip_horizontal, 2), (flip_vertical, 2), (quarter_turn, 4)])
def test_repeating_a_move_comes_back(move, times):
    moved = sample()
    for _ in range(times):
        moved = move(*moved)
    assert_equal(moved, sample())


def test_two_turns_are_both_flips():
    assert_equal(quarter_turn(*quarter_turn(*sample())), flip_vertical(*flip_horizontal(*sample())))


def test_a_turn_is_counterclockwise():
    image, boxes, _ = quarter_turn(*sample())
    np.testing.assert_array_equal(image, np.rot90(sample()[0].numpy()))
    assert boxes[0].numpy().tolist() == [3.0, 20.0, 11.0, 28.0]  # x 2..10 of 30 becomes y 20..28


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_whatever_is_drawn_masks_stay_on_their_objects(seed, horizontal, vertical, turns):
    config = AugmentConfig(horizontal, vertical, turns)
    *moved, turned = augment(*sample(seed), config, tf.constant([seed, 1], tf.int64))
    np.testing.assert_array_equal(paste(*moved), moved[0])
    assert bool(turned) == (moved[0].shape[0] == 30)


def test_all_eight_positions_are_drawn_about_equally():
    config = AugmentConfig(0.5, 0.5, True)
    draw = tf.function(lambda seed: augment(*sample(), config, seed))
    found = [draw(tf.constant([number, 7], tf.int64))[1].numpy().tobytes() for number in range(400)]
    counts = [found.count(one) for one in set(found)]
    assert len(counts) == 8 and min(counts) > 25  # 50 expected, standard deviation 6.6


def test_nothing_allowed_changes_nothing():
    *same, turned = augment(*sample(), AugmentConfig(0.0, 0.0, False), tf.constant([1, 2], tf.int64))
    assert_equal(same, sample())
    assert not turned


def test_an_image_without_objects():
    image = sample()[0]
    nothing = (tf.zeros([0, 4]), tf.zeros([0, 4, 4], tf.uint8))
    moved = quarter_turn(image, *nothing)
    assert moved[0].shape == (30, 20, 3) and moved[1].shape == (0, 4)
