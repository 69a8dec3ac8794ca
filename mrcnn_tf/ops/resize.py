"""The size an image is brought to before the network sees it, and the interpolation (section 3.1 of the paper).

Two rules are in use and give different pixels. They are pure functions on tensors, so the data pipeline and the model's
own preprocessing share them.
"""

import tensorflow as tf

from mrcnn_tf.common.errors import UserError

RULES = ("torchvision", "detectron2")

FIXED_POINT = 22  # binary digits of PIL's weights
HALF = 1 << (FIXED_POINT - 1)


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
    height, width = (tf.cast(side, tf.float64) for side in (height, width))
    short, long = tf.minimum(height, width), tf.maximum(height, width)
    min_size, max_size = (tf.constant(side, tf.float64) for side in (min_size, max_size))
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


def fitted_size(height, width, input_height, input_width, rule):
    """The height and width that bring an image as large as fits into an input of fixed size, its aspect kept.

    Takes, rounds, returns and raises what `resized_size` does; the sides are at most the input's, which are pixels too.
    """
    _check_rule(rule)
    sides, limits = tf.cast([height, width], tf.float64), tf.constant([input_height, input_width], tf.float64)
    limits = tf.reshape(limits, [2] + [1] * (sides.shape.rank - 1))
    ratios = limits / sides
    scale = tf.reduce_min(ratios, axis=0)
    fitted = tf.floor(sides * scale + 0.5) if rule == "detectron2" else tf.floor(sides * scale)
    # The side that decides fills the input, whatever a rounding error makes of it.
    fitted = tf.where(ratios == scale, limits, tf.minimum(fitted, limits))
    return tuple(tf.unstack(tf.maximum(tf.cast(fitted, tf.int32), 1)))


def resize_image(image, size, rule):
    """Bilinear interpolation with half-pixel centres, as the rule's reference system does it.

    "torchvision" interpolates floats between the four nearest pixels, also when it shrinks. "detectron2" uses PIL's
    filter on bytes, to the bit: it widens with the reduction (antialiasing), its weights are whole numbers of 2^-22,
    and each of its two passes ends in whole numbers. Rows come first, as in all releases of Pillow before 13.

    Takes an image [H, W, 3] float32 (or uint8) 0..255 and its new size (h, w) int32; returns [h, w, 3] float32 0..255.
    Another rule is a UserError.
    """
    _check_rule(rule)
    height, width = size[0], size[1]
    if rule == "torchvision":
        return tf.image.resize(image, tf.stack([height, width]), method="bilinear", antialias=False)
    return tf.cast(_pil_pass(_pil_pass(image, width, axis=1), height, axis=0), tf.float32)


def _pil_pass(image, length, axis):
    """One pass of PIL's bilinear filter over int32 [H, W, 3]: `axis` becomes `length` long."""
    first, weights = _pil_weights(tf.shape(image)[axis], length)
    last = tf.shape(image)[axis] - 1
    weights = tf.reshape(weights, [-1, length, 1, 1] if axis == 0 else [-1, 1, length, 1])

    def add(tap, total):
        pixels = tf.cast(tf.gather(image, tf.minimum(first + tap, last), axis=axis), tf.int32)
        return tap + 1, total + pixels * weights[tap]

    shape = [length, tf.shape(image)[1], 3] if axis == 0 else [tf.shape(image)[0], length, 3]
    start = (0, tf.fill(shape, HALF))
    _, total = tf.while_loop(lambda tap, _: tap < tf.shape(weights)[0], add, start, parallel_iterations=1)
    return tf.bitwise.right_shift(tf.clip_by_value(total, 0, 255 << FIXED_POINT), FIXED_POINT)


def _pil_weights(old, new):
    """First pixel int32 [new] of each output pixel, and int32 [taps, new] weights of it and those that follow."""
    scale = tf.cast(old, tf.float64) / tf.cast(new, tf.float64)
    reach = tf.maximum(scale, 1.0)
    center = (tf.range(new, dtype=tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(center - reach + 0.5, tf.int32), 0)
    end = tf.minimum(tf.cast(center + reach + 0.5, tf.int32), old)
    taps = tf.range(tf.reduce_max(end - first))[:, None]
    position = tf.cast(taps + first, tf.float64) + 0.5
    weights = tf.maximum(1.0 - tf.abs((position - center) / reach), 0.0)
    weights = tf.where(taps < end - first, weights, 0.0)
    weights /= tf.reduce_sum(weights, axis=0)
    return first, tf.cast(weights * (1 << FIXED_POINT) + 0.5, tf.int32)


def _check_rule(rule):
    if rule not in RULES:
        raise UserError(f"The resize rule {rule!r} is unknown: set resize.rule to {' or '.join(RULES)}.")
