"""Masks into RoI frames (training targets) and out of them (whole-image masks).

A mask is kept as a small square that covers a box exactly: cell (i, j) of S x S covers one S-th of the box's height and
width. Both directions are separable: first along y, then along x.
"""

import collections

import numpy as np
import tensorflow as tf

BLOCK_SAMPLES = 2**16  # 256 KiB of float32

# The part of an image in which a pasted mask can be set: pixels [h, w] bool, its first row and column.
MaskWindow = collections.namedtuple("MaskWindow", "pixels top left")


def mask_targets(masks, boxes, rois, size, binary=False):
    """What the mask head should predict: each instance's mask as seen from its RoI.

    Every target cell holds the exact fraction of its area that the instance covers; outside the instance's own box
    nothing is covered. torchvision trains on such soft values (it averages samples of the whole mask), detectron2 on
    values cut at one half. Section 3 of the paper: "the mask target is the intersection between an RoI and its
    associated ground-truth mask".

    Args:
        masks: [N, S, S], the instance inside its own box: float or bool 0..1, or uint8 0..255 as the data pipeline
            gives them. S must be static.
        boxes: [N, 4] float32 pixels, the box of each mask.
        rois: [N, 4] float32 pixels, same frame as `boxes`.
        size: M, the side of a target (28 in the paper).
        binary: True gives 1.0 where at least half of the cell is covered and 0.0 elsewhere.

    Returns:
        [N, M, M] float32 in 0..1, without gradient. A box or RoI without area gives zeros.
    """
    masks = tf.convert_to_tensor(masks)
    scale = 255.0 if masks.dtype == tf.uint8 else 1.0
    masks = tf.cast(masks, tf.float32)
    boxes, rois = (tf.cast(tf.convert_to_tensor(corners), tf.float32) for corners in (boxes, rois))
    side = masks.shape[-1]
    weights_x = _overlap_weights(boxes[:, 0], boxes[:, 2], rois[:, 0], rois[:, 2], side, size)
    weights_y = _overlap_weights(boxes[:, 1], boxes[:, 3], rois[:, 1], rois[:, 3], side, size)
    targets = tf.matmul(tf.matmul(weights_y, masks), weights_x, transpose_b=True) / scale
    if binary:
        # Cells covered by exactly one half are common, and float32 sums may fall just short of it.
        targets = tf.cast(targets >= 0.5 - 1e-5, tf.float32)
    return tf.stop_gradient(targets)


def _overlap_weights(box_low, box_high, roi_low, roi_high, side, size):
    """[N, size, side]: the share of each target cell's length that lies in each mask cell, along one axis.

    Edges are measured in mask cells from the box's edge, where float32 loses less than in pixels of a large image.
    """
    cells_per_pixel = tf.math.divide_no_nan(float(side), tf.maximum(box_high - box_low, 0.0))[:, None]
    steps = tf.range(size + 1, dtype=tf.float32)[None, :] / float(size)
    start = (roi_low - box_low)[:, None] * cells_per_pixel
    length = tf.maximum(roi_high - roi_low, 0.0)[:, None] * cells_per_pixel
    edges = start + steps * length  # [N, size + 1]
    cells = tf.range(side, dtype=tf.float32)[None, None, :]
    low = tf.maximum(edges[:, :-1, None], cells)
    high = tf.minimum(edges[:, 1:, None], cells + 1.0)
    return tf.math.divide_no_nan(tf.maximum(high - low, 0.0), length[:, :, None] / float(size))


def paste_masks(masks, boxes, height, width, rule="torchvision", threshold=0.5):
    """Whole-image masks from mask probabilities in their boxes' frames.

    Args:
        masks: [D, M, M] float probabilities.
        boxes: [D, 4] pixels of the image.
        height, width: H and W, the size of the image in pixels.
        rule: "torchvision" (whole-pixel boxes, probability > threshold) or "detectron2" (exact boxes, >= threshold).
        threshold: the probability at which a pixel belongs to the instance.

    Returns:
        [D, H, W] bool.

    Raises:
        ValueError: another `rule`.
    """
    pasted = np.zeros((len(masks), height, width), bool)
    for image_mask, mask, box in zip(pasted, masks, boxes, strict=True):
        window = paste_window(mask, box, height, width, rule, threshold)
        bottom, right = window.top + window.pixels.shape[0], window.left + window.pixels.shape[1]
        image_mask[window.top : bottom, window.left : right] = window.pixels
    return pasted


def paste_window(mask, box, height, width, rule="torchvision", threshold=0.5):
    """One mask of `paste_masks`, but only the window around its box (a `MaskWindow`); outside it nothing is set.

    Shapes and rules as there: `mask` [M, M], `box` [4]. The window may be empty, when the box lies outside the image.
    """
    # A border of zeros, one cell wide, lets the mask fade out instead of stopping at the box.
    mask = np.pad(np.asarray(mask, np.float32), 1)
    box = np.asarray(box, np.float32)
    if rule == "torchvision":
        left, top, right, bottom = _whole_pixel_box(box, mask.shape[0] - 2)
        top, rows = _resize_positions(top, bottom, mask.shape[0], height)
        left, columns = _resize_positions(left, right, mask.shape[1], width)
        pixels = _compare_samples(mask, rows, columns, np.greater, threshold)
    elif rule == "detectron2":
        top, rows = _sample_positions(box[1], box[3], mask.shape[0], height)
        left, columns = _sample_positions(box[0], box[2], mask.shape[1], width)
        pixels = _compare_samples(mask, rows, columns, np.greater_equal, threshold)
    else:
        raise ValueError(f'The rule for pasting masks is "torchvision" or "detectron2", not {rule!r}.')
    return MaskWindow(pixels, top, left)


def _whole_pixel_box(box, side):
    """torchvision's box of a padded mask: grown by (M + 2) / M about its centre, then cut to integers towards zero.

    float32 throughout, because a half-ulp decides which pixel an edge falls into.
    """
    half = (box[2:] - box[:2]) * np.float32(0.5) * np.float32((side + 2) / side)
    centre = (box[2:] + box[:2]) * np.float32(0.5)
    return np.concatenate([centre - half, centre + half]).astype(np.int64)


def _resize_positions(first, last, side, limit):
    """Where pixels lie among the `side` cells of a padded mask stretched over first..last, both included (torchvision).

    Returns the first pixel inside the image (0 <= pixel < limit) and the position [n] of it and those that follow.
    """
    count = max(int(last - first + 1), 1)
    start, stop = max(int(first), 0), min(int(last) + 1, limit)
    offsets = np.arange(start, stop, dtype=np.float32) - np.float32(first)
    return min(start, limit), (offsets + np.float32(0.5)) * np.float32(side / count) - np.float32(0.5)


def _sample_positions(low, high, side, limit):
    """Where the centres of pixels lie among the `side` cells of a padded mask whose inner ones fill low..high exactly
    (detectron2).

    Returns as `_resize_positions`. Half a cell beyond the box a sample still touches it, so the window reaches there.
    """
    cell = (high - low) / np.float32(side - 2)
    if not cell > 0:
        return 0, np.zeros(0, np.float32)
    start = int(np.clip(np.floor(low - cell / 2), 0, limit))
    stop = int(np.clip(np.ceil(high + cell / 2), start, limit))
    return start, (np.arange(start, stop, dtype=np.float32) + np.float32(0.5) - low) / cell + np.float32(0.5)


def _compare_samples(mask, rows, columns, compare, threshold):
    """[h, w] bool, columns contiguous: `compare` of the mask's bilinear samples at rows [h] and columns [w], in cells,
    with the threshold.

    In blocks of columns, because float32 samples of a whole image don't fit the processor's cache: five times as fast.
    No matrix products: numpy's would start threads of its own, which fight TensorFlow's for the processor, and took
    ten times as long right after a model had run.
    """
    values = np.ascontiguousarray(_interpolate_first_axis(mask, rows).T)
    pixels = np.empty((len(columns), len(rows)), bool)
    step = max(1, BLOCK_SAMPLES // max(len(rows), 1))
    for first in range(0, len(columns), step):
        block = slice(first, first + step)
        compare(_interpolate_first_axis(values, columns[block]), threshold, out=pixels[block])
    return pixels.T


def _interpolate_first_axis(values, positions):
    positions = np.clip(positions, 0, len(values) - 1)
    low = np.minimum(positions.astype(np.int64), len(values) - 2)
    samples = np.diff(values, axis=0)[low]
    samples *= (positions - low.astype(np.float32))[:, None]
    samples += values[low]
    return samples
