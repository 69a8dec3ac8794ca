"""Crop, scale and rotation, against full-size masks that are looked up through the map that the image itself shows.

Then mirroring and quarter turns, against marked pixels.
"""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import check_objects, map_of, scene

from mrcnn_tf.config.settings import AugmentConfig, DataConfig, ResizeConfig
from mrcnn_tf.data.affine import OBJECT_FIELDS, Sample, empty_labels
from mrcnn_tf.data.augment import augment_sample
from mrcnn_tf.data.geometric import flip_and_turn, flip_horizontal, flip_vertical, quarter_turn

NO_MIRRORS = tf.zeros([5, 3], tf.int32) + tf.range(3)
STILL = {"horizontal_flip": 0.0}


def config(resize=(150, 260), **augment):
    return DataConfig(resize=ResizeConfig(*resize), augment=AugmentConfig(**(STILL | augment)))


def run(sample, settings_, number):
    return augment_sample(sample, None, NO_MIRRORS, settings_, tf.constant([number, 5], tf.int64))


SEEDS = settings(max_examples=8, deadline=None)


@SEEDS
@given(st.integers(0, 2**31))
def test_a_crop_keeps_instances_consistent(seed):
    sample, full = scene(seed)
    result, original = run(sample, config(crop=1.0, crop_least=0.3), seed)
    back = map_of(result.image.numpy())
    assert (back[[0, 1], [1, 0]] == pytest.approx(0, abs=1e-6)) and back[0, 0] > 0
    check_objects(result, sample, full, back)
    assert original.numpy().tolist() == [90, 120]
    assert (result.image.shape[0] <= 150) and (result.image.shape[1] <= 200)
    assert 150 in result.image.shape or 200 in result.image.shape


def test_what_a_crop_does_not_cut_keeps_its_annotation():
    seen = 0
    for seed in range(20):
        sample, _ = scene(seed)
        loose = sample._replace(boxes=sample.boxes + [[-1.5, 0.25, 1.0, -0.75]])
        result, _ = run(loose, config(crop=1.0, crop_least=0.5), seed)
        back = map_of(result.image.numpy())
        x1, y1, x2, y2 = loose.boxes.numpy().T
        forth = np.linalg.inv(np.vstack([back, [0, 0, 1]]))[:2]
        low, high = forth @ [x1, y1, np.ones(4)], forth @ [x2, y2, np.ones(4)]
        height, width = result.image.shape[:2]
        places = {number: place for place, number in enumerate(result.classes.numpy())}
        for number in np.flatnonzero((low > 0).all(0) & (high[0] < width) & (high[1] < height)):
            place = places[number + 1]
            np.testing.assert_allclose(result.boxes[place], [*low[:, number], *high[:, number]], atol=2e-3)
            np.testing.assert_array_equal(result.masks[place], loose.masks[number])
            seen += 1
    assert seen > 4


@SEEDS
@given(st.integers(0, 2**31))
def test_a_rotated_image_takes_its_objects_along(seed):
    sample, full = scene(seed)
    result, _ = run(sample, config(rotation=180.0), seed)
    assert result.image.shape == (150, 200, 3)
    back = map_of(result.image.numpy())
    np.testing.assert_allclose(back[:, :2] @ back[:, :2].T, np.eye(2) * 0.6**2, atol=1e-4)
    np.testing.assert_allclose(back @ (100, 75, 1), (60, 45), atol=1e-3)
    check_objects(result, sample, full, back)


def test_rotation_stays_within_its_limit_and_goes_both_ways():
    sample, _ = scene(1)
    angles = []
    for seed in range(20):
        back = map_of(run(sample, config(rotation=10.0), seed)[0].image.numpy())
        angles.append(np.degrees(np.arctan2(back[1, 0], back[0, 0])))
    assert 5 < max(angles) <= 10.001 and -10.001 <= min(angles) < -5


@SEEDS
@given(st.integers(0, 2**31), st.booleans())
def test_scale_jitter_crops_or_shrinks(seed, larger):
    sample, full = scene(seed)
    jitter = [1.3, 2.0] if larger else [0.4, 0.8]
    result, _ = run(sample, config(scale_jitter=jitter), seed)
    back = map_of(result.image.numpy())
    check_objects(result, sample, full, back)
    factors = 0.6 / back[[0, 1], [0, 1]]
    assert (factors > jitter[0] - 0.02).all() and (factors < jitter[1] + 0.02).all()
    if larger:
        assert result.image.shape == (150, 200, 3)
    else:
        np.testing.assert_allclose(result.image.shape[:2], np.array([150, 200]) * factors, atol=1)


def test_scale_jitter_fills_a_fixed_batch():
    sample, full = scene(3)
    settings_ = config(scale_jitter=[1.5, 1.5])
    settings_.pad_to = [192, 320]
    result, _ = run(sample, settings_, 1)
    assert result.image.shape == (192, 300, 3)
    check_objects(result, sample, full, map_of(result.image.numpy()))


@SEEDS
@given(st.integers(0, 2**31))
def test_all_of_them_are_one_map(seed):
    sample, full = scene(seed)
    everything = config(
        crop=0.7, rotation=40.0, scale_jitter=[0.6, 1.8], horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=True
    )
    result, _ = run(sample, everything, seed)
    check_objects(result, sample, full, map_of(result.image.numpy()))


@pytest.mark.parametrize("augment", [{"crop": 1.0}, {"rotation": 90.0}])
def test_without_masks_boxes_are_clipped_to_what_is_left(augment):
    sample, _ = scene(5, side=0)
    settings_ = config(**augment)
    settings_.masks = False
    for seed in range(6):
        result, _ = run(sample, settings_, seed)
        back = map_of(result.image.numpy())
        forth = np.linalg.inv(np.vstack([back, [0, 0, 1]]))[:2]
        height, width = result.image.shape[:2]
        left = {
            number: (box, area)
            for number, box, area in zip(
                *(part.numpy() for part in (result.classes, result.boxes, result.areas)), strict=True
            )
        }
        assert result.masks.shape == (len(left), 0, 0)
        for number, (x1, y1, x2, y2) in enumerate(sample.boxes.numpy(), 1):
            corners = forth @ np.array([[x1, x2, x1, x2], [y1, y1, y2, y2], [1] * 4])
            low, high = corners.min(1), corners.max(1)
            clipped = np.concatenate([low.clip(0, (width, height)), high.clip(0, (width, height))])
            if number not in left:
                assert min(clipped[2:] - clipped[:2]) < 1.001
                continue
            np.testing.assert_allclose(left[number][0], clipped, atol=5e-3)
            share = np.prod(clipped[2:] - clipped[:2]) / np.prod(high - low)
            area = sample.areas.numpy()[number - 1] / np.linalg.det(back[:, :2]) * share
            np.testing.assert_allclose(left[number][1], area, rtol=1e-3)


def test_an_object_outside_the_crop_goes_and_takes_nothing_else_with_it():
    sample, _ = scene(7)
    corner = sample._replace(boxes=tf.constant([[0.0, 0, 3, 3], [1, 1, 119, 89], [117, 87, 120, 90], [0, 87, 3, 90]]))
    result, _ = run(corner, config(crop=1.0, crop_least=0.3), 11)
    assert 2 in result.classes.numpy() and len(result.classes) < 4
    assert {getattr(result, name).shape[0] for name in OBJECT_FIELDS} == {len(result.classes)}


def sample(seed=0):
    """An image whose object's pixels are marked, with each object's box and mask crop (4 x 4 cells of 2 pixels).

    The fourth channel is 0 but for the pixel under the p-th keypoint of object n, which is 10 n + p + 1; the fifth is
    the label of each pixel.
    """
    rng = np.random.default_rng(seed)
    image = np.zeros((20, 30, 5), np.float32)
    boxes, masks = [], []
    for channel, (left, top) in enumerate([(2, 3), (15, 8), (21, 1)]):
        mask = rng.random((4, 4)) < 0.5
        image[top : top + 8, left : left + 8, channel] = np.kron(mask, np.ones((2, 2)))
        boxes.append([left, top, left + 8, top + 8])
        masks.append(mask * 255)
    keypoints = np.zeros((3, 4, 3), np.float32)
    pixels = rng.permutation(600)[:9].reshape(3, 3)  # the last keypoint of each object stays unlabelled
    keypoints[:, :3, 0], keypoints[:, :3, 1] = pixels % 30 + 0.5, pixels // 30 + 0.5
    keypoints[:, :3, 2] = rng.integers(1, 3, (3, 3))
    image[pixels // 30, pixels % 30, 3] = 10 * np.arange(3)[:, None] + np.arange(1, 4)
    masks = tf.constant(np.array(masks), tf.uint8)
    semantic = rng.integers(0, 256, (20, 30)).astype(np.uint8)
    image[..., 4] = semantic
    return tf.constant(image), tf.constant(boxes, tf.float32), masks, tf.constant(keypoints), tf.constant(semantic)


NO_SIDES = tf.constant([[0, 1, 2, 3]] * 3)
SIDES = tf.constant([[1, 0, 2, 3], [0, 1, 2, 3], [3, 2, 1, 0]])  # of three classes


def paste(image, boxes, masks, keypoints, semantic, sources=NO_SIDES):
    """The image that boxes, crops, keypoints and labels describe; `sources` [3, 4]: what each keypoint was before."""
    result = np.zeros(image.shape, np.float32)
    result[..., 4] = semantic
    for number, row in enumerate(keypoints.numpy()):
        for place, (x, y, v) in enumerate(row):
            if v > 0:
                result[int(y), int(x), 3] = 10 * number + int(sources[number, place]) + 1
    for channel, (box, mask) in enumerate(zip(boxes.numpy().astype(int), masks.numpy(), strict=True)):
        result[box[1] : box[3], box[0] : box[2], channel] = np.kron(mask == 255, np.ones((2, 2)))
    return result


def turn(image, boxes, masks, keypoints, semantic, mirrored, config, seed):
    """`turned` for objects of three classes, whose mirrored keypoints are `mirrored` [3, 4]."""
    classes = tf.constant([1, 2, 3])
    table = tf.concat([mirrored[:1] * 0, mirrored], axis=0)
    fields = tf.zeros([3, 0]), tf.zeros([3, 0, 0])
    parts = (image, boxes, classes, None, None, masks, keypoints, *fields, semantic)
    result = flip_and_turn(Sample(*parts), table, config, seed)
    assert result.classes is classes
    return result.image, result.boxes, result.masks, result.keypoints, result.semantic


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
    image, boxes, _, _, _ = quarter_turn(*sample())
    np.testing.assert_array_equal(image, np.rot90(sample()[0].numpy()))
    assert boxes[0].numpy().tolist() == [3.0, 20.0, 11.0, 28.0]  # x 2..10 of 30 becomes y 20..28


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_whatever_is_drawn_masks_stay_on_their_objects(seed, horizontal, vertical, turns):
    config = AugmentConfig(horizontal, vertical, turns)
    moved = turn(*sample(seed), NO_SIDES, config, tf.constant([seed, 1], tf.int64))
    np.testing.assert_array_equal(paste(*moved), moved[0])


def test_all_eight_positions_are_drawn_about_equally():
    config = AugmentConfig(0.5, 0.5, True)
    draw = tf.function(lambda seed: turn(*sample(), NO_SIDES, config, seed))
    found = [draw(tf.constant([number, 7], tf.int64))[1].numpy().tobytes() for number in range(400)]
    counts = [found.count(one) for one in set(found)]
    assert len(counts) == 8 and min(counts) > 25  # 50 expected, standard deviation 6.6


def test_nothing_allowed_changes_nothing():
    same = turn(*sample(), SIDES, AugmentConfig(0.0, 0.0, False), tf.constant([1, 2], tf.int64))
    assert_equal(same, sample())


def test_an_image_without_objects():
    image = sample()[0]
    nothing = (tf.zeros([0, 4]), tf.zeros([0, 4, 4], tf.uint8), tf.zeros([0, 4, 3]), empty_labels())
    moved = quarter_turn(image, *nothing)
    assert [part.shape for part in moved] == [(30, 20, 5), (0, 4), (0, 4, 4), (0, 4, 3), (0, 0)]


@pytest.mark.parametrize("move", [flip_horizontal, flip_vertical, quarter_turn])
def test_unlabelled_keypoints_stay_zero(move):
    keypoints = move(*sample())[3].numpy()
    assert not keypoints[:, 3].any()
    np.testing.assert_array_equal(keypoints[..., 2], sample()[3][..., 2])


def test_a_keypoint_by_hand():
    keypoints = tf.constant([[[3.0, 4.5, 2.0]]])
    rest = (tf.zeros([20, 30, 3]), tf.zeros([1, 4]), tf.zeros([1, 4, 4], tf.uint8))
    assert flip_horizontal(*rest, keypoints, empty_labels())[3].numpy().tolist() == [[[27.0, 4.5, 2.0]]]
    assert flip_vertical(*rest, keypoints, empty_labels())[3].numpy().tolist() == [[[3.0, 15.5, 2.0]]]
    assert quarter_turn(*rest, keypoints, empty_labels())[3].numpy().tolist() == [[[4.5, 27.0, 2.0]]]


@pytest.mark.parametrize(
    ("config", "mirrored"),
    [(AugmentConfig(1.0, 0.0), True), (AugmentConfig(0.0, 1.0), True), (AugmentConfig(1.0, 1.0), False)],
)
def test_left_and_right_exchange_when_mirrored(config, mirrored):
    moved = turn(*sample(), SIDES, config, tf.constant([3, 4], tf.int64))
    np.testing.assert_array_equal(paste(*moved, SIDES if mirrored else NO_SIDES), moved[0])
    assert not np.array_equal(paste(*moved, NO_SIDES if mirrored else SIDES), moved[0])


def test_quarter_turns_exchange_nothing():
    config = AugmentConfig(0.0, 0.0, True)
    for seed in range(8):
        moved = turn(*sample(), SIDES, config, tf.constant([seed, 4], tf.int64))
        np.testing.assert_array_equal(paste(*moved), moved[0])


@pytest.mark.parametrize("side", [4, 0])
def test_without_keypoints_masks_and_labels_the_rest_moves_alike(side):
    image, boxes, masks, keypoints, semantic = sample()
    config, seed = AugmentConfig(1.0, 0.5, True), tf.constant([1, 2], tf.int64)
    expected = turn(image, boxes, masks, keypoints, semantic, SIDES, config, seed)
    nothing, sides = (tf.zeros([3, 0, 3]), empty_labels()), tf.zeros([3, 0], tf.int32)
    moved = turn(image, boxes, masks[:, :side, :side], *nothing, sides, config, seed)
    assert_equal(moved[:2], expected[:2])
    assert moved[2].shape == (3, side, side) and moved[3].shape == (3, 0, 3) and moved[4].shape == (0, 0)
