"""Convolutions; those of 3x3 with a quarter of the multiplications on a processor (Winograd; Lavin and Gray 2016).

By our own operation (custom_ops/winograd.h) where it is there, in a third of the time of TensorFlow's. Graphs that run
without this package have the same from stock operations: a tile of 4x4 outputs is A^T [(G g G^T) * (B^T d B)] A, and
the products over all channels are 36 matrix products. There the transforms cost passes through memory, so it pays for
convolutions of many channels only.
"""

import numpy as np
import tensorflow as tf

from mrcnn_tf.ops.gradients import register_gradient
from mrcnn_tf.ops.native.library import custom_ops, load_custom_ops, runs_on_cpu

LANES = 16  # the operation takes multiples of so many channels
# Channels times filters: larger filters take longer to transform than small maps to convolve, in bfloat16 sooner.
MOST_PRODUCTS = {tf.float32: 512 * 512, tf.bfloat16: 256 * 512}
# From stock operations the transforms cost more: for fewer channels than the first, and for the small maps of more
# filters than the second, they eat the gain up.
STOCK_PRODUCTS = (64 * 64, 256 * 256)

OUT, SIDE = 4, 6  # of a tile of outputs, and of the inputs that it needs
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity; those of custom_ops/winograd.cc, which round least
SMALL_SIDE = 32  # cells; maps of at most this side are transformed for all images at once


def conv2d(inputs, kernel, bias=None, strides=1, padding="SAME", relu=False, dilation=1):
    """A convolution, its bias and ReLU.

    Args:
        inputs: [B, H, W, C] float32 or bfloat16.
        kernel: [k, k, C / groups, K] float32.
        bias: float32 [K] or None.
        strides, padding: as in `tf.nn.conv2d`.
        relu: whether negative outputs become 0.
        dilation: cells from one tap of the kernel to the next.

    Returns:
        [B, H', W', K] in the inputs' dtype. With 3x3 kernels of stride 1 and enough channels, a CPU computes it by
        Winograd's algorithm in float32 (custom_ops/winograd.h): within a few ulp of the plain sum.
    """
    may_be_winograd = strides == dilation == 1 and padding == "SAME" and _is_3x3_in_one_group(inputs, kernel)
    if may_be_winograd and _suits_operation(inputs, kernel):
        library = custom_ops()
        if library is not None:
            shift = tf.zeros([0]) if bias is None else bias
            return library.mrcnn_tf_conv3x3(inputs, tf.convert_to_tensor(kernel), shift, relu=relu)
    if may_be_winograd and runs_on_cpu() and _suits_stock_operations(inputs, kernel):
        outputs = winograd_conv2d(inputs, kernel)
    else:
        outputs = tf.nn.conv2d(inputs, tf.cast(kernel, inputs.dtype), strides, padding, dilations=dilation)
    if bias is not None:
        outputs = tf.nn.bias_add(outputs, tf.cast(bias, outputs.dtype))
    return tf.nn.relu(outputs) if relu else outputs


def _is_3x3_in_one_group(inputs, kernel):
    height, width, channels, _ = kernel.shape
    return (height, width) == (3, 3) and inputs.shape[-1] == channels


def _suits_operation(inputs, kernel):
    *_, channels, filters = kernel.shape
    fits = channels % LANES == filters % LANES == 0 and channels * filters <= MOST_PRODUCTS.get(inputs.dtype, 0)
    return fits and not tf.config.list_physical_devices("GPU")


def _suits_stock_operations(inputs, kernel):
    *_, channels, filters = kernel.shape
    return inputs.dtype == tf.float32 and STOCK_PRODUCTS[0] <= channels * filters <= STOCK_PRODUCTS[1]


@register_gradient("MrcnnTf>Conv3x3")
def _gradient(op, upstream):
    """The gradient of the 3x3 operation with respect to inputs, filters and bias."""
    inputs, filters, bias = op.inputs
    library = load_custom_ops()
    if op.get_attr("relu"):
        upstream = tf.where(op.outputs[0] > 0, upstream, tf.zeros([], upstream.dtype))
    mirrored = tf.transpose(tf.reverse(filters, [0, 1]), [0, 1, 3, 2])
    input_gradient = library.mrcnn_tf_conv3x3(upstream, mirrored, tf.zeros([0]), relu=False)
    filter_gradient = library.mrcnn_tf_conv3x3_filter_grad(inputs, upstream)
    bias_gradient = tf.reduce_sum(tf.cast(upstream, tf.float32), [0, 1, 2]) if bias.shape != [0] else tf.zeros([0])
    return input_gradient, filter_gradient, bias_gradient


def _transforms():
    """A^T [4, 6], G [6, 3] and B^T [6, 6] by Cook and Toom's algorithm."""
    others = [[point - other for other in POINTS if other != point] for point in POINTS]
    outputs = np.zeros([OUT, SIDE])
    outputs[:, :-1] = np.power.outer(POINTS, range(OUT)).T
    outputs[-1, -1] = 1
    filters = np.zeros([SIDE, 3])
    filters[:-1] = np.power.outer(POINTS, range(3)) / np.prod(others, axis=1)[:, None]
    filters[-1, -1] = 1
    inputs = np.zeros([SIDE, SIDE])
    for row, point in enumerate(POINTS):
        inputs[row, :-1] = np.poly([other for other in POINTS if other != point])[::-1]
    inputs[-1] = np.poly(POINTS)[::-1]
    return [matrix.astype(np.float32) for matrix in (outputs, filters, inputs)]


OUTPUTS, FILTERS, INPUTS = _transforms()


def winograd_conv2d(inputs, kernel):
    """Equals `tf.nn.conv2d(inputs, kernel, 1, "SAME")` within some ulp, from stock operations: float32 [B, H, W, C] and
    [3, 3, C, K] -> [B, H, W, K]."""
    channels, filters = kernel.shape[2:]
    transformed = tf.einsum("ia,abck,jb->ijck", FILTERS, kernel, FILTERS)
    transformed = tf.reshape(transformed, [SIDE * SIDE, channels, filters])
    height, width = inputs.shape[1:3]
    if height is not None and width is not None and max(height, width) <= SMALL_SIDE:
        return _convolve(inputs, transformed)
    # A tile's inputs overlap its neighbours': of one image at a time, the copies are 2.25 times its size.
    return tf.map_fn(lambda image: _convolve(image[None], transformed)[0], inputs, parallel_iterations=1)


def _convolve(inputs, transformed):
    _, channels, filters = transformed.shape
    batch, height, width = tf.unstack(tf.shape(inputs)[:3])
    rows, columns = -(-height // OUT), -(-width // OUT)
    below, right = rows * OUT + 1 - height, columns * OUT + 1 - width
    tiles = tf.pad(inputs, [[0, 0], [1, below], [1, right], [0, 0]])
    across = columns * OUT + 2
    tiles = tf.reshape(_overlapping(tiles, rows, 1), [batch, rows, SIDE, across * channels])
    tiles = tf.reshape(tf.matmul(INPUTS[None, None], tiles), [batch, rows, SIDE, across, channels])
    tiles = tf.reshape(_overlapping(tiles, columns, 3), [batch, rows * SIDE, columns, SIDE, channels])
    tiles = tf.reshape(tf.matmul(INPUTS[None, None, None], tiles), [batch, rows, SIDE, columns, SIDE, channels])
    tiles = tf.reshape(tf.transpose(tiles, [2, 4, 0, 1, 3, 5]), [SIDE * SIDE, -1, channels])
    products = tf.matmul(tiles, transformed)
    products = tf.matmul(OUTPUTS, tf.reshape(products, [SIDE, -1]))
    products = tf.matmul(OUTPUTS[None], tf.reshape(products, [OUT, SIDE, -1]))
    products = tf.reshape(products, [OUT, OUT, batch, rows, columns, filters])
    outputs = tf.reshape(tf.transpose(products, [2, 3, 0, 4, 1, 5]), [batch, rows * OUT, columns * OUT, filters])
    return tf.ensure_shape(outputs[:, :height, :width], [*inputs.shape[:3], filters])


def _overlapping(values, count, axis):
    """`count` windows of six along an axis, one after the other, each beginning four after the one before."""
    indices = tf.range(count)[:, None] * OUT + tf.range(SIDE)
    return tf.gather(values, tf.reshape(indices, [-1]), axis=axis)
