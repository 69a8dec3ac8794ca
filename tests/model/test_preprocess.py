"""From an image to the network's input, by hand."""

import types

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.config.settings import CONVENTIONS, Conventions, ModelConfig, ResizeConfig
from mrcnn_tf.model.preprocess import Preprocess, make_preprocess
from mrcnn_tf.ops.resize import resize_image

MEAN, STD = [10.0, 20.0, 30.0], [2.0, 4.0, 5.0]


def layer(rule="torchvision", min_size=40, max_size=64, **settings):
    return Preprocess(MEAN, STD, ResizeConfig(min_size, max_size, rule), **settings)


def image(height, width):
    return np.random.default_rng(0).integers(1, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "resized", "padded"),
    [
        ((20, 25), (40, 50), (64, 64)),
        ((20, 40), (32, 64), (32, 64)),  # the longer side stops at 64: no padding at all
        ((80, 80), (40, 40), (64, 64)),
        ((10, 100), (6, 64), (32, 64)),
    ],
)
@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
def test_sizes(rule, size, resized, padded):
    outputs = layer(rule)(image(*size))
    assert outputs["image"].shape == (1, *padded, 3) and outputs["image"].dtype == tf.float32
    np.testing.assert_array_equal(outputs["image_size"], [resized])
    np.testing.assert_array_equal(outputs["original_size"], [size])


@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
def test_pixels_are_resized_then_padded_right_and_below(rule):
    pixels = image(20, 25)
    outputs = layer(rule)(pixels)["image"].numpy()[0]
    np.testing.assert_array_equal(outputs[:40, :50], resize_image(pixels, (40, 50), rule))
    assert not outputs[40:].any() and not outputs[:, 50:].any()


@pytest.mark.parametrize(("preset", "divisor"), [("torchvision", 32), ("detectron2", 1), ("mmdetection", 32)])
def test_without_a_pyramid_the_conventions_say_what_is_padded(preset, divisor):
    config = ModelConfig(conventions=Conventions(**CONVENTIONS[preset]))
    assert make_preprocess(config, None).divisor == divisor
    pyramid = types.SimpleNamespace(divisor=32)  # whose maps are doubled from stride 32
    assert make_preprocess(config, pyramid).divisor == 32
    config.conventions.pad_multiple = 48
    assert make_preprocess(config, pyramid).divisor == 96


def test_a_graph_takes_images_of_any_size():
    graph = tf.function(layer().call, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    for size in ((20, 25), (33, 17)):
        eager = layer()(image(*size))
        for name, value in graph(image(*size)).items():
            np.testing.assert_array_equal(value, eager[name])


def test_normalising_is_computed_by_hand_and_zero_outside_each_image():
    pixels = np.broadcast_to(np.float32([12, 16, 255]), (2, 3, 4, 3))
    result = layer().normalize(tf.constant(pixels), tf.constant([[2, 3], [3, 1]])).numpy()
    expected = np.zeros((2, 3, 4, 3))
    expected[0, :2, :3] = expected[1, :, :1] = [1, -1, 45]
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_what_lies_outside_an_image_may_be_anything():
    pixels = np.full((1, 2, 2, 3), np.nan, np.float32)
    pixels[0, 0, 0] = MEAN
    assert not layer().normalize(tf.constant(pixels), tf.constant([[1, 1]])).numpy().any()


def test_pixels_stay_exact_under_bfloat16_until_they_are_normalised():
    mixed = layer(dtype="mixed_bfloat16")
    outputs = mixed(np.full((40, 40, 3), 201, np.uint8))
    assert outputs["image"].dtype == tf.float32
    np.testing.assert_array_equal(outputs["image"][0, :40, :40], 201)
    # 257 isn't a bfloat16: rounded before the mean is taken away, it would give 123.
    result = mixed.normalize(tf.fill([1, 32, 32, 3], 257.0), tf.constant([[32, 32]]))
    assert result.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(result, tf.float32)[0, 0, 0], [123.5, 59.25, 45.4], rtol=4e-3)
    assert float(result[0, 0, 0, 0]) == 123.5


@pytest.mark.parametrize(
    ("size", "fitted"), [((64, 96), (64, 96)), ((20, 25), (64, 80)), ((50, 25), (64, 32)), ((200, 600), (32, 96))]
)
@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
def test_an_image_is_fitted_into_the_upper_left_of_a_fixed_input(rule, size, fitted):
    outputs, pixels = layer(rule).letterbox(image(*size), 64, 96), image(*size)
    assert outputs["image"].shape == (1, 64, 96, 3) and outputs["image"].dtype == tf.float32
    np.testing.assert_array_equal(outputs["image_size"], [fitted])
    np.testing.assert_array_equal(outputs["original_size"], [size])
    expected = np.zeros((64, 96, 3))
    expected[: fitted[0], : fitted[1]] = resize_image(pixels, fitted, rule)
    np.testing.assert_array_equal(outputs["image"][0], expected)


def test_a_graph_fits_images_of_any_size_into_one_shape():
    signature = [tf.TensorSpec([None, None, 3], tf.uint8)]
    graph = tf.function(lambda pixels: layer().letterbox(pixels, 32, 64), input_signature=signature)
    assert graph.get_concrete_function().structured_outputs["image"].shape == (1, 32, 64, 3)
    for size in ((20, 25), (3, 70)):
        eager = layer().letterbox(image(*size), 32, 64)
        for name, value in graph(image(*size)).items():
            np.testing.assert_array_equal(value, eager[name])
