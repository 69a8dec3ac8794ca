"""Which part of an image is shown, at which size: random crop, large-scale jitter and rotation in one resampling."""

import tensorflow as tf

from mrcnn_tf.config.settings import ResizeConfig
from mrcnn_tf.data.affine import compose, moved, resized_labels, rotation, scaling, shift, warp, warped_labels
from mrcnn_tf.ops.resize import resize_image, resized_size

# Independent streams of random numbers from one seed: switching one augmentation on leaves the others' draws alone.
#

# Turns and flips draw from the seed itself.
SIZE, CROP, JITTER, PLACE, ROTATION, PASTE, OTHER, CHOICE, OFFSET, COLOUR, ADDONS = range(1, 12)


def stream(seed, number):
    """The seed int64 [2] of one of the streams."""
    return tf.random.experimental.stateless_fold_in(seed, number)


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


# Mirrorings and quarter turns that move the image, the boxes, the mask crops, the keypoints and the labels together.
#
# A crop covers its box exactly, so it turns with it, and nothing is interpolated. The three moves are pure functions
#
#     image [H, W, C], boxes [N, 4] pixels, masks [N, S, S], keypoints [N, P, 3] (x, y in pixels, v), semantic [H, W]
#
# -> the same five.
#
# They leave a keypoint at its place in the list; that a mirrored left eye is a right one, `turned` settles at the end.
# Unlabelled keypoints stay (0, 0, 0).
#

def flip_horizontal(image, boxes, masks, keypoints, semantic):
    """Left and right exchanged."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    boxes = tf.stack([width - x2, y1, width - x1, y2], axis=1)
    keypoints = _labelled(width - x, y, v)
    return tf.reverse(image, [1]), boxes, tf.reverse(masks, [2]), keypoints, tf.reverse(semantic, [1])


def flip_vertical(image, boxes, masks, keypoints, semantic):
    """Up and down exchanged."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    height = tf.cast(tf.shape(image)[0], boxes.dtype)
    boxes = tf.stack([x1, height - y2, x2, height - y1], axis=1)
    keypoints = _labelled(x, height - y, v)
    return tf.reverse(image, [0]), boxes, tf.reverse(masks, [1]), keypoints, tf.reverse(semantic, [0])


def quarter_turn(image, boxes, masks, keypoints, semantic):
    """90 degrees counterclockwise: what was at the right edge is at the top. H and W exchange."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    image = tf.reverse(tf.transpose(image, [1, 0, 2]), [0])
    masks = tf.reverse(tf.transpose(masks, [0, 2, 1]), [1])
    boxes = tf.stack([y1, width - x2, y2, width - x1], axis=1)
    return image, boxes, masks, _labelled(y, width - x, v), tf.reverse(tf.transpose(semantic), [0])


def turned(sample, mirrors, augment, seed):
    """Applies the flips and quarter turns that are allowed, each with its probability.

    Args:
        sample: a `Sample`.
        mirrors: int32 [K + 1, P], `keypoints.mirror_table`.
        augment: settings.AugmentConfig.
        seed: int64 [2]; the same seed gives the same result.

    Returns:
        Sample; H and W exchange in an odd number of quarter turns.
    """
    parts = (sample.image, sample.boxes, sample.masks, sample.keypoints, sample.semantic)
    draws = tf.random.stateless_uniform([3], seed)
    horizontal, vertical = draws[0] < augment.horizontal_flip, draws[1] < augment.vertical_flip
    if augment.horizontal_flip > 0:
        parts = _maybe(horizontal, flip_horizontal, parts)
    if augment.vertical_flip > 0:
        parts = _maybe(vertical, flip_vertical, parts)
    if augment.quarter_turns:
        turns = tf.cast(draws[2] * 4.0, tf.int32)
        parts = _maybe(turns % 2 == 1, quarter_turn, parts)
        parts = _maybe(turns >= 2, lambda *five: flip_vertical(*flip_horizontal(*five)), parts)
    image, boxes, masks, keypoints, semantic = parts
    if augment.horizontal_flip > 0 or augment.vertical_flip > 0:
        # Both flips together are half a turn, which leaves left and right what they are.
        exchanged = tf.gather(keypoints, tf.gather(mirrors, sample.classes), batch_dims=1)
        keypoints = tf.where(horizontal != vertical, exchanged, keypoints)
    return sample._replace(image=image, boxes=boxes, masks=masks, keypoints=keypoints, semantic=semantic)


def _labelled(x, y, v):
    return tf.stack([x, y, v], axis=2) * tf.cast(v > 0, v.dtype)[:, :, None]


def _maybe(condition, function, parts):
    return tf.cond(condition, lambda: tuple(function(*parts)), lambda: parts)
