"""Which part of an image is shown, at which size: random crop, large-scale jitter and rotation in one resampling."""

import tensorflow as tf

from mrcnn_tf.config.settings import ResizeConfig
from mrcnn_tf.data.affine import compose, moved, rotation, scaling, shift, warp
from mrcnn_tf.data.draws import CROP, JITTER, PLACE, ROTATION, SIZE, stream
from mrcnn_tf.data.labels import resized_labels, warped_labels
from mrcnn_tf.ops.resize import resize_image, resized_size


def framed(sample, usual, frame, config, augment, seed):
    """The sample cropped, turned and scaled as drawn, with an image that fits into `frame`.

    Args:
        sample: a `Sample`.
        usual: (h, w) int32 [2], the size that the whole image would be resized to.
        frame: (h, w) int32 [2], the most that is shown.
        config: settings.DataConfig; `resize` and `masks` are read.
        augment: settings.AugmentConfig.
        seed: int64 [2].

    Returns:
        Sample, its image float32 of a size not above `frame`.
    """
    corner, part, size = draw_window(tf.shape(sample.image)[:2], usual, frame, augment, seed)
    top, left = tf.unstack(tf.cast(corner, tf.float32))
    scale = tf.cast(size, tf.float32) / tf.cast(part, tf.float32)
    matrix = compose(scaling(scale[1], scale[0]), shift(-left, -top))
    masks = config.masks is not False
    if augment.rotation:
        most = float(augment.rotation)
        angle = tf.random.stateless_uniform([], stream(seed, ROTATION), -most, most)
        matrix = compose(matrix, rotation(angle, tf.shape(sample.image)[:2]))
        image, semantic = warp(sample.image, matrix, size), warped_labels(sample.semantic, matrix, size)
        return moved(sample._replace(image=image, semantic=semantic), matrix, False, masks)
    window = tf.slice(sample.image, tf.concat([corner, [0]], axis=0), tf.concat([part, [3]], axis=0))
    image = resize_image(window, size, (config.resize or ResizeConfig()).rule)
    semantic = resized_labels(sample.semantic, size, corner, part)
    return moved(sample._replace(image=image, semantic=semantic), matrix, True, masks)


def draw_window(original, usual, frame, augment, seed):
    """The part of an image that is shown, and its size there.

    A random crop is enlarged until it fills the usual frame in one direction: it never makes a batch larger. Of an
    image that large-scale jitter makes larger than `frame`, a part as large as the frame is shown.

    Args:
        original: (H, W) int32 [2].
        usual, frame, augment, seed: as for `framed`.

    Returns:
        (corner, part, size), int32 [2] each: (top, left) and (height, width) of the part, in pixels of the image, and
        the (h, w) that it is resized to.
    """
    sides = tf.cast(original, tf.float32)
    part, corner = original, tf.zeros_like(original)
    scale = tf.cast(usual, tf.float32) / sides
    if augment.crop > 0:
        draws = tf.random.stateless_uniform([3], stream(seed, CROP))
        shares = augment.crop_least + (1.0 - augment.crop_least) * draws[1:]
        shares = tf.where(draws[0] < augment.crop, shares, 1.0)
        part = tf.maximum(tf.cast(tf.round(shares * sides), tf.int32), 1)
        scale *= tf.reduce_min(sides / tf.cast(part, tf.float32))
    if augment.scale_jitter:
        least, most = augment.scale_jitter
        scale *= tf.random.stateless_uniform([], stream(seed, JITTER), least, most)
    shown = tf.minimum(part, tf.cast(tf.math.ceil(tf.cast(frame, tf.float32) / scale), tf.int32))
    room = tf.cast(original - part, tf.float32), tf.cast(part - shown, tf.float32)
    draws = tf.random.stateless_uniform([2, 2], stream(seed, PLACE))
    for free, draw in zip(room, tf.unstack(draws), strict=True):
        corner += tf.cast(draw * (free + 1.0), tf.int32)
    size = tf.cast(tf.round(tf.cast(shown, tf.float32) * scale), tf.int32)
    return corner, shown, tf.clip_by_value(size, 1, frame)


def draw_size(original, config, seed):
    """The usual size (h, w), int32 [2], of an image of size `original`, for one of the shorter sides to draw from."""
    resize = config.resize or ResizeConfig()
    min_sizes = config.augment.min_sizes or [resize.min_size]
    sizes = [resized_size(original[0], original[1], side, resize.max_size, resize.rule) for side in min_sizes]
    return tf.stack(sizes)[tf.random.stateless_uniform([], stream(seed, SIZE), 0, len(min_sizes), tf.int32)]


def resized(sample, size, config):
    """The whole sample at another size, (h, w) int32 [2]."""
    rule = (config.resize or ResizeConfig()).rule
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(sample.image)[:2], tf.float32)
    return sample._replace(
        image=resize_image(sample.image, size, rule),
        boxes=sample.boxes * tf.stack([scale[1], scale[0], scale[1], scale[0]]),
        areas=sample.areas * scale[0] * scale[1],
        keypoints=sample.keypoints * tf.stack([scale[1], scale[0], 1.0]),
        semantic=resized_labels(sample.semantic, size),
    )
