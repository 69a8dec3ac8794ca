"""Between the resized image that the network sees and the original."""

import tensorflow as tf


def to_original(boxes, image_size, original_size):
    """Boxes [B, N, 4] of images resized to image_size [B, 2] in pixels of original_size [B, 2], (height, width) each.

    Each axis has its own ratio, since rounding the resized size breaks the aspect by a little (as torchvision).
    """
    ratio = _ratio(image_size, original_size)
    return boxes * tf.gather(ratio, [1, 0, 1, 0], axis=1)[:, None, :]


def points_to_original(points, image_size, original_size):
    """Points [B, N, P, 3] = (x, y, anything), the same way."""
    ratio = tf.pad(_ratio(image_size, original_size)[:, ::-1], [[0, 0], [0, 1]], constant_values=1.0)
    return points * ratio[:, None, None, :]


def _ratio(image_size, original_size):
    return tf.cast(original_size, tf.float32) / tf.cast(image_size, tf.float32)
