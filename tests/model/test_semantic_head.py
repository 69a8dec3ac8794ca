"""The semantic head: each level enlarged before it is added and classified, as section 3 of Panoptic FPN says it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.config.settings import SemanticHeadConfig
from mrcnn_tf.model.heads.semantic import SemanticHead

STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32}
CHANNELS = 8


def head(norm="gn", strides=STRIDES, **kwargs):
    keras.utils.set_random_seed(1)
    layer = SemanticHead(5, strides, SemanticHeadConfig(channels=32, norm=norm), name="semantic_head", **kwargs)
    layer.build(dict.fromkeys(strides, (None, None, None, CHANNELS)))
    rng = np.random.default_rng(2)
    layer.predictor.kernel.assign(layer.predictor.kernel * 50)  # as large as after a training
    for weight in layer.weights:
        if weight.ndim == 1:  # biases and normalisation: zeros and ones would hide mistakes
            weight.assign(weight.numpy() + rng.normal(0, 0.3, weight.shape))
    return layer


@pytest.mark.parametrize("num_classes", [5, 54])
def test_all_classes_are_about_equally_likely_at_first(num_classes):
    keras.utils.set_random_seed(4)
    layer = SemanticHead(num_classes, STRIDES)
    layer.build(dict.fromkeys(STRIDES, (None, None, None, CHANNELS)))
    chances = tf.nn.softmax(layer([tf.constant(one) for one in maps(64, 64)])).numpy()
    assert chances.max() * num_classes < 4


def maps(height, width, count=1, seed=3):
    rng = np.random.default_rng(seed)
    shapes = [(count, height // stride, width // stride, CHANNELS) for stride in STRIDES.values()]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def convolved(x, kernel):
    """3x3, zeros around, in float64: x [H, W, C], kernel [3, 3, C, F]."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    taps = [padded[i : i + x.shape[0], j : j + x.shape[1]] @ kernel[i, j] for i in range(3) for j in range(3)]
    return sum(taps)


def group_normalised(x, gamma, beta):
    grouped = x.reshape(-1, 32, x.shape[-1] // 32)
    mean, variance = grouped.mean(axis=(0, 2)), grouped.var(axis=(0, 2))
    size = x.shape[-1] // 32
    return (x - np.repeat(mean, size)) / np.sqrt(np.repeat(variance, size) + 1e-5) * gamma + beta


def enlarged(x, times=2):
    for axis in (0, 1):
        place = (np.arange(x.shape[axis] * times) + 0.5) / times - 0.5
        low = np.floor(place).astype(int)
        share = np.expand_dims(place - low, tuple(d for d in range(3) if d != axis))
        near, far = (np.take(x, np.clip(low + step, 0, x.shape[axis] - 1), axis) for step in (0, 1))
        x = near * (1 - share) + far * share
    return x


def reference(layer, levels):
    weights = {
        weight.path.removeprefix("semantic_head/"): weight.numpy().astype(np.float64) for weight in layer.weights
    }
    total = 0
    for level, x in zip((2, 3, 4, 5), levels, strict=True):
        x = x.astype(np.float64)
        for number in range(1, max(level - 2, 1) + 1):
            name = f"p{level}_conv{number}/"
            x = convolved(x, weights[name + "kernel"])
            x = np.maximum(group_normalised(x, weights[name + "norm/gamma"], weights[name + "norm/beta"]), 0)
            x = enlarged(x) if level > 2 else x
        total = total + x
    return total @ weights["predictor/kernel"][0, 0] + weights["predictor/bias"]


def test_logits_are_those_of_the_levels_enlarged_added_and_classified():
    layer, levels = head(), maps(64, 96)
    expected = reference(layer, [level[0] for level in levels])
    np.testing.assert_allclose(layer([tf.constant(level) for level in levels])[0], expected, atol=2e-5)


@pytest.mark.parametrize("norm", ["gn", None])
def test_padding_has_no_influence(norm):
    layer, levels = head(norm), maps(64, 96)
    alone = layer([tf.constant(level) for level in levels]).numpy()[0]
    padded = []
    for level, stride in zip(levels, STRIDES.values(), strict=True):
        larger = np.zeros((2, 128 // stride, 128 // stride, CHANNELS), np.float32)
        larger[0, : 64 // stride, : 96 // stride] = level[0]
        larger[1] = np.random.default_rng(stride).normal(size=larger.shape[1:])
        padded.append(tf.constant(larger))
    logits = layer(padded, padded_size=tf.constant([[64, 96], [128, 128]])).numpy()[0]
    np.testing.assert_allclose(logits[:16, :24], alone, atol=2e-5)
    np.testing.assert_array_equal(logits[16:, :24], np.repeat(logits[15:16, :24], 16, axis=0))
    np.testing.assert_array_equal(logits[:, 24:], np.repeat(logits[:, 23:24], 8, axis=1))


def test_one_level_is_classified_as_it_is():
    layer = head(None, strides={"P2": 4})
    x = maps(32, 32)[0]
    hidden = convolved(x[0].astype(np.float64), layer.levels[0][0].kernel.numpy()) + layer.levels[0][0].bias.numpy()
    expected = np.maximum(hidden, 0) @ layer.predictor.kernel.numpy()[0, 0] + layer.predictor.bias.numpy()
    np.testing.assert_allclose(layer([tf.constant(x)])[0], expected, atol=1e-5)


def test_every_weight_learns_and_logits_stay_float32():
    layer, levels = head(dtype="mixed_bfloat16"), [tf.constant(level) for level in maps(64, 64)]
    with tf.GradientTape() as tape:
        logits = layer(levels)
        loss = tf.reduce_sum(tf.square(logits))
    assert logits.dtype == tf.float32
    gradients = tape.gradient(loss, layer.trainable_weights)
    assert all(gradient is not None and np.any(gradient.numpy()) for gradient in gradients)
