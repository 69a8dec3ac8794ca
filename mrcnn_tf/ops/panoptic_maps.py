"""The maps of Panoptic FPN (Kirillov et al. 2019): a class for each pixel of an image, and one map of segments.

From the semantic head's logits to the class of each pixel of the original image (`semantic_map`), from that and the
detected instances to segments that don't overlap (`fuse`), and the colours by which COCO's format writes them.
"""

import collections

import numpy as np
import tensorflow as tf

from mrcnn_tf.ops.masks_in_graph import sample_window, window_pixels

STRIDE = 4  # pixels of the network's image to a cell of logits, along each axis
TILE_HEIGHT, TILE_WIDTH = 32, 64  # pixels that are classified together: what fits into the processor's cache
LABELS = 256  # that a uint8 can hold

# segment_map int32 [H, W]: each pixel's segment, 1 to count, or 0 = void. Of segment s, in row s - 1 of int32 [D + S]:
# instances (the detection it comes from, -1 for stuff), classes (1..K of a thing, 1..S of stuff), areas (pixels). Rows
# beyond count, int32 [], hold -1, 0 and 0.
Fused = collections.namedtuple("Fused", "segment_map instances classes areas count")


def double_size(features):
    """Doubles maps bilinearly (half-pixel centres, borders repeated): [B, H, W, C] -> [B, 2H, 2W, C], same dtype."""
    enlarged = tf.image.resize(features, 2 * tf.shape(features)[1:3], method="bilinear")  # float32, whatever came in
    height, width = (side and 2 * side for side in features.shape[1:3])
    return tf.cast(tf.ensure_shape(enlarged, [None, height, width, features.shape[3]]), features.dtype)


def semantic_map(logits, image_size, original_size):
    """The most likely class of each pixel: uint8 [H, W].

    The logits are enlarged to the pixels that the network saw, those of the image cut out and interpolated to the
    original's size, in this order, as detectron2 does it. Both steps are bilinear and so one product with the weights
    of a few cells along each axis. It is made tile by tile: 54 classes of all pixels are never there at once.

    Args:
        logits: float32 [h, w, C], C at most 256, of the network's image padded to 4h x 4w pixels.
        image_size: int32 (h, w), the image's pixels in there without the padding.
        original_size: int32 (H, W).
    """
    height, width, classes = tf.shape(logits)[0], tf.shape(logits)[1], logits.shape[2]
    top, row_weights = _tiles(height, image_size[0], original_size[0], TILE_HEIGHT)
    left, column_weights = _tiles(width, image_size[1], original_size[1], TILE_WIDTH)
    columns = left[:, None] + tf.range(tf.shape(column_weights)[2])

    def strip(inputs):
        first, weights = inputs
        cells = tf.reshape(logits[first : first + tf.shape(weights)[1]], [-1, width * classes])
        enlarged = tf.reshape(tf.matmul(weights, cells), [TILE_HEIGHT, width, classes])
        tiles = tf.gather(enlarged, columns, axis=1)  # [TILE_HEIGHT, tiles, cells, C]
        return tf.cast(tf.argmax(tf.matmul(column_weights[None], tiles), axis=-1, output_type=tf.int32), tf.uint8)

    shape = tf.TensorSpec([TILE_HEIGHT, None, TILE_WIDTH], tf.uint8)
    strips = tf.map_fn(strip, (top, row_weights), fn_output_signature=shape, parallel_iterations=2)
    pixels = tf.reshape(strips, [tf.shape(top)[0] * TILE_HEIGHT, tf.shape(left)[0] * TILE_WIDTH])
    return pixels[: original_size[0], : original_size[1]]


def _tiles(cells, size, original, step):
    """The part of an axis that each tile of `step` pixels reads: first cells int32 [T], weights [T, step, reach]."""
    count = -(-original // step)
    pixels = tf.minimum(tf.range(count * step), original - 1)
    index, weight = _interpolation_weights(pixels, cells, size, original)
    index, weight = tf.reshape(index, [4, count, step]), tf.reshape(weight, [4, count, step])
    first = tf.reduce_min(index, axis=[0, 2])
    reach = tf.reduce_max(tf.reduce_max(index, axis=[0, 2]) - first) + 1
    first = tf.minimum(first, cells - reach)
    one_hot = tf.one_hot(index - first[:, None], reach)  # [4, T, step, reach]
    return first, tf.reduce_sum(one_hot * weight[..., None], axis=0)


def _interpolation_weights(pixels, cells, size, original):
    """The cells of a map that pixels of an image are interpolated from in two bilinear steps, along one axis.

    Args:
        pixels: int32 [N], positions in the original image.
        cells: int32, the length of a map.
        size: int32, the length of the image in there.
        original: int32, its original length, to which it is brought after the map has been enlarged by `STRIDE`.

    Returns:
        (index, weight): int32 and float32 [4, N]; a cell may come twice.
    """
    scale = tf.cast(size, tf.float32) / tf.cast(original, tf.float32)
    index, weight = [], []
    for pixel, pixel_weight in zip(*_neighbours(pixels, scale, size), strict=True):
        for cell, cell_weight in zip(*_neighbours(pixel, 1.0 / STRIDE, cells), strict=True):
            index.append(cell)
            weight.append(pixel_weight * cell_weight)
    return tf.stack(index), tf.stack(weight)


def _neighbours(targets, scale, length):
    """The two source indices, inside 0 to length - 1, that each index of `targets` lies between; their weights."""
    position = (tf.cast(targets, tf.float32) + 0.5) * scale - 0.5
    low = tf.floor(position)
    index = [tf.clip_by_value(tf.cast(low, tf.int32) + step, 0, length - 1) for step in (0, 1)]
    return index, [1.0 - (position - low), position - low]


def resize_labels(labels, size):
    """Resizes a numpy map [H, W] to (h, w): each pixel is as the old one that its centre lies in."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(labels.shape, size, strict=True))
    return labels[rows[:, None], columns]


def fuse(
    masks,
    boxes,
    scores,
    classes,
    semantic,
    stuff,
    score_threshold=0.5,
    overlap=0.5,
    stuff_area=4096,
    rule="torchvision",
):
    """Fuses instances and stuff into one map of segments that don't overlap (Panoptic FPN, section 3.2; the rule and
    its defaults are detectron2's).

    By falling score, and by row where scores are equal, each instance takes those of its pixels that are still free,
    unless better ones have taken more than a share of them, or all. Then each class of stuff takes what is free of its
    pixels, unless that is too little. All else is void: also what the semantic head calls a thing and no instance is.

    A loop over windows, and nothing of the size of D whole-image masks. Stock operations, as a server needs it.

    Args:
        masks: [D, M, M] float32 probabilities in the boxes' frames; a pixel belongs to an instance as in
            `ops.masks.paste_masks`. M must be static.
        boxes: [D, 4] float32 pixels of the original image.
        scores: [D] float32.
        classes: [D] int32 in 1..K; 0 is padding.
        semantic: [H, W] uint8, the class of each pixel of the original image: 1..S of stuff, 0 of any thing. Pixels of
            all other values are of no class.
        stuff: S, an int.
        score_threshold: an instance must score as much.
        overlap: the largest share of an instance's pixels that may be taken already.
        stuff_area: pixels, the least for a class of stuff.
        rule: "torchvision" or "detectron2", as for `ops.masks.paste_masks`.

    Returns:
        `Fused`: segments 1, 2, ... are the instances by falling score, then the stuff by class.

    Raises:
        ValueError: another `rule`.
    """
    # Small operations on windows: a GPU would only wait for their launches.
    with tf.device("CPU:0"):
        masks, boxes, scores = (tf.cast(tf.convert_to_tensor(values), tf.float32) for values in (masks, boxes, scores))
        classes, semantic = tf.cast(classes, tf.int32), tf.convert_to_tensor(semantic)
        considered = (scores >= score_threshold) & (classes > 0)
        count = tf.math.count_nonzero(considered, dtype=tf.int32)
        # Of equal scores the lower row comes first.
        rows = tf.argsort(tf.where(considered, scores, -np.inf), direction="DESCENDING", stable=True)[:count]
        masks, boxes = tf.gather(masks, rows), tf.gather(boxes, rows)
        taken, areas = _place_instances(masks, boxes, tf.shape(semantic), overlap, rule)
        rows, areas = tf.boolean_mask(rows, areas > 0), tf.boolean_mask(areas, areas > 0)
        segment_map, labels, stuff_areas = _fill_stuff(taken, semantic, tf.size(rows), stuff, stuff_area)
        length = tf.size(scores) + stuff
        static = None if scores.shape[0] is None else scores.shape[0] + stuff
        return Fused(
            segment_map,
            _table(tf.concat([rows, tf.fill(tf.shape(labels), -1)], 0), length, static, -1),
            _table(tf.concat([tf.gather(classes, rows), labels], 0), length, static),
            _table(tf.concat([areas, stuff_areas], 0), length, static),
            tf.size(rows) + tf.size(labels),
        )


def _place_instances(masks, boxes, size, overlap, rule):
    """Places N instances in order: taken uint16 [H, W], and the pixels of each, int32 [N], 0 of those left out."""
    height, width = tf.unstack(tf.cast(size, tf.int64), num=2)

    def place(number, count, areas, taken):
        left, top, columns, values = sample_window(masks[number], boxes[number], (height, width), rule)
        pixels = window_pixels(values, columns, rule, 0.5)
        begin = tf.stack([left, top])
        end = begin + tf.shape(pixels, out_type=tf.int64)
        window = tf.strided_slice(taken, begin, end)
        free = pixels & (window == 0)
        area, free_area = _count(pixels), _count(free)
        taken_share = tf.cast(area - free_area, tf.float64) / tf.cast(area, tf.float64)
        keep = (free_area > 0) & ~(taken_share > overlap)
        count += tf.cast(keep, tf.int32)
        window = tf.where(free & keep, tf.cast(count, tf.uint16), window)
        # In place: the map isn't copied for each instance.
        taken = tf.raw_ops.TensorStridedSliceUpdate(
            input=taken, begin=begin, end=end, strides=tf.ones([2], tf.int64), value=window
        )
        return number + 1, count, areas.write(number, tf.where(keep, free_area, 0)), taken

    most = tf.shape(boxes)[0]
    # Columns first, as the windows come; turned once at the end.
    start = 0, 0, tf.TensorArray(tf.int32, most, element_shape=[]), tf.zeros([width, height], tf.uint16)
    loop = tf.while_loop(lambda number, *_: number < most, place, start, parallel_iterations=1)
    return tf.transpose(loop[3]), loop[2].stack()


def _count(pixels):
    """int32, how many of bool [w, h] are set. Sums of float32 are exact to 2^24 rows, and four times as fast as those
    of `tf.math.count_nonzero`."""
    return tf.reduce_sum(tf.cast(tf.reduce_sum(tf.cast(pixels, tf.float32), axis=1), tf.int32))


def _fill_stuff(taken, semantic, count, stuff, stuff_area):
    """The segment map int32 [H, W] with stuff after `count` instances, the classes and areas of stuff there, int32."""
    free = tf.where(taken == 0, tf.cast(semantic, tf.int32), 0)
    areas = tf.math.bincount(tf.reshape(free, [-1]), minlength=LABELS, maxlength=LABELS)
    labels = tf.range(LABELS)
    kept = (areas >= max(stuff_area, 1)) & (labels > 0) & (labels <= stuff)
    segments = tf.where(kept, count + tf.cumsum(tf.cast(kept, tf.int32)), 0)
    segment_map = tf.cast(taken, tf.int32) + tf.gather(segments, free)
    return segment_map, tf.boolean_mask(labels, kept), tf.boolean_mask(areas, kept)


def _table(values, length, static, padding=0):
    """Values [n] padded to [length], which is `static` where that is known."""
    padded = tf.pad(values, [[0, length - tf.size(values)]], constant_values=padding)
    padded.set_shape([static])
    return padded


def ids_to_rgb(ids):
    """The colours of COCO's panoptic PNGs, uint8 [H, W, 3]: id = R + 256 G + 65536 B, of ids [H, W] below 2^24."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
