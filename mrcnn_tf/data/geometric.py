"""Geometric augmentation: mirroring and quarter turns; then random crop, rotation and large-scale jitter in one step.

Image, boxes, masks, keypoints and labels move together. In a mirrored image left and right keypoints exchange names.
"""

import enum
import re

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import max_keypoints
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import ResizeConfig
from mrcnn_tf.data import affine
from mrcnn_tf.ops.resize import resize_image, resized_size


class RandomStream(enum.IntEnum):
    """Independent streams of random numbers from one seed: switching one augmentation on leaves the others' alone.

    Quarter turns and mirroring draw from the seed itself.
    """

    PARTNER = 0  # which other image instances are pasted from
    SIZE = 1
    CROP = 2
    JITTER = 3
    CROP_POSITION = 4
    ROTATION = 5
    PASTE = 6  # whether to paste
    PARTNER_AUGMENTATION = 7
    PASTED_INSTANCES = 8
    PASTE_POSITION = 9
    COLOUR = 10
    ADDONS = 11


def stream_seed(seed, stream):
    """The seed int64 [2] of one of the streams, a `RandomStream` or int."""
    return tf.random.experimental.stateless_fold_in(seed, int(stream))


# Size, random crop, large-scale jitter, rotation.


def crop_rotate_scale(sample, usual_size, largest_size, config, augment, seed):
    """The sample cropped, turned and scaled as drawn, its image float32 of a size not above `largest_size`.

    Args:
        sample: a `Sample`.
        usual_size: (h, w) int32 [2] that the whole image would be resized to.
        largest_size: (h, w) int32 [2], the most that is shown.
        config: settings.DataConfig; `resize` and `masks` are read.
        augment: settings.AugmentConfig.
        seed: int64 [2].
    """
    original_size = tf.shape(sample.image)[:2]
    corner, part, size = draw_window(original_size, usual_size, largest_size, augment, seed)
    top, left = tf.unstack(tf.cast(corner, tf.float32))
    scale = tf.cast(size, tf.float32) / tf.cast(part, tf.float32)
    matrix = affine.compose_maps(affine.scaling_matrix(scale[1], scale[0]), affine.translation_matrix(-left, -top))
    masks = config.masks is not False
    if augment.rotation:
        limit = float(augment.rotation)
        angle = tf.random.stateless_uniform([], stream_seed(seed, RandomStream.ROTATION), -limit, limit)
        matrix = affine.compose_maps(matrix, affine.rotation_matrix(angle, original_size))
        image = affine.warp_image(sample.image, matrix, size)
        semantic = affine.warp_labels(sample.semantic, matrix, size)
    else:
        window = tf.slice(sample.image, tf.concat([corner, [0]], axis=0), tf.concat([part, [3]], axis=0))
        image = resize_image(window, size, (config.resize or ResizeConfig()).rule)
        semantic = affine.resize_labels(sample.semantic, size, corner, part)
    sample = sample._replace(image=image, semantic=semantic)
    return affine.transform_objects(sample, matrix, not augment.rotation, masks)


def draw_window(original_size, usual_size, largest_size, augment, seed):
    """The part of an image that is shown, and its size there.

    A random crop is enlarged until it fills the usual size in one direction: it never makes a batch larger. Of an image
    that large-scale jitter makes larger than `largest_size`, a part of that size is shown.

    Returns:
        (corner, part, size), int32 [2] each: (top, left) and (height, width) of the part, in pixels of the image, and
        the (h, w) that it is resized to.
    """
    sides = tf.cast(original_size, tf.float32)
    part, corner = original_size, tf.zeros_like(original_size)
    scale = tf.cast(usual_size, tf.float32) / sides
    if augment.crop > 0:
        draws = tf.random.stateless_uniform([3], stream_seed(seed, RandomStream.CROP))
        shares = augment.crop_least + (1.0 - augment.crop_least) * draws[1:]
        shares = tf.where(draws[0] < augment.crop, shares, 1.0)
        part = tf.maximum(tf.cast(tf.round(shares * sides), tf.int32), 1)
        scale *= tf.reduce_min(sides / tf.cast(part, tf.float32))
    if augment.scale_jitter:
        smallest, largest = augment.scale_jitter
        scale *= tf.random.stateless_uniform([], stream_seed(seed, RandomStream.JITTER), smallest, largest)
    shown = tf.minimum(part, tf.cast(tf.math.ceil(tf.cast(largest_size, tf.float32) / scale), tf.int32))
    room = tf.cast(original_size - part, tf.float32), tf.cast(part - shown, tf.float32)
    draws = tf.random.stateless_uniform([2, 2], stream_seed(seed, RandomStream.CROP_POSITION))
    for free, draw in zip(room, tf.unstack(draws), strict=True):
        corner += tf.cast(draw * (free + 1.0), tf.int32)
    size = tf.cast(tf.round(tf.cast(shown, tf.float32) * scale), tf.int32)
    return corner, shown, tf.clip_by_value(size, 1, largest_size)


def draw_size(original_size, config, seed):
    """The size (h, w), int32 [2], of an image of `original_size` once resized; one of `augment.min_sizes` is drawn."""
    resize = config.resize or ResizeConfig()
    min_sizes = config.augment.min_sizes or [resize.min_size]
    height, width = original_size[0], original_size[1]
    sizes = [resized_size(height, width, min_size, resize.max_size, resize.rule) for min_size in min_sizes]
    seed = stream_seed(seed, RandomStream.SIZE)
    return tf.stack(sizes)[tf.random.stateless_uniform([], seed, 0, len(min_sizes), tf.int32)]


def resize_sample(sample, size, config):
    """The whole sample at another size, (h, w) int32 [2]."""
    rule = (config.resize or ResizeConfig()).rule
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(sample.image)[:2], tf.float32)
    return sample._replace(
        image=resize_image(sample.image, size, rule),
        boxes=sample.boxes * tf.stack([scale[1], scale[0], scale[1], scale[0]]),
        areas=sample.areas * scale[0] * scale[1],
        keypoints=sample.keypoints * tf.stack([scale[1], scale[0], 1.0]),
        transforms=affine.extend_transforms(sample.transforms, affine.scaling_matrix(scale[1], scale[0])),
        semantic=affine.resize_labels(sample.semantic, size),
    )


# Mirroring and quarter turns. A crop covers its box exactly, so it turns with it, and nothing is interpolated. The
# three moves take and return image [H, W, C], boxes [N, 4] pixels, masks [N, S, S], keypoints [N, P, 3] (x, y in
# pixels, v) and semantic [H, W]. They leave a keypoint at its index; that a mirrored left eye is a right one,
# `flip_and_turn` settles at the end.

# What 0 to 3 `quarter_turn`s do to a direction (x, y).
QUARTER_TURNS = np.float32([np.linalg.matrix_power([[0, 1], [-1, 0]], turns) for turns in range(4)])


def flip_and_turn(sample, permutations, augment, seed):
    """Applies the flips and quarter turns that are allowed to a `Sample`, each with its probability.

    H and W exchange in an odd number of quarter turns. `permutations` are `mirror_permutations`, int32 [K + 1, P],
    `augment` is a settings.AugmentConfig, and `seed` int64 [2].
    """
    moved = (sample.image, sample.boxes, sample.masks, sample.keypoints, sample.semantic)
    draws = tf.random.stateless_uniform([3], seed)
    horizontal, vertical = draws[0] < augment.horizontal_flip, draws[1] < augment.vertical_flip
    matrix = tf.linalg.diag(tf.where(tf.stack([horizontal, vertical]), -1.0, 1.0))
    if augment.horizontal_flip > 0:
        moved = _apply_if(horizontal, flip_horizontal, moved)
    if augment.vertical_flip > 0:
        moved = _apply_if(vertical, flip_vertical, moved)
    if augment.quarter_turns:
        turns = tf.cast(draws[2] * 4.0, tf.int32)
        moved = _apply_if(turns % 2 == 1, quarter_turn, moved)
        moved = _apply_if(turns >= 2, lambda *tensors: flip_vertical(*flip_horizontal(*tensors)), moved)
        matrix = tf.gather(QUARTER_TURNS, turns) @ matrix
    image, boxes, masks, keypoints, semantic = moved
    if augment.horizontal_flip > 0 or augment.vertical_flip > 0:
        # Both flips together are half a turn, which leaves left and right what they are.
        exchanged = tf.gather(keypoints, tf.gather(permutations, sample.classes), batch_dims=1)
        keypoints = tf.where(horizontal != vertical, exchanged, keypoints)
    transforms = affine.extend_transforms(sample.transforms, matrix)
    return sample._replace(
        image=image, boxes=boxes, masks=masks, keypoints=keypoints, semantic=semantic, transforms=transforms
    )


def flip_horizontal(image, boxes, masks, keypoints, semantic):
    """Exchanges left and right."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    boxes = tf.stack([width - x2, y1, width - x1, y2], axis=1)
    keypoints = _stack_labelled(width - x, y, v)
    return tf.reverse(image, [1]), boxes, tf.reverse(masks, [2]), keypoints, tf.reverse(semantic, [1])


def flip_vertical(image, boxes, masks, keypoints, semantic):
    """Exchanges up and down."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    height = tf.cast(tf.shape(image)[0], boxes.dtype)
    boxes = tf.stack([x1, height - y2, x2, height - y1], axis=1)
    keypoints = _stack_labelled(x, height - y, v)
    return tf.reverse(image, [0]), boxes, tf.reverse(masks, [1]), keypoints, tf.reverse(semantic, [0])


def quarter_turn(image, boxes, masks, keypoints, semantic):
    """Turns by 90 degrees counterclockwise: what was at the right edge is at the top. H and W exchange."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, v = tf.unstack(keypoints, axis=2)
    width = tf.cast(tf.shape(image)[1], boxes.dtype)
    image = tf.reverse(tf.transpose(image, [1, 0, 2]), [0])
    masks = tf.reverse(tf.transpose(masks, [0, 2, 1]), [1])
    boxes = tf.stack([y1, width - x2, y2, width - x1], axis=1)
    return image, boxes, masks, _stack_labelled(y, width - x, v), tf.reverse(tf.transpose(semantic), [0])


def _stack_labelled(x, y, v):
    """[N, P, 3] keypoints; unlabelled ones stay (0, 0, 0)."""
    return tf.stack([x, y, v], axis=2) * tf.cast(v > 0, v.dtype)[:, :, None]


def _apply_if(condition, function, tensors):
    return tf.cond(condition, lambda: tuple(function(*tensors)), lambda: tensors)


# Keypoints' names in a mirrored image.

# The words for a side, wherever writers of names put a word's beginning and end: left_eye, leftEye, eyeLeft, l_eye,
# lEye, LEye, eye.L, eyeL. Short forms need a clear end on both sides; "Left" can't be part of another word.
_SIDE = re.compile(
    r"(?<![A-Za-z])(?:left|right)|Left|Right|(?<![A-Z])(?:LEFT|RIGHT)"
    r"|(?<![A-Za-z0-9])[lr](?![a-z0-9])|(?<![A-Za-z0-9])[LR](?=[A-Z][a-z]|[^A-Za-z0-9]|$)|(?<=[a-z])[LR](?![A-Za-z0-9])"
)
# Without such an end (lknee, LKNE, eyeleft, L1) it takes the other side's name to tell that a side is meant.
_MERGED_SIDE = re.compile(r"^[lrLR]|(?:left|right|LEFT|RIGHT)$")
_OPPOSITE = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
_OPPOSITE |= {right: left for left, right in _OPPOSITE.items()}


def mirror_permutation(names):
    """The order of keypoints in a mirrored image, where left and right exchange: its p-th was the `result[p]`-th.

    Args:
        names: P distinct keypoint names. A side is "left" or "right" in any case, or l or r, at the name's beginning or
            end or as one of its words, set off by signs or by capitals. Names without a side stay.

    Raises:
        UserError: a name's other side isn't among the names.
    """
    return [names.index(_opposite(name, names)) for name in names]


def _opposite(name, names):
    def exchange(match):
        return _OPPOSITE[match[0]]

    other = _SIDE.sub(exchange, name)
    if other == name:
        merged = _MERGED_SIDE.sub(exchange, name)
        return merged if merged in names and not _SIDE.search(merged) else name
    if other not in names:
        raise UserError(
            f"Keypoint {name!r} has no {other!r} to exchange with in a mirrored image: "
            "set augment.horizontal_flip=0 and augment.vertical_flip=0 or rename it."
        )
    return other


def mirror_permutations(categories, augment):
    """`mirror_permutation`, with its errors, of every class: int32 [K + 1, P].

    Beyond a class's own keypoints, and for the background in row 0, each index is its own.

    Args:
        categories: list of K `Category`s.
        augment: settings.AugmentConfig; if it mirrors nothing, the names needn't have sides.
    """
    permutations = np.tile(np.arange(max_keypoints(categories), dtype=np.int32), [len(categories) + 1, 1])
    if augment.horizontal_flip > 0 or augment.vertical_flip > 0:
        for number, category in enumerate(categories, 1):
            permutations[number, : len(category.keypoints)] = mirror_permutation(category.keypoints)
    return permutations
