"""Mirrorings and quarter turns that move the image, the boxes, the mask crops and the keypoints together.

A crop covers its box exactly, so it turns with it and no outline has to be moved. All are pure functions

    image [H, W, 3], boxes [N, 4] pixels, masks [N, S, S], keypoints [N, P, 3] (x, y in pixels, v)  ->  the same four

S or P is 0 for a dataset without masks or keypoints.
and `augment` draws which of them to apply. They leave a keypoint at its place in the list; that a mirrored left eye is
a right one, `augment` settles at the end. Unlabelled keypoints stay (0, 0, 0).
"""

import tensorflow as tf


def flip_horizontal(image, boxes, masks, keypoints):
    """Left and right exchanged."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    boxes = tf.stack([width - x2, y1, width - x1, y2], axis=1)
    return tf.reverse(image, [1]), boxes, tf.reverse(masks, [2]), _labelled(width - x, y, v)


def flip_vertical(image, boxes, masks, keypoints):
    """Up and down exchanged."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    height = tf.cast(tf.shape(image)[0], boxes.dtype)
    boxes = tf.stack([x1, height - y2, x2, height - y1], axis=1)
    return tf.reverse(image, [0]), boxes, tf.reverse(masks, [1]), _labelled(x, height - y, v)


def quarter_turn(image, boxes, masks, keypoints):
    """90 degrees counterclockwise: what was at the right edge is at the top. H and W exchange."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    image = tf.reverse(tf.transpose(image, [1, 0, 2]), [0])
    masks = tf.reverse(tf.transpose(masks, [0, 2, 1]), [1])
    return image, tf.stack([y1, width - x2, y2, width - x1], axis=1), masks, _labelled(y, width - x, v)


def augment(image, boxes, masks, keypoints, mirrored, config, seed):
    """Applies what `config` allows, each with its probability.

    Args:
        image: [H, W, 3].
        boxes: [N, 4] pixels.
        masks: [N, S, S]; S may be 0.
        keypoints: [N, P, 3], x and y in pixels, v 0 for unlabelled; P may be 0.
        mirrored: [N, P] int32, the keypoint that takes each one's place in a mirrored image.
        config: settings.AugmentConfig.
        seed: [2] int64; the same seed gives the same result.

    Returns:
        (image, boxes, masks, keypoints, turned): `turned` is a bool tensor, True where H and W were exchanged.
    """
    sample = (image, boxes, masks, keypoints)
    draws = tf.random.stateless_uniform([3], seed)
    horizontal, vertical = draws[0] < config.horizontal_flip, draws[1] < config.vertical_flip
    if config.horizontal_flip > 0:
        sample = _maybe(horizontal, flip_horizontal, sample)
    if config.vertical_flip > 0:
        sample = _maybe(vertical, flip_vertical, sample)
    turns = tf.constant(0)
    if config.quarter_turns:
        turns = tf.cast(draws[2] * 4.0, tf.int32)
        sample = _maybe(turns % 2 == 1, quarter_turn, sample)
        sample = _maybe(turns >= 2, lambda *parts: flip_vertical(*flip_horizontal(*parts)), sample)
    image, boxes, masks, keypoints = sample
    # Both flips together are half a turn, which leaves left and right what they are.
    exchanged = tf.gather(keypoints, mirrored, batch_dims=1)
    keypoints = tf.where(horizontal != vertical, exchanged, keypoints)
    return image, boxes, masks, keypoints, turns % 2 == 1


def _labelled(x, y, v):
    return tf.stack([x, y, v], axis=2) * tf.cast(v > 0, v.dtype)[:, :, None]


def _maybe(condition, function, sample):
    return tf.cond(condition, lambda: tuple(function(*sample)), lambda: sample)
