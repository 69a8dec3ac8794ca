"""Objects that are marked twice: neighbours in a list sorted by image and left side, compared all at once."""

import numpy as np

from mrcnn_tf.datasets.rle import blocks

SAME_IOU = 0.95  # of the boxes
SAME_AREA = 0.1  # of the masks: how much larger one may be
PAIRS = 1 << 18  # pairs compared together


def check_repeats(annotated):
    """Adds objects of an `Annotated` that mark the same thing as an earlier one in the same image."""
    checker = annotated.checker
    rows = np.flatnonzero(checker.kept)
    again = np.full(checker.ids.size, -1)
    other_class = np.full(checker.ids.size, -1)
    for first, second in _close_pairs(checker.boxes, checker.image, rows):
        areas = annotated.outlines.areas[first], annotated.outlines.areas[second]
        with np.errstate(invalid="ignore"):
            differ = np.abs(areas[0] - areas[1]) > SAME_AREA * np.maximum(*areas)
        same = (checker.crowd[first] == checker.crowd[second]) & ~differ
        first, second = first[same], second[same]
        first, second = np.minimum(first, second), np.maximum(first, second)
        alike = checker.place[first] == checker.place[second]
        again[second[alike]] = first[alike]
        other_class[second[~alike]] = first[~alike]
    sentence = "marks the same object of image {image} as annotation {other}"
    annotated.note("duplicate_object", again >= 0, sentence, other=checker.ids[again])
    conflict = (other_class >= 0) & (again < 0)
    annotated.note("conflicting_object", conflict, sentence + ", with another category", other=checker.ids[other_class])


def _close_pairs(boxes, image, rows):
    """Yields (one, other): rows of the same image whose boxes overlap by `SAME_IOU` or more."""
    if rows.size < 2:
        return
    rows = rows[np.lexsort((boxes[rows, 0], image[rows]))]
    # Boxes that overlap so much begin within 1 - SAME_IOU of the longer one's width; twice that is safe.
    span = 2.0 * (boxes[rows, 2].max() + 1.0)
    left = image[rows] * span + boxes[rows, 0]
    reach = left + 2 * (1 - SAME_IOU) * (boxes[rows, 2] - boxes[rows, 0])
    counts = np.searchsorted(left, reach, side="right") - np.arange(rows.size) - 1
    offsets = np.r_[0, np.cumsum(counts)]
    for start, stop in blocks(counts, PAIRS):
        one = np.repeat(np.arange(start, stop), counts[start:stop])
        other = one + 1 + np.arange(one.size) - np.repeat(offsets[start:stop] - offsets[start], counts[start:stop])
        one, other = rows[one], rows[other]
        near = _iou(boxes[one], boxes[other]) >= SAME_IOU
        yield one[near], other[near]


def _iou(one, other):
    shared = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.maximum(shared, 0.0).prod(axis=1)
    union = (one[:, 2:] - one[:, :2]).prod(axis=1) + (other[:, 2:] - other[:, :2]).prod(axis=1) - shared
    return shared / np.maximum(union, 1e-12)
