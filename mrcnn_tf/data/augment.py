"""What training does to an image and its objects by chance: all of `settings.AugmentConfig`, in the graph.

The settings decide what the graph holds, so what is off costs nothing. Everything drawn follows from the seed alone.
The order: mirroring and quarter turns; crop, rotation and scale in one resampling; pasted instances; colours;
tensorflow-addons' operations.
"""

import math

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data.addons import check_addons, with_addons
from mrcnn_tf.data.copy_paste import pasted
from mrcnn_tf.data.framing import COLOUR, draw_size, framed, resized, stream, turned

# Brightness, contrast, saturation and hue, as one linear map of each pixel's colours.
#

# From RGB to luma and two axes of chrominance, the YIQ of the NTSC (ITU-R BT.601's luma): turning the chrominance
# shifts hues and leaves the luma alone.
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
TO_RGB = np.linalg.inv(TO_YIQ)


def recoloured(image, augment, seed):
    """The image [h, w, 3] float32 0..255 in other colours, each change drawn from `augment`'s range for it.

    Brightness multiplies the image, contrast its difference from its mean luma, saturation each pixel's from its own.
    They act in this order, hue last, and what then lies outside 0..255 is clipped.
    """
    brightness, contrast, saturation, hue = tf.unstack(
        tf.random.stateless_uniform([4], stream(seed, COLOUR), -1.0, 1.0)
    )
    brightness, contrast = 1.0 + augment.brightness * brightness, 1.0 + augment.contrast * contrast
    saturation, angle = 1.0 + augment.saturation * saturation, 2 * math.pi * augment.hue * hue
    cos, sin = saturation * tf.cos(angle), saturation * tf.sin(angle)
    chroma = tf.convert_to_tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    to_rgb, to_yiq = tf.constant(TO_RGB, tf.float32), tf.constant(TO_YIQ, tf.float32)
    matrix = brightness * contrast * (to_rgb @ chroma @ to_yiq)
    offset = 0.0
    if augment.contrast:
        luma = tf.reduce_sum(tf.reduce_mean(image, [0, 1]) * to_yiq[0])
        offset = (1.0 - contrast) * brightness * luma  # gray, which neither saturation nor hue changes
    colours = tf.matmul(tf.reshape(image, [-1, 3]), matrix, transpose_b=True) + offset
    return tf.reshape(tf.clip_by_value(colours, 0.0, 255.0), tf.shape(image))


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
        quarter turns and before all else.

    Raises:
        UserError: see `check_augment`.
    """
    check_augment(config)
    augment = config.augment
    sample = turned(sample, mirrors, augment, seed)
    original = tf.shape(sample.image)[:2]
    usual = draw_size(original, config, seed)
    if augment.crop > 0 or augment.rotation > 0 or augment.scale_jitter:
        frame = usual if config.pad_to is None else tf.constant(config.pad_to)
        sample = framed(sample, usual, frame, config, augment, seed)
    else:
        sample = resized(sample, usual, config)
    if augment.copy_paste > 0:
        sample = pasted(sample, other, mirrors, config, seed)
    if augment.brightness or augment.contrast or augment.saturation or augment.hue:
        sample = sample._replace(image=recoloured(sample.image, augment, seed))
    if augment.addons:
        sample = with_addons(sample, config, seed)
    return sample, original


def check_augment(config):
    """Raises UserError for what `config.augment` (of a settings.DataConfig) can't do, naming the setting."""
    augment = config.augment
    shares = ("horizontal_flip", "vertical_flip", "crop", "copy_paste", "brightness", "contrast", "saturation")
    limits = [(name, getattr(augment, name), 1) for name in shares]
    limits += [("hue", augment.hue, 0.5), ("rotation", augment.rotation, 180)]
    limits += [(f"addons.{name}", probability, 1) for name, probability in augment.addons.items()]
    for name, value, most in limits:
        if not 0 <= value <= most:
            raise UserError(f"Setting 'data.train.augment.{name}' is {value}: it must lie between 0 and {most}.")
    if not 0 < augment.crop_least <= 1:
        raise UserError(
            f"Setting 'data.train.augment.crop_least' is {augment.crop_least}: give the share of each side that a "
            "crop leaves at least, more than 0 and at most 1."
        )
    jitter = list(augment.scale_jitter)
    if jitter and not (len(jitter) == 2 and 0 < jitter[0] <= jitter[1] < float("inf")):
        raise UserError(
            f"Setting 'data.train.augment.scale_jitter' is {jitter}: give the least and the most times the usual size, "
            "such as [0.1, 2.0], or nothing."
        )
    if any(not side > 0 for side in augment.min_sizes):
        raise UserError(
            f"Setting 'data.train.augment.min_sizes' is {list(augment.min_sizes)}: pixels must be more than 0."
        )
    if augment.copy_paste > 0 and config.masks is False:
        raise UserError(
            "Setting 'data.train.augment.copy_paste' cuts instances out by their masks, but the data is used without "
            "masks: set it to 0 or add a mask head (model.mask_head={}, data.train.masks=true)."
        )
    check_addons(augment.addons)
