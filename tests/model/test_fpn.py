"""The pyramid against the FPN paper's recipe written out plainly."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.fpn import FPN, STRIDES, upsample
from mrcnn_tf.ops.native.library import static_shapes


@pytest.fixture(scope="module")
def maps():
    random = np.random.default_rng(0)
    shapes = [(2, 64 // s, 96 // s, c) for s, c in zip(STRIDES[:4], (3, 4, 5, 6), strict=True)]
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.fixture(scope="module")
def fpn(maps):
    layer = FPN(7)
    layer.build([m.shape for m in maps])
    random = np.random.default_rng(1)
    for conv in [*layer.lateral, *layer.output_convs]:
        conv.bias.assign(random.normal(size=conv.bias.shape))
    return layer


def test_upsampling_repeats_each_cell():
    cells = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(upsample(cells), cells.repeat(2, axis=1).repeat(2, axis=2))


def test_upsampling_with_static_shapes_is_the_same_and_so_is_its_gradient():
    random = np.random.default_rng(0)
    cells, upstream = tf.constant(random.normal(size=(2, 3, 5, 4))), random.normal(size=(2, 6, 10, 4))

    def value_and_gradient():
        with tf.GradientTape() as tape:
            tape.watch(cells)
            outputs = upsample(cells)
        return outputs, tape.gradient(outputs, cells, upstream)

    plain = value_and_gradient()
    with static_shapes():
        static = value_and_gradient()
    np.testing.assert_array_equal(static[0], plain[0])
    np.testing.assert_allclose(static[1], plain[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(plain[1], upstream.reshape(2, 3, 2, 5, 2, 4).sum(axis=(2, 4)), atol=1e-12)


def test_levels_are_lateral_plus_upsampled_then_smoothed(fpn, maps):
    def conv(inputs, layer):
        return tf.nn.conv2d(inputs, layer.kernel, 1, "SAME") + layer.bias

    above, expected = None, []
    for features, lateral, output in reversed(list(zip(maps, fpn.lateral, fpn.output_convs, strict=True))):
        merged = conv(features, lateral)
        if above is not None:
            merged += np.repeat(np.repeat(above, 2, axis=1), 2, axis=2)
        above = merged
        expected.insert(0, conv(merged, output))
    levels = fpn(maps)
    for ours, wanted in zip(levels[:4], expected, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(levels[4], levels[3][:, ::2, ::2])


def test_shapes_of_five_levels(fpn, maps):
    # 96 / 64 is rounded up: C5 is 2x3, its subsample 1x2.
    assert [tuple(m.shape) for m in fpn(maps)] == [
        (2, 16, 24, 7),
        (2, 8, 12, 7),
        (2, 4, 6, 7),
        (2, 2, 3, 7),
        (2, 1, 2, 7),
    ]


def test_levels_are_zero_beyond_each_padded_size(fpn, maps):
    levels = fpn(maps, padded_size=tf.constant([[32, 64], [64, 96]]))
    for level, stride in zip(levels, STRIDES, strict=True):
        first = level.numpy()[0]
        height, width = -(-32 // stride), -(-64 // stride)
        assert first[:height, :width].all()
        first[:height, :width] = 0
        assert not first.any()
        assert level.numpy()[1].all()


def test_beyond_the_padded_size_nothing_has_influence(fpn, maps):
    padded_size = tf.constant([[32, 64], [64, 96]])
    spoiled = [m.copy() for m in maps]
    for m, stride in zip(spoiled, STRIDES[:4], strict=True):
        m[0, 32 // stride :], m[0, :, 64 // stride :] = 1e3, -1e3
    cropped = [m[:1, : 32 // s, : 64 // s] for m, s in zip(maps, STRIDES[:4], strict=True)]
    for ours, alone in zip(fpn(spoiled, padded_size=padded_size), fpn(cropped), strict=True):
        np.testing.assert_allclose(ours[:1, : alone.shape[1], : alone.shape[2]], alone, rtol=1e-4, atol=1e-5)


def test_bfloat16_runs(maps):
    layer = FPN(7, dtype="mixed_bfloat16")
    layer.build([m.shape for m in maps])
    assert {m.dtype for m in layer(maps)} == {tf.bfloat16}
