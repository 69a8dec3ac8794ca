"""The size an image is brought to before the network sees it, and the interpolation (section 3.1 of the paper).

Three rules are in use and give different pixels. They are pure functions on tensors, so the data pipeline and the
model's own preprocessing share them.
"""

import tensorflow as tf

from mrcnn_tf.common.errors import UserError

RULES = ("torchvision", "detectron2", "opencv")

FIXED_POINT = 22  # binary digits of PIL's weights
HALF = 1 << (FIXED_POINT - 1)
OPENCV_SCALE = 1 << 11  # OpenCV's weights are whole numbers of 2^-11


def resized_size(height, width, min_size, max_size, rule):
    """The height and width that bring the shorter side to `min_size` unless the longer would pass `max_size`.

    "torchvision" multiplies both sides with one float64 scale and rounds down, as `interpolate` does with
    `recompute_scale_factor=True`; for some short sides (161, 322, ...) the product falls just below `min_size` and the
    result is one pixel short of it. "detectron2" sets the shorter side exactly and rounds the other to the nearest.
    "opencv" has torchvision's scale and rounds both sides to the nearest, as mmcv's `rescale_size` for mmdetection.

    Args:
        height, width: int tensors of one shape, pixels.
        min_size, max_size: pixels.
        rule: one of RULES.

    Returns:
        (height, width), int32 tensors of the shape given, at least 1.

    Raises:
        UserError: `rule` is another.
    """
    _check_rule(rule)
    height, width = (tf.cast(side, tf.float64) for side in (height, width))
    short, long = tf.minimum(height, width), tf.maximum(height, width)
    min_size, max_size = (tf.constant(side, tf.float64) for side in (min_size, max_size))
    if rule != "detectron2":
        scale = tf.minimum(min_size / short, max_size / long)
        half = 0.5 if rule == "opencv" else 0.0
        sizes = [tf.floor(height * scale + half), tf.floor(width * scale + half)]
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
    fitted = tf.floor(sides * scale) if rule == "torchvision" else tf.floor(sides * scale + 0.5)
    # The side that decides fills the input, whatever a rounding error makes of it.
    fitted = tf.where(ratios == scale, limits, tf.minimum(fitted, limits))
    return tuple(tf.unstack(tf.maximum(tf.cast(fitted, tf.int32), 1)))


def resize_image(image, size, rule):
    """Bilinear interpolation with half-pixel centres, as the rule's reference system does it.

    "torchvision" interpolates floats between the four nearest pixels, also when it shrinks. "detectron2" uses PIL's
    filter on bytes, to the bit: it widens with the reduction (antialiasing), its weights are whole numbers of 2^-22,
    and each of its two passes ends in whole numbers. Rows come first, as in all releases of Pillow before 13. "opencv"
    is cv2.resize of bytes with INTER_LINEAR, to the bit: four pixels in fixed point, also when it shrinks.

    Takes an image [H, W, 3] float32 (or uint8) 0..255 and its new size (h, w) int32; returns [h, w, 3] float32 0..255.
    Another rule is a UserError.
    """
    _check_rule(rule)
    height, width = size[0], size[1]
    if rule == "torchvision":
        return tf.image.resize(image, tf.stack([height, width]), method="bilinear", antialias=False)
    if rule == "opencv":
        return tf.cast(_opencv_resize(image, height, width), tf.float32)
    return tf.cast(_pil_pass(_pil_pass(image, width, axis=1), height, axis=0), tf.float32)


def _opencv_resize(image, height, width):
    """OpenCV's bilinear interpolation of whole numbers 0..255 [H, W, 3], int32 [height, width, 3].

    Rounding is down but for the last step: 4 of the 11 binary digits of the first pass go before the second, whose two
    products are cut to 2 digits one by one. An exact half, which OpenCV leaves to INTER_AREA, comes out as the mean of
    four pixels as there.
    """
    image = tf.cast(image, tf.int32)
    (left, right), (keep, share) = _opencv_weights(tf.shape(image)[1], width)
    rows = tf.gather(image, left, axis=1) * keep[:, None] + tf.gather(image, right, axis=1) * share[:, None]
    rows = tf.bitwise.right_shift(rows, 4)
    (above, below), (keep, share) = _opencv_weights(tf.shape(image)[0], height)
    upper = tf.bitwise.right_shift(tf.gather(rows, above) * keep[:, None, None], 16)
    lower = tf.bitwise.right_shift(tf.gather(rows, below) * share[:, None, None], 16)
    return tf.bitwise.right_shift(upper + lower + 2, 2)


def _opencv_weights(old, new):
    """The two pixels that each of `new` output pixels lies between, and their weights: two pairs of int32 [new].

    Beyond the first or last pixel's centre both are that pixel, and the weight stays divided between them.
    """
    scale = 1.0 / (tf.cast(new, tf.float64) / tf.cast(old, tf.float64))  # old / new may differ in the last bit
    position = tf.cast((tf.range(new, dtype=tf.float64) + 0.5) * scale - 0.5, tf.float32)
    first = tf.floor(position)
    share = position - first
    keep, share = (tf.cast(tf.round(weight * OPENCV_SCALE), tf.int32) for weight in (1.0 - share, share))
    first = tf.cast(first, tf.int32)
    return (tf.maximum(first, 0), tf.minimum(first + 1, old - 1)), (keep, share)


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
