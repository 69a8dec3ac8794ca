"""Pasted instances, against full-size masks of both images that are looked up through the maps the pixels show."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import (
    check_box,
    check_fields,
    check_keypoints,
    check_labels,
    check_mask,
    in_pixels,
    looked_up,
    map_of,
    pasted,
    scene,
)

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import AugmentConfig, DataConfig, ResizeConfig
from mrcnn_tf.data.affine import OBJECT_FIELDS
from mrcnn_tf.data.augment import augment_sample, cover_objects, draw_masks

MIRRORS = tf.zeros([120, 3], tf.int32) + tf.range(3)
BELOW, ABOVE = 255.0, 55.0  # marks of the two images


def config(**augment):
    chosen = {"horizontal_flip": 0.0, "copy_paste": 1.0} | augment
    return DataConfig(resize=ResizeConfig(180, 260), augment=AugmentConfig(**chosen))


def run(below, above, settings_, number):
    return augment_sample(below, lambda: above, MIRRORS, settings_, tf.constant([number, 6], tf.int64))[0]


def part(sample, places):
    return sample._replace(**{name: tf.gather(getattr(sample, name), np.int64(places)) for name in OBJECT_FIELDS})


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_pasted_instances_cover_those_below(seed, jitter):
    below, below_full = scene(seed, mark=BELOW)
    above, above_full = scene(seed + 1, 80, 130, mark=ABOVE, first_class=101)
    result = run(below, above, config(scale_jitter=[0.7, 1.2] if jitter else [], horizontal_flip=0.5), seed)
    classes = result.classes.numpy()
    guests = np.flatnonzero(classes > 100)
    assert (np.diff(guests) == 1).all() and (not guests.size or guests[-1] == classes.size - 1)
    image, shape = result.image.numpy(), tuple(result.image.shape[:2])
    cover = np.zeros([4 * side for side in shape], bool)
    if guests.size:
        own = np.abs(image[..., 2] - ABOVE) < 1e-2
        came_from = map_of(image, ABOVE, own)
        check_fields(result, came_from, guests)
        expected = looked_up(above_full, came_from, shape)[classes[guests] - 101]
        for place, samples in zip(guests, expected, strict=True):
            crop, box = result.masks.numpy()[place], result.boxes.numpy()[place]
            if size_of(samples) >= 40:
                check_mask(crop, box, samples)
            cover |= pasted(crop, 4 * box, cover.shape)
    pure = np.abs(image[..., 2] - (ABOVE + BELOW) / 2) > 90  # along the outlines the images mix
    np.testing.assert_array_equal(image[pure, 2] < 150, in_pixels(cover)[pure])
    back = map_of(image, BELOW)
    assert not result.semantic.numpy()[np.abs(image[..., 2] - ABOVE) < 1e-2].any()
    check_fields(result, back, np.flatnonzero(classes <= 100))
    check_labels(result.semantic.numpy(), below.semantic.numpy(), back, np.abs(image[..., 2] - BELOW) < 1e-2)
    check_below(result, below, looked_up(below_full, back, shape), cover)
    check_keypoints(part(result, np.flatnonzero(classes <= 100)), below, back, hidden=in_pixels(cover))


def check_below(result, below, expected, cover):
    for number, samples in enumerate(expected, 1):
        place = np.flatnonzero(result.classes.numpy() == number)
        left = samples & ~cover
        if not place.size:
            assert left.sum() <= 0.06 * samples.sum() or size_of(left) < 3
            continue
        box, crop = result.boxes.numpy()[place[0]], result.masks.numpy()[place[0]]
        if size_of(left) >= 40 and left.sum() > 16 * 400:
            # What is left may be as thin as a line, of which a tenth of a pixel at either side is more than of a disc.
            check_mask(crop, box, left, 0.97 if left.sum() > 0.5 * samples.sum() else 0.9)
            np.testing.assert_allclose(result.areas.numpy()[place[0]], left.mean() * left.size / 16, rtol=0.04)
        if not (samples & cover).any():
            check_box(box, in_pixels(samples), 2.5)


def size_of(samples):
    """The shorter side of the box around a mask whose 4 x 4 samples are given."""
    return min(np.ptp(np.nonzero(samples), axis=1) + 1) / 4 if samples.any() else 0


def test_pasted_keypoints_exchange_sides_when_mirrored():
    above, _ = scene(2, first_class=101)
    plain, mirrored = (
        augment_sample(
            scene(1)[0],
            lambda: above,
            tf.zeros([120, 3], tf.int32) + [0, 2, 1],
            dataclasses.replace(config(), augment=AugmentConfig(horizontal_flip=flip, copy_paste=1.0)),
            tf.constant([3, 6], tf.int64),
        )[0]
        for flip in (0.0, 1.0)
    )
    plain, mirrored = (one.keypoints.numpy()[one.classes.numpy() > 100] for one in (plain, mirrored))
    assert plain.shape[0] > 0
    turned = plain[:, [0, 2, 1]] * (-1, 1, 1) + (240, 0, 0)
    np.testing.assert_allclose(mirrored, turned * (turned[..., 2:] > 0), atol=1e-3)


def test_what_is_not_touched_keeps_its_annotation():
    below, _ = scene(3)
    loose = below._replace(boxes=below.boxes + [[-1.5, 0.25, 1.0, -0.75]])
    none = part(scene(4)[0], [])
    result = run(loose, none, config(), 1)
    scale = np.array(result.image.shape[:2])[[1, 0, 1, 0]] / (120, 90, 120, 90)
    np.testing.assert_allclose(result.boxes, loose.boxes * scale, rtol=1e-6)
    np.testing.assert_array_equal(result.masks, loose.masks)
    np.testing.assert_array_equal(result.keypoints[..., 2], loose.keypoints[..., 2])


def test_by_hand():
    full = np.zeros([1, 40, 60], bool)
    full[0, 10:30, 10:50] = True
    sample = part(scene(1, 40, 60, 1)[0], [0])._replace(
        image=tf.zeros([40, 60, 3]),
        boxes=tf.constant([[10.0, 10, 50, 30]]),
        masks=tf.constant(255, tf.uint8, [1, 64, 64]),
        areas=tf.constant([800.0]),
        keypoints=tf.constant([[[15.0, 15, 2], [45.0, 25, 2], [0, 0, 0]]]),
    )
    opacity = np.zeros([40, 60], np.uint8)
    opacity[:, :20] = 255
    rest = cover_objects(sample, tf.constant(opacity))
    np.testing.assert_allclose(rest.boxes, [[20, 10, 50, 30]], atol=0.5)
    np.testing.assert_allclose(rest.areas, [600], rtol=0.02)
    assert rest.keypoints.numpy()[0, :, 2].tolist() == [1, 2, 0]
    assert (rest.masks.numpy() > 127).all()
    opacity[:, :49] = 255
    assert cover_objects(sample, tf.constant(opacity)).boxes.shape == (0, 4)


def test_the_canvas_holds_every_mask_where_it_lies():
    sample, full = scene(9, side=112)
    canvas = draw_masks(sample.masks, sample.boxes, tf.constant([90, 120])).numpy()
    union = full.any(0)
    assert ((canvas > 127) & union).sum() / ((canvas > 127) | union).sum() > 0.99
    beside = draw_masks(sample.masks[:1], tf.constant([[-1e-5, 89.9, 20, 90.001]]), tf.constant([90, 120])).numpy()
    assert beside.shape == (90, 120) and not beside[:89].any()
    nothing = draw_masks(sample.masks[:0], sample.boxes[:0], tf.constant([90, 120])).numpy()
    assert nothing.shape == (90, 120) and not nothing.any()


def pasted_classes(settings_, above, runs):
    """The classes of what was pasted, one array for each run."""
    below = scene(1)[0]
    once = tf.function(
        lambda seed: augment_sample(below, lambda: above, MIRRORS, settings_, seed)[0].classes, autograph=False
    )
    classes = [once(tf.constant([number, 6], tf.int64)).numpy() for number in range(runs)]
    return [one[one > 100] for one in classes]


def test_crowds_are_not_pasted_and_others_about_every_second_time():
    above = scene(2, first_class=101)[0]
    above = above._replace(crowd=tf.constant([False, True, False, False]))
    seen = np.concatenate(pasted_classes(config(), above, 40))
    counts = [int((seen == number).sum()) for number in (101, 102, 103, 104)]
    assert counts[1] == 0 and all(8 < count < 32 for count in counts[:1] + counts[2:])


def test_it_happens_with_its_probability():
    happened = [one.size > 0 for one in pasted_classes(config(copy_paste=0.3), scene(2, first_class=101)[0], 80)]
    assert 10 < sum(happened) < 38


def test_it_needs_masks():
    settings_ = dataclasses.replace(config(), masks=False)
    with pytest.raises(UserError, match="copy_paste.*masks"):
        run(scene(1, side=0)[0], scene(2, side=0)[0], settings_, 1)
