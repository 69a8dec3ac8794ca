"""The mask head against all K masks computed with TensorFlow's own deconvolution, and who learns."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf import losses
from mrcnn_tf.layers.mask_head import MaskHead
from mrcnn_tf.layers.roi_align import PyramidRoIAlign
from mrcnn_tf.layers.roi_sampler import RoISample

CLASSES = 3
ROIS = np.float32(
    [[[4, 4, 30, 40], [10, 8, 60, 44], [0, 0, 0, 0]], [[33.3, 2.5, 90, 60], [1, 1, 5, 9], [80, 48, 96, 64]]]
)
OWN = np.int32([[1, 3, 0], [2, 1, 3]])  # 0: padding


@pytest.fixture(scope="module")
def features():
    random = np.random.default_rng(0)
    return [random.normal(size=(2, 64 // s, 96 // s, 5)).astype(np.float32) for s in (4, 8, 16, 32)]


@pytest.fixture(scope="module")
def make(tiny_tree, conventions):
    def build(rules=None, **settings):
        head = MaskHead(CLASSES, tiny_tree["mask_head"], conventions(**(rules or {})), **settings)
        head.build([(None, None, None, 5)] * 5)
        random = np.random.default_rng(1)
        head.set_weights([random.normal(size=weight.shape) * 0.3 for weight in head.get_weights()])
        return head

    return build


def all_masks(head, features, rois, conventions):
    """Logits [B * R, 8, 8, K] of every class: convolutions, deconvolution and a 1x1 convolution to K masks."""
    outputs = PyramidRoIAlign(4, conventions())(features, tf.constant(rois))
    assert len(head.convs) == 2
    for conv in head.convs:
        outputs = tf.nn.relu(tf.nn.conv2d(outputs, conv.kernel, 1, "SAME") + conv.bias)
    count = outputs.shape[0]
    outputs = tf.nn.conv2d_transpose(outputs, head.deconv_kernel, [count, 8, 8, 6], 2) + head.deconv_bias
    return tf.nn.conv2d(tf.nn.relu(outputs), head.kernel[None, None], 1, "VALID") + head.bias


def test_the_mask_of_the_own_class_is_that_of_the_whole_computation(make, features, conventions):
    head = make()
    logits = head(features, tf.constant(ROIS), tf.constant(OWN))
    assert logits.shape == (2, 3, 8, 8) and logits.dtype == tf.float32
    expected = all_masks(head, features, ROIS, conventions).numpy().reshape(2, 3, 8, 8, CLASSES)
    for image, roi in zip(*np.nonzero(OWN), strict=True):
        own = expected[image, roi, :, :, OWN[image, roi] - 1]
        np.testing.assert_allclose(logits[image, roi], own, rtol=1e-4, atol=1e-4)
        other = expected[image, roi, :, :, OWN[image, roi] % CLASSES]
        assert np.abs(logits[image, roi] - other).max() > 0.01


def test_gradients_are_those_of_the_whole_computation(make, features, conventions):
    head, targets = make(), np.random.default_rng(2).random((2, 3, 8, 8)).astype(np.float32)
    choice = tf.one_hot(tf.maximum(OWN - 1, 0), CLASSES)[:, :, None, None]

    def whole():
        return tf.reduce_sum(
            tf.reshape(all_masks(head, features, ROIS, conventions), [2, 3, 8, 8, CLASSES]) * choice, axis=-1
        )

    slopes = []
    for function in (lambda: head(features, tf.constant(ROIS), tf.constant(OWN)), whole):
        with tf.GradientTape() as tape:
            loss = losses.mask_loss(function(), targets, OWN > 0)
        slopes.append([tf.convert_to_tensor(slope) for slope in tape.gradient(loss, head.trainable_weights)])
    for ours, expected in zip(*slopes, strict=True):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_only_the_own_classes_of_positives_learn(make, features):
    """Section 3: L_mask is only defined on the k-th mask."""
    head, classes = make(), tf.constant([[2, 1, 0], [2, 3, 3]])
    positive = np.array([[True, False, False], [True, False, False]])  # class 2 only
    with tf.GradientTape() as tape:
        logits = head(features, tf.constant(ROIS), classes)
        loss = losses.mask_loss(logits, tf.ones_like(logits), positive)
    kernel, bias = tape.gradient(loss, [head.kernel, head.bias])
    kernel, bias = tf.convert_to_tensor(kernel).numpy(), tf.convert_to_tensor(bias).numpy()
    assert kernel[:, 1].any() and bias[1] != 0
    assert not kernel[:, [0, 2]].any() and not bias[[0, 2]].any()


def test_logits_dont_depend_on_the_padding(make, features):
    head = make()
    larger = [
        np.pad(m, [(0, 0), (0, 64 // s), (0, 32 // s), (0, 0)]) for m, s in zip(features, (4, 8, 16, 32), strict=True)
    ]
    alone = head(features, tf.constant(ROIS), tf.constant(OWN))
    together = head(larger, tf.constant(ROIS), tf.constant(OWN), tf.constant([[64, 96]] * 2))
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


# Crops of 2x2: left half, upper half, one quarter of half occupancy.
MASKS = np.uint8([[[[255, 0], [255, 0]], [[255, 255], [0, 0]]], [[[128, 0], [0, 0]], [[0, 0], [0, 0]]]])
TRUE_BOXES = np.float32([[[0, 0, 16, 16], [20, 20, 36, 28]], [[8, 8, 24, 24], [0, 0, 0, 0]]])


def sampled(boxes, truth):
    boxes, truth = np.float32(boxes), np.int32(truth)
    shape = truth.shape
    return RoISample(
        boxes, np.ones(shape, np.int32), truth, np.zeros((*shape, 4)), np.ones(shape, bool), np.ones(shape, bool)
    )


@pytest.mark.parametrize(("rule", "half"), [("soft", 128 / 255), ("binary", 1.0)])
def test_targets_are_the_own_mask_inside_the_roi(make, rule, half):
    head = make({"mask_target": rule})
    rois = sampled(
        [[[20, 20, 36, 28], [0, 0, 16, 16]], [[8, 8, 16, 16], [16, 8, 32, 24]]],
        [[1, 0], [0, 0]],
    )
    targets = head.targets(tf.constant(MASKS), TRUE_BOXES, rois).numpy()
    assert targets.shape == (2, 2, 8, 8) and targets.dtype == np.float32
    rows, columns = np.mgrid[:8, :8]
    np.testing.assert_allclose(targets[0, 0], rows < 4, atol=1e-6)  # upper half of the second instance
    np.testing.assert_allclose(targets[0, 1], columns < 4, atol=1e-6)  # left half of the first
    np.testing.assert_allclose(targets[1, 0], np.full((8, 8), half), atol=1e-6)  # the RoI is the occupied quarter
    np.testing.assert_allclose(targets[1, 1], 0, atol=1e-6)  # the empty half, and beyond the instance's box


def test_logits_are_float32_under_bfloat16(make, features):
    head = make(dtype="mixed_bfloat16")
    maps = [tf.cast(level, tf.bfloat16) for level in features]
    logits = head(maps, tf.constant(ROIS), tf.constant(OWN))
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits[1], make()(features, tf.constant(ROIS), tf.constant(OWN))[1], atol=0.3)
