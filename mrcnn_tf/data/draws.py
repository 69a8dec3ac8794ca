"""Independent streams of random numbers from one seed: switching one augmentation on leaves the others' draws alone."""

import tensorflow as tf

# Turns and flips draw from the seed itself.
SIZE, CROP, JITTER, PLACE, ROTATION, PASTE, OTHER, CHOICE, OFFSET, COLOUR, ADDONS = range(1, 12)


def stream(seed, number):
    """The seed int64 [2] of one of the streams."""
    return tf.random.experimental.stateless_fold_in(seed, number)
