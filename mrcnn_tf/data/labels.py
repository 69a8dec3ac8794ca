"""Semantic labels, a class for each pixel, that go where their image goes: by the nearest pixel, ignored beyond it.

A label map is uint8 [H, W]: 0 is any thing, 1 to S a class of stuff, 255 is ignored. One of [0, 0] stands for none.
"""

import tensorflow as tf

from mrcnn_tf.common.categories import IGNORED
from mrcnn_tf.data.affine import pixels_back


def no_labels():
    """The label map of a dataset that is used without."""
    return tf.zeros([0, 0], tf.uint8)


def has_labels(sample):
    """Whether a `Sample` of this graph has labels."""
    return not _are_none(sample.semantic)


def resized_labels(labels, size, corner=(0, 0), part=None):
    """A label map, or a part of one, at another size.

    The middle of each pixel decides, as in Pillow's nearest neighbour, counted in whole numbers so that no rounding
    tips the scales.

    Args:
        labels: uint8 [H, W].
        size: (h, w) int32 [2].
        corner, part: (top, left) and (height, width) of the part, int32 [2] each; None: all of it.

    Returns:
        uint8 [h, w]; none stay none.
    """
    if _are_none(labels):
        return labels
    part = tf.shape(labels) if part is None else part
    rows, columns = (_sources(corner[axis], part[axis], size[axis]) for axis in (0, 1))
    # To gather whole rows is to copy memory; one pixel of each would take several times as long.
    return tf.gather(tf.transpose(tf.gather(tf.transpose(labels), columns)), rows)


def warped_labels(labels, matrix, size):
    """A label map under an affine map; ignored where nothing comes to lie.

    Args:
        labels: uint8 [H, W].
        matrix: the map, as in affine.py.
        size: (h, w) int32 [2] of the result.

    Returns:
        uint8 [h, w]; none stay none.
    """
    if _are_none(labels):
        return labels
    result = tf.raw_ops.ImageProjectiveTransformV3(
        images=labels[None, :, :, None],
        transforms=tf.pad(pixels_back(matrix), [[0, 0], [0, 2]]),
        output_shape=size,
        fill_value=float(IGNORED),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return result[0, :, :, 0]


def _sources(first, old, new):
    """[new] int64: which pixel of an axis each of `new` pixels shows, that are to be `old` pixels from `first` on."""
    first, old, new = (tf.cast(count, tf.int64) for count in (first, old, new))
    return first + (2 * tf.range(new) + 1) * old // (2 * new)


def _are_none(labels):
    return labels.shape[0] == 0
