"""All augmentations behind one function: what is drawn and refused, that they work in any pipeline; colours."""

import colorsys
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import scene

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import AugmentConfig, DataConfig, ResizeConfig
from mrcnn_tf.data.affine import OBJECT_FIELDS, Sample, empty_labels
from mrcnn_tf.data.augment import adjust_colours, augment_sample, check_augment_settings
from mrcnn_tf.ops.resize import resize_image

MIRRORS = tf.zeros([120, 3], tf.int32) + tf.range(3)
EACH = {
    "flips": {"horizontal_flip": 0.5, "vertical_flip": 0.5, "quarter_turns": True},
    "min_sizes": {"min_sizes": [70, 90, 110]},
    "scale_jitter": {"scale_jitter": [0.5, 2.0]},
    "crop": {"crop": 0.8},
    "rotation": {"rotation": 30.0},
    "copy_paste": {"copy_paste": 0.8},
    "colours": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
}
EACH["everything"] = {name: value for augment in EACH.values() for name, value in augment.items()}


def config(augment, **data):
    return DataConfig(
        resize=ResizeConfig(100, 160), augment=AugmentConfig(**({"horizontal_flip": 0.0} | augment)), **data
    )


def seeded(number):
    return tf.constant([number, 2], tf.int64)


def nearest(labels, size):
    """Labels at another size: Pillow's, but for pixels whose middle lies on a line, where its sums may miss a bit."""
    expected = np.array(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))
    exact = [np.arange(1, 2 * new, 2) * old / (2 * new) for old, new in zip(labels.shape, size, strict=True)]
    rows, columns = (np.abs(places - np.round(places)) < 1e-9 for places in exact)
    assert rows.mean() < 0.5 and columns.mean() < 0.5
    exact = [np.floor(places + 1e-9).astype(int) for places in exact]
    return np.where(rows[:, None] | columns, labels[np.ix_(*exact)], expected)


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_flips_and_sizes_move_crops_and_pixels_exactly(rule, seed):
    sample, _ = scene(seed)
    sample = sample._replace(image=tf.cast(sample.image, tf.uint8))
    settings_ = config(EACH["flips"] | EACH["min_sizes"])
    settings_.resize.rule = rule
    result, original = augment_sample(sample, None, MIRRORS, settings_, seeded(seed))
    found = 0
    for turns in range(4):
        for flip in (False, True):
            moves = [lambda pixels, k=turns: np.rot90(pixels, k), np.fliplr if flip else np.asarray]
            image, *crops = (moves[1](moves[0](one)) for one in (sample.image.numpy(), *sample.masks.numpy()))
            resized = resize_image(tf.constant(image.copy()), tf.shape(result.image)[:2], rule)
            if image.shape[:2] == tuple(original) and np.array_equal(resized, result.image):
                found += 1
                np.testing.assert_array_equal(result.masks, crops)
                labels = moves[1](moves[0](sample.semantic.numpy()))
                np.testing.assert_array_equal(result.semantic, nearest(labels, result.image.shape[:2]))
    assert found == 1
    assert min(result.image.shape[:2]) in (70, 90, 110)
    np.testing.assert_allclose(result.areas / sample.areas, np.prod(result.image.shape[:2]) / (90 * 120), rtol=1e-5)


def test_what_is_off_is_not_in_the_graph():
    def operations(augment):
        sample = scene(1)[0]._replace(semantic=empty_labels())
        graph = tf.function(lambda seed: augment_sample(sample, None, MIRRORS, config(augment), seed), autograph=False)
        return [op.type for op in graph.get_concrete_function(seeded(1)).graph.get_operations()]

    none = operations({})
    assert not {"ImageProjectiveTransformV3", "If", "StatelessIf", "While", "StatelessWhile", "GatherV2"} & set(none)
    assert len(none) < len(operations({"crop": 0.5}))


@pytest.mark.parametrize("name", EACH)
def test_the_seed_decides_all(name):
    sample, other = scene(1)[0], scene(2, mark=55.0, first_class=101)[0]
    settings_ = config(EACH[name])
    seeds = map(seeded, (3, 3, 4, 5, 6))
    results = [augment_sample(sample, lambda: other, MIRRORS, settings_, seed)[0] for seed in seeds]
    assert_same(results[0], results[1])
    assert len({one.image.numpy().tobytes() for one in results[1:]}) > 1


def test_other_draws_stay_when_one_more_is_switched_on():
    sample, _ = scene(1)
    for number in range(6):
        plain, *others = (
            augment_sample(sample, None, MIRRORS, config({"min_sizes": [70, 90, 110]} | extra), seeded(number))[0]
            for extra in ({}, {"brightness": 0.5}, {"horizontal_flip": 0.5}, {"scale_jitter": [1.0, 1.0]})
        )
        assert {one.image.shape for one in others} == {plain.image.shape}


KINDS = ("all of them", "no masks", "no keypoints", "no labels", "no fields")
FORMS = [(form, name) for form in KINDS for name in EACH]
NEED_MASKS = ("copy_paste", "everything")


@pytest.mark.parametrize(("form", "name"), [one for one in FORMS if one[0] != "no masks" or one[1] not in NEED_MASKS])
def test_in_a_dataset_of_unknown_shapes(form, name):
    samples = [scene(number, 60 + 10 * number, 100, number)[0] for number in (3, 0, 1)]  # one is empty
    if form == "no masks":
        samples = [sample._replace(masks=sample.masks[:, :0, :0]) for sample in samples]
    if form == "no keypoints":
        samples = [sample._replace(keypoints=sample.keypoints[:, :0]) for sample in samples]
    side = 0 if form == "no fields" else 2
    if form == "no fields":
        samples = [sample._replace(field_values=sample.field_values[:, :0]) for sample in samples]
        samples = [sample._replace(transforms=sample.transforms[:, :0, :0]) for sample in samples]
    samples = [sample._replace(crowd=tf.cast(sample.crowd, tf.bool) ^ (sample.classes == 2)) for sample in samples]
    samples = [sample._replace(image=tf.cast(sample.image, tf.uint8)) for sample in samples]
    mirrors = MIRRORS[:, :0] if form == "no keypoints" else MIRRORS
    settings_ = config(EACH[name], masks=form != "no masks")
    if form == "no labels":
        samples = [sample._replace(semantic=empty_labels()) for sample in samples]
    labels = [0, 0] if form == "no labels" else [None, None]
    shapes = ([None, None, 3], [None, 4], [None], [None], [None], [None, None, None], [None, None, 3])
    shapes += ([None, side // 2], [None, side, side], labels)
    specs = [tf.TensorSpec(shape, part.dtype) for shape, part in zip(shapes, samples[0], strict=True)]
    dataset = tf.data.Dataset.from_generator(lambda: map(tuple, samples * 4), output_signature=tuple(specs))

    @tf.autograph.experimental.do_not_convert
    def load(number, parts):
        return augment_sample(Sample(*parts), lambda: samples[0], mirrors, settings_, tf.stack([number, 7]))

    for result, original in dataset.enumerate().map(load):
        count = result.boxes.shape[0]
        assert {getattr(result, name).shape[0] for name in OBJECT_FIELDS} == {count} and original.shape == (2,)
        assert result.image.dtype == tf.float32 and result.image.shape[2] == 3
        for name in OBJECT_FIELDS:
            part, before = getattr(result, name), getattr(samples[0], name)
            assert part.dtype == before.dtype and part.shape[1:] == before.shape[1:] and np.isfinite(part).all()
        assert result.semantic.dtype == tf.uint8
        assert result.semantic.shape == ((0, 0) if form == "no labels" else result.image.shape[:2])
        boxes = result.boxes.numpy()
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all()
        assert (boxes <= np.array(result.image.shape[:2])[[1, 0, 1, 0]] + 1e-3).all()
        assert result.image.numpy().min() >= 0 and result.image.numpy().max() <= 255 + 1e-3


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ({"crop": 1.5}, "augment.crop' is 1.5.*0 and 1"),
        ({"copy_paste": -0.1}, "copy_paste' is -0.1.*0 and 1"),
        ({"hue": 0.7}, "hue' is 0.7.*0 and 0.5"),
        ({"rotation": float("nan")}, "rotation' is nan.*0 and 180"),
        ({"crop_least": 0.0}, "crop_least' is 0.0.*more than 0"),
        ({"scale_jitter": [2.0, 0.1]}, r"scale_jitter' is \[2.0, 0.1\].*least and the most"),
        ({"scale_jitter": [0.5]}, r"scale_jitter' is \[0.5\].*least and the most"),
        ({"scale_jitter": [0.0, 1.0]}, "scale_jitter.*least and the most"),
        ({"min_sizes": [100, 0]}, "min_sizes' is.*more than 0"),
        ({"addons": {"equalize": 2.0}}, "addons.equalize' is 2.0.*0 and 1"),
    ],
)
def test_what_makes_no_sense_is_refused(augment, words):
    with pytest.raises(UserError, match=words):
        check_augment_settings(config(augment))


def test_pasting_without_masks_is_refused_before_anything_runs():
    with pytest.raises(UserError, match="copy_paste.*without masks"):
        check_augment_settings(dataclasses.replace(config({"copy_paste": 0.1}), masks=False))


LUMA = np.array([0.299, 0.587, 0.114])


def image(seed=0, low=60, high=190):
    return np.random.default_rng(seed).uniform(low, high, (20, 30, 3)).astype(np.float32)


def changed(pixels, number, **augment):
    seed = tf.constant([number, 3], tf.int64)
    return adjust_colours(tf.constant(pixels), AugmentConfig(**augment), seed).numpy().astype(np.float64)


def slope(values, result):
    """The factor between two sets of numbers, which must be one."""
    factor = (values * result).sum() / (values * values).sum()
    np.testing.assert_allclose(result, factor * values, atol=2e-3)
    return factor


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_a_factor_within_its_range(name):
    pixels = image()
    gray = {
        "brightness": 0.0,
        "contrast": (pixels @ LUMA).mean(),
        "saturation": (pixels @ LUMA)[..., None],
    }[name]
    factors = [slope(pixels - gray, changed(pixels, number, **{name: 0.3}) - gray) for number in range(30)]
    assert 0.7 <= min(factors) < 0.8 and 1.2 < max(factors) <= 1.3


def test_a_shifted_hue_keeps_luma_and_turns_the_colour():
    pixels = image(low=100, high=150)
    red = np.full((1, 1, 3), (160.0, 100.0, 100.0), np.float32)
    hues = []
    for number in range(30):
        np.testing.assert_allclose(changed(pixels, number, hue=0.1) @ LUMA, pixels @ LUMA, atol=1e-3)
        hue = colorsys.rgb_to_hsv(*(changed(red, number, hue=0.1)[0, 0] / 255))[0]
        hues.append((hue + 0.5) % 1 - 0.5)
    # The circle of NTSC's chrominance isn't quite that of HSV.
    assert -0.16 < min(hues) < -0.05 and 0.05 < max(hues) < 0.16


def test_together_they_are_one_after_the_other():
    pixels = image()
    # The same seed draws the same factors whether the others are on or not.
    one_by_one = pixels
    for name in ("brightness", "contrast", "saturation", "hue"):
        one_by_one = changed(one_by_one.astype(np.float32), 4, **{name: 0.2})
    together = changed(pixels, 4, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.2)
    np.testing.assert_allclose(together, one_by_one, atol=1e-2)
    assert np.abs(together - pixels).max() > 5


def test_values_stay_in_range():
    for number in range(8):
        result = changed(image(1, 0, 255), number, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5)
        assert result.min() >= 0 and result.max() <= 255


def test_the_seed_decides():
    one, same, other = (changed(image(), number, brightness=0.5, hue=0.1) for number in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1
