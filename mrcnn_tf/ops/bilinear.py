"""Maps enlarged by bilinear interpolation with half-pixel centres, the outermost cells repeated beyond the edge."""

import tensorflow as tf


def doubled(features):
    """[B, H, W, C] -> [B, 2H, 2W, C] in the same dtype."""
    enlarged = tf.image.resize(features, 2 * tf.shape(features)[1:3], method="bilinear")  # float32, whatever came in
    height, width = (side and 2 * side for side in features.shape[1:3])
    return tf.cast(tf.ensure_shape(enlarged, [None, height, width, features.shape[3]]), features.dtype)


def source_cells(pixels, cells, stride, size, original):
    """What two bilinear steps take pixels of an image from, along one axis.

    Args:
        pixels: int32 [N], positions in the original image.
        cells: int32, the length of a map.
        stride: pixels of the network's image to a cell.
        size: int32, the length of the image in there.
        original: int32, its original length, to which it is brought after the map has been enlarged by `stride`.

    Returns:
        (index, weight): int32 and float32 [4, N]; a cell may come twice.
    """
    scale = tf.cast(size, tf.float32) / tf.cast(original, tf.float32)
    index, weight = [], []
    for near, share in zip(*_neighbours(pixels, scale, size), strict=True):
        for cell, part in zip(*_neighbours(near, 1.0 / stride, cells), strict=True):
            index.append(cell)
            weight.append(share * part)
    return tf.stack(index), tf.stack(weight)


def _neighbours(places, scale, length):
    """The two old places, inside 0 to length - 1, that each of the new `places` lies between, and their shares."""
    position = (tf.cast(places, tf.float32) + 0.5) * scale - 0.5
    low = tf.floor(position)
    index = [tf.clip_by_value(tf.cast(low, tf.int32) + step, 0, length - 1) for step in (0, 1)]
    return index, [1.0 - (position - low), position - low]
