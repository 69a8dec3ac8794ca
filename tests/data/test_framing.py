"""Crop, scale and rotation, against full-size masks that are looked up through the map that the image itself shows."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import check_objects, map_of, scene

from mrcnn_tf.config.settings import AugmentConfig, DataConfig, ResizeConfig
from mrcnn_tf.data.affine import OBJECT_FIELDS
from mrcnn_tf.data.augment import augment_sample

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
