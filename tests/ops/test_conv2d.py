"""3x3 convolutions by Winograd's algorithm against TensorFlow's in float64, value and gradients."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_tf.ops.conv import conv2d
from mrcnn_tf.ops.native.library import custom_ops, stock_operations


def case(shape, filters, seed=0):
    """Inputs, kernel, bias and an upstream gradient, float64."""
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(3, 3, shape[-1], filters)) / np.sqrt(9 * shape[-1])
    return random.normal(size=shape), kernel, random.normal(size=filters), random.normal(size=(*shape[:3], filters))


def run(function, inputs, kernel, bias, upstream, dtype, **arguments):
    """Outputs and the gradients of inputs, kernel and bias."""
    values = [tf.constant(inputs, dtype)] + [tf.constant(value, tf.float32) for value in (kernel, bias)]
    with tf.GradientTape() as tape:
        tape.watch(values)
        outputs = function(*values, **arguments)
        total = tf.reduce_sum(tf.cast(outputs, tf.float32) * tf.constant(upstream, tf.float32))
    return outputs, tape.gradient(total, values)


def exact(inputs, kernel, bias, upstream, relu):
    """The same in float64 by TensorFlow's convolution."""
    values = [tf.constant(value) for value in (inputs, kernel, bias)]
    with tf.GradientTape() as tape:
        tape.watch(values)
        outputs = tf.nn.conv2d(values[0], values[1], 1, "SAME") + values[2]
        outputs = tf.nn.relu(outputs) if relu else outputs
        total = tf.reduce_sum(outputs * upstream)
    return outputs, tape.gradient(total, values)


def check(shape, filters, relu, seed=0, tolerance=1e-5):
    """Errors relative to the largest value of each tensor."""
    values = case(shape, filters, seed)
    if relu:  # no output so near to 0 that rounding decides which gradients pass
        near = np.abs(exact(*values, False)[0]) < 1e-4
        values[3][near.astype(bool)] = 0.0
    ours, wanted = run(conv2d, *values, tf.float32, relu=relu), exact(*values, relu)
    for got, want in zip([ours[0], *ours[1]], [wanted[0], *wanted[1]], strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=tolerance * max(np.abs(want).max(initial=0), 1e-3))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 8, 16), (2, 5, 7, 32), (3, 14, 14, 48), (1, 1, 1, 16), (1, 33, 61, 16)])
@pytest.mark.parametrize("filters", [16, 48])
def test_value_and_gradients(shape, filters, relu):
    check(shape, filters, relu)


@settings(max_examples=10, deadline=None)
@given(*[st.integers(1, limit) for limit in (3, 20, 20, 3, 3)], st.booleans(), st.integers(0, 10**6))
def test_any_shape(images, height, width, channels, filters, relu, seed):
    check((images, height, width, 16 * channels), 16 * filters, relu, seed)


def summed_in_order(inputs, kernel):
    """3x3 convolution of one image, float32, product after product: how a loop rounds on any processor."""
    height, width, channels = inputs.shape
    padded = np.pad(inputs, [(1, 1), (1, 1), (0, 0)])
    total = np.zeros([height, width, kernel.shape[-1]], np.float32)
    for row, column, channel in np.ndindex(3, 3, channels):
        total += padded[row : row + height, column : column + width, channel, None] * kernel[row, column, channel]
    return total


def test_many_channels_keep_their_digits():
    """The paper's 256: rounding is twice that of plain sums (the usual points 1 and 2 would give four times)."""
    values = case((1, 20, 24, 256), 64)
    want, _ = exact(*values, False)
    inputs, kernel, bias = (np.float32(value) for value in values[:3])
    error = np.float64(conv2d(tf.constant(inputs), tf.constant(kernel), tf.constant(bias))) - want
    plain = np.float64(summed_in_order(inputs[0], kernel) + bias) - want
    assert np.std(error) < 2.5 * np.std(plain)
    assert np.abs(error).max() < 2.5 * np.abs(plain).max()


@pytest.mark.parametrize("shape", [(0, 8, 8, 16), (1, 0, 8, 16), (1, 8, 0, 16)])
def test_empty_maps(shape):
    outputs, gradients = run(conv2d, *case(shape, 16), tf.float32)
    assert outputs.shape == (*shape[:3], 16) and gradients[0].shape == shape
    assert not np.any(gradients[1]) and not np.any(gradients[2])


def test_bfloat16_is_rounded_once():
    """Inputs that bfloat16 holds exactly: only the output is rounded, by half of its last place at most."""
    inputs, kernel, bias, upstream = case((1, 9, 10, 32), 32)
    inputs = np.float64(tf.cast(tf.constant(inputs, tf.bfloat16), tf.float64))
    outputs, gradients = run(conv2d, inputs, kernel, bias, upstream, tf.bfloat16)
    want, _ = exact(inputs, kernel, bias, upstream, False)
    assert outputs.dtype == gradients[0].dtype == tf.bfloat16 and gradients[1].dtype == tf.float32
    np.testing.assert_allclose(tf.cast(outputs, tf.float64), want, rtol=2**-8, atol=1e-5)


def operations(*shapes, dtype=tf.float32, **arguments):
    """The types of the operations that `conv2d` traces to."""
    specs = [tf.TensorSpec(shapes[0], dtype), tf.TensorSpec(shapes[1])]
    graph = tf.function(lambda inputs, kernel: conv2d(inputs, kernel, **arguments)).get_concrete_function(*specs).graph
    return {operation.type for operation in graph.get_operations()}


def test_where_the_own_operation_is_used():
    suits = ([None, None, None, 32], [3, 3, 32, 16])
    assert "MrcnnTf>Conv3x3" in operations(*suits)
    assert "MrcnnTf>Conv3x3" in operations(*suits, dtype=tf.bfloat16)
    assert "MrcnnTf>Conv3x3" in operations([1, 8, 8, 512], [3, 3, 512, 512])
    for shapes, arguments in (
        (suits, {"strides": 2}),
        (suits, {"padding": "VALID"}),
        (suits, {"dtype": tf.float16}),
        (([1, 8, 8, 32], [1, 1, 32, 16]), {}),
        (([1, 8, 8, 8], [3, 3, 8, 16]), {}),
        (([1, 8, 8, 32], [3, 3, 32, 12]), {}),
        (([1, 8, 8, 32], [3, 3, 16, 32]), {}),  # two groups
        (([1, 8, 8, 512], [3, 3, 512, 1024]), {}),
        (([1, 8, 8, 512], [3, 3, 512, 512]), {"dtype": tf.bfloat16}),
    ):
        assert "Conv2D" in operations(*shapes, **arguments) - {"MrcnnTf>Conv3x3"}, (shapes, arguments)
    with stock_operations():
        assert "MrcnnTf>Conv3x3" not in operations(*suits)


WRONG = {
    "rank": ((1, 8, 16), (3, 3, 16, 16), (16,)),
    "channels": ((1, 8, 8, 16), (3, 3, 32, 16), (16,)),
    "15 channels": ((1, 8, 8, 15), (3, 3, 15, 16), (16,)),
    "15 filters": ((1, 8, 8, 16), (3, 3, 16, 15), (15,)),
    "5x5 filters": ((1, 8, 8, 16), (5, 5, 16, 16), (16,)),
    "bias": ((1, 8, 8, 16), (3, 3, 16, 16), (8,)),
    "bias of rank 2": ((1, 8, 8, 16), (3, 3, 16, 16), (1, 16)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_an_error(name):
    inputs = [tf.zeros(shape) for shape in WRONG[name]]
    with pytest.raises(tf.errors.InvalidArgumentError):
        custom_ops().mrcnn_tf_conv3x3(*inputs, relu=False)


@pytest.mark.parametrize("shape", [(1, 8, 7, 16), (2, 8, 8, 16), (1, 8, 8, 15), (8, 8, 16)])
def test_a_gradient_that_does_not_fit_is_an_error(shape):
    with pytest.raises(tf.errors.InvalidArgumentError):
        custom_ops().mrcnn_tf_conv3x3_filter_grad(tf.zeros([1, 8, 8, 16]), tf.zeros(shape))
