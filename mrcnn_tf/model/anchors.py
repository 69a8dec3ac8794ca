"""Anchors: reference boxes of several aspect ratios at every cell of a feature map (Faster R-CNN, section 3.1.1)."""

import numpy as np
import tensorflow as tf


def cell_anchors(sizes, aspect_ratios, rounding):
    """Anchors of one cell around the origin, numpy float32 [sizes * ratios, 4] pixels; all ratios of a size in a row.

    Args:
        sizes: square roots of the anchors' areas, pixels.
        aspect_ratios: height / width, as both reference systems have it (the Model Garden has width / height).
        rounding: round the corners half-to-even to whole pixels, as torchvision; detectron2 keeps the fractions.
    """
    sizes, ratios = np.asarray(sizes, np.float64)[:, None], np.asarray(aspect_ratios, np.float64)
    widths, heights = (sizes / np.sqrt(ratios)).ravel(), (sizes * np.sqrt(ratios)).ravel()
    anchors = np.stack([-widths, -heights, widths, heights], axis=1) / 2
    return (np.round(anchors) if rounding else anchors).astype(np.float32)


def grid_anchors(cell, grid_height, grid_width, stride):
    """Anchors [grid_height * grid_width * A, 4] in pixels, in the order of a flattened [H, W, A] RPN output.

    `cell` [A, 4] is centred at `stride` times the cell index, without a half-cell offset (both reference systems).
    `stride` is a number, or float32 [B, 2] = (vertical, horizontal) for anchors [B, ..., 4].
    """
    stride = tf.broadcast_to(tf.cast(stride, tf.float32), [2]) if isinstance(stride, (int, float)) else stride
    ys = tf.range(grid_height, dtype=tf.float32) * stride[..., :1]
    xs = tf.range(grid_width, dtype=tf.float32) * stride[..., 1:]
    ys, xs = ys[..., :, None, None], xs[..., None, :, None]
    x1, y1, x2, y2 = tf.unstack(tf.constant(cell), axis=-1)
    corners = tf.broadcast_dynamic_shape(tf.shape(ys + x1), tf.shape(xs + x1))
    anchors = tf.stack([tf.broadcast_to(v, corners) for v in (xs + x1, ys + y1, xs + x2, ys + y2)], axis=-1)
    return tf.reshape(anchors, tf.concat([tf.shape(stride)[:-1], [-1, 4]], axis=0))
