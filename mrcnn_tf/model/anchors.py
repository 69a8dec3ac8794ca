"""Anchors: reference boxes of several aspect ratios at every cell of a feature map (Faster R-CNN, section 3.1.1)."""

import numpy as np
import tensorflow as tf

from mrcnn_tf.ops import padding


def pyramid_anchors(features, sizes, aspect_ratios, strides, conventions, padded_size=None):
    """The anchors of all maps, by the conventions of one of the reference systems: a list over levels of
    [H_l * W_l * A, 4] pixels, or [B, ..., 4] where the stride depends on the image.

    Args:
        features: list of L maps [B, H_l, W_l, C], the finest first.
        sizes, aspect_ratios: as in `cell_anchors`, of sizes one list for each map.
        strides: pixels per cell of each map.
        conventions: a dictionary with the fields of `Conventions`.
        padded_size: int32 [B, 2], see `ops.padding`.
    """
    is_padded = conventions["anchor_stride"] == "padded"
    if is_padded and padded_size is None:
        finest = tf.shape(features[0])
        padded_size = tf.tile(finest[None, 1:3] * strides[0], [finest[0], 1])
    anchors = []
    for level, level_sizes, stride in zip(features, sizes, strides, strict=True):
        cell = cell_anchors(level_sizes, aspect_ratios, conventions["anchor_rounding"])
        if conventions["box_width"] == "inclusive":
            cell = cell - np.array([0, 0, 1, 1], np.float32)
        stride = padded_stride(padded_size, stride) if is_padded else stride
        anchors.append(grid_anchors(cell, tf.shape(level)[1], tf.shape(level)[2], stride))
    return anchors


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


def padded_stride(padded_size, stride):
    """torchvision's distance of anchors, float32 [B, 2] pixels: the padded size over its cells, rounded down.

    At P6 it may be 61 pixels where `stride` is 64.
    """
    return tf.cast(padded_size // padding.count_cells(padded_size, stride), tf.float32)


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
    shape = tf.broadcast_dynamic_shape(tf.shape(ys + x1), tf.shape(xs + x1))
    anchors = tf.stack([tf.broadcast_to(side, shape) for side in (xs + x1, ys + y1, xs + x2, ys + y2)], axis=-1)
    return tf.reshape(anchors, tf.concat([tf.shape(stride)[:-1], [-1, 4]], axis=0))


def usable_anchors(features, valid_cells, anchors_per_cell):
    """Which anchors lie at an image's valid cells: list over levels of bool [B or 1, H_l * W_l * A].

    `valid_cells` are those of each level, see `ops.padding`.
    """
    usable = []
    for level, cells in zip(features, valid_cells, strict=True):
        height, width = tf.shape(level)[1], tf.shape(level)[2]
        cells = tf.stack([[height, width]]) if cells is None else cells
        mask = tf.reshape(padding.valid_mask(cells, height, width), [tf.shape(cells)[0], -1])
        usable.append(tf.repeat(mask, anchors_per_cell, axis=1))
    return usable
