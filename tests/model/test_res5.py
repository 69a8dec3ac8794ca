"""res5 on RoIs: what it may be computed from, and in which order."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.config.settings import BackboneConfig, Conventions, RoILayerConfig
from mrcnn_tf.model.necks import FeatureMaps
from mrcnn_tf.model.roi_features import Res5, RoILayer


def made(side, depth=50, stride_in_1x1=True, norm="frozen_bn", **roi_layer):
    """A layer on 16 channels, with frozen statistics that aren't neutral."""
    layer = RoILayer(side, ["C4"], Conventions(roi_sampling_ratio=2), RoILayerConfig(**roi_layer))
    settings = BackboneConfig(depth=depth, stride_in_1x1=stride_in_1x1, norm=norm)
    res5, random = Res5(settings, layer), np.random.default_rng(0)
    res5.build({"C4": (None, None, None, 16)})
    for weight in res5.weights:
        if weight.name == "kernel":
            weight.assign(random.normal(0, np.sqrt(1 / np.prod(weight.shape[:-1])), weight.shape))
        elif weight.name in ("beta", "moving_mean"):
            weight.assign(random.normal(0, 0.3, weight.shape))
        else:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return res5


@pytest.fixture(scope="module")
def inputs():
    """C4 [2, 6, 8, 16] and RoIs, some of them beyond the map."""
    random = np.random.default_rng(1)
    corner = random.uniform(-40, 90, (2, 5, 2))
    rois = np.concatenate([corner, corner + random.uniform(10, 90, (2, 5, 2))], axis=2)
    return random.normal(size=(2, 6, 8, 16)).astype(np.float32), tf.constant(rois, tf.float32)


def run(layer, c4, rois, padded_size=None):
    return layer(rois, features=FeatureMaps({"C4": c4}, {"C4": 16}, padded_size=padded_size))


@pytest.mark.parametrize(("side", "depth"), [(14, 50), (7, 50), (14, 18)])
def test_seven_cells_a_side_whatever_it_pools(inputs, side, depth):
    res5 = made(side, depth)
    outputs = run(res5, *inputs)
    channels = 2048 if depth == 50 else 512
    assert outputs.shape == (2, 5, 7, 7, channels)
    assert res5.output_shape_of({"C4": (None, None, None, 16)})[2:] == outputs.shape[2:] and res5.output_size == 7
    pooled = run(res5.roi_layer, *inputs)
    expected = tf.reshape(pooled, [10, side, side, 16])
    for block in res5.blocks:
        expected = block(expected)
    np.testing.assert_allclose(tf.reshape(outputs, expected.shape), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "kind"), [(14, "align"), (7, "align"), (14, "warp")])
@pytest.mark.parametrize("padded_size", [None, [[96, 128], [60, 75]]])
def test_convolving_the_map_first_gives_the_same(inputs, monkeypatch, side, kind, padded_size):
    res5 = made(side, kind=kind)
    padded_size = padded_size and tf.constant(padded_size)
    results = []
    for cells in (10**6, 0):  # few RoIs: pooled first; many: convolved first
        monkeypatch.setattr("mrcnn_tf.model.roi_features.C4_CELLS", cells)
        with tf.GradientTape() as tape:
            features = tf.constant(inputs[0])
            tape.watch(features)
            outputs = run(res5, features, inputs[1], padded_size)
            total = tf.reduce_sum(outputs * tf.cos(tf.range(2048, dtype=tf.float32)))
        results.append([outputs, *tape.gradient(total, [features, res5.blocks[0].convs[0].kernel])])
    for plain, first in zip(*results, strict=True):
        np.testing.assert_allclose(first, plain, rtol=1e-3, atol=1e-3 * np.abs(plain).max())


@pytest.mark.parametrize(
    "settings",
    [
        {"stride_in_1x1": False},  # the 3x3 convolution strides, over all bins
        {"depth": 18},
        {"norm": "gn"},
        {"aggregate": "max"},
        {"kind": "pool", "aggregate": "max"},
    ],
)
def test_where_the_order_matters_rois_are_pooled_first(inputs, monkeypatch, settings):
    res5 = made(14, **settings)
    monkeypatch.setattr("mrcnn_tf.model.roi_features.C4_CELLS", 10**6)
    plain = run(res5, *inputs)
    monkeypatch.setattr("mrcnn_tf.model.roi_features.C4_CELLS", 0)
    np.testing.assert_array_equal(run(res5, *inputs), plain)
