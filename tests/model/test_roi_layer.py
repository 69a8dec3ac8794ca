"""Each RoI from its own level and image."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.fpn import STRIDES
from mrcnn_tf.model.rois import RoILayer
from mrcnn_tf.ops.roi_align import roi_align

# Sides 40, 112, 224 and 448 pixels: levels 2, 3, 4 and 5; then padding.
ROIS = np.float32([[[8, 8, 48, 48], [10, 20, 122, 132], [5, 5, 229, 229], [0, 0, 448, 448], [0, 0, 0, 0]]] * 2)


@pytest.fixture(scope="module")
def features():
    random = np.random.default_rng(0)
    return [random.normal(size=(2, -(-512 // s), -(-480 // s), 3)).astype(np.float32) for s in STRIDES]


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
def test_rois_are_pooled_from_their_level(features, conventions, aligned, ratio):
    layer = RoILayer(3, STRIDES[:4], conventions(roi_aligned=aligned, roi_sampling_ratio=ratio))
    pooled = layer(features, tf.constant(ROIS)).numpy()
    for image in range(2):
        for roi, level in enumerate((0, 1, 2, 3, 0)):
            box, batch = ROIS[image, roi : roi + 1], np.int32([image])
            expected = roi_align(features[level], box, batch, 1 / STRIDES[level], 3, ratio, aligned)[0]
            np.testing.assert_allclose(pooled[image, roi], expected, rtol=1e-5, atol=1e-6)


def test_the_level_rule_is_the_conventions(features, conventions):
    side = float(np.float32(224) - 7 * np.spacing(np.float32(223)))  # see test_levels.py
    rois = np.float32([[[0, 0, side, side]]] * 2)
    torchvision, detectron2 = (
        RoILayer(3, STRIDES[:4], conventions(level_assignment=rule))(features, tf.constant(rois))[0]
        for rule in ("torchvision", "detectron2")
    )
    expected = [roi_align(features[i], rois[0], np.int32([0]), 1 / STRIDES[i], 3, 2, True) for i in (2, 1)]
    np.testing.assert_allclose(torchvision, expected[0], atol=1e-5)
    np.testing.assert_allclose(detectron2, expected[1], atol=1e-5)


def test_the_padded_size_reaches_every_level(features, conventions):
    layer = RoILayer(3, STRIDES[:4], conventions())
    spoiled = [level.copy() for level in features]
    for level, stride in zip(spoiled, STRIDES, strict=True):
        level[:, 256 // stride :], level[:, :, 224 // stride :] = 1e3, -1e3
    cropped = [level[:, : 256 // stride, : 224 // stride] for level, stride in zip(features, STRIDES, strict=True)]
    # RoIs into the corner, one for each level, sampled beyond the centre of the last cell.
    corner = [[224 - side, 256 - side, 224, 256] for side in (16, 112, 224)]
    rois = tf.constant(np.float32([[*corner, [0, 0, 600, 600]]] * 2))
    pooled = layer(spoiled, rois, tf.constant([[256, 224]] * 2))
    np.testing.assert_array_equal(pooled, layer(cropped, rois))
    assert np.abs(pooled).max() < 10 < np.abs(layer(spoiled, rois)).max()


def test_boxes_are_not_rounded_under_bfloat16(features, conventions):
    exact = RoILayer(3, STRIDES[:4], conventions())
    mixed = RoILayer(3, STRIDES[:4], conventions(), dtype="mixed_bfloat16")
    rois = tf.constant(ROIS + np.float32([201.3, 203.7, 201.3, 203.7]))
    pooled = mixed([tf.cast(level, tf.bfloat16) for level in features], rois)
    assert pooled.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(pooled, tf.float32), exact(features, rois), atol=0.05)
