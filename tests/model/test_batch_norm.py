"""Batch normalisation against numpy in float64."""

import numpy as np
import tensorflow as tf

from mrcnn_tf.model.blocks import BatchNorm

EXTENT = np.array([[3, 4], [2, 2]], np.int32)  # of maps of 4 x 5 cells


def make(synchronized=False):
    layer = BatchNorm(epsilon=1e-3, synchronized=synchronized)
    layer.build((None, None, None, 3))
    for weight, values in zip(layer.weights, np.random.default_rng(0).uniform(0.5, 2, (4, 3)), strict=True):
        weight.assign(values)
    return layer


def maps(offset=0.0):
    values = np.random.default_rng(1).normal(offset, 2, (2, 4, 5, 3)).astype(np.float32)
    values[0, 3:], values[0, :, 4:], values[1, 2:], values[1, :, 2:] = 1e3, 1e3, 1e3, 1e3  # padding
    return values


def own_cells(values):
    return np.concatenate([values[0, :3, :4].reshape(-1, 3), values[1, :2, :2].reshape(-1, 3)]).astype(np.float64)


def test_training_normalises_by_the_images_own_cells_and_moves_the_statistics():
    layer, values = make(), maps()
    gamma, beta, old_mean, old_variance = (np.float64(weight.numpy()) for weight in layer.weights)
    outputs = layer(values, valid_cells=EXTENT, training=True).numpy()
    mean, variance = own_cells(values).mean(axis=0), own_cells(values).var(axis=0)
    expected = (own_cells(values) - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(own_cells(outputs), expected, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.9 * old_mean + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.9 * old_variance + 0.1 * variance, rtol=1e-5)


def test_inference_uses_the_moving_statistics_and_so_does_a_frozen_layer():
    layer, values = make(), maps()
    gamma, beta, mean, variance = (np.float64(weight.numpy()) for weight in layer.weights)
    expected = (values - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(layer(values, valid_cells=EXTENT).numpy(), expected, rtol=1e-4, atol=1e-4)
    layer.trainable = False
    np.testing.assert_allclose(layer(values, valid_cells=EXTENT, training=True).numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), np.float32(mean))


def test_the_gradient_is_that_of_finite_differences():
    layer, values = make(), tf.constant(maps())
    weights = np.random.default_rng(2).normal(size=values.shape) * (values.numpy() < 100)
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = tf.reduce_sum(layer(values, valid_cells=EXTENT, training=True) * tf.cast(weights, tf.float32))
    slope = tape.gradient(total, values).numpy()[0, 1, 2]
    gamma = np.float64(layer.gamma.numpy())

    def by_numpy(shift):
        moved = maps().astype(np.float64)
        moved[0, 1, 2] += shift
        cells = own_cells(moved)
        normalised = (cells - cells.mean(axis=0)) / np.sqrt(cells.var(axis=0) + 1e-3) * gamma
        return (normalised * own_cells(weights)).sum()

    for channel, direction in enumerate(np.eye(3) * 1e-4):
        expected = (by_numpy(direction) - by_numpy(-direction)) / 2e-4
        np.testing.assert_allclose(slope[channel], expected, rtol=1e-3, atol=1e-4)


def test_a_large_mean_doesnt_swallow_the_variance_once_the_moving_mean_is_near():
    layer, values = make(), maps(offset=1000.0)
    layer.moving_mean.assign([1000.0, 1000.0, 1000.0])
    layer(values, valid_cells=EXTENT, training=True)
    before, variance = np.float64(make().moving_variance.numpy()), own_cells(values).var(axis=0)
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.9 * before + 0.1 * variance, rtol=1e-4)
