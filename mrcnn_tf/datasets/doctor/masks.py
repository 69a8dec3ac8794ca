"""Masks against their boxes, areas and images, and polygons that enclose nothing or cross themselves."""

import numpy as np

from mrcnn_tf.datasets.checks import SMALLEST_SIDE
from mrcnn_tf.datasets.doctor.layout import agree

OVERHANG = 1.0  # pixels by which a polygon may leave its image
AREA_ERROR = 0.1  # of the mask's area


def check_masks(annotated):
    """Adds what is wrong with the masks of an `Annotated`; those that can't be drawn are turned away."""
    checker, outlines = annotated.checker, annotated.outlines
    masked = np.isfinite(outlines.extents).all(axis=1)
    limit = np.stack([checker.width, checker.height] * 2, axis=1)
    clipped = np.clip(outlines.extents, 0.0, limit)
    with np.errstate(invalid="ignore"):
        empty = ~(clipped[:, 2:] - clipped[:, :2] > SMALLEST_SIDE).all(axis=1)
        outside = ((outlines.extents <= 0)[:, 2:] | (outlines.extents >= limit[:, [2, 3, 0, 1]])[:, :2]).any(axis=1)
        over = (np.abs(clipped - outlines.extents) > OVERHANG).any(axis=1)
    annotated.turn_away("outside_mask", masked & empty & outside, "has a mask wholly outside image {image}")
    _check_flatness(annotated)
    alive = checker.kept & masked
    annotated.note("overhanging_mask", alive & over, "has a polygon partly outside image {image}")
    crossing = _owners(annotated, outlines.crossing)
    annotated.note("self_crossing", alive & crossing, "has a polygon that crosses itself")
    _check_boxes(annotated, alive, clipped)
    _check_areas(annotated, alive & ~crossing & ~over)
    crowd_polygon = checker.kept & checker.crowd & (checker.ring_counts > 0)
    annotated.note("crowd_polygon", crowd_polygon, "is a crowd of polygons")


def _owners(annotated, rings):
    """[T] bool: annotations that own one of the `rings` [Q] bool."""
    return np.bincount(annotated.outlines.ring_owner[rings], minlength=annotated.checker.ids.size) > 0


def _check_flatness(annotated):
    flat = annotated.outlines.flat
    number = np.bincount(annotated.outlines.ring_owner[flat], minlength=annotated.checker.ids.size)
    all_flat = (number > 0) & (number == annotated.checker.ring_counts)
    annotated.turn_away("flat_mask", all_flat, "has only polygons whose points lie on one line or in one place")
    some = annotated.checker.kept & (number > 0)
    annotated.note("flat_polygon", some, "has a polygon whose points lie on one line or in one place")


def _check_boxes(annotated, alive, clipped):
    checker = annotated.checker
    differ = alive & checker.box_given & ~agree(checker.boxes, clipped)
    given, wanted = (_words(checker.boxes, differ), _words(clipped, differ))
    sentence = "has the bbox {given} and a mask with {wanted}"
    annotated.note("box_mask", differ, sentence, given=given, wanted=wanted)


def _words(corners, chosen):
    """{row: "[x, y, width, height]"} of the chosen corners."""
    rows = np.flatnonzero(chosen)
    boxes = np.concatenate([corners[rows, :2], corners[rows, 2:] - corners[rows, :2]], axis=1).round(1)
    words = ["[" + ", ".join(f"{number:g}" for number in box) + "]" for box in boxes.tolist()]
    return dict(zip(rows.tolist(), words, strict=True))


def _check_areas(annotated, alive):
    """Of several polygons that overlap, the area lies between the largest one's and their sum.

    Pixels and outline differ by up to half the length of the outline, according to which pixels on it count.
    """
    outlines, given = annotated.outlines, np.asarray(annotated.records.areas)
    largest = np.zeros(given.size)
    np.fmax.at(largest, outlines.ring_owner, outlines.ring_areas)
    least = np.where(annotated.checker.ring_counts > 0, largest, outlines.areas)
    sides = (outlines.extents[:, 2:] - outlines.extents[:, :2]).sum(axis=1)
    slack = np.maximum(AREA_ERROR * outlines.areas, sides)
    with np.errstate(invalid="ignore"):
        differ = alive & ((given < least - slack) | (given > outlines.areas + slack))
    sentence = "has the area {given:.1f} and a mask of {wanted:.1f} pixels"
    annotated.note("area_mask", differ, sentence, given=given, wanted=outlines.areas)
    if differ.any():
        box_area = np.asarray(annotated.records.boxes).reshape(-1, 4)[:, 2:].prod(axis=1)
        same = (np.abs(given - box_area) <= 0.01 * box_area) & differ
        if same.sum() * 2 > differ.sum():
            annotated.findings.explain("area_mask", f"{same.sum():,} of these give width x height of the bbox.")
