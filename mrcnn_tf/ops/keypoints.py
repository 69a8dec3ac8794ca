"""Keypoints and the heatmaps of their RoIs: which cell a keypoint lies in, and back (section 5 of the paper).

Both ways follow torchvision and detectron2, which agree but for the score.
"""

import tensorflow as tf

from mrcnn_tf.common.errors import UserError

CUBIC = -0.75  # the free parameter of bicubic interpolation; TensorFlow's own resize has -0.5
LARGEST_LOG_SHARE = 80.0  # exp of more is infinite in float32; only logits in the hundreds come near


def keypoint_targets(keypoints, boxes, side):
    """The cell of an RoI's heatmap that each keypoint lies in.

    Args:
        keypoints: float32 [N, P, 3] = (x, y, visibility) pixels.
        boxes: float32 [N, 4] = (x1, y1, x2, y2), the RoIs in the same pixels.
        side: cells of a heatmap's side.

    Returns:
        int32 [N, P] = row * side + column, 0 where the keypoint doesn't count, and bool [N, P], whether it does: it is
        labelled (visibility above 0) and inside the RoI or on its border. None counts in an RoI without area.
    """
    start, end = boxes[:, None, :2], boxes[:, None, 2:]
    position, scale = keypoints[..., :2], side / (end - start)
    cell = tf.floor((position - start) * scale)
    cell = tf.where(position == end, side - 1.0, cell)  # the last cell has the far border too
    inside = (cell >= 0.0) & (cell < side) & (scale > 0.0) & tf.math.is_finite(scale)
    valid = tf.reduce_all(inside, axis=-1) & (keypoints[..., 2] > 0.0)
    # Casting what isn't finite or far outside is undefined.
    cell = tf.cast(tf.where(valid[..., None], cell, 0.0), tf.int32)
    return cell[..., 1] * side + cell[..., 0], valid


def upsample_heatmaps(logits):
    """Doubles heatmaps [N, M, M, P] bilinearly (half-pixel centres, borders repeated): float32 [N, 2M, 2M, P]."""
    return tf.image.resize(logits, [2 * logits.shape[1], 2 * logits.shape[2]], "bilinear")


def decode_keypoints(heatmaps, boxes, score_rule, max_box_size=None):
    """The keypoints of RoIs: each the highest pixel of its heatmap, resized bicubically to the RoI in whole pixels.

    Two RoIs are resized at a time (P * width * height floats each), by a matrix product along each axis.

    Args:
        heatmaps: [N, P, M, M] logits; P and M are static.
        boxes: float32 [N, 4] = (x1, y1, x2, y2), the RoIs in pixels, no larger than an image. A side shorter than one
            pixel counts as one.
        max_box_size: static (height, width), pixels: no box is larger. Then all RoIs are resized to as many pixels, of
            which only those of the RoI count, so that no shape depends on a box. None resizes each to its own size.
        score_rule: "logit", the resized map's maximum (torchvision), or "probability": the maximum's share in the
            softmax's sum over the M * M cells (detectron2). The resized maximum isn't part of that sum and may pass 1.

    Returns:
        float32 [N, P, 3] = (x, y, score) in the boxes' pixels; zeros for a box with a coordinate that isn't finite.

    Raises:
        UserError: `score_rule` is neither.
    """
    if score_rule not in ("logit", "probability"):
        raise UserError(f"There is no keypoint score '{score_rule}': choose logit or probability.")
    heatmaps, boxes = tf.cast(heatmaps, tf.float32), tf.cast(boxes, tf.float32)
    finite = tf.reduce_all(tf.math.is_finite(boxes), axis=1)
    boxes = tf.where(finite[:, None], boxes, 0.0)
    rois = heatmaps, boxes[:, :2], tf.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    keypoints = _maxima_of_static_size(*rois, max_box_size) if max_box_size else _maxima(*rois)
    if score_rule == "probability":
        share = keypoints[..., 2] - tf.reduce_logsumexp(heatmaps, axis=[2, 3])
        share = tf.exp(tf.minimum(share, LARGEST_LOG_SHARE))
        keypoints = tf.concat([keypoints[..., :2], share[..., None]], axis=-1)
    return tf.where(finite[:, None, None], keypoints, 0.0)


def _maxima(heatmaps, corners, sides):
    """(x, y, logit) [N, P, 3] of the maxima of heatmaps [N, P, M, M] over boxes with these corners and sides [N, 2]."""
    rois, maxima = (heatmaps, corners, sides), tf.TensorSpec([heatmaps.shape[1], 3])
    return tf.map_fn(lambda roi: _maximum(*roi, None), rois, fn_output_signature=maxima, parallel_iterations=2)


def _maxima_of_static_size(heatmaps, corners, sides, max_box_size):
    """The same without a list of tensors, which TFLite makes from slices whose shapes vary."""
    indices = tf.range(tf.shape(heatmaps)[0])

    def add(index, keypoints):
        roi = _maximum(*(tf.gather(values, index) for values in (heatmaps, corners, sides)), max_box_size)
        return index + 1, tf.where((indices == index)[:, None, None], roi, keypoints)

    start = (tf.constant(0), tf.zeros([tf.shape(heatmaps)[0], heatmaps.shape[1], 3]))
    return tf.while_loop(lambda index, _: index < tf.size(indices), add, start, parallel_iterations=1)[1]


def _maximum(heatmaps, corner, sides, max_box_size):
    """(x, y, logit) [P, 3] of the maxima of heatmaps [P, M, M] over a box with this corner and these sides (x, y)."""
    pixels, counts = tf.math.ceil(sides), max_box_size or (None, None)
    y_weights, x_weights = (_cubic_weights(heatmaps.shape[-1], pixels[1 - axis], counts[axis]) for axis in (0, 1))
    resized = tf.matmul(y_weights, tf.tensordot(heatmaps, x_weights, [[2], [1]]))  # [P, height, width]
    if max_box_size:
        rows, columns = (tf.range(float(side)) < pixels[1 - axis] for axis, side in enumerate(max_box_size))
        resized = tf.where(rows[:, None] & columns, resized, resized.dtype.min)
    # The first row with the maximum, then the first pixel in it: cheaper than one argmax over all, and the same.
    row_maxima = tf.reduce_max(resized, axis=2)
    y = tf.argmax(row_maxima, axis=1, output_type=tf.int32)
    x = tf.argmax(tf.gather(resized, y, batch_dims=1), axis=1, output_type=tf.int32)
    position = (tf.cast(tf.stack([x, y], axis=1), tf.float32) + 0.5) * (sides / pixels) + corner
    return tf.concat([position, tf.reduce_max(row_maxima, axis=1)[:, None]], axis=1)


def _cubic_weights(cells, pixels, count=None):
    """Weights [pixels, cells] that resize an axis of `cells` to `pixels` (a float tensor) without antialiasing.

    With `count` as many rows of them, the pixels going on beyond the axis where there are more.
    """
    position = (tf.range(pixels if count is None else float(count)) + 0.5) * (cells / pixels) - 0.5
    low = tf.floor(position)
    before = position - low  # distance to the cell before the position; 1 - before is that to the cell after it
    taps = tf.stack([_outer(before + 1.0), _inner(before), _inner(1.0 - before), _outer(2.0 - before)], axis=1)
    # Beyond the border its last cell is repeated, so that cell collects several weights.
    touched = tf.clip_by_value(tf.cast(low, tf.int32)[:, None] + tf.range(-1, 3), 0, cells - 1)
    return tf.reduce_sum(taps[:, :, None] * tf.one_hot(touched, cells), axis=1)


def _inner(distance):
    """The cubic kernel at a distance of 0 to 1."""
    return ((CUBIC + 2.0) * distance - (CUBIC + 3.0)) * distance * distance + 1.0


def _outer(distance):
    """The cubic kernel at a distance of 1 to 2."""
    return ((CUBIC * distance - 5.0 * CUBIC) * distance + 8.0 * CUBIC) * distance - 4.0 * CUBIC
