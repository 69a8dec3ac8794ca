"""ConvNorm against a plain numpy convolution and Keras's batch norm."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.blocks import ConvNorm


def reference_conv(inputs, kernel, strides):
    """float64 convolution padded by (size - 1) / 2 on every side, as torch does it."""
    pad, size = (kernel.shape[0] - 1) // 2, kernel.shape[0]
    inputs = np.pad(np.float64(inputs), [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    height, width = ((inputs.shape[axis] - size) // strides + 1 for axis in (1, 2))
    outputs = np.zeros((len(inputs), height, width, kernel.shape[3]))
    for i, j in np.ndindex(height, width):
        window = inputs[:, i * strides : i * strides + size, j * strides : j * strides + size]
        outputs[:, i, j] = np.einsum("byxc,yxcf->bf", window, np.float64(kernel))
    return outputs


def randomize(layer, seed=0):
    """Random weights, normalisations well off the identity."""
    random = np.random.default_rng(seed)
    for weight in layer.weights:
        low, high = (0.3, 3.0) if "variance" in weight.path else (-1.0, 1.0)
        weight.assign(random.uniform(low, high, weight.shape))
    return layer


def built(channels, *arguments, **settings):
    layer = ConvNorm(*arguments, **settings)
    layer.build((None, None, None, channels))
    return randomize(layer)


def images(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("size", "strides"), [(1, 1), (3, 1), (7, 1), (1, 2), (3, 2), (7, 2)])
@pytest.mark.parametrize("sides", [(8, 10), (7, 9)])
def test_padding_is_symmetric(size, strides, sides):
    layer, inputs = built(3, 4, size, strides), images(2, *sides, 3)
    expected = reference_conv(inputs, layer.kernel.numpy(), strides) + layer.bias.numpy()
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "strides"), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("epsilon", [1e-5, 1e-1])
def test_a_folded_frozen_batch_norm_equals_convolution_then_batch_norm(size, strides, epsilon):
    layer, inputs = built(3, 4, size, strides, norm="frozen_bn", epsilon=epsilon), images(2, 6, 8, 3)
    norm = keras.layers.BatchNormalization(epsilon=epsilon)
    norm.build((None, None, None, 4))
    norm.set_weights([w.numpy() for w in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)])
    plain = reference_conv(inputs, layer.kernel.numpy(), strides)
    scale = layer.gamma.numpy() / np.sqrt(np.float64(layer.moving_variance.numpy()) + epsilon)
    expected = (plain - layer.moving_mean.numpy()) * scale + layer.beta.numpy()
    for training in (False, True):
        np.testing.assert_allclose(layer(inputs, training=training), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(norm(np.float32(plain), training=False), expected, rtol=1e-5, atol=1e-5)


def test_only_the_kernel_of_a_frozen_batch_norm_learns():
    layer = built(3, 4, 3, norm="frozen_bn")
    assert [weight.name for weight in layer.trainable_weights] == ["kernel"]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(images(1, 4, 4, 3)) ** 2)
    assert np.abs(tape.gradient(total, layer.trainable_weights)[0]).min() > 0


@pytest.mark.parametrize("norm", ["bn", "sync_bn"])
def test_batch_norm_uses_the_batch_in_training_and_moves_its_statistics(norm):
    layer, inputs = built(3, 4, 1, norm=norm), images(2, 6, 8, 3)
    plain = reference_conv(inputs, layer.kernel.numpy(), 1)
    gamma, beta, mean, variance = (np.float64(w.numpy()) for w in layer.normalization.weights)
    expected = (plain - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-4, atol=1e-4)
    own_mean, own_variance = plain.mean((0, 1, 2)), plain.var((0, 1, 2))
    expected = (plain - own_mean) / np.sqrt(own_variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(layer(inputs, training=True), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.normalization.moving_mean, 0.9 * mean + 0.1 * own_mean, rtol=1e-4, atol=1e-5)


def test_batch_norm_in_training_looks_only_at_valid_cells():
    layer, inputs = built(3, 4, 1, norm="bn"), images(2, 6, 8, 3)
    plain = reference_conv(inputs, layer.kernel.numpy(), 1)
    seen = np.concatenate([plain[0].reshape(-1, 4), plain[1, :2, :5].reshape(-1, 4)])
    gamma, beta = (np.float64(w.numpy()) for w in layer.normalization.weights[:2])
    expected = (plain - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-5) * gamma + beta
    result = layer(inputs, valid_cells=tf.constant([[6, 8], [2, 5]]), training=True)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_a_frozen_batch_norm_layer_keeps_its_statistics_in_training():
    layer, inputs = built(3, 4, 1, norm="bn"), images(2, 6, 8, 3)
    layer.trainable = False
    before, inference = [w.numpy() for w in layer.weights], layer(inputs)
    np.testing.assert_array_equal(layer(inputs, training=True), inference)
    for old, weight in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize("norm", [None, "frozen_bn", "gn"])
@pytest.mark.parametrize(("size", "strides"), [(3, 1), (3, 2), (7, 2)])
def test_beyond_the_valid_cells_nothing_has_influence(norm, size, strides):
    layer, inputs = built(3, 32, size, strides, norm=norm, activation="relu"), images(1, 6, 8, 3)
    padded = np.full((2, 10, 12, 3), 50, np.float32)
    padded[0, :6, :8] = inputs
    result = layer(padded, valid_cells=tf.constant([[6, 8], [10, 12]]))
    alone = layer(inputs).numpy()
    np.testing.assert_allclose(result[:1, : alone.shape[1], : alone.shape[2]], alone, rtol=1e-4, atol=1e-5)


def test_relu_comes_last():
    layer, inputs = built(3, 4, 1, norm="frozen_bn"), images(1, 5, 5, 3)
    linear = layer(inputs).numpy()
    layer.activation = "relu"
    assert (linear < 0).any()
    np.testing.assert_array_equal(layer(inputs), np.maximum(linear, 0))


def test_bfloat16_stays_close_and_folds_in_float32():
    layer = ConvNorm(4, 3, norm="frozen_bn", dtype="mixed_bfloat16")
    layer.build((None, None, None, 3))
    twin = built(3, 4, 3, norm="frozen_bn")
    layer.set_weights(twin.get_weights())
    inputs = images(1, 6, 6, 3)
    outputs = layer(inputs)
    assert outputs.dtype == tf.bfloat16
    assert all(weight.dtype == "float32" for weight in layer.weights)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), twin(inputs), atol=0.15)
