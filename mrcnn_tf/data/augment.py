"""Mirrorings and quarter turns that move the image, the boxes and the mask crops together.

A crop covers its box exactly, so it turns with it and no outline has to be moved. All are pure functions

    image [H, W, 3], boxes [N, 4] pixels, masks [N, S, S]  ->  the same three

and `augment` draws which of them to apply.
"""

import tensorflow as tf


def flip_horizontal(image, boxes, masks):
    """Left and right exchanged."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    return tf.reverse(image, [1]), tf.stack([width - x2, y1, width - x1, y2], axis=1), tf.reverse(masks, [2])


def flip_vertical(image, boxes, masks):
    """Up and down exchanged."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    height = tf.cast(tf.shape(image)[0], boxes.dtype)
    return tf.reverse(image, [0]), tf.stack([x1, height - y2, x2, height - y1], axis=1), tf.reverse(masks, [1])


def quarter_turn(image, boxes, masks):
    """90 degrees counterclockwise: what was at the right edge is at the top. H and W exchange."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    image = tf.reverse(tf.transpose(image, [1, 0, 2]), [0])
    masks = tf.reverse(tf.transpose(masks, [0, 2, 1]), [1])
    return image, tf.stack([y1, width - x2, y2, width - x1], axis=1), masks


def augment(image, boxes, masks, config, seed):
    """Applies what `config` allows, each with its probability.

    Args:
        image: [H, W, 3].
        boxes: [N, 4] pixels.
        masks: [N, S, S].
        config: config.AugmentConfig.
        seed: [2] int64; the same seed gives the same result.

    Returns:
        (image, boxes, masks, turned): `turned` is a bool tensor, True where H and W were exchanged.
    """
    sample = (image, boxes, masks)
    draws = tf.random.stateless_uniform([3], seed)
    if config.horizontal_flip > 0:
        sample = _maybe(draws[0] < config.horizontal_flip, flip_horizontal, sample)
    if config.vertical_flip > 0:
        sample = _maybe(draws[1] < config.vertical_flip, flip_vertical, sample)
    turns = tf.constant(0)
    if config.quarter_turns:
        turns = tf.cast(draws[2] * 4.0, tf.int32)
        sample = _maybe(turns % 2 == 1, quarter_turn, sample)
        sample = _maybe(turns >= 2, lambda *parts: flip_vertical(*flip_horizontal(*parts)), sample)
    return *sample, turns % 2 == 1


def _maybe(condition, function, sample):
    return tf.cond(condition, lambda: tuple(function(*sample)), lambda: sample)
