"""Winograd's convolution from stock operations against TensorFlow's own in float64, and where it is used."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import conv
from mrcnn_tf.ops.conv import FILTERS, INPUTS, OUTPUTS, SMALL_SIDE, winograd_conv2d
from mrcnn_tf.ops.native.library import static_shapes, stock_operations


def case(shape, filters=6):
    """Inputs and a kernel, float32, of outputs around 1."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, shape[-1], filters)) / np.sqrt(9 * shape[-1])
    return np.float32(random.normal(size=shape)), np.float32(kernel)


def check(outputs, inputs, kernel):
    wanted = tf.nn.conv2d(np.float64(inputs), np.float64(kernel), 1, "SAME").numpy()
    assert outputs.dtype == tf.float32 and outputs.shape == wanted.shape
    np.testing.assert_allclose(outputs, wanted, atol=1e-5)


def test_four_outputs_of_a_row_by_hand():
    inputs, taps = np.float64([1, 2, 3, 4, 5, 6]), np.float64([1, 2, 3])
    outputs, filters, transform = (np.float64(matrix) for matrix in (OUTPUTS, FILTERS, INPUTS))
    found = outputs @ ((filters @ taps) * (transform @ inputs))
    np.testing.assert_allclose(found, [14, 20, 26, 32], rtol=1e-6)


# Tiles have four cells: less than one, one, a rest of each length; and a map that is taken one image at a time.
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 4, 4, 3), (2, 5, 7, 8), (3, 6, 2, 1), (2, SMALL_SIDE + 1, 3, 4)])
def test_it_equals_the_plain_sum(shape):
    inputs, kernel = case(shape)
    check(winograd_conv2d(tf.constant(inputs), tf.constant(kernel)), inputs, kernel)


@pytest.mark.parametrize("shape", [(1, 5, 7, 3), (2, 40, 1, 3)])
def test_shapes_may_be_known_only_at_run_time(shape):
    inputs, kernel = case(shape)
    for signature in ([None, None, None, 3], [None, *shape[1:]]):
        graph = tf.function(winograd_conv2d, input_signature=[tf.TensorSpec(signature), tf.TensorSpec(kernel.shape)])
        assert graph.get_concrete_function().structured_outputs.shape.as_list() == [*signature[:3], 6]
        check(graph(inputs, kernel), inputs, kernel)


def test_there_may_be_no_rois():
    """A head's maps have a fixed side, their number hasn't."""
    inputs, kernel = case((0, 14, 14, 3))
    signature = [tf.TensorSpec([None, 14, 14, 3]), tf.TensorSpec(kernel.shape)]
    assert tf.function(winograd_conv2d, input_signature=signature)(inputs, kernel).shape == (0, 14, 14, 6)


@pytest.fixture
def calls(monkeypatch):
    """The inputs' shapes of each convolution that went Winograd's way, in the test's course."""
    seen = []
    monkeypatch.setattr(
        conv, "winograd_conv2d", lambda *values: seen.append(values[0].shape) or winograd_conv2d(*values)
    )
    return seen


@pytest.mark.parametrize("channels, filters", [(64, 64), (128, 64), (256, 256)])
def test_a_graph_for_a_processor_uses_it(calls, channels, filters):
    inputs, kernel = case((1, 3, 5, channels), filters)
    bias = np.float32(np.random.default_rng(1).normal(size=filters))
    with stock_operations(for_cpu=True):
        outputs = conv.conv2d(tf.constant(inputs), kernel, bias, relu=True)
    wanted = np.maximum(tf.nn.conv2d(np.float64(inputs), np.float64(kernel), 1, "SAME") + np.float64(bias), 0)
    np.testing.assert_allclose(outputs, wanted, atol=1e-5)
    assert calls == [(1, 3, 5, channels)]


@pytest.mark.parametrize("context", [contextlib.nullcontext, stock_operations, static_shapes])
def test_no_other_graph_does(calls, context):
    inputs, kernel = case((1, 3, 5, 64), 64)
    with context():
        conv.conv2d(tf.constant(inputs), kernel)
    assert not calls


@pytest.mark.parametrize(
    "shape, kernel, options",
    [
        ((1, 4, 4, 64), (3, 3, 64, 63), {}),
        ((1, 4, 4, 256), (3, 3, 256, 257), {}),
        ((1, 4, 4, 128), (3, 3, 64, 128), {}),  # two groups
        ((1, 4, 4, 64), (1, 1, 64, 64), {}),
        ((1, 4, 4, 64), (3, 3, 64, 64), {"strides": 2}),
        ((1, 4, 4, 64), (3, 3, 64, 64), {"dilation": 2}),
        ((1, 4, 4, 64), (3, 3, 64, 64), {"padding": "VALID"}),
        ((1, 4, 4, 64), (3, 3, 64, 64), {"dtype": tf.bfloat16}),
    ],
    ids=["few", "many", "groups", "1x1", "strides", "dilation", "valid", "bfloat16"],
)
def test_no_other_convolution_does(calls, shape, kernel, options):
    options = dict(options)
    inputs = tf.ones(shape, options.pop("dtype", tf.float32))
    with stock_operations(for_cpu=True):
        conv.conv2d(inputs, tf.ones(kernel), **options)
    assert not calls
