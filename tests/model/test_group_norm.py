"""GroupNorm against Keras's, on full maps and on the valid cells of a padded batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.blocks import GroupNorm


@pytest.fixture(scope="module")
def pair():
    """Ours and Keras's with the same random scale and shift, 64 channels."""
    random = np.random.default_rng(0)
    ours, theirs = GroupNorm(), keras.layers.GroupNormalization(groups=32, epsilon=1e-5)
    for layer in (ours, theirs):
        layer.build((None, None, None, 64))
    weights = [random.normal(size=64), random.normal(size=64)]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    return ours, theirs


@pytest.fixture(scope="module")
def features():
    random = np.random.default_rng(1)
    return np.float32(random.normal(size=(2, 5, 7, 64)) * random.uniform(0.1, 5, 64) + random.normal(size=64))


def test_a_full_map_is_normalised_as_keras_does(pair, features):
    ours, theirs = pair
    expected = theirs(features)
    np.testing.assert_allclose(ours(features), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours(features, valid_cells=tf.constant([[5, 7]] * 2)), expected, rtol=1e-4, atol=1e-4)


def test_a_padded_image_is_normalised_by_its_own_statistics(pair, features):
    ours, theirs = pair
    result = ours(features, valid_cells=tf.constant([[3, 4], [5, 2]]))
    np.testing.assert_allclose(result[:1, :3, :4], theirs(features[:1, :3, :4]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result[1:, :5, :2], theirs(features[1:, :5, :2]), rtol=1e-4, atol=1e-4)


def test_gradients_equal_keras(pair, features):
    slopes = []
    for layer in pair:
        inputs = tf.constant(features)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(layer(inputs) * np.linspace(-1, 1, features.size).reshape(features.shape))
        slopes.append(tape.gradient(total, [inputs, *layer.trainable_weights]))
    for ours, theirs in zip(*slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_values_far_from_zero_keep_their_variance(pair):
    """E[x^2] - E[x]^2 loses digits when the mean is many standard deviations away."""
    features = np.float32(30 + np.random.default_rng(2).normal(size=(1, 8, 8, 64)))
    np.testing.assert_allclose(pair[0](features), pair[1](features), atol=5e-3)


def test_a_constant_map_gives_the_shift(pair):
    ours = pair[0]
    np.testing.assert_allclose(ours(np.full((1, 3, 3, 64), 7.0, np.float32))[0, 0, 0], ours.beta, atol=1e-3)


def test_statistics_are_float32_under_bfloat16(pair, features):
    layer = GroupNorm(dtype="mixed_bfloat16")
    layer.build((None, None, None, 64))
    layer.set_weights(pair[0].get_weights())
    result = layer(tf.constant(features, tf.bfloat16))
    assert result.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(result, tf.float32), pair[1](features), atol=0.15)


def test_channels_that_dont_divide_are_named():
    with pytest.raises(ValueError, match="48 channels into 32 groups"):
        GroupNorm().build((None, None, None, 48))
