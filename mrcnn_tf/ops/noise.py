"""Random numbers that belong to a place: the same for an image whatever batch, device or padding it comes with."""

import tensorflow as tf


def image_seeds(seed, step, image_ids):
    """A seed for each image of a training step.

    Args:
        seed: of the run, a Python integer.
        step: integer scalar.
        image_ids: [B] integers.

    Returns:
        uint32 [B].
    """
    key = _mixed(tf.constant(seed % 2**32, tf.uint32) ^ _mixed(_low_word(step)))
    image_ids = tf.cast(image_ids, tf.int64)
    low, high = _low_word(image_ids), _low_word(tf.bitwise.right_shift(image_ids, tf.constant(32, tf.int64)))
    return _mixed(key ^ _mixed(low ^ _mixed(high)))


def uniform(seeds, counters):
    """Numbers in [0, 1), one for each counter of each image.

    A pseudorandom function of the two: unlike a generator it needs no state to save or to share between devices, and an
    anchor keeps its number when the map around it is padded.

    Args:
        seeds: uint32 [B].
        counters: uint32 [A] or [B, A].

    Returns:
        float32 [B, A], multiples of 2^-24.
    """
    mixed = _mixed(_mixed(counters) ^ seeds[:, None])
    return tf.cast(tf.bitwise.right_shift(mixed, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def _low_word(values):
    return tf.cast(tf.bitwise.bitwise_and(tf.cast(values, tf.int64), tf.constant(2**32 - 1, tf.int64)), tf.uint32)


def _mixed(values):
    """A bijection of uint32 each of whose input bits changes half of the output's (MurmurHash3's finaliser)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        values ^= tf.bitwise.right_shift(values, tf.constant(shift, tf.uint32))
        if factor is not None:
            values *= tf.constant(factor, tf.uint32)
    return values
