"""Objects under an affine map of their image, and what is left of them where they are cut off or covered.

A map is float32 [2, 3]: the point (x, y) goes to map @ (x, y, 1), in pixels, 0 being the outer edge of the first one.
A mask's crop stays with its box. Where the box changes its form, the crop is sampled anew, cell by cell through the
inverse map, so no mask is ever drawn at the image's full size.
"""

import collections
import math

import tensorflow as tf

from mrcnn_tf.common.categories import IGNORED

# An image and its objects on their way from the files to a batch.
#

# image [H, W, 3], uint8 as decoded or float32 once resized; boxes [N, 4] pixels, inside the image; classes [N] int32,
# 1 to K; crowd [N] bool; areas [N] float32 square pixels; masks [N, S, S] uint8, 255 times the occupancy of each S-th
# part of the object's box; keypoints [N, P, 3] (x, y) pixels and v, (0, 0, 0) for an unlabelled one; semantic [H, W]
# uint8, see labels.py. S, P, or H and W of `semantic` are 0 for a dataset without masks, keypoints or labels.
Sample = collections.namedtuple("Sample", "image boxes classes crowd areas masks keypoints semantic")

OBJECTS = ("boxes", "classes", "crowd", "areas", "masks", "keypoints")  # what has a row for each object


CUT = 1e-3  # pixels beyond the image's edge that don't count as cut off
LEAST_SIDE = 1.0  # pixels of a box's shorter side; of what is left of an object, less is nothing
HALF = 127  # a cell of a crop belongs to the object above it


def scaling(x, y):
    """The map that multiplies both axes with scalars."""
    return tf.convert_to_tensor([[x, 0.0, 0.0], [0.0, y, 0.0]])


def shift(x, y):
    """The map that adds scalars to both axes."""
    return tf.convert_to_tensor([[1.0, 0.0, x], [0.0, 1.0, y]])


def rotation(angle, size):
    """The counterclockwise turn of an image of `size` (h, w) by `angle` (degrees, a scalar) about its centre."""
    radians = angle * (math.pi / 180)
    cos, sin = tf.cos(radians), tf.sin(radians)
    height, width = tf.unstack(tf.cast(size, tf.float32))
    turn = tf.convert_to_tensor([[cos, sin, 0.0], [-sin, cos, 0.0]])
    return compose(shift(width / 2, height / 2), compose(turn, shift(-width / 2, -height / 2)))


def compose(second, first):
    """The map that does `first` and then `second`."""
    return tf.concat([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]], axis=1)


def inverse(matrix):
    """The map that undoes `matrix`."""
    back = tf.linalg.inv(matrix[:, :2])
    return tf.concat([back, -back @ matrix[:, 2:]], axis=1)


def warp(image, matrix, size):
    """The image under a map, interpolated once; black where nothing comes to lie.

    Args:
        image: [H, W, C].
        matrix: the map.
        size: (h, w) int32 [2] of the result.

    Returns:
        [h, w, C] float32.
    """
    return _sample(tf.cast(image, tf.float32)[None], pixels_back(matrix), size)[0]


def pixels_back(matrix):
    """[1, 6] float32: `inverse`, row by row, with both ends counted from the middle of the first pixel."""
    return tf.reshape(compose(shift(-0.5, -0.5), compose(inverse(matrix), shift(0.5, 0.5))), [1, 6])


def moved(sample, matrix, upright, masks):
    """A sample's objects under a map into its image. What leaves the image is cut off.

    An object of which nothing is left goes, and so do keypoints outside the image. What an upright map doesn't cut
    keeps its annotation's box and its crop; all other boxes are tight around what is left of the object's mask, or,
    without masks, of its moved box.

    Args:
        sample: a `Sample`, its image (of size h, w) and labels as they are after the map.
        matrix: the map.
        upright: True if the map only shifts and multiplies by positive factors.
        masks: whether the sample has masks.

    Returns:
        Sample.
    """
    height, width = tf.unstack(tf.cast(tf.shape(sample.image)[:2], tf.float32))
    limits = tf.stack([width, height, width, height])
    bounds = _moved_bounds(sample.boxes, matrix)
    clipped = tf.clip_by_value(bounds, 0.0, limits)
    cut = tf.reduce_any(tf.abs(clipped - bounds) > CUT, axis=1)
    changed = cut if upright else tf.ones_like(cut)
    tight, share = clipped, tf.math.divide_no_nan(_areas(clipped), _areas(bounds))
    if masks:
        inside, tight = _seen(sample, matrix, limits)
        values = tf.cast(sample.masks, tf.float32)
        share = tf.math.divide_no_nan(tf.reduce_sum(values * inside, [1, 2]), tf.reduce_sum(values, [1, 2]))
    areas = sample.areas * tf.abs(tf.linalg.det(matrix[:, :2]))
    changes = sample._replace(
        areas=tf.where(cut, areas * share, areas),
        keypoints=_moved_keypoints(sample.keypoints, matrix, width, height),
    )
    return refitted(changes, sample.masks, tight, changed, matrix, masks, clipped)


def refitted(sample, source, tight, changed, matrix, masks, bounds):
    """Gives the changed objects their tight boxes and crops, and drops those too small to count.

    Args:
        sample: a `Sample`, all but its boxes and masks as they shall be.
        source: [N, S, S], crops in the sample's boxes.
        tight: [N, 4] boxes after the map, which count where `changed` [N] bool.
        matrix: the map from the sample's boxes to the new ones.
        masks: whether there are masks.
        bounds: [N, 4] boxes after the map, which count for all others.

    Returns:
        Sample.
    """
    kept = tf.reduce_min(tight[:, 2:] - tight[:, :2], axis=1) >= LEAST_SIDE
    kept = tf.where(~changed | kept)[:, 0]
    sample = rows(sample, kept)
    source, tight, changed, bounds = (tf.gather(part, kept) for part in (source, tight, changed, bounds))
    if masks:
        crops = _resampled(source, sample.boxes, tight, matrix)
        sample = sample._replace(masks=tf.where(changed[:, None, None], crops, sample.masks))
    return sample._replace(boxes=tf.where(changed[:, None], tight, bounds))


def rows(sample, places):
    """The sample with only some of its objects, in the order of `places`."""
    return sample._replace(**{name: tf.gather(getattr(sample, name), places) for name in OBJECTS})


def tight_boxes(boxes, wide, high, matrix, limits):
    """Boxes around cells of crops, after a map.

    Args:
        boxes: [N, 4], where the crops lie before the map.
        wide, high: [N, S, S] bool, the cells that count for the horizontal and for the vertical extent.
        matrix: the map.
        limits: (w, h, w, h) float32 [4], to which boxes are clipped.

    Returns:
        [N, 4]; of no size where no cell counts.
    """
    x, y, reach = _cell_places(boxes, tf.shape(wide)[1], matrix)
    extents = (wide, x), (high, y)
    low = tf.stack([tf.reduce_min(tf.where(cells, place, math.inf), [1, 2]) for cells, place in extents], axis=1)
    top = tf.stack([tf.reduce_max(tf.where(cells, place, -math.inf), [1, 2]) for cells, place in extents], axis=1)
    found = tf.reduce_any(wide, [1, 2]) & tf.reduce_any(high, [1, 2])
    ends = tf.clip_by_value(tf.concat([low - reach, top + reach], axis=1), 0.0, limits)
    return tf.where(found[:, None], ends, 0.0)


def _cell_places(boxes, side, matrix):
    """Centres x and y of the cells after the map, both [N, S, S], and [N, 2] how far a cell reaches from its centre."""
    low, cell = boxes[:, :2], _cells(boxes, side)
    places = low[:, None, :] + (tf.range(tf.cast(side, tf.float32)) + 0.5)[None, :, None] * cell[:, None, :]
    across, down = places[:, None, :, 0], places[:, :, None, 1]
    x, y = (row[0] * across + row[1] * down + row[2] for row in tf.unstack(matrix))
    # Of an ellipse in the cell: the corner of a turned cell juts out further than a smooth outline through it.
    reach = 0.5 * tf.sqrt(tf.matmul(tf.square(cell), tf.square(matrix[:, :2]), transpose_b=True))
    return x, y, reach


def _seen(sample, matrix, limits):
    """[N, S, S] float32 the share of each cell that lies in the image after the map, and boxes around those that do."""
    x, y, reach = _cell_places(sample.boxes, tf.shape(sample.masks)[1], matrix)
    across = _share(x, reach[:, 0, None, None], limits[0])
    down = _share(y, reach[:, 1, None, None], limits[1])
    own = sample.masks > HALF
    # A cell on the image's edge takes the box up to the edge, but along it only with its greater part in the image:
    # where an outline meets the edge at a flat angle, half a cell across is many along.
    wide, high = own & (across > 0.0) & (down >= 0.5), own & (across >= 0.5) & (down > 0.0)
    return across * down, tight_boxes(sample.boxes, wide, high, matrix, limits)


def _share(place, reach, limit):
    length = tf.minimum(place + reach, limit) - tf.maximum(place - reach, 0.0)
    return tf.clip_by_value(tf.math.divide_no_nan(length, 2.0 * reach), 0.0, 1.0)


def _resampled(masks, boxes, new_boxes, matrix):
    """[N, S, S] uint8: crops in `boxes` before the map, as crops in `new_boxes` after it."""
    side = tf.shape(masks)[1]
    cell, new_cell = _cells(boxes, side), _cells(new_boxes, side)
    back = inverse(matrix)
    first = new_boxes[:, :2] + 0.5 * new_cell
    start = (tf.matmul(first, back[:, :2], transpose_b=True) + back[:, 2] - boxes[:, :2]) / cell - 0.5
    steps = back[None, :, :2] * new_cell[:, None, :] / cell[:, :, None]
    transforms = tf.reshape(tf.concat([steps, start[:, :, None]], axis=2), [-1, 6])
    crops = _sample(tf.cast(masks, tf.float32)[..., None], transforms, tf.stack([side, side]))[..., 0]
    return tf.cast(tf.round(crops), tf.uint8)


def _sample(images, transforms, size):
    """Bilinear samples: pixel (x, y) of a result comes from `transforms` @ (x, y, 1), all counted from the first
    pixel's middle."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.pad(transforms, [[0, 0], [0, 2]]),
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _cells(boxes, side):
    return (boxes[:, 2:] - boxes[:, :2]) / tf.cast(side, tf.float32)


def _areas(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _moved_bounds(boxes, matrix):
    """The upright boxes around moved boxes [N, 4]."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    corners = tf.stack([tf.stack(corner, axis=1) for corner in ((x1, y1), (x2, y1), (x1, y2), (x2, y2))], axis=1)
    corners = _moved_points(corners, matrix)
    return tf.concat([tf.reduce_min(corners, axis=1), tf.reduce_max(corners, axis=1)], axis=1)


def _moved_points(points, matrix):
    x, y = (points[..., 0] * row[0] + points[..., 1] * row[1] + row[2] for row in tf.unstack(matrix))
    return tf.stack([x, y], axis=-1)


def _moved_keypoints(keypoints, matrix, width, height):
    places = _moved_points(keypoints[..., :2], matrix)
    x, y, v = places[..., 0], places[..., 1], keypoints[..., 2]
    inside = (x >= -CUT) & (x <= width + CUT) & (y >= -CUT) & (y <= height + CUT) & (v > 0.0)
    return tf.where(inside[..., None], tf.stack([x, y, v], axis=-1), 0.0)


# Semantic labels, a class for each pixel, that go where their image goes: by the nearest pixel, ignored beyond it.
#
# A label map is uint8 [H, W]: 0 is any thing, 1 to S a class of stuff, 255 is ignored. One of [0, 0] stands for none.
#

def no_labels():
    """The label map of a dataset that is used without."""
    return tf.zeros([0, 0], tf.uint8)


def has_labels(sample):
    """Whether a `Sample` of this graph has labels."""
    return not _are_none(sample.semantic)


def resized_labels(labels, size, corner=(0, 0), part=None):
    """A label map, or a part of one, at another size.

    The middle of each pixel decides, as in Pillow's nearest neighbour, counted in whole numbers so that no rounding
    tips the scales.

    Args:
        labels: uint8 [H, W].
        size: (h, w) int32 [2].
        corner, part: (top, left) and (height, width) of the part, int32 [2] each; None: all of it.

    Returns:
        uint8 [h, w]; none stay none.
    """
    if _are_none(labels):
        return labels
    part = tf.shape(labels) if part is None else part
    rows, columns = (_sources(corner[axis], part[axis], size[axis]) for axis in (0, 1))
    # To gather whole rows is to copy memory; one pixel of each would take several times as long.
    return tf.gather(tf.transpose(tf.gather(tf.transpose(labels), columns)), rows)


def warped_labels(labels, matrix, size):
    """A label map under an affine map; ignored where nothing comes to lie.

    Args:
        labels: uint8 [H, W].
        matrix: the map, as in affine.py.
        size: (h, w) int32 [2] of the result.

    Returns:
        uint8 [h, w]; none stay none.
    """
    if _are_none(labels):
        return labels
    result = tf.raw_ops.ImageProjectiveTransformV3(
        images=labels[None, :, :, None],
        transforms=tf.pad(pixels_back(matrix), [[0, 0], [0, 2]]),
        output_shape=size,
        fill_value=float(IGNORED),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return result[0, :, :, 0]


def _sources(first, old, new):
    """[new] int64: which pixel of an axis each of `new` pixels shows, that are to be `old` pixels from `first` on."""
    first, old, new = (tf.cast(count, tf.int64) for count in (first, old, new))
    return first + (2 * tf.range(new) + 1) * old // (2 * new)


def _are_none(labels):
    return labels.shape[0] == 0
