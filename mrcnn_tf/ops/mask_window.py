"""Where a mask lies in its image, inside the TensorFlow graph: the samples of `ops.masks.paste_window`, bit for bit."""

import collections

import tensorflow as tf

# left, top int64: its first column and row in the image. columns [w] float32: where its columns lie among the mask's
# cells. values [M + 2, h] float32: the mask's samples at its rows, in each column of cells and one beyond on each side.
MaskWindow = collections.namedtuple("MaskWindow", "left top columns values")


def mask_window(mask, box, image_size, rule):
    """The window of an image in which a mask can be set; empty where its box lies outside.

    Args:
        mask: [M, M] float32, M static.
        box: [4] float32 pixels of the image.
        image_size: (height, width), int64.
        rule: "torchvision" or "detectron2", as in `ops.masks.paste_masks`.

    Returns:
        `MaskWindow`, for `window_pixels`.

    Raises:
        ValueError: another `rule`.
    """
    if rule not in _AXES:
        raise ValueError(f'The rule for pasting masks is "torchvision" or "detectron2", not {rule!r}.')
    mask = tf.pad(mask, [[1, 1], [1, 1]])  # the border of zeros of `paste_window`
    top, rows = _AXES[rule](box[1], box[3], mask.shape[0], image_size[0])
    left, columns = _AXES[rule](box[0], box[2], mask.shape[1], image_size[1])
    return MaskWindow(left, top, columns, tf.transpose(_interpolate_first_axis(mask, rows)))


def window_pixels(values, columns, rule, threshold):
    """bool [n, h]: which pixels of n columns of a window are set.

    Args:
        values, columns: of a `MaskWindow`; of the columns a part will do.
        rule, threshold: as in `ops.masks.paste_masks`.
    """
    compare = tf.greater if rule == "torchvision" else tf.greater_equal
    return compare(_interpolate_first_axis(values, columns), threshold)


def _resize_positions(low, high, side, limit):
    """`ops.masks._resize_positions` of one axis of a box that is grown and cut as by `_whole_pixel_box` there.

    Float32, operation for operation: a half-ulp decides which pixel an edge falls into.
    """
    half = (high - low) * 0.5 * (side / (side - 2))
    centre = (high + low) * 0.5
    first, last = tf.cast(centre - half, tf.int64), tf.cast(centre + half, tf.int64)
    count = tf.maximum(last - first + 1, 1)
    start, stop = tf.maximum(first, 0), tf.minimum(last + 1, limit)
    offsets = tf.cast(tf.range(start, tf.maximum(stop, start)), tf.float32) - tf.cast(first, tf.float32)
    scale = tf.cast(tf.cast(side, tf.float64) / tf.cast(count, tf.float64), tf.float32)
    return start, (offsets + 0.5) * scale - 0.5


def _sample_positions(low, high, side, limit):
    """`ops.masks._sample_positions`."""
    cell = (high - low) / (side - 2)
    some = cell > 0
    cell = tf.where(some, cell, 1.0)
    end = tf.cast(limit, tf.float32)
    start = tf.clip_by_value(tf.floor(low - cell / 2), 0.0, end)
    stop = tf.where(some, tf.clip_by_value(tf.math.ceil(high + cell / 2), start, end), start)
    centres = tf.range(start, stop) + 0.5
    return tf.cast(start, tf.int64), (centres - low) / cell + 0.5


_AXES = {"torchvision": _resize_positions, "detectron2": _sample_positions}


def _interpolate_first_axis(values, positions):
    """[n, w]: linear samples of values [s, w] at positions [n] in cells, as `ops.masks` takes them."""
    last = values.shape[0] - 1
    positions = tf.clip_by_value(positions, 0.0, float(last))
    low = tf.minimum(tf.cast(positions, tf.int32), last - 1)
    slopes = tf.gather(values[1:] - values[:-1], low)
    return slopes * (positions - tf.cast(low, tf.float32))[:, None] + tf.gather(values, low)
