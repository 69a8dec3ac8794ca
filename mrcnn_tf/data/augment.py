"""What training does to an image and its objects by chance: all of `settings.AugmentConfig`, in the graph.

The settings decide what the graph holds, so what is off costs nothing. Everything drawn follows from the seed alone.
The order: mirroring and quarter turns; crop, rotation and scale in one resampling (both geometric.py); instances pasted
from another image; colours; tensorflow-addons' operations (addons.py).
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import THINGS
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.checks import check_values
from mrcnn_tf.data import affine, geometric
from mrcnn_tf.data.addons import apply_addons, check_addons
from mrcnn_tf.data.geometric import RandomStream, stream_seed


def augment_sample(sample, load_partner, permutations, config, seed):
    """Augments a sample by what `config.augment` allows, and resizes it.

    Args:
        sample: a `Sample`, its image [H, W, 3] uint8 or float32 0..255.
        load_partner: a function without arguments that gives another image's Sample, called where instances are pasted;
            None if `config.augment.copy_paste` is 0.
        permutations: int32 [K + 1, P], `geometric.mirror_permutations`.
        config: settings.DataConfig; raises UserError as `check_augment_settings`.
        seed: int64 [2]; the same seed gives the same result.

    Returns:
        (Sample, original_size): its image is float32 [h, w, 3] 0..255; `original_size` is int32 [2], (H, W) after
        quarter turns and before all else.
    """
    check_augment_settings(config)
    augment = config.augment
    sample = geometric.flip_and_turn(sample, permutations, augment, seed)
    original_size = tf.shape(sample.image)[:2]
    usual_size = geometric.draw_size(original_size, config, seed)
    if augment.crop > 0 or augment.rotation > 0 or augment.scale_jitter:
        largest_size = usual_size if config.pad_to is None else tf.constant(config.pad_to)
        sample = geometric.crop_rotate_scale(sample, usual_size, largest_size, config, augment, seed)
    else:
        sample = geometric.resize_sample(sample, usual_size, config)
    if augment.copy_paste > 0:
        sample = paste_instances(sample, load_partner, permutations, config, seed)
    if augment.brightness or augment.contrast or augment.saturation or augment.hue:
        sample = sample._replace(image=adjust_colours(sample.image, augment, seed))
    if augment.addons:
        sample = apply_addons(sample, config, seed)
    return sample, original_size


def check_augment_settings(config):
    """Raises UserError for what `config.augment` (of a settings.DataConfig) can't do, naming the setting."""
    augment = config.augment
    check_values(augment, "Augmentation", "data.train.augment")
    for name, probability in augment.addons.items():
        if not 0 <= probability <= 1:
            raise UserError(
                f"Setting 'data.train.augment.addons.{name}' is {probability}: it must lie between 0 and 1."
            )
    if augment.copy_paste > 0 and config.masks is False:
        raise UserError(
            "Setting 'data.train.augment.copy_paste' cuts instances out by their masks, but the data is used without "
            "masks: set it to 0 or add a mask head (model.mask_head={}, data.train.masks=true)."
        )
    check_addons(augment.addons)


# Colours: brightness, contrast, saturation and hue, as one linear map of each pixel's RGB.

# From RGB to luma and two axes of chrominance, the YIQ of the NTSC (ITU-R BT.601's luma): turning the chrominance
# shifts hues and leaves the luma alone.
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)


def adjust_colours(image, augment, seed):
    """The image [h, w, 3] float32 0..255 in other colours, each change drawn from `augment`'s range for it.

    Brightness multiplies the image, contrast its difference from its mean luma, saturation each pixel's from its own.
    They act in this order, hue last, and what then lies outside 0..255 is clipped.
    """
    brightness, contrast, saturation, hue = tf.unstack(
        tf.random.stateless_uniform([4], stream_seed(seed, RandomStream.COLOUR), -1.0, 1.0)
    )
    brightness, contrast = 1.0 + augment.brightness * brightness, 1.0 + augment.contrast * contrast
    saturation, angle = 1.0 + augment.saturation * saturation, 2 * math.pi * augment.hue * hue
    cos, sin = saturation * tf.cos(angle), saturation * tf.sin(angle)
    chroma = tf.convert_to_tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    to_rgb, to_yiq = tf.constant(YIQ_TO_RGB, tf.float32), tf.constant(RGB_TO_YIQ, tf.float32)
    matrix = brightness * contrast * (to_rgb @ chroma @ to_yiq)
    offset = 0.0
    if augment.contrast:
        luma = tf.reduce_sum(tf.reduce_mean(image, [0, 1]) * to_yiq[0])
        offset = (1.0 - contrast) * brightness * luma  # gray, which neither saturation nor hue changes
    colours = tf.matmul(tf.reshape(image, [-1, 3]), matrix, transpose_b=True) + offset
    return tf.reshape(tf.clip_by_value(colours, 0.0, 255.0), tf.shape(image))


# Instances of one image pasted into another (Ghiasi et al. 2021, "Simple Copy-Paste is a Strong Data Augmentation
# Method for Instance Segmentation"). The other image, the partner, is mirrored and scaled on its own.

PASTE_PROBABILITY = 0.5  # of each of the partner's instances but the crowds
MIN_VISIBLE = 0.05  # of an instance's mask; it goes if pasted ones leave less of it to be seen
HIDDEN = 1.0  # COCO's v of a keypoint that something lies over


def paste_instances(sample, load_partner, permutations, config, seed):
    """With the probability `config.augment.copy_paste`, pastes instances of another image.

    The arguments are those of `augment_sample`; the sample is at its final size, its image float32, and has masks.
    What the pasted instances cover is taken from those below. They come last.
    """
    wanted = tf.random.stateless_uniform([], stream_seed(seed, RandomStream.PASTE)) < config.augment.copy_paste

    def paste():
        size = tf.shape(sample.image)[:2]
        return _paste_over(sample, _draw_pasted_instances(load_partner(), size, permutations, config, seed))

    return tf.cond(wanted, paste, lambda: sample)


def _draw_pasted_instances(partner, size, permutations, config, seed):
    """The instances to paste and their image, of `size`; what the partner's image doesn't reach is black."""
    draws = tf.random.stateless_uniform(tf.shape(partner.crowd), stream_seed(seed, RandomStream.PASTED_INSTANCES))
    drawn = tf.where((draws < PASTE_PROBABILITY) & ~partner.crowd)[:, 0]
    partner = affine.select_objects(partner, drawn)._replace(semantic=affine.empty_labels())
    augment = dataclasses.replace(config.augment, rotation=0.0, crop=0.0)
    partner_seed = stream_seed(seed, RandomStream.PARTNER_AUGMENTATION)
    partner = geometric.flip_and_turn(partner, permutations, augment, partner_seed)
    usual_size = geometric.draw_size(tf.shape(partner.image)[:2], config, partner_seed)
    partner = geometric.crop_rotate_scale(partner, usual_size, size, config, augment, partner_seed)
    room = size - tf.shape(partner.image)[:2]
    draws = tf.random.stateless_uniform([2], stream_seed(seed, RandomStream.PASTE_POSITION))
    top, left = tf.unstack(tf.cast(draws * tf.cast(room + 1, tf.float32), tf.int32))
    image = tf.pad(partner.image, [[top, room[0] - top], [left, room[1] - left], [0, 0]])
    matrix = affine.translation_matrix(tf.cast(left, tf.float32), tf.cast(top, tf.float32))
    return affine.transform_objects(partner._replace(image=image), matrix, True, True)


def _paste_over(sample, pasted):
    opacity = draw_masks(pasted.masks, pasted.boxes, tf.shape(sample.image)[:2])
    image = sample.image + (pasted.image - sample.image) * (tf.cast(opacity, tf.float32) / 255.0)[..., None]
    semantic = sample.semantic
    if affine.has_labels(sample):
        semantic = tf.where(opacity > affine.HALF_COVERED, tf.cast(THINGS, tf.uint8), semantic)
    below = cover_objects(sample, opacity)
    objects = {name: tf.concat([getattr(below, name), getattr(pasted, name)], axis=0) for name in affine.OBJECT_FIELDS}
    return sample._replace(image=image, semantic=semantic, **objects)


def draw_masks(masks, boxes, size):
    """The masks [N, S, S] uint8 in their boxes [N, 4], the highest values of all in one image: uint8 [h, w].

    One after another and each in its own window, which takes far less time and memory than N whole images.
    """
    side = tf.cast(tf.shape(masks)[1], tf.float32)
    width_height = tf.reverse(size, [0])
    low = tf.clip_by_value(tf.cast(tf.floor(boxes[:, :2]), tf.int32), 0, width_height - 1)
    high = tf.clip_by_value(tf.cast(tf.math.ceil(boxes[:, 2:]), tf.int32), low + 1, width_height)

    def add(index, image):
        (left, top), (right, bottom) = tf.unstack(low[index]), tf.unstack(high[index])
        x1, y1, x2, y2 = tf.unstack(boxes[index])
        scale = (x2 - x1) / side, (y2 - y1) / side
        matrix = tf.convert_to_tensor([[scale[0], 0.0, x1], [0.0, scale[1], y1]])
        matrix -= tf.cast(tf.stack([[0, 0, left], [0, 0, top]]), tf.float32)
        window = affine.warp_image(masks[index][..., None], matrix, tf.stack([bottom - top, right - left]))[..., 0]
        window = tf.cast(tf.round(window), tf.uint8)
        around = [[top, size[0] - bottom], [left, size[1] - right]]
        return index + 1, tf.maximum(image, tf.pad(window, around))

    start = (0, tf.zeros(size, tf.uint8))
    shapes = (tf.TensorShape([]), tf.TensorShape([None, None]))
    return tf.while_loop(
        lambda index, _: index < tf.shape(boxes)[0], add, start, shape_invariants=shapes, parallel_iterations=1
    )[1]


def cover_objects(sample, opacity):
    """The sample's objects without what lies under `opacity` [h, w] uint8, 255 where nothing shows through.

    An object that loses some of its mask gets the box that is tight around the rest. A covered keypoint is hidden.
    """
    height, width = tf.unstack(tf.cast(tf.shape(opacity), tf.float32))
    side = tf.shape(sample.masks)[1]
    values = tf.cast(sample.masks, tf.float32)
    above = _opacity_at_cells(opacity, sample.boxes, side)
    visible = values * (1.0 - above / 255.0)
    share = tf.math.divide_no_nan(tf.reduce_sum(visible, [1, 2]), tf.reduce_sum(values, [1, 2]))
    covered = tf.reduce_any((values > affine.HALF_COVERED) & (above > affine.HALF_COVERED), [1, 2])
    identity = affine.scaling_matrix(1.0, 1.0)
    cells = (visible > affine.HALF_COVERED) & (share >= MIN_VISIBLE)[:, None, None]
    tight = affine.find_tight_boxes(sample.boxes, cells, cells, identity, tf.stack([width, height, width, height]))
    sample = sample._replace(
        areas=tf.where(covered, sample.areas * share, sample.areas),
        keypoints=_hide_keypoints(sample.keypoints, opacity),
    )
    return affine.refit_objects(sample, visible, tight, covered, identity, True, sample.boxes)


def _opacity_at_cells(opacity, boxes, side):
    """[N, S, S] float32: `opacity` in the pixels in which the centres of the boxes' cells lie."""
    shares = (tf.range(tf.cast(side, tf.float32)) + 0.5) / tf.cast(side, tf.float32)
    centres = boxes[:, None, :2] + shares[None, :, None] * (boxes[:, None, 2:] - boxes[:, None, :2])
    return tf.cast(_opacity_at(opacity, centres[:, None, :, 0], centres[:, :, None, 1]), tf.float32)


def _opacity_at(opacity, x, y):
    """`opacity` in the pixels at x and y, of shapes that broadcast; beyond the edge that of the nearest pixel."""
    height, width = tf.unstack(tf.shape(opacity))
    column = tf.clip_by_value(tf.cast(x, tf.int32), 0, width - 1)
    row = tf.clip_by_value(tf.cast(y, tf.int32), 0, height - 1)
    return tf.gather(tf.reshape(opacity, [-1]), row * width + column)


def _hide_keypoints(keypoints, opacity):
    x, y, v = tf.unstack(keypoints, axis=2)
    under = (_opacity_at(opacity, x, y) > affine.HALF_COVERED) & (v > 0.0)
    return tf.stack([x, y, tf.where(under, HIDDEN, v)], axis=2)
