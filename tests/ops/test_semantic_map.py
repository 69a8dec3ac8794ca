"""A class for each pixel, against two bilinear steps in float64, one after the other."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops.panoptic_maps import semantic_map


def sampled(x, places):
    """x [N, ...] at places [M] along the first axis, the ends repeated, in float64."""
    low = np.floor(places).astype(int)
    share = (places - low).reshape(-1, *[1] * (x.ndim - 1))
    near, far = (x[np.clip(low + step, 0, len(x) - 1)] for step in (0, 1))
    return near * (1 - share) + far * share


def reference(logits, size, original):
    x = logits.astype(np.float64)
    for axis in (0, 1):
        x = np.moveaxis(x, axis, 0)
        x = sampled(x, (np.arange(4 * len(x)) + 0.5) / 4 - 0.5)[: size[axis]]
        x = sampled(x, (np.arange(original[axis]) + 0.5) * size[axis] / original[axis] - 0.5)
        x = np.moveaxis(x, 0, axis)
    return x


CASES = {
    "as it is": ((8, 16, 4), (32, 64), (32, 64)),
    "padded": ((8, 16, 4), (29, 57), (29, 57)),
    "smaller": ((16, 16, 3), (61, 50), (23, 19)),
    "larger, several tiles": ((8, 24, 5), (30, 90), (100, 333)),
    "a pixel": ((8, 8, 3), (31, 1), (1, 1)),
    "from a pixel": ((8, 8, 3), (1, 1), (40, 70)),
    "thin": ((8, 40, 2), (1, 160), (1, 2000)),
}


@pytest.mark.parametrize("shape, size, original", CASES.values(), ids=list(CASES))
def test_the_map_has_the_largest_of_the_interpolated_logits(shape, size, original):
    logits = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    found = semantic_map(tf.constant(logits), tf.constant(size), tf.constant(original)).numpy()
    expected = reference(logits, size, original)
    assert found.shape == original and found.dtype == np.uint8
    taken = np.take_along_axis(expected, found[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_allclose(taken, expected.max(axis=-1), atol=1e-5)  # ties may go either way
    assert (found == expected.argmax(axis=-1)).mean() > 0.99
