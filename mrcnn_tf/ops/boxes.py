"""Box arithmetic: area, overlap, clipping and the delta parameterisation.

Boxes are [x1, y1, x2, y2] in absolute pixels, float32, half-open (width = x2 - x1). Everything here is float32 whatever
the precision policy: eight bits of mantissa can't tell pixel 800 from 803.
"""

import math

import tensorflow as tf

MAX_LOG_SCALE = math.log(1000.0 / 16.0)  # largest decoded dw, dh in both reference systems: keeps exp() finite


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


def _centers_and_sides(boxes):
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def encode(boxes, references, weights):
    """Deltas [..., 4] = (dx, dy, dw, dh) that move `references` [..., 4] onto `boxes` [..., 4].

    Shifts are relative to the reference's sides, scales are logarithms (Fast R-CNN, section 2.3). `weights` are the
    four
    factors of the deltas: (1, 1, 1, 1) for the RPN and (10, 10, 5, 5) for the box head in both reference systems.
    Degenerate boxes (padding) give finite deltas, to be masked by the caller.
    """
    centers, sides = _centers_and_sides(boxes)
    reference_centers, reference_sides = _centers_and_sides(references)
    sides, reference_sides = tf.maximum(sides, 1e-6), tf.maximum(reference_sides, 1e-6)
    shifts = (centers - reference_centers) / reference_sides
    scales = tf.math.log(sides / reference_sides)
    return tf.concat([shifts, scales], axis=-1) * tf.constant(weights, tf.float32)


def decode(deltas, references, weights):
    """Boxes [..., 4] that `deltas` [..., 4] make of `references` [..., 4]: the inverse of `encode`."""
    deltas = tf.cast(deltas, tf.float32) / tf.constant(weights, tf.float32)
    centers, sides = _centers_and_sides(references)
    centers = centers + deltas[..., :2] * sides
    half = 0.5 * sides * tf.exp(tf.minimum(deltas[..., 2:], MAX_LOG_SCALE))
    return tf.concat([centers - half, centers + half], axis=-1)


def large_enough(boxes, min_side):
    """Bool [...]: both sides of boxes [..., 4] are longer than zero and at least `min_side` pixels."""
    shorter = tf.reduce_min(boxes[..., 2:] - boxes[..., :2], axis=-1)
    return tf.logical_and(shorter > 0.0, shorter >= min_side)
