"""Each RoI from its own level and image."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import Conventions
from mrcnn_tf.model.necks import FeatureMaps
from mrcnn_tf.model.roi_features import RoILayer
from mrcnn_tf.ops.roi_align import roi_align

STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32, "P6": 64}
POOLED = ["P2", "P3", "P4", "P5"]
# Sides 40, 112, 224 and 448 pixels: levels 2, 3, 4 and 5; then padding.
ROIS = np.float32([[[8, 8, 48, 48], [10, 20, 122, 132], [5, 5, 229, 229], [0, 0, 448, 448], [0, 0, 0, 0]]] * 2)


@pytest.fixture(scope="module")
def features():
    random = np.random.default_rng(0)
    return {
        name: random.normal(size=(2, -(-512 // s), -(-480 // s), 3)).astype(np.float32) for name, s in STRIDES.items()
    }


def pool(layer, maps, rois, padded_size=None):
    return layer(rois, features=FeatureMaps(maps, STRIDES, padded_size=padded_size))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
def test_rois_are_pooled_from_their_level(features, aligned, ratio):
    layer = RoILayer(3, POOLED, Conventions(roi_aligned=aligned, roi_sampling_ratio=ratio))
    pooled = pool(layer, features, tf.constant(ROIS)).numpy()
    for image in range(2):
        for roi, level in enumerate(("P2", "P3", "P4", "P5", "P2")):
            box, batch = ROIS[image, roi : roi + 1], np.int32([image])
            expected = roi_align(features[level], box, batch, 1 / STRIDES[level], 3, ratio, aligned)[0]
            np.testing.assert_allclose(pooled[image, roi], expected, rtol=1e-5, atol=1e-6)


def test_the_level_rule_is_the_conventions(features):
    side = float(np.float32(224) - 7 * np.spacing(np.float32(223)))  # see test_levels.py
    rois = np.float32([[[0, 0, side, side]]] * 2)
    torchvision, detectron2 = (
        pool(RoILayer(3, POOLED, Conventions(level_assignment=rule)), features, tf.constant(rois))[0]
        for rule in ("torchvision", "detectron2")
    )
    expected = [roi_align(features[i], rois[0], np.int32([0]), 1 / STRIDES[i], 3, 2, True) for i in ("P4", "P3")]
    np.testing.assert_allclose(torchvision, expected[0], atol=1e-5)
    np.testing.assert_allclose(detectron2, expected[1], atol=1e-5)


def test_maps_whose_strides_dont_double_are_refused(features):
    with pytest.raises(UserError, match="strides double, and these have .*'P2': 4, 'P4': 16.*: give RoILayer.maps"):
        pool(RoILayer(3, ["P2", "P4"]), features, tf.constant(ROIS))


def test_the_padded_size_reaches_every_level(features):
    layer = RoILayer(3, POOLED, Conventions())
    spoiled = {name: level.copy() for name, level in features.items()}
    for name, stride in STRIDES.items():
        spoiled[name][:, 256 // stride :], spoiled[name][:, :, 224 // stride :] = 1e3, -1e3
    cropped = {name: level[:, : 256 // STRIDES[name], : 224 // STRIDES[name]] for name, level in features.items()}
    # RoIs into the corner, one for each level, sampled beyond the centre of the last cell.
    corner = [[224 - side, 256 - side, 224, 256] for side in (16, 112, 224)]
    rois = tf.constant(np.float32([[*corner, [0, 0, 600, 600]]] * 2))
    pooled = pool(layer, spoiled, rois, tf.constant([[256, 224]] * 2))
    np.testing.assert_array_equal(pooled, pool(layer, cropped, rois))
    assert np.abs(pooled).max() < 10 < np.abs(pool(layer, spoiled, rois)).max()


def test_boxes_are_not_rounded_under_bfloat16(features):
    exact = RoILayer(3, POOLED, Conventions())
    mixed = RoILayer(3, POOLED, Conventions(), dtype="mixed_bfloat16")
    rois = tf.constant(ROIS + np.float32([201.3, 203.7, 201.3, 203.7]))
    pooled = pool(mixed, {name: tf.cast(level, tf.bfloat16) for name, level in features.items()}, rois)
    assert pooled.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(pooled, tf.float32), pool(exact, features, rois), atol=0.05)
