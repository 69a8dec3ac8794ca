"""An image and its objects (`Sample`) under an affine map, and what is left of objects that are cut off or covered.

A map is a matrix, float32 [2, 3]: the point (x, y) goes to matrix @ (x, y, 1), in pixels, 0 being the outer edge of the
first one. A mask's crop stays with its box. Where the box changes its form, the crop is sampled anew, cell by cell
through the inverse map, so no mask is ever drawn at the image's full size. Semantic labels go by the nearest pixel.
"""

import math
import typing

import tensorflow as tf

from mrcnn_tf.common.categories import IGNORED

CUT_TOLERANCE = 1e-3  # pixels beyond the image's edge that don't count as cut off
MIN_SIDE = 1.0  # pixels of a box's shorter side; of what is left of an object, less is nothing
HALF_COVERED = 127  # of 255: a cell of a crop with more belongs to the object


class Sample(typing.NamedTuple):
    """An image and its N objects on their way from the files to a batch.

    S is 0 without masks, P without keypoints, H and W of `semantic` without labels. Without fields of the annotations'
    own F and the sides of `transforms` are 0.
    """

    image: tf.Tensor  # [H, W, 3], uint8 as decoded or float32 0..255 once resized
    boxes: tf.Tensor  # [N, 4] float32 pixels, inside the image
    classes: tf.Tensor  # [N] int32, 1 to K
    crowd: tf.Tensor  # [N] bool
    areas: tf.Tensor  # [N] float32 square pixels
    masks: tf.Tensor  # [N, S, S] uint8, 255 times the occupancy of each S-th part of the object's box
    keypoints: tf.Tensor  # [N, P, 3] float32 (x, y) pixels and v, (0, 0, 0) for an unlabelled one
    field_values: tf.Tensor  # [N, F] float32, numbers as in the json, NaN for a missing one
    transforms: tf.Tensor  # [N, 2, 2] float32, the linear part of the map that an object went through so far
    semantic: tf.Tensor  # [H, W] uint8: 0 for any thing, 1 to S for stuff, 255 for what is ignored


# Those with an entry for each object.
OBJECT_FIELDS = ("boxes", "classes", "crowd", "areas", "masks", "keypoints", "field_values", "transforms")


def select_objects(sample, indices):
    """The sample with only some of its objects, in the order of `indices`."""
    return sample._replace(**{name: tf.gather(getattr(sample, name), indices) for name in OBJECT_FIELDS})


# Maps.


def scaling_matrix(x, y):
    """The map that multiplies both axes with scalars."""
    return tf.convert_to_tensor([[x, 0.0, 0.0], [0.0, y, 0.0]])


def translation_matrix(x, y):
    """The map that adds scalars to both axes."""
    return tf.convert_to_tensor([[1.0, 0.0, x], [0.0, 1.0, y]])


def rotation_matrix(angle, size):
    """The counterclockwise turn of an image of `size` (h, w) by `angle` (degrees, a scalar) about its centre."""
    radians = angle * (math.pi / 180)
    cos, sin = tf.cos(radians), tf.sin(radians)
    height, width = tf.unstack(tf.cast(size, tf.float32))
    turn = tf.convert_to_tensor([[cos, sin, 0.0], [-sin, cos, 0.0]])
    to_origin, back = translation_matrix(-width / 2, -height / 2), translation_matrix(width / 2, height / 2)
    return compose_maps(back, compose_maps(turn, to_origin))


def compose_maps(second, first):
    """The map that does `first` and then `second`."""
    return tf.concat([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]], axis=1)


def invert_map(matrix):
    """The map that undoes `matrix`."""
    back = tf.linalg.inv(matrix[:, :2])
    return tf.concat([back, -back @ matrix[:, 2:]], axis=1)


def warp_image(image, matrix, size):
    """The image [H, W, C] under a map, interpolated once, float32 [h, w, C]; black where nothing comes to lie.

    `size` is (h, w) of the result, int32 [2].
    """
    return _sample_pixels(tf.cast(image, tf.float32)[None], _projective_transform(matrix), size)[0]


def _projective_transform(matrix):
    """[1, 6] float32: `invert_map`, row by row, with both ends counted from the middle of the first pixel."""
    back = compose_maps(invert_map(matrix), translation_matrix(0.5, 0.5))
    return tf.reshape(compose_maps(translation_matrix(-0.5, -0.5), back), [1, 6])


def _sample_pixels(images, transforms, size, fill_value=0.0, interpolation="BILINEAR"):
    """Pixel (x, y) of a result comes from `transforms` @ (x, y, 1), all counted from the first pixel's middle."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.pad(transforms, [[0, 0], [0, 2]]),
        output_shape=size,
        fill_value=fill_value,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )


# Objects.


def transform_objects(sample, matrix, upright, masks):
    """A `Sample` with its objects under a map into its image. What leaves the image is cut off.

    An object of which nothing is left goes, and so do keypoints outside the image. What an upright map doesn't cut
    keeps its annotation's box and its crop; all other boxes are tight around what is left of the object's mask, or,
    without masks, of its transformed box.

    Args:
        sample: a `Sample`, its image (of size h, w) and labels as they are after the map.
        matrix: the map.
        upright: True if the map only shifts and multiplies by positive factors.
        masks: whether the sample has masks.
    """
    height, width = tf.unstack(tf.cast(tf.shape(sample.image)[:2], tf.float32))
    limits = tf.stack([width, height, width, height])
    bounds = _transform_boxes(sample.boxes, matrix)
    clipped = tf.clip_by_value(bounds, 0.0, limits)
    cut = tf.reduce_any(tf.abs(clipped - bounds) > CUT_TOLERANCE, axis=1)
    reshaped = cut if upright else tf.ones_like(cut)
    tight, share = clipped, tf.math.divide_no_nan(_box_areas(clipped), _box_areas(bounds))
    if masks:
        inside, tight = _cells_in_image(sample, matrix, limits)
        values = tf.cast(sample.masks, tf.float32)
        share = tf.math.divide_no_nan(tf.reduce_sum(values * inside, [1, 2]), tf.reduce_sum(values, [1, 2]))
    areas = sample.areas * tf.abs(tf.linalg.det(matrix[:, :2]))
    sample = sample._replace(
        areas=tf.where(cut, areas * share, areas),
        keypoints=_transform_keypoints(sample.keypoints, matrix, width, height),
        transforms=extend_transforms(sample.transforms, matrix),
    )
    return refit_objects(sample, sample.masks, tight, reshaped, matrix, masks, clipped)


def extend_transforms(transforms, matrix):
    """A Sample's `transforms` [N, 2, 2] after one map more, of which [2, 2] is enough. None stay none."""
    return transforms if transforms.shape[1] == 0 else matrix[:, :2] @ transforms


def refit_objects(sample, source, tight, reshaped, matrix, masks, bounds):
    """A `Sample` whose reshaped objects have their tight boxes and new crops, without those too small to count.

    Args:
        sample: a `Sample`, all but its boxes and masks as they shall be.
        source: [N, S, S], crops in the sample's boxes.
        tight: [N, 4] boxes after the map, which count where `reshaped` [N] bool.
        matrix: the map from the sample's boxes to the new ones.
        masks: whether there are masks.
        bounds: [N, 4] boxes after the map, which count for all others.
    """
    large_enough = tf.reduce_min(tight[:, 2:] - tight[:, :2], axis=1) >= MIN_SIDE
    kept = tf.where(~reshaped | large_enough)[:, 0]
    sample = select_objects(sample, kept)
    source, tight, reshaped, bounds = (tf.gather(values, kept) for values in (source, tight, reshaped, bounds))
    if masks:
        crops = _resample_crops(source, sample.boxes, tight, matrix)
        sample = sample._replace(masks=tf.where(reshaped[:, None, None], crops, sample.masks))
    return sample._replace(boxes=tf.where(reshaped[:, None], tight, bounds))


def find_tight_boxes(boxes, x_cells, y_cells, matrix, limits):
    """Boxes [N, 4] around cells of crops, after a map; of no size where no cell counts.

    Args:
        boxes: [N, 4], where the crops lie before the map.
        x_cells, y_cells: [N, S, S] bool, the cells that count for a box's left and right, and for its top and bottom.
        matrix: the map.
        limits: (w, h, w, h) float32 [4], to which boxes are clipped.
    """
    x, y, reach = _transform_cells(boxes, tf.shape(x_cells)[1], matrix)
    axes = (x_cells, x), (y_cells, y)
    low = tf.stack([tf.reduce_min(tf.where(cells, centre, math.inf), [1, 2]) for cells, centre in axes], axis=1)
    high = tf.stack([tf.reduce_max(tf.where(cells, centre, -math.inf), [1, 2]) for cells, centre in axes], axis=1)
    has_cells = tf.reduce_any(x_cells, [1, 2]) & tf.reduce_any(y_cells, [1, 2])
    corners = tf.clip_by_value(tf.concat([low - reach, high + reach], axis=1), 0.0, limits)
    return tf.where(has_cells[:, None], corners, 0.0)


def _transform_cells(boxes, side, matrix):
    """Centres x and y of the cells after the map, both [N, S, S], and [N, 2] how far a cell reaches from its centre."""
    low, cell = boxes[:, :2], _cell_sizes(boxes, side)
    centres = low[:, None, :] + (tf.range(tf.cast(side, tf.float32)) + 0.5)[None, :, None] * cell[:, None, :]
    across, down = centres[:, None, :, 0], centres[:, :, None, 1]
    x, y = (row[0] * across + row[1] * down + row[2] for row in tf.unstack(matrix))
    # Of an ellipse in the cell: the corner of a turned cell juts out further than a smooth outline through it.
    reach = 0.5 * tf.sqrt(tf.matmul(tf.square(cell), tf.square(matrix[:, :2]), transpose_b=True))
    return x, y, reach


def _cells_in_image(sample, matrix, limits):
    """[N, S, S] float32 the share of each cell that lies in the image after the map, and boxes around those that do."""
    x, y, reach = _transform_cells(sample.boxes, tf.shape(sample.masks)[1], matrix)
    across = _share_inside(x, reach[:, 0, None, None], limits[0])
    down = _share_inside(y, reach[:, 1, None, None], limits[1])
    own = sample.masks > HALF_COVERED
    # A cell on the image's edge takes the box up to the edge, but along it only with its greater part in the image:
    # where an outline meets the edge at a flat angle, half a cell across is many along.
    x_cells, y_cells = own & (across > 0.0) & (down >= 0.5), own & (across >= 0.5) & (down > 0.0)
    return across * down, find_tight_boxes(sample.boxes, x_cells, y_cells, matrix, limits)


def _share_inside(centre, reach, limit):
    length = tf.minimum(centre + reach, limit) - tf.maximum(centre - reach, 0.0)
    return tf.clip_by_value(tf.math.divide_no_nan(length, 2.0 * reach), 0.0, 1.0)


def _resample_crops(masks, boxes, new_boxes, matrix):
    """[N, S, S] uint8: crops in `boxes` before the map, as crops in `new_boxes` after it."""
    side = tf.shape(masks)[1]
    cell, new_cell = _cell_sizes(boxes, side), _cell_sizes(new_boxes, side)
    back = invert_map(matrix)
    first = new_boxes[:, :2] + 0.5 * new_cell
    start = (tf.matmul(first, back[:, :2], transpose_b=True) + back[:, 2] - boxes[:, :2]) / cell - 0.5
    steps = back[None, :, :2] * new_cell[:, None, :] / cell[:, :, None]
    transforms = tf.reshape(tf.concat([steps, start[:, :, None]], axis=2), [-1, 6])
    crops = _sample_pixels(tf.cast(masks, tf.float32)[..., None], transforms, tf.stack([side, side]))[..., 0]
    return tf.cast(tf.round(crops), tf.uint8)


def _cell_sizes(boxes, side):
    return (boxes[:, 2:] - boxes[:, :2]) / tf.cast(side, tf.float32)


def _box_areas(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _transform_boxes(boxes, matrix):
    """The upright boxes around transformed boxes [N, 4]."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    corners = tf.stack([tf.stack(corner, axis=1) for corner in ((x1, y1), (x2, y1), (x1, y2), (x2, y2))], axis=1)
    corners = _transform_points(corners, matrix)
    return tf.concat([tf.reduce_min(corners, axis=1), tf.reduce_max(corners, axis=1)], axis=1)


def _transform_points(points, matrix):
    x, y = (points[..., 0] * row[0] + points[..., 1] * row[1] + row[2] for row in tf.unstack(matrix))
    return tf.stack([x, y], axis=-1)


def _transform_keypoints(keypoints, matrix, width, height):
    (x, y), v = tf.unstack(_transform_points(keypoints[..., :2], matrix), axis=-1), keypoints[..., 2]
    inside = (x >= -CUT_TOLERANCE) & (x <= width + CUT_TOLERANCE)
    inside &= (y >= -CUT_TOLERANCE) & (y <= height + CUT_TOLERANCE) & (v > 0.0)
    return tf.where(inside[..., None], tf.stack([x, y, v], axis=-1), 0.0)


# Semantic labels. Those of size [0, 0] stand for none.


def empty_labels():
    """The labels of a dataset that is used without."""
    return tf.zeros([0, 0], tf.uint8)


def has_labels(sample):
    """Whether a `Sample` of this graph has labels."""
    return sample.semantic.shape[0] != 0


def resize_labels(labels, size, corner=(0, 0), part=None):
    """Labels, or a part of them, at another size: uint8 [h, w]. None stay none.

    The middle of each pixel decides, as in Pillow's nearest neighbour, counted in whole numbers so that no rounding
    tips the scales.

    Args:
        labels: uint8 [H, W].
        size: (h, w) int32 [2].
        corner, part: (top, left) and (height, width) of the part, int32 [2] each; None: all of it.
    """
    if labels.shape[0] == 0:
        return labels
    part = tf.shape(labels) if part is None else part
    rows, columns = (_nearest_pixels(corner[axis], part[axis], size[axis]) for axis in (0, 1))
    # To gather whole rows is to copy memory; one pixel of each would take several times as long.
    return tf.gather(tf.transpose(tf.gather(tf.transpose(labels), columns)), rows)


def warp_labels(labels, matrix, size):
    """Labels uint8 [H, W] under a map, uint8 [h, w] of `size`; ignored where nothing comes to lie. None stay none."""
    if labels.shape[0] == 0:
        return labels
    transform = _projective_transform(matrix)
    return _sample_pixels(labels[None, :, :, None], transform, size, float(IGNORED), "NEAREST")[0, :, :, 0]


def _nearest_pixels(first, old, new):
    """[new] int64: which pixel of an axis each of `new` pixels shows, that are to be `old` pixels from `first` on."""
    first, old, new = (tf.cast(count, tf.int64) for count in (first, old, new))
    return first + (2 * tf.range(new) + 1) * old // (2 * new)
