"""Instances of one image pasted into another (Ghiasi et al. 2021, "Simple Copy-Paste is a Strong Data Augmentation
Method for Instance Segmentation").

The other image is mirrored and scaled on its own. Of its instances, each but the crowds is pasted with even chances.
What they cover is taken from the instances below.
"""

import dataclasses

import tensorflow as tf

from mrcnn_tf.common.categories import THINGS
from mrcnn_tf.data.affine import (
    HALF,
    OBJECTS,
    has_labels,
    moved,
    no_labels,
    refitted,
    rows,
    scaling,
    shift,
    tight_boxes,
    warp,
)
from mrcnn_tf.data.framing import CHOICE, OFFSET, OTHER, PASTE, draw_size, framed, stream, turned

CHOSEN = 0.5  # probability that an instance is pasted
LEAST_LEFT = 0.05  # of an instance's mask; it goes if pasted ones leave less of it to be seen
HIDDEN = 1.0  # COCO's v of a keypoint that something lies over


def pasted(sample, other, mirrors, config, seed):
    """With the probability `config.augment.copy_paste`, the sample with instances of another image.

    Args:
        sample: a `Sample` at its final size, its image float32, with masks.
        other: a function without arguments that gives the other Sample.
        mirrors: int32 [K + 1, P], `keypoints.mirror_table`.
        config: settings.DataConfig.
        seed: int64 [2].

    Returns:
        Sample with an image of the same size; the pasted instances come last.
    """
    wanted = tf.random.stateless_uniform([], stream(seed, PASTE)) < config.augment.copy_paste

    def paste():
        guests = _guests(other(), tf.shape(sample.image)[:2], mirrors, config, seed)
        return _combined(sample, guests)

    return tf.cond(wanted, paste, lambda: sample)


def _guests(other, size, mirrors, config, seed):
    """The instances to paste and their image, of `size`; what the other image doesn't reach is black."""
    draws = tf.random.stateless_uniform(tf.shape(other.crowd), stream(seed, CHOICE))
    other = rows(other, tf.where((draws < CHOSEN) & ~other.crowd)[:, 0])._replace(semantic=no_labels())
    augment = dataclasses.replace(config.augment, rotation=0.0, crop=0.0)
    own = stream(seed, OTHER)
    other = turned(other, mirrors, augment, own)
    usual = draw_size(tf.shape(other.image)[:2], config, own)
    other = framed(other, usual, size, config, augment, own)
    room = size - tf.shape(other.image)[:2]
    draws = tf.random.stateless_uniform([2], stream(seed, OFFSET))
    top, left = tf.unstack(tf.cast(draws * tf.cast(room + 1, tf.float32), tf.int32))
    image = tf.pad(other.image, [[top, room[0] - top], [left, room[1] - left], [0, 0]])
    way = shift(tf.cast(left, tf.float32), tf.cast(top, tf.float32))
    return moved(other._replace(image=image), way, True, True)


def _combined(sample, guests):
    opacity = drawn(guests.masks, guests.boxes, tf.shape(sample.image)[:2])
    image = sample.image + (guests.image - sample.image) * (tf.cast(opacity, tf.float32) / 255.0)[..., None]
    semantic = sample.semantic
    if has_labels(sample):
        semantic = tf.where(opacity > HALF, tf.cast(THINGS, tf.uint8), semantic)
    below = covered(sample, opacity)
    joined = {name: tf.concat([getattr(below, name), getattr(guests, name)], axis=0) for name in OBJECTS}
    return sample._replace(image=image, semantic=semantic, **joined)


def drawn(masks, boxes, size):
    """The masks [N, S, S] uint8 in their boxes [N, 4], the highest values of all on one canvas: uint8 [h, w].

    One after another and each in its own window, which takes far less time and memory than N whole canvases.
    """
    side = tf.cast(tf.shape(masks)[1], tf.float32)
    ends = tf.reverse(size, [0])
    low = tf.clip_by_value(tf.cast(tf.floor(boxes[:, :2]), tf.int32), 0, ends - 1)
    high = tf.clip_by_value(tf.cast(tf.math.ceil(boxes[:, 2:]), tf.int32), low + 1, ends)

    def add(place, canvas):
        (left, top), (right, bottom) = tf.unstack(low[place]), tf.unstack(high[place])
        x1, y1, x2, y2 = tf.unstack(boxes[place])
        scale = (x2 - x1) / side, (y2 - y1) / side
        matrix = tf.convert_to_tensor([[scale[0], 0.0, x1], [0.0, scale[1], y1]])
        matrix -= tf.cast(tf.stack([[0, 0, left], [0, 0, top]]), tf.float32)
        window = warp(masks[place][..., None], matrix, tf.stack([bottom - top, right - left]))[..., 0]
        window = tf.cast(tf.round(window), tf.uint8)
        around = [[top, size[0] - bottom], [left, size[1] - right]]
        return place + 1, tf.maximum(canvas, tf.pad(window, around))

    start = (0, tf.zeros(size, tf.uint8))
    shapes = (tf.TensorShape([]), tf.TensorShape([None, None]))
    _, canvas = tf.while_loop(
        lambda place, _: place < tf.shape(boxes)[0], add, start, shape_invariants=shapes, parallel_iterations=1
    )
    return canvas


def covered(sample, opacity):
    """The sample's objects without what lies under `opacity` [h, w] uint8, 255 where nothing shows through.

    An object that loses some of its mask gets the box that is tight around the rest. A covered keypoint is hidden.
    """
    height, width = tf.unstack(tf.cast(tf.shape(opacity), tf.float32))
    side = tf.shape(sample.masks)[1]
    values = tf.cast(sample.masks, tf.float32)
    above = _at_cells(opacity, sample.boxes, side)
    left = values * (1.0 - above / 255.0)
    share = tf.math.divide_no_nan(tf.reduce_sum(left, [1, 2]), tf.reduce_sum(values, [1, 2]))
    touched = tf.reduce_any((values > HALF) & (above > HALF), [1, 2])
    still = scaling(1.0, 1.0)
    cells = (left > HALF) & (share >= LEAST_LEFT)[:, None, None]
    tight = tight_boxes(sample.boxes, cells, cells, still, tf.stack([width, height, width, height]))
    sample = sample._replace(
        areas=tf.where(touched, sample.areas * share, sample.areas),
        keypoints=_hidden(sample.keypoints, opacity),
    )
    return refitted(sample, left, tight, touched, still, True, sample.boxes)


def _at_cells(opacity, boxes, side):
    """[N, S, S] float32: `opacity` in the pixels in which the centres of the boxes' cells lie."""
    shares = (tf.range(tf.cast(side, tf.float32)) + 0.5) / tf.cast(side, tf.float32)
    places = boxes[:, None, :2] + shares[None, :, None] * (boxes[:, None, 2:] - boxes[:, None, :2])
    return tf.cast(_at(opacity, places[:, None, :, 0], places[:, :, None, 1]), tf.float32)


def _at(opacity, x, y):
    """`opacity` in the pixels at x and y, of shapes that broadcast; beyond the edge that of the nearest pixel."""
    height, width = tf.unstack(tf.shape(opacity))
    column = tf.clip_by_value(tf.cast(x, tf.int32), 0, width - 1)
    row = tf.clip_by_value(tf.cast(y, tf.int32), 0, height - 1)
    return tf.gather(tf.reshape(opacity, [-1]), row * width + column)


def _hidden(keypoints, opacity):
    x, y, v = tf.unstack(keypoints, axis=2)
    under = (_at(opacity, x, y) > HALF) & (v > 0.0)
    return tf.stack([x, y, tf.where(under, HIDDEN, v)], axis=2)
