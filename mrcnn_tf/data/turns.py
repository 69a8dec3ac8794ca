"""Mirrorings and quarter turns that move the image, the boxes, the mask crops, the keypoints and the labels together.

A crop covers its box exactly, so it turns with it, and nothing is interpolated. The three moves are pure functions

    image [H, W, C], boxes [N, 4] pixels, masks [N, S, S], keypoints [N, P, 3] (x, y in pixels, v), semantic [H, W]

-> the same five.

They leave a keypoint at its place in the list; that a mirrored left eye is a right one, `turned` settles at the end.
Unlabelled keypoints stay (0, 0, 0).
"""

import tensorflow as tf


def flip_horizontal(image, boxes, masks, keypoints, semantic):
    """Left and right exchanged."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    boxes = tf.stack([width - x2, y1, width - x1, y2], axis=1)
    keypoints = _labelled(width - x, y, v)
    return tf.reverse(image, [1]), boxes, tf.reverse(masks, [2]), keypoints, tf.reverse(semantic, [1])


def flip_vertical(image, boxes, masks, keypoints, semantic):
    """Up and down exchanged."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    height = tf.cast(tf.shape(image)[0], boxes.dtype)
    boxes = tf.stack([x1, height - y2, x2, height - y1], axis=1)
    keypoints = _labelled(x, height - y, v)
    return tf.reverse(image, [0]), boxes, tf.reverse(masks, [1]), keypoints, tf.reverse(semantic, [0])


def quarter_turn(image, boxes, masks, keypoints, semantic):
    """90 degrees counterclockwise: what was at the right edge is at the top. H and W exchange."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    image = tf.reverse(tf.transpose(image, [1, 0, 2]), [0])
    masks = tf.reverse(tf.transpose(masks, [0, 2, 1]), [1])
    boxes = tf.stack([y1, width - x2, y2, width - x1], axis=1)
    return image, boxes, masks, _labelled(y, width - x, v), tf.reverse(tf.transpose(semantic), [0])


def turned(sample, mirrors, augment, seed):
    """Applies the flips and quarter turns that are allowed, each with its probability.

    Args:
        sample: a `Sample`.
        mirrors: int32 [K + 1, P], `keypoints.mirror_table`.
        augment: settings.AugmentConfig.
        seed: int64 [2]; the same seed gives the same result.

    Returns:
        Sample; H and W exchange in an odd number of quarter turns.
    """
    parts = (sample.image, sample.boxes, sample.masks, sample.keypoints, sample.semantic)
    draws = tf.random.stateless_uniform([3], seed)
    horizontal, vertical = draws[0] < augment.horizontal_flip, draws[1] < augment.vertical_flip
    if augment.horizontal_flip > 0:
        parts = _maybe(horizontal, flip_horizontal, parts)
    if augment.vertical_flip > 0:
        parts = _maybe(vertical, flip_vertical, parts)
    if augment.quarter_turns:
        turns = tf.cast(draws[2] * 4.0, tf.int32)
        parts = _maybe(turns % 2 == 1, quarter_turn, parts)
        parts = _maybe(turns >= 2, lambda *five: flip_vertical(*flip_horizontal(*five)), parts)
    image, boxes, masks, keypoints, semantic = parts
    if augment.horizontal_flip > 0 or augment.vertical_flip > 0:
        # Both flips together are half a turn, which leaves left and right what they are.
        exchanged = tf.gather(keypoints, tf.gather(mirrors, sample.classes), batch_dims=1)
        keypoints = tf.where(horizontal != vertical, exchanged, keypoints)
    return sample._replace(image=image, boxes=boxes, masks=masks, keypoints=keypoints, semantic=semantic)


def _labelled(x, y, v):
    return tf.stack([x, y, v], axis=2) * tf.cast(v > 0, v.dtype)[:, :, None]


def _maybe(condition, function, parts):
    return tf.cond(condition, lambda: tuple(function(*parts)), lambda: parts)
