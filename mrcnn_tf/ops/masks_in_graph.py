"""Detected masks in their image, inside the TensorFlow graph: which pixels are set, and COCO's run lengths of them.

A server sends run lengths instead of pictures. The pixels are those of `ops.masks.paste_window`, bit for bit, and the
characters those of pycocotools; `datasets.run_lengths` describes the format. Stock operations only, and no whole-image
mask is held.
"""

import collections

import tensorflow as tf

BLOCK_SAMPLES = 2**18  # 1 MiB of float32, whatever the size of the image
GROUP_BITS = 5  # of a run length in one character
GROUPS = 7  # 35 bits hold the signed difference of two runs in any image
PARALLEL_MASKS = 4  # each holds a few blocks

# The window of an image in which a mask can be set. left, top int64: its first column and row in the image. columns [w]
# float32: where its columns lie among the mask's cells. values [M + 2, h] float32: the mask's samples at its rows, in
# each column of cells and one beyond on each side.
WindowSamples = collections.namedtuple("WindowSamples", "left top columns values")


def sample_window(mask, box, image_size, rule):
    """`WindowSamples` of a mask, for `window_pixels`; empty where its box lies outside the image.

    Args:
        mask: [M, M] float32, M static.
        box: [4] float32 pixels of the image.
        image_size: (height, width), int64.
        rule: "torchvision" or "detectron2", as in `ops.masks.paste_masks`.

    Raises:
        ValueError: another `rule`.
    """
    if rule not in _POSITIONS:
        raise ValueError(f'The rule for pasting masks is "torchvision" or "detectron2", not {rule!r}.')
    find_positions = _POSITIONS[rule]
    mask = tf.pad(mask, [[1, 1], [1, 1]])  # the border of zeros of `ops.masks.paste_window`
    top, rows = find_positions(box[1], box[3], mask.shape[0], image_size[0])
    left, columns = find_positions(box[0], box[2], mask.shape[1], image_size[1])
    return WindowSamples(left, top, columns, tf.transpose(_interpolate_first_axis(mask, rows)))


def window_pixels(values, columns, rule, threshold):
    """bool [n, h]: which pixels of n columns of a window are set.

    Takes the values and all or some of the columns of a `WindowSamples`; the rest is as in `ops.masks.paste_masks`.
    """
    compare = tf.greater if rule == "torchvision" else tf.greater_equal
    return compare(_interpolate_first_axis(values, columns), threshold)


def _resize_positions(low, high, side, limit):
    """`ops.masks._resize_positions` of one axis of a box that is grown and cut as by `_whole_pixel_box` there.

    Float32, operation for operation: a half-ulp decides which pixel an edge falls into.
    """
    half = (high - low) * 0.5 * (side / (side - 2))
    centre = (high + low) * 0.5
    first, last = tf.cast(centre - half, tf.int64), tf.cast(centre + half, tf.int64)
    count = tf.maximum(last - first + 1, 1)
    start, stop = tf.maximum(first, 0), tf.minimum(last + 1, limit)
    offsets = tf.cast(tf.range(start, tf.maximum(stop, start)), tf.float32) - tf.cast(first, tf.float32)
    scale = tf.cast(tf.cast(side, tf.float64) / tf.cast(count, tf.float64), tf.float32)
    return start, (offsets + 0.5) * scale - 0.5


def _sample_positions(low, high, side, limit):
    """`ops.masks._sample_positions`."""
    cell = (high - low) / (side - 2)
    has_area = cell > 0
    cell = tf.where(has_area, cell, 1.0)
    end = tf.cast(limit, tf.float32)
    start = tf.clip_by_value(tf.floor(low - cell / 2), 0.0, end)
    stop = tf.where(has_area, tf.clip_by_value(tf.math.ceil(high + cell / 2), start, end), start)
    centres = tf.range(start, stop) + 0.5
    return tf.cast(start, tf.int64), (centres - low) / cell + 0.5


_POSITIONS = {"torchvision": _resize_positions, "detectron2": _sample_positions}


def _interpolate_first_axis(values, positions):
    """[n, w]: linear samples of values [s, w] at positions [n] in cells, as `ops.masks` takes them."""
    last = values.shape[0] - 1
    positions = tf.clip_by_value(positions, 0.0, float(last))
    low = tf.minimum(tf.cast(positions, tf.int32), last - 1)
    slopes = tf.gather(values[1:] - values[:-1], low)
    return slopes * (positions - tf.cast(low, tf.float32))[:, None] + tf.gather(values, low)


def rle_counts(masks, boxes, num_detections, image_size, rule="torchvision", threshold=0.5):
    """COCO's RLE strings of detected masks in their images.

    Args:
        masks: [B, D, M, M] float32 probabilities in the boxes' frames. M must be static.
        boxes: [B, D, 4] float32 pixels of the image.
        num_detections: [B] int32; the detections beyond are padding.
        image_size: [B, 2] int32, (height, width) in pixels.
        rule, threshold: as in `ops.masks.paste_masks`.

    Returns:
        [B, D] string, the `counts` of each mask's RLE, whose `size` is the image's; "" in padding.

    Raises:
        ValueError: another `rule`.
    """
    # Thousands of tiny operations on strings and runs: a GPU would only wait for their launches.
    with tf.device("CPU:0"):
        shape = tf.shape(boxes)[:2]
        present = tf.where(tf.range(shape[1])[None, :] < num_detections[:, None])  # [N, 2] = (image, detection)

        def encode(index):
            size = tf.cast(image_size[index[0]], tf.int64)
            bounds = _run_bounds(tf.gather_nd(masks, index), tf.gather_nd(boxes, index), size, rule, threshold)
            return _compress(_run_lengths(bounds, size[0] * size[1]))

        string = tf.TensorSpec([], tf.string)
        strings = tf.map_fn(encode, present, fn_output_signature=string, parallel_iterations=PARALLEL_MASKS)
        return tf.scatter_nd(present, strings, tf.cast(shape, tf.int64))


def _run_bounds(mask, box, size, rule, threshold):
    """[2R] int64, where the R set runs start and end by turns, counted in pixels down the columns of the image.

    `mask` [M, M], `box` [4], `size` int64 [2]. A run that touches the image's bottom and the next column's top is two
    runs here.
    """
    left, top, columns, values = sample_window(mask, box, size, rule)
    step = tf.maximum(BLOCK_SAMPLES // tf.maximum(tf.shape(values)[1], 1), 1)

    def add_block(first, bounds):
        pixels = window_pixels(values, columns[first : first + step], rule, threshold)  # [columns, rows]
        # One unset pixel above and one below each column: no run goes on past its column.
        pixels = tf.pad(pixels, [[0, 0], [1, 1]])
        edges = tf.where(pixels[:, 1:] != pixels[:, :-1])  # (column, row)
        block_bounds = (edges[:, 0] + tf.cast(first, tf.int64) + left) * size[0] + edges[:, 1] + top
        return first + step, tf.concat([bounds, block_bounds], axis=0)

    start, shapes = (tf.constant(0), tf.zeros([0], tf.int64)), (tf.TensorShape([]), tf.TensorShape([None]))
    return tf.while_loop(
        lambda first, _: first < tf.size(columns), add_block, start, shape_invariants=shapes, parallel_iterations=1
    )[1]


def _run_lengths(bounds, pixels):
    """[n] int64: the runs outside and inside by turns, beginning outside, that fill `pixels`."""
    # A bound that is there twice ends one run and starts the next, at a column's top: the run goes on.
    bounds, _, counts = tf.unique_with_counts(bounds)
    bounds = tf.boolean_mask(bounds, counts == 1)
    # A run up to the last pixel needs no empty one after it.
    end = tf.cond(tf.reduce_any(bounds == pixels), lambda: bounds[:0], lambda: pixels[None])
    ends = tf.concat([bounds, end], axis=0)
    return ends - tf.concat([tf.zeros([1], tf.int64), ends[:-1]], axis=0)


def _compress(runs):
    """COCO's string, a scalar, of runs [n] int64: see `datasets.run_lengths`."""
    numbers = tf.concat([runs[:3], runs[3:] - runs[1:-2]], axis=0)
    shifts = tf.range(0, GROUP_BITS * GROUPS, GROUP_BITS, dtype=tf.int64)
    rest = tf.bitwise.right_shift(numbers[:, None], shifts[None, :])  # keeps the sign
    group = tf.bitwise.bitwise_and(rest, tf.constant(31, tf.int64))
    # The last group of a number is the one whose bit 4 says what all bits above it are.
    more = tf.bitwise.right_shift(rest, tf.constant(4, tf.int64)) != -tf.cast(group >= 16, tf.int64)
    written = tf.pad(more, [[0, 0], [1, 0]], constant_values=True)[:, :-1]
    characters = tf.boolean_mask(group + 32 * tf.cast(more, tf.int64) + 48, written)
    return tf.strings.unicode_encode(tf.cast(characters, tf.int32), "UTF-8")
