"""The mask head against all K masks computed with TensorFlow's own deconvolution, and who learns."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.config.settings import Conventions, MaskHeadConfig
from mrcnn_tf.model import losses
from mrcnn_tf.model.heads.mask import MaskHead, MaskMLP, MaskScores
from mrcnn_tf.model.roi_features import RoILayer
from mrcnn_tf.model.rois import GroundTruth, RoISample

CLASSES = 3
OWN = np.int32([[1, 3, 0], [2, 1, 3]])  # 0: padding


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).normal(size=(2, 3, 4, 4, 5)).astype(np.float32)


def make(rules=None, kind=MaskHead, config=None, **settings):
    config = MaskHeadConfig(**({"channels": 6, "pool_size": 4, "convs": 2} | (config or {})))
    head = kind(CLASSES, RoILayer(4), config, Conventions(**(rules or {})), **settings)
    head.build((None, None, 4, 4, 5))
    random = np.random.default_rng(1)
    head.set_weights([random.normal(size=weight.shape) * 0.3 for weight in head.get_weights()])
    return head


def logits_of(scores):
    """The logits of independent masks."""
    return scores.foreground - scores.background


def all_masks(head, features):
    """Logits [B * R, 8, 8, K] of every class: convolutions, deconvolution and a 1x1 convolution to K masks."""
    outputs = tf.reshape(features, [-1, 4, 4, 5])
    assert len(head.convs) == 2
    for conv in head.convs:
        outputs = tf.nn.relu(tf.nn.conv2d(outputs, conv.kernel, 1, "SAME") + conv.bias)
    count = outputs.shape[0]
    outputs = tf.nn.conv2d_transpose(outputs, head.deconv_kernel, [count, 8, 8, 6], 2) + head.deconv_bias
    return tf.nn.conv2d(tf.nn.relu(outputs), head.kernel[None, None], 1, "VALID") + head.bias


def test_the_mask_of_the_own_class_is_that_of_the_whole_computation(features):
    head = make()
    logits = logits_of(head(features, tf.constant(OWN)))
    assert logits.shape == (2, 3, 8, 8) and logits.dtype == tf.float32
    expected = all_masks(head, features).numpy().reshape(2, 3, 8, 8, CLASSES)
    for image, roi in zip(*np.nonzero(OWN), strict=True):
        own = expected[image, roi, :, :, OWN[image, roi] - 1]
        np.testing.assert_allclose(logits[image, roi], own, rtol=1e-4, atol=1e-4)
        other = expected[image, roi, :, :, OWN[image, roi] % CLASSES]
        assert np.abs(logits[image, roi] - other).max() > 0.01


def test_gradients_are_those_of_the_whole_computation(features):
    head, targets = make(), np.random.default_rng(2).random((2, 3, 8, 8)).astype(np.float32)
    choice = tf.one_hot(tf.maximum(OWN - 1, 0), CLASSES)[:, :, None, None]

    def whole():
        logits = tf.reduce_sum(tf.reshape(all_masks(head, features), [2, 3, 8, 8, CLASSES]) * choice, axis=-1)
        return MaskScores(tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits))

    slopes = []
    for function in (lambda: head(features, tf.constant(OWN)), whole):
        with tf.GradientTape() as tape:
            loss = losses.mask_loss(function(), targets, OWN > 0)
        slopes.append([tf.convert_to_tensor(slope) for slope in tape.gradient(loss, head.trainable_weights)])
    for ours, expected in zip(*slopes, strict=True):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_only_the_own_classes_of_positives_learn(features):
    """Section 3: L_mask is only defined on the k-th mask."""
    head, classes = make(), tf.constant([[2, 1, 0], [2, 3, 3]])
    positive = np.array([[True, False, False], [True, False, False]])  # class 2 only
    with tf.GradientTape() as tape:
        scores = head(features, classes)
        loss = losses.mask_loss(scores, tf.ones_like(scores.foreground), positive)
    kernel, bias = tape.gradient(loss, [head.kernel, head.bias])
    kernel, bias = tf.convert_to_tensor(kernel).numpy(), tf.convert_to_tensor(bias).numpy()
    assert kernel[:, 1].any() and bias[1] != 0
    assert not kernel[:, [0, 2]].any() and not bias[[0, 2]].any()


def test_multinomial_masks_share_each_pixel_among_classes_and_background(features):
    """Table 2b: a softmax over K + 1 maps, the background's last."""
    head = make(config={"activation": "softmax"})
    every = all_masks(head, features).numpy().astype(np.float64).reshape(2, 3, 8, 8, CLASSES + 1)
    shares = np.exp(every) / np.exp(every).sum(axis=-1, keepdims=True)
    scores = head(features, tf.constant(OWN))
    for image, roi in zip(*np.nonzero(OWN), strict=True):
        own = shares[image, roi, :, :, OWN[image, roi] - 1]
        np.testing.assert_allclose(np.exp(scores.foreground[image, roi]), own, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(np.exp(scores.background[image, roi]), shares[image, roi, ..., -1], 1e-3, 1e-6)


def test_a_class_agnostic_mask_is_the_same_for_all_classes(features):
    head = make(config={"class_agnostic": True})
    assert head.kernel.shape == (6, 1) and head.class_variables() == []
    first, second = (head(features, tf.fill([2, 3], k)).foreground for k in (1, 3))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(
        logits_of(head(features, tf.constant(OWN))), all_masks(head, features).numpy().reshape(2, 3, 8, 8), 1e-4, 1e-4
    )


def test_a_perceptrons_masks_are_those_of_plain_matrix_products(features):
    """Table 2e's MLP."""
    head = make(kind=MaskMLP, config={"fcs": 2, "channels": 7})
    hidden = np.float64(features).reshape(6, -1)
    for layer in head.fcs:
        hidden = np.maximum(hidden @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    every = (hidden @ head.kernel.numpy() + head.bias.numpy()).reshape(2, 3, CLASSES, 8, 8)
    logits = logits_of(head(features, tf.constant(OWN)))
    for image, roi in zip(*np.nonzero(OWN), strict=True):
        np.testing.assert_allclose(logits[image, roi], every[image, roi, OWN[image, roi] - 1], rtol=1e-3, atol=1e-3)


def test_a_perceptrons_hidden_layers_start_from_different_weights():
    head = MaskMLP(CLASSES, RoILayer(4), MaskHeadConfig(fcs=3, channels=7))
    head.build((None, None, 4, 4, 5))
    assert np.abs(head.fcs[1].kernel - head.fcs[2].kernel).max() > 0.01


# Crops of 2x2: left half, upper half, one quarter of half occupancy.
MASKS = np.uint8([[[[255, 0], [255, 0]], [[255, 255], [0, 0]]], [[[128, 0], [0, 0]], [[0, 0], [0, 0]]]])
TRUE_BOXES = np.float32([[[0, 0, 16, 16], [20, 20, 36, 28]], [[8, 8, 24, 24], [0, 0, 0, 0]]])


def sampled(boxes, truth):
    boxes, truth = np.float32(boxes), np.int32(truth)
    shape = truth.shape
    return RoISample(boxes, np.ones(shape, np.int32), truth, np.ones(shape, bool), np.ones(shape, bool))


@pytest.mark.parametrize(("rule", "half"), [("soft", 128 / 255), ("binary", 1.0)])
def test_targets_are_the_own_mask_inside_the_roi(rule, half):
    head = make({"mask_target": rule})
    rois = sampled(
        [[[20, 20, 36, 28], [0, 0, 16, 16]], [[8, 8, 16, 16], [16, 8, 32, 24]]],
        [[1, 0], [0, 0]],
    )
    truth = {"boxes": TRUE_BOXES, "masks": tf.constant(MASKS), "classes": np.ones((2, 2), np.int32), "crowd": None}
    targets = head.targets(rois, GroundTruth(truth)).numpy()
    assert targets.shape == (2, 2, 8, 8) and targets.dtype == np.float32
    rows, columns = np.mgrid[:8, :8]
    np.testing.assert_allclose(targets[0, 0], rows < 4, atol=1e-6)  # upper half of the second instance
    np.testing.assert_allclose(targets[0, 1], columns < 4, atol=1e-6)  # left half of the first
    np.testing.assert_allclose(targets[1, 0], np.full((8, 8), half), atol=1e-6)  # the RoI is the occupied quarter
    np.testing.assert_allclose(targets[1, 1], 0, atol=1e-6)  # the empty half, and beyond the instance's box


def test_logits_are_float32_under_bfloat16(features):
    head = make(dtype="mixed_bfloat16")
    logits = logits_of(head(tf.cast(features, tf.bfloat16), tf.constant(OWN)))
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, logits_of(make()(features, tf.constant(OWN))), atol=0.3)
