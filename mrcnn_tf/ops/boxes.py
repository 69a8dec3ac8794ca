"""Box arithmetic: area, overlap, clipping, the delta parameterisation, the original image's pixels, suppression.

Boxes are [x1, y1, x2, y2] in absolute pixels, float32, half-open (width = x2 - x1). Everything here is float32 whatever
the precision policy: eight bits of mantissa can't tell pixel 800 from 803.
"""

import math

import numpy as np
import tensorflow as tf

MAX_LOG_SCALE = math.log(1000.0 / 16.0)  # largest decoded dw, dh in both reference systems: keeps exp() finite
DROPPED = -1e9  # the score of a box that must not survive suppression


def area(boxes):
    """Areas [...] in square pixels of boxes [..., 4]; a box with a negative side has area 0."""
    sides = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def intersection(boxes, others):
    """Intersection areas in square pixels of boxes [..., 4] and others [..., 4], shapes broadcast."""
    top_left = tf.maximum(boxes[..., :2], others[..., :2])
    bottom_right = tf.minimum(boxes[..., 2:], others[..., 2:])
    sides = tf.maximum(bottom_right - top_left, 0.0)
    return sides[..., 0] * sides[..., 1]


def iou(boxes, others):
    """Intersection over union [...] of boxes [..., 4] and others [..., 4], shapes broadcast; 0 where both are empty."""
    shared = intersection(boxes, others)
    return tf.math.divide_no_nan(shared, area(boxes) + area(others) - shared)


def clip(boxes, image_size):
    """Boxes [B, N, 4] moved inside images of image_size [B, 2] = (height, width), pixels."""
    height, width = tf.unstack(tf.cast(image_size, tf.float32)[:, None, :], axis=-1)
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    corners = [tf.minimum(x1, width), tf.minimum(y1, height), tf.minimum(x2, width), tf.minimum(y2, height)]
    return tf.maximum(tf.stack(corners, axis=-1), 0.0)


# Inside a model with matterport's boxes, whose right and bottom sides are inclusive, both lie a pixel further up left.


def to_half_open(boxes, box_width):
    """Half-open boxes from those [..., 4] of a model whose `box_width` is "half_open" or "inclusive"."""
    return boxes + _extra_width(box_width)


def from_half_open(boxes, box_width):
    """The model's boxes from half-open ones [..., 4]."""
    return boxes - _extra_width(box_width)


def box_limits(image_size, box_width):
    """int32 [B, 2]: the largest (y, x) of the model's boxes in images of `image_size` [B, 2] pixels."""
    return image_size - int(_extra_width(box_width)[-1])


def _extra_width(box_width):
    return np.array([0, 0, 1, 1], np.float32) * (box_width == "inclusive")


def _centers_and_sides(boxes):
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def encode(boxes, references, weights):
    """Deltas [..., 4] = (dx, dy, dw, dh) that move `references` [..., 4] onto `boxes` [..., 4].

    Shifts are relative to the reference's sides, scales are logarithms (Fast R-CNN, section 2.3). `weights` are the
    four factors of the deltas: (1, 1, 1, 1) for the RPN and (10, 10, 5, 5) for the box head in both reference systems.
    Degenerate boxes (padding) give finite deltas, to be masked by the caller.
    """
    centers, sides = _centers_and_sides(boxes)
    reference_centers, reference_sides = _centers_and_sides(references)
    sides, reference_sides = tf.maximum(sides, 1e-6), tf.maximum(reference_sides, 1e-6)
    shifts = (centers - reference_centers) / reference_sides
    scales = tf.math.log(sides / reference_sides)
    return tf.concat([shifts, scales], axis=-1) * tf.constant(weights, tf.float32)


def decode(deltas, references, weights, limit="above"):
    """Boxes [..., 4] that `deltas` [..., 4] make of `references` [..., 4]: the inverse of `encode`.

    `limit` says whether dw and dh have `MAX_LOG_SCALE` as a limit "above", or on "both" sides.
    """
    deltas = tf.cast(deltas, tf.float32) / tf.constant(weights, tf.float32)
    centers, sides = _centers_and_sides(references)
    centers = centers + deltas[..., :2] * sides
    scales = tf.minimum(deltas[..., 2:], MAX_LOG_SCALE)
    if limit == "both":
        scales = tf.maximum(scales, -MAX_LOG_SCALE)
    half = 0.5 * sides * tf.exp(scales)
    return tf.concat([centers - half, centers + half], axis=-1)


def large_enough(boxes, min_side):
    """Bool [...]: both sides of boxes [..., 4] are longer than zero and at least `min_side` pixels."""
    shorter = tf.reduce_min(boxes[..., 2:] - boxes[..., :2], axis=-1)
    return tf.logical_and(shorter > 0.0, shorter >= min_side)


def to_original(boxes, image_size, original_size):
    """Boxes [B, N, 4] of images resized to image_size [B, 2] in pixels of original_size [B, 2], (height, width) each.

    Each axis has its own ratio, since rounding the resized size breaks the aspect by a little (as torchvision).
    """
    ratio = _ratio(image_size, original_size)
    return boxes * tf.gather(ratio, [1, 0, 1, 0], axis=1)[:, None, :]


def points_to_original(points, image_size, original_size):
    """Points [B, N, P, 3] = (x, y, anything) in pixels of the original images, as `to_original`."""
    ratio = tf.pad(_ratio(image_size, original_size)[:, ::-1], [[0, 0], [0, 1]], constant_values=1.0)
    return points * ratio[:, None, None, :]


def _ratio(image_size, original_size):
    return tf.cast(original_size, tf.float32) / tf.cast(image_size, tf.float32)


def nms(boxes, scores, groups, iou_threshold, count):
    """Greedy non-maximum suppression inside each group, by falling score, the best `count` of each image.

    Boxes of different groups (FPN levels, classes) never suppress each other: each group is moved to a part of the
    plane of its own, as both reference systems do. All output shapes are static.

    Args:
        boxes: [B, N, 4] pixels, non-negative coordinates.
        scores: [B, N]; DROPPED for boxes that must not survive.
        groups: int32 [B, N] or [1, N].
        iou_threshold: a box that overlaps a better one by more than this is suppressed.
        count: survivors per image, padded.

    Returns:
        indices int32 [B, count] into N by falling score (0 in padding), valid bool [B, count].
    """
    # Each image's own largest coordinate: a neighbour in the batch must not decide how finely overlaps are computed.
    distance = tf.reduce_max(boxes, axis=[1, 2], keepdims=True) + 1.0
    shifted = boxes + tf.cast(groups, tf.float32)[..., None] * distance

    most = boxes.shape[1]
    most = tf.minimum(count, tf.shape(scores)[1]) if most is None else min(count, most)

    def suppress(arguments):
        image_boxes, image_scores = arguments
        # The op reads yxyx, but overlap doesn't change when both axes are swapped.
        selected = tf.raw_ops.NonMaxSuppressionV4(
            boxes=image_boxes,
            scores=image_scores,
            max_output_size=most,  # XLA fails when asked for more than there are
            iou_threshold=tf.cast(iou_threshold, tf.float32),
            score_threshold=DROPPED / 2,
            pad_to_max_output_size=True,
        )
        return selected.selected_indices, selected.valid_outputs

    scores = tf.cast(scores, tf.float32)
    if boxes.shape[0] == 1:  # TFLite has no lists of tensors, which map_fn needs
        indices, counts = (values[None] for values in suppress((shifted[0], scores[0])))
    else:
        signature = (tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32))
        indices, counts = tf.map_fn(suppress, (shifted, scores), fn_output_signature=signature)
    indices = tf.ensure_shape(tf.pad(indices, [[0, 0], [0, count - tf.shape(indices)[1]]]), [None, count])
    valid = tf.range(count)[None, :] < counts[:, None]
    return tf.where(valid, indices, 0), valid
