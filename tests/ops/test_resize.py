import pathlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.resize import RULES, fitted_size, resize_image, resized_size

OPENCV = np.load(pathlib.Path(__file__).parents[1] / "golden/opencv_resize.npz")


def sizes(*arguments):
    return tuple(int(side) for side in resized_size(*arguments))


def test_torchvision_rounds_down_and_may_miss_the_short_side():
    # floor(161 * (800 / 161)) is 799 in float64, which torch.nn.functional.interpolate reproduces.
    assert sizes(161, 200, 800, 1333, "torchvision") == (799, 993)
    assert sizes(480, 640, 800, 1333, "torchvision") == (800, 1066)  # 1066.67
    assert sizes(640, 480, 800, 1333, "torchvision") == (1066, 800)


def test_detectron2_sets_the_short_side_and_rounds_the_other():
    assert sizes(161, 200, 800, 1333, "detectron2") == (800, 994)  # 993.79
    assert sizes(480, 640, 800, 1333, "detectron2") == (800, 1067)


def test_opencv_rounds_both_sides_to_the_nearest():
    # As mmcv.rescale_size of mmcv-lite 2.1.0.
    assert sizes(161, 200, 800, 1333, "opencv") == (800, 994)
    assert sizes(480, 640, 800, 1333, "opencv") == (800, 1067)
    assert sizes(120, 496, 800, 1333, "opencv") == (323, 1333)  # 322.5; detectron2, in two steps, 322


@pytest.mark.parametrize("rule", RULES)
def test_the_longer_side_is_bounded(rule):
    assert sizes(250, 1000, 800, 1333, rule) == (333, 1333)  # 250 * 1.333 = 333.25


def test_a_sliver_keeps_a_pixel():
    assert {sizes(1, 5000, 800, 1333, rule) for rule in RULES} == {(1, 1333)}


def test_many_sizes_at_once():
    heights, widths = resized_size(np.array([161, 480]), np.array([200, 640]), 800, 1333, "torchvision")
    assert heights.numpy().tolist() == [799, 800]
    assert widths.numpy().tolist() == [993, 1066]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from(RULES))
def test_sizes_transpose_and_stay_within_bounds(height, width, rule):
    result = sizes(height, width, 800, 1333, rule)
    assert result[::-1] == sizes(width, height, 800, 1333, rule)
    assert min(result) <= 800 and max(result) <= 1333


def test_torchvision_interpolates_floats_with_half_pixel_centres():
    row = np.array([0.0, 100.0])
    image = np.broadcast_to(row[None, :, None], (2, 2, 3)).astype(np.float32)
    # Four samples at -0.25, 0.25, 0.75, 1.25 between centres 0 and 1, clamped at the ends.
    wide = resize_image(image, (2, 4), "torchvision").numpy()
    np.testing.assert_allclose(wide[0, :, 0], [0.0, 25.0, 75.0, 100.0])


def test_torchvision_does_not_antialias():
    image = np.zeros((1, 8, 3), np.float32)
    image[0, 0] = 255.0  # halving samples between 3 and 4 of each 4: pixel 0 is never looked at
    np.testing.assert_array_equal(resize_image(image, (1, 2), "torchvision").numpy()[0, :, 0], [0.0, 0.0])


@settings(max_examples=40, deadline=None)
@given(*[st.integers(1, 130)] * 4, st.integers(0, 2**32 - 1))
def test_detectron2_gives_pils_pixels(height, width, new_height, new_width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    # In one call, Pillow 13 may start with the columns; all releases before it started with the rows.
    wide = Image.fromarray(image).resize((new_width, height), Image.BILINEAR)
    expected = np.asarray(wide.resize((new_width, new_height), Image.BILINEAR))
    np.testing.assert_array_equal(resize_image(image, (new_height, new_width), "detectron2").numpy(), expected)


@pytest.mark.parametrize("number", range(len(OPENCV.files) // 2))
def test_opencv_gives_the_recorded_pixels(number):
    expected = OPENCV[f"resized{number}"]
    found = resize_image(OPENCV[f"image{number}"], expected.shape[:2], "opencv")
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, expected)


def fixed_point_weights(old, new):
    """For each of `new` pixels two pixels of `old` and their shares, whole numbers of 1 / 2048."""
    rows = []
    for index in range(new):
        place = np.float32((index + 0.5) * (1 / (new / old)) - 0.5)
        share = place - np.floor(place)
        before = int(np.floor(place))
        ends = (min(max(pixel, 0), old - 1) for pixel in (before, before + 1))
        rows.append((*ends, round(float(1 - share) * 2048), round(float(share) * 2048)))
    return np.array(rows).T


@settings(max_examples=15, deadline=None)
@given(*[st.integers(1, 130)] * 4, st.integers(0, 2**32 - 1))
def test_opencv_computes_in_fixed_point(height, width, new_height, new_width, seed):
    # 255 * 2048 in the first pass; 4 binary digits are dropped, 16 of each product in the second, then 2 are rounded.
    random = np.random.default_rng(seed)
    image = random.choice([0, 1, 254, 255, *random.integers(0, 256, 8)], (height, width, 3))
    left, right, *shares = fixed_point_weights(width, new_width)
    rows = (image[:, left] * shares[0][:, None] + image[:, right] * shares[1][:, None]) // 16
    above, below, *shares = (values[:, None, None] for values in fixed_point_weights(height, new_height))
    products = [rows[pixels[:, 0, 0]] * share // 65536 for pixels, share in zip((above, below), shares, strict=True)]
    expected = (sum(products) + 2) // 4
    np.testing.assert_array_equal(resize_image(image, (new_height, new_width), "opencv"), expected)


@pytest.mark.parametrize("rule", ["detectron2", "opencv"])
def test_rules_on_bytes_drop_fractions(rule):
    whole = np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.float32)
    np.testing.assert_array_equal(resize_image(whole + 0.75, (13, 5), rule), resize_image(whole, (13, 5), rule))


def test_opencv_in_a_graph_of_unknown_sizes():
    signature = [tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
    resize = tf.function(lambda *args: resize_image(*args, "opencv"), input_signature=signature, autograph=False)
    expected = OPENCV["resized0"]
    np.testing.assert_array_equal(resize(OPENCV["image0"], expected.shape[:2]), expected)


def test_an_unknown_rule_is_the_users_error():
    with pytest.raises(UserError, match="resize.rule"):
        resized_size(10, 10, 800, 1333, "mmdetection")
    with pytest.raises(UserError, match="resize.rule"):
        fitted_size(10, 10, 64, 96, "mmdetection")
    with pytest.raises(UserError, match="resize.rule"):
        resize_image(np.zeros((2, 2, 3), np.float32), (2, 2), "mmdetection")


# Into 64 x 96, by hand: (height, width), what rounding down gives, and what rounding to the nearest gives.
@pytest.mark.parametrize(
    ("size", "down", "nearest"),
    [
        ((64, 96), (64, 96), (64, 96)),
        ((32, 48), (64, 96), (64, 96)),  # images grow too
        ((640, 960), (64, 96), (64, 96)),
        ((100, 50), (64, 32), (64, 32)),  # portrait in landscape
        ((3, 2), (64, 42), (64, 43)),  # 42.67
        ((101, 37), (64, 23), (64, 23)),  # 23.45
        ((1, 1000), (1, 96), (1, 96)),  # 0.096
        ((1000, 1), (64, 1), (64, 1)),
        ((1, 1), (64, 64), (64, 64)),
    ],
)
def test_an_image_is_fitted_into_a_fixed_input(size, down, nearest):
    for rule, expected in (("torchvision", down), ("detectron2", nearest), ("opencv", nearest)):
        assert tuple(int(side) for side in fitted_size(*size, 64, 96, rule)) == expected


def test_the_side_that_decides_fills_the_fixed_input():
    # 161 * (800 / 161) is just below 800 in float64.
    assert [int(side) for side in fitted_size(161, 100, 800, 800, "torchvision")] == [800, 496]  # 496.9


@settings(max_examples=50, deadline=None)
@given(*[st.integers(1, 3000)] * 4, st.sampled_from(RULES))
def test_fitted_sizes_fill_one_side_and_keep_the_aspect(height, width, tall, wide, rule):
    found = [int(side) for side in fitted_size(height, width, tall, wide, rule)]
    assert 1 <= found[0] <= tall and 1 <= found[1] <= wide and (found[0] == tall or found[1] == wide)
    scale = min(tall / height, wide / width)
    assert abs(found[0] - height * scale) <= 1 and abs(found[1] - width * scale) <= 1


def test_many_images_are_fitted_at_once():
    heights, widths = fitted_size(np.array([100, 3]), np.array([50, 2]), 64, 96, "detectron2")
    assert (heights.numpy().tolist(), widths.numpy().tolist()) == ([64, 64], [32, 43])
