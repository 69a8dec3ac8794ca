"""3x3 convolutions with a quarter of the multiplications, from TensorFlow's stock operations (Lavin and Gray 2016).

For graphs that run on a processor without this package's own operation, which does the same: a tile of 4x4 outputs is
A^T [(G g G^T) * (B^T d B)] A, and the products over all channels are 36 matrix products. In TensorFlow the transforms
cost passes through memory, so it pays for convolutions of many channels only.
"""

import numpy as np
import tensorflow as tf

OUT, SIDE = 4, 6  # of a tile of outputs, and of the inputs that it needs
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity; those of custom_ops/winograd.cc, which round least
SMALL = 32  # cells; maps of at most this side are transformed for all images at once


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
    """What `tf.nn.conv2d(inputs, kernel, 1, "SAME")` gives, within some ulp.

    Args:
        inputs: float32 [B, H, W, C].
        kernel: float32 [3, 3, C, K].

    Returns:
        float32 [B, H, W, K].
    """
    channels, filters = kernel.shape[2:]
    transformed = tf.einsum("ia,abck,jb->ijck", FILTERS, kernel, FILTERS)
    transformed = tf.reshape(transformed, [SIDE * SIDE, channels, filters])
    height, width = inputs.shape[1:3]
    if height is not None and width is not None and max(height, width) <= SMALL:
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
    places = tf.range(count)[:, None] * OUT + tf.range(SIDE)
    return tf.gather(values, tf.reshape(places, [-1]), axis=axis)
