"""From the semantic head's logits to a class for each pixel of the original image, and such maps at other sizes."""

import numpy as np
import tensorflow as tf

from mrcnn_tf.ops.bilinear import source_cells

STRIDE = 4  # pixels of the network's image to a cell of logits, along each axis
ROWS, COLUMNS = 32, 64  # pixels of the image that are classified together: what fits into the processor's cache


def semantic_map(logits, image_size, original_size):
    """The most likely class of each pixel: uint8 [H, W].

    The logits are enlarged to the pixels that the network saw, those of the image cut out and interpolated to the
    original's size, in this order, as detectron2 does it. Both steps are bilinear and so one product with the weights
    of a few cells along each axis. It is made tile by tile: 54 classes of all pixels are never there at once.

    Args:
        logits: float32 [h, w, C], C at most 256, of the network's image padded to 4h x 4w pixels.
        image_size: int32 (h, w), the image's pixels in there without the padding.
        original_size: int32 (H, W).
    """
    height, width, classes = tf.shape(logits)[0], tf.shape(logits)[1], logits.shape[2]
    top, row_weights = _tiles(height, image_size[0], original_size[0], ROWS)
    left, column_weights = _tiles(width, image_size[1], original_size[1], COLUMNS)
    columns = left[:, None] + tf.range(tf.shape(column_weights)[2])

    def strip(inputs):
        first, weights = inputs
        cells = tf.reshape(logits[first : first + tf.shape(weights)[1]], [-1, width * classes])
        enlarged = tf.reshape(tf.matmul(weights, cells), [ROWS, width, classes])
        tiles = tf.gather(enlarged, columns, axis=1)  # [ROWS, tiles, cells, C]
        return tf.cast(tf.argmax(tf.matmul(column_weights[None], tiles), axis=-1, output_type=tf.int32), tf.uint8)

    shape = tf.TensorSpec([ROWS, None, COLUMNS], tf.uint8)
    strips = tf.map_fn(strip, (top, row_weights), fn_output_signature=shape, parallel_iterations=2)
    pixels = tf.reshape(strips, [tf.shape(top)[0] * ROWS, tf.shape(left)[0] * COLUMNS])
    return pixels[: original_size[0], : original_size[1]]


def _tiles(cells, size, original, step):
    """The part of an axis that each tile of `step` pixels reads: first cells int32 [T], weights [T, step, reach]."""
    count = -(-original // step)
    pixels = tf.minimum(tf.range(count * step), original - 1)
    index, weight = source_cells(pixels, cells, STRIDE, size, original)
    index, weight = tf.reshape(index, [4, count, step]), tf.reshape(weight, [4, count, step])
    first = tf.reduce_min(index, axis=[0, 2])
    reach = tf.reduce_max(tf.reduce_max(index, axis=[0, 2]) - first) + 1
    first = tf.minimum(first, cells - reach)
    places = tf.one_hot(index - first[:, None], reach)  # [4, T, step, reach]
    return first, tf.reduce_sum(places * weight[..., None], axis=0)


def scaled_labels(labels, size):
    """A numpy map [H, W] at another size (h, w): each pixel is as the old one that its middle lies in."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(labels.shape, size, strict=True))
    return labels[rows[:, None], columns]
