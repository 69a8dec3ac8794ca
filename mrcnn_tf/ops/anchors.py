"""Anchors: reference boxes of several aspect ratios at every cell of a feature map (Faster R-CNN, section 3.1.1)."""

import numpy as np
import tensorflow as tf


def cell_anchors(size, aspect_ratios, rounding):
    """Anchors of one cell around the origin, numpy float32 [ratios, 4] in pixels.

    Args:
        size: square root of the anchors' area, pixels.
        aspect_ratios: height / width, as both reference systems have it (the Model Garden has width / height).
        rounding: round the corners half-to-even to whole pixels, as torchvision; detectron2 keeps the fractions.
    """
    ratios = np.asarray(aspect_ratios, np.float64)
    widths, heights = size / np.sqrt(ratios), size * np.sqrt(ratios)
    anchors = np.stack([-widths, -heights, widths, heights], axis=1) / 2
    return (np.round(anchors) if rounding else anchors).astype(np.float32)


def grid_anchors(cell, grid_height, grid_width, stride):
    """Anchors [grid_height * grid_width * ratios, 4] in pixels, in the order of a flattened [H, W, ratios] RPN output.

    `cell` [ratios, 4] is centred at `stride` times the cell index, without a half-cell offset (both reference systems).
    """
    xs = tf.range(grid_width, dtype=tf.float32) * stride
    ys = tf.range(grid_height, dtype=tf.float32) * stride
    shift_x, shift_y = tf.meshgrid(xs, ys)
    shifts = tf.stack([shift_x, shift_y, shift_x, shift_y], axis=-1)
    return tf.reshape(shifts[:, :, None, :] + tf.constant(cell), [-1, 4])
