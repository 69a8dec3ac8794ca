"""The size an image is brought to before the network sees it, and the interpolation (section 3.1 of the paper).

Two rules are in use and give different pixels. They are pure functions on tensors, so the data pipeline and the model's
own preprocessing share them.
"""

import tensorflow as tf

from mrcnn_tf.errors import UserError

RULES = ("torchvision", "detectron2")


def resized_size(height, width, min_size, max_size, rule):
    """The height and width that bring the shorter side to `min_size` unless the longer would pass `max_size`.

    "torchvision" multiplies both sides with one float64 scale and rounds down, as `interpolate` does with
    `recompute_scale_factor=True`; for some short sides (161, 322, ...) the product falls just below `min_size` and the
    result is one pixel short of it. "detectron2" sets the shorter side exactly and rounds the other to the nearest.

    Args:
        height, width: int tensors of one shape, pixels.
        min_size, max_size: pixels.
        rule: "torchvision" or "detectron2".

    Returns:
        (height, width), int32 tensors of the shape given, at least 1.

    Raises:
        UserError: `rule` is neither.
    """
    _check_rule(rule)
    height = tf.cast(height, tf.float64)
    width = tf.cast(width, tf.float64)
    short = tf.minimum(height, width)
    long = tf.maximum(height, width)
    min_size = tf.constant(min_size, tf.float64)
    max_size = tf.constant(max_size, tf.float64)
    if rule == "torchvision":
        scale = tf.minimum(min_size / short, max_size / long)
        sizes = [tf.floor(height * scale), tf.floor(width * scale)]
    else:
        scale = min_size / short
        # The shorter side is min_size by definition, not short * scale, which may miss it by a rounding error.
        new_height = tf.where(height < width, min_size, height * scale)
        new_width = tf.where(height < width, width * scale, min_size)
        largest = tf.maximum(new_height, new_width)
        shrink = tf.where(largest > max_size, max_size / largest, tf.ones_like(largest))
        sizes = [tf.floor(new_height * shrink + 0.5), tf.floor(new_width * shrink + 0.5)]
    return tuple(tf.maximum(tf.cast(size, tf.int32), 1) for size in sizes)


def resize_image(image, size, rule):
    """Bilinear interpolation with half-pixel centres, as the rule's reference system does it.

    "torchvision" interpolates floats between the four nearest pixels, also when it shrinks. "detectron2" uses PIL's
    filter on bytes: it widens with the reduction (antialiasing), and each of its two passes, first along the rows,
    ends in whole numbers.

    Args:
        image: [H, W, 3] float32 (or uint8) 0..255.
        size: (h, w) int32.
        rule: "torchvision" or "detectron2".

    Returns:
        [h, w, 3] float32 0..255.

    Raises:
        UserError: `rule` is neither.
    """
    _check_rule(rule)
    height, width = size[0], size[1]
    image = tf.cast(image, tf.float32)
    if rule == "torchvision":
        return tf.image.resize(image, tf.stack([height, width]), method="bilinear", antialias=False)
    image = _antialiased(image, tf.shape(image)[0], width)
    return _antialiased(image, height, width)


def _antialiased(image, height, width):
    size = tf.stack([height, width])
    image = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.clip_by_value(tf.floor(image + 0.5), 0.0, 255.0)


def _check_rule(rule):
    if rule not in RULES:
        raise UserError(f"The resize rule {rule!r} is unknown: set resize.rule to {' or '.join(RULES)}.")
