"""What training does to an image and its objects by chance: all of `settings.AugmentConfig`, in the graph.

The settings decide what the graph holds, so what is off costs nothing. Everything drawn follows from the seed alone.
"""

import tensorflow as tf

from mrcnn_tf.data.turns import flip_horizontal, flip_vertical, quarter_turn, turned  # noqa: F401
from mrcnn_tf.ops.resize import resize_image, resized_size
from mrcnn_tf.settings import ResizeConfig

SIZE = 1  # the stream of draws: large images must not be the mirrored ones


def augmented(sample, other, mirrors, config, seed):
    """A sample as training sees it: augmented by what `config.augment` allows, and resized.

    Args:
        sample: a `Sample`, its image [H, W, 3] uint8 or float32 0..255.
        other: a function without arguments that gives another image's Sample, called where instances are pasted;
            None if `config.augment.copy_paste` is 0.
        mirrors: int32 [K + 1, P], `keypoints.mirror_table`.
        config: settings.DataConfig.
        seed: int64 [2]; the same seed gives the same result.

    Returns:
        (Sample, original_size): its image is float32 [h, w, 3] 0..255; `original_size` is int32 [2], (H, W) after
        quarter turns and before resizing.
    """
    sample = turned(sample, mirrors, config.augment, seed)
    original = tf.shape(sample.image)[:2]
    usual = draw_size(original, config, seed)
    return resized(sample, usual, config), original


def draw_size(original, config, seed):
    """The usual size (h, w), int32 [2], of an image of size `original`, for one of the shorter sides to draw from."""
    resize = config.resize or ResizeConfig()
    min_sizes = config.augment.min_sizes or [resize.min_size]
    sizes = [resized_size(original[0], original[1], side, resize.max_size, resize.rule) for side in min_sizes]
    seed = tf.random.experimental.stateless_fold_in(seed, SIZE)
    return tf.stack(sizes)[tf.random.stateless_uniform([], seed, 0, len(min_sizes), tf.int32)]


def resized(sample, size, config):
    """The sample at another size, (h, w) int32 [2]."""
    rule = (config.resize or ResizeConfig()).rule
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(sample.image)[:2], tf.float32)
    return sample._replace(
        image=resize_image(sample.image, size, rule),
        boxes=sample.boxes * tf.stack([scale[1], scale[0], scale[1], scale[0]]),
        areas=sample.areas * scale[0] * scale[1],
        keypoints=sample.keypoints * tf.stack([scale[1], scale[0], 1.0]),
    )


def augment(image, boxes, masks, keypoints, mirrored, config, seed):  # until the pipeline calls `augmented`
    from mrcnn_tf.data.sample import Sample

    rows = tf.range(tf.shape(boxes)[0])
    sample = turned(Sample(image, boxes, rows, None, None, masks, keypoints), mirrored, config, seed)
    turns = tf.cast(tf.random.stateless_uniform([3], seed)[2] * 4.0, tf.int32) if config.quarter_turns else 0
    return sample.image, sample.boxes, sample.masks, sample.keypoints, tf.convert_to_tensor(turns % 2 == 1)
