"""The RPN's head: dense against plain convolutions, and chosen anchors against dense."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.rpn import RPNHead

CELLS = [(4, 6), (2, 3), (1, 2)]
COUNTS = [height * width * 3 for height, width in CELLS]  # 72, 18, 6 anchors


@pytest.fixture(scope="module")
def features():
    random = np.random.default_rng(0)
    return [tf.constant(random.normal(size=(2, *cells, 5)), tf.float32) for cells in CELLS]


@pytest.fixture(scope="module")
def head():
    layer = RPNHead(3, channels=7)
    layer.build([(None, None, None, 5)] * 3)
    random = np.random.default_rng(1)
    layer.set_weights([random.normal(size=weight.shape) for weight in layer.weights])
    return layer


def test_dense_outputs_are_three_convolutions(head, features):
    logits, deltas = head(features)
    for level, cells, own_logits, own_deltas in zip(features, CELLS, logits, deltas, strict=True):
        hidden = tf.nn.relu(tf.nn.conv2d(level, head.hidden[0].kernel, 1, "SAME") + head.hidden[0].bias)
        objectness = hidden.numpy() @ head.objectness.kernel.numpy()[0, 0] + head.objectness.bias.numpy()
        shifts = hidden.numpy() @ head.deltas.kernel.numpy()[0, 0] + head.deltas.bias.numpy()
        assert objectness.shape == (2, *cells, 3)
        np.testing.assert_allclose(own_logits, objectness.reshape(2, -1), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(own_deltas, shifts.reshape(2, -1, 4), rtol=1e-4, atol=1e-4)


def dense_at(head, features, anchors):
    logits, deltas = (tf.concat(levels, axis=1) for levels in head(features))
    return tf.gather(logits, anchors, batch_dims=1), tf.gather(deltas, anchors, batch_dims=1)


def test_every_anchor_has_its_dense_value(head, features):
    anchors = tf.constant([np.arange(sum(COUNTS)), np.arange(sum(COUNTS))[::-1]], tf.int32)
    for ours, dense in zip(head.at(features, anchors), dense_at(head, features, anchors), strict=True):
        np.testing.assert_allclose(ours, dense, rtol=1e-4, atol=1e-4)


def test_gradients_equal_those_of_the_dense_outputs(head, features):
    """Twice the same anchor, and neighbours at the edges of levels, among them."""
    anchors = tf.constant([[0, 0, 17, 71, 72, 89, 90, 95], [95, 90, 40, 41, 42, 3, 71, 72]])
    random = np.random.default_rng(2)
    weights = [random.normal(size=(2, 8)), random.normal(size=(2, 8, 4))]
    slopes = []
    for function in (head.at, lambda maps, chosen: dense_at(head, maps, chosen)):
        with tf.GradientTape() as tape:
            tape.watch(features)
            outputs = function(features, anchors)
            total = tf.add_n([tf.reduce_sum(o * w) for o, w in zip(outputs, weights, strict=True)])
        slopes.append(tape.gradient(total, [*features, *head.trainable_weights]))
    assert len(slopes[0]) == len(features) + 6
    for ours, dense in zip(*slopes, strict=True):
        assert np.abs(dense).max() > 0
        np.testing.assert_allclose(ours, dense, rtol=1e-3, atol=1e-4)


def test_outputs_are_float32_under_bfloat16(features):
    layer = RPNHead(3, channels=7, dtype="mixed_bfloat16")
    layer.build([(None, None, None, 5)] * 3)
    maps = [tf.cast(level, tf.bfloat16) for level in features]
    outputs = [*layer(maps)[0], *layer(maps)[1], *layer.at(maps, tf.constant([[0, 80]] * 2))]
    assert {output.dtype for output in outputs} == {tf.float32}
