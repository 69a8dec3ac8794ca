import colorsys

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.config.settings import AugmentConfig
from mrcnn_tf.data.augment import adjust_colours

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
