"""Which candidate boxes learn which ground truth, and which of them are sampled (Faster R-CNN, section 3.1.2).

The sample is drawn by random numbers that belong to an image and to a candidate of it: the same whatever batch, device
or padding the image comes with.
"""

import tensorflow as tf

from mrcnn_tf.ops import boxes as box_ops

BACKGROUND, IGNORED = -1, -2
CROWD_OVERLAP = 0.7  # a candidate with this share of its area in a crowd region teaches nothing (Detectron's threshold)

# The 32 bits that count an image's candidates in `uniform`. Of an anchor they are its level (3 bits), row (12), column
# (12) and shape (5), so that it keeps its number on a map of any size: maps of up to 4096 x 4096 cells, 32 shapes. RoIs
# are counted through on the last of the eight levels, which no pyramid has.
COLUMN_STEP, ROW_STEP, LEVEL_STEP = 2**5, 2**17, 2**29
ROI_LEVEL = 7


def match(candidates, boxes, valid, crowd, foreground_iou, background_iou, promote_best, usable=True):
    """Matches candidates to the ground truth of the same image by IoU.

    Loops over ground truths, so that memory doesn't grow with candidates times ground truths: 268,000 anchors against
    100 padded boxes would take several gigabytes as one matrix.

    Args:
        candidates: [B, A, 4] or [1, A, 4] (shared by all images), pixels.
        boxes: [B, G, 4] ground truth, pixels.
        valid: [B, G] bool, False for padding.
        crowd: [B, G] bool; crowd regions are never matched, and candidates inside them are ignored.
        foreground_iou: at least this IoU is a match.
        background_iou: below this is background; between the two is ignored.
        promote_best: also match, whatever the IoU, the candidates (ties included) that overlap a ground truth best;
            such a candidate keeps the ground truth that it overlaps most itself, as in both reference systems.
        usable: bool [B, A] or [1, A]; a candidate that can't be drawn (an anchor in the padding) is the best of none.

    Returns:
        int32 [B, A]: index of the ground truth, BACKGROUND or IGNORED.
    """
    shape = tf.broadcast_dynamic_shape(tf.shape(candidates)[:2], tf.stack([tf.shape(boxes)[0], 1]))
    objects, crowds = tf.logical_and(valid, ~crowd), tf.logical_and(valid, crowd)
    candidate_area = box_ops.area(candidates)

    def compare(g, best_iou, best, promoted, in_crowd):
        box = boxes[:, g, None, :]
        shared = box_ops.intersection(candidates, box)
        union = candidate_area + box_ops.area(box) - shared
        iou = tf.where(objects[:, g, None], tf.math.divide_no_nan(shared, union), 0.0)
        if promote_best:
            top = tf.reduce_max(tf.where(usable, iou, 0.0), axis=1, keepdims=True)
            promoted = promoted | ((iou == top) & (top > 0.0))
        best = tf.where(iou > best_iou, g, best)  # strictly: the first of equals wins, as argmax does
        in_crowd = in_crowd | (crowds[:, g, None] & (shared >= CROWD_OVERLAP * candidate_area) & (candidate_area > 0))
        return g + 1, tf.maximum(iou, best_iou), best, promoted, in_crowd

    last = tf.reduce_max(tf.where(valid, tf.range(tf.shape(valid)[1])[None, :] + 1, 0))  # padding stands at the end
    false = tf.fill(shape, False)
    _, best_iou, best, promoted, in_crowd = tf.while_loop(
        lambda g, *_: g < last,
        compare,
        (tf.constant(0), tf.zeros(shape), tf.fill(shape, 0), false, false),
        shape_invariants=(tf.TensorShape([]), *[tf.TensorShape([None, None])] * 4),
    )
    matches = tf.where(best_iou < background_iou, BACKGROUND, IGNORED)
    matches = tf.where(in_crowd, IGNORED, matches)
    return tf.where((best_iou >= foreground_iou) | promoted, best, matches)


def sample(matches, usable, count, positive_count, noise):
    """Draws `count` candidates of each image at random, at most `positive_count` of them positive, the rest background.

    Args:
        matches: int32 [B, A] from `match`.
        usable: bool [B, A] (or [1, A]); False for padding and for candidates that must not be drawn.
        count: samples per image.
        positive_count: the most positives; background fills up when there are fewer.
        noise: float32 [B, A] in [0, 1), the order of the draw.

    Returns:
        indices int32 [B, count] into A, positives first; positive bool [B, count]; drawn bool [B, count], False where
        the image had too few candidates (index 0 there).
    """
    keys = [tf.where(group & usable, noise + 1.0, 0.0) for group in (matches >= 0, matches == BACKGROUND)]
    (positive_keys, positive_indices), (negative_keys, negative_indices) = (_top_k_padded(k, count) for k in keys)
    positives = tf.reduce_sum(tf.cast(positive_keys > 0.0, tf.int32), axis=1, keepdims=True)
    positives = tf.minimum(positives, positive_count)
    slots = tf.range(count)[None, :]
    positive = slots < positives
    negative_slots = tf.maximum(slots - positives, 0)
    indices = tf.where(positive, positive_indices, tf.gather(negative_indices, negative_slots, batch_dims=1))
    drawn = positive | (tf.gather(negative_keys, negative_slots, batch_dims=1) > 0.0)
    return tf.where(drawn, indices, 0), positive, drawn


def _top_k_padded(keys, count):
    """top_k that also works with fewer than `count` columns: the missing ones have key 0."""
    missing = tf.maximum(count - tf.shape(keys)[1], 0)
    return tf.math.top_k(tf.pad(keys, [[0, 0], [0, missing]]), count)


def image_seeds(seed, step, image_ids):
    """uint32 [B], a seed for each image of a training step.

    `seed` is the run's, a Python integer, `step` an integer scalar, `image_ids` [B] are integers.
    """
    key = _mix(tf.constant(seed % 2**32, tf.uint32) ^ _mix(_low_word(step)))
    image_ids = tf.cast(image_ids, tf.int64)
    low, high = _low_word(image_ids), _low_word(tf.bitwise.right_shift(image_ids, tf.constant(32, tf.int64)))
    return _mix(key ^ _mix(low ^ _mix(high)))


def anchor_counters(features, anchors_per_cell):
    """uint32 [A], a number for each anchor on maps [B, H_l, W_l, C], the same on maps of any size."""
    counters = []
    for level, values in enumerate(features):
        row, column = (tf.range(tf.shape(values)[axis]) for axis in (1, 2))
        cells = level * LEVEL_STEP + row[:, None] * ROW_STEP + column * COLUMN_STEP
        counters.append(tf.reshape(cells[..., None] + tf.range(anchors_per_cell), [-1]))
    return tf.bitcast(tf.concat(counters, axis=0), tf.uint32)


def roi_counters(count):
    """uint32 [count], a number for each candidate RoI, other than those of all anchors."""
    return ROI_LEVEL * LEVEL_STEP + tf.cast(tf.range(count), tf.uint32)


def uniform(seeds, counters):
    """Random numbers in [0, 1), float32 [B, A], multiples of 2^-24: one for each counter of each image.

    A pseudorandom function of seeds uint32 [B], see `image_seeds`, and counters uint32 [A] or [B, A]: unlike a
    generator it needs no state to save or to share between devices.
    """
    bits = _mix(_mix(counters) ^ seeds[:, None])
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def _low_word(values):
    return tf.cast(tf.bitwise.bitwise_and(tf.cast(values, tf.int64), tf.constant(2**32 - 1, tf.int64)), tf.uint32)


def _mix(values):
    """A bijection of uint32 each of whose input bits changes half of the output's (MurmurHash3's finaliser)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        values ^= tf.bitwise.right_shift(values, tf.constant(shift, tf.uint32))
        if factor is not None:
            values *= tf.constant(factor, tf.uint32)
    return values
