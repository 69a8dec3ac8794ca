"""What masks enclose, for all of a dataset's polygons and run lengths at once: extents, areas, self-crossings."""

import dataclasses

import numpy as np

from mrcnn_tf.datasets.annotation_checks import SMALLEST_SIDE
from mrcnn_tf.datasets.doctor.layout import agree
from mrcnn_tf.datasets.run_lengths import blocks

# Masks against their boxes, areas and images, and polygons that enclose nothing or cross themselves.
#

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


BLOCK = 1 << 18  # points or runs worked on together; bounds the memory
PAIRS = 1 << 18  # pairs of edges compared together
DEPTH = 0.05  # pixels; edges that cross by less were only rounded
FLAT = 1e-3  # square pixels


@dataclasses.dataclass
class Outlines:
    """T annotations' masks, Q rings in all.

    Attributes:
        extents: [T, 4] float64 pixels, x1, y1, x2, y2 around the mask; NaN where there is none.
        areas: [T] float64 square pixels; of several rings the sum. NaN where there is no mask.
        ring_owner: [Q] int64, the annotation of each ring.
        ring_areas: [Q] float64 square pixels.
        crossing: [Q] bool, the ring crosses itself.
    """

    extents: np.ndarray
    areas: np.ndarray
    ring_owner: np.ndarray
    ring_areas: np.ndarray
    crossing: np.ndarray

    @property
    def flat(self):
        """[Q] bool, the ring has no area. One that crosses itself may have lobes that only cancel out."""
        return ~(self.ring_areas > FLAT) & ~self.crossing


def measure(records):
    """`Outlines` of `reading.Records`; polygons may hold NaN, and run lengths may not fill their image."""
    count = len(records.ids)
    ring_counts, ring_sizes = np.asarray(records.ring_counts), np.asarray(records.ring_sizes)
    points = np.asarray(records.points).reshape(-1, 2)
    owner = np.repeat(np.arange(count), ring_counts)
    rings = np.full([ring_sizes.size, 4], np.nan)
    ring_areas, crossing = np.zeros(ring_sizes.size), np.zeros(ring_sizes.size, bool)
    with np.errstate(invalid="ignore", over="ignore"):
        for first, last, start, end in _blocks(ring_sizes):
            block, sizes = points[start:end].astype(np.float64), ring_sizes[first:last]
            rings[first:last] = _ring_extents(block, sizes)
            ring_areas[first:last] = _ring_areas(block, sizes)
            crossing[first:last] = self_crossing(block, sizes)
    extents, areas = _joined(rings, ring_areas, owner, ring_counts)
    _add_runs(records, extents, areas)
    return Outlines(extents, areas, owner, ring_areas, crossing)


def self_crossing(points, sizes):
    """Which rings have two edges that cross.

    Touching, repeated points and edges that run back over one another don't count, nor do crossings of less than
    `DEPTH`. Edges are sorted by where they begin along x, so that each is compared only with those that begin before it
    ends.

    Args:
        points: [P, 2] float64 pixels, the vertices of all rings.
        sizes: [Q] int, vertices of each ring.

    Returns:
        [Q] bool.
    """
    crossing = np.zeros(sizes.size, bool)
    points = np.nan_to_num(points, nan=0.0, posinf=0.0, neginf=0.0)
    ring = np.repeat(np.arange(sizes.size), sizes)
    following = points[_next(sizes)]
    left = np.minimum(points[:, 0], following[:, 0])
    right = np.maximum(points[:, 0], following[:, 0])
    # One ascending line for the edges of all rings: each ring has a stretch of its own.
    low = left.min(initial=0.0)
    span = 2.0 * (right.max(initial=1.0) - low + 1.0)
    left, right = ring * span + (left - low), ring * span + (right - low)
    order = np.argsort(left, kind="stable")
    left, right, ring = left[order], right[order], ring[order]
    start, end = points[order], following[order]
    partners = np.searchsorted(left, right, side="right") - np.arange(left.size) - 1
    for first, last in blocks(partners, PAIRS):
        counts = partners[first:last]
        one = np.repeat(np.arange(first, last), counts)
        other = one + 1 + np.arange(one.size) - np.repeat(np.cumsum(counts) - counts, counts)
        near = np.minimum(start[one, 1], end[one, 1]) <= np.maximum(start[other, 1], end[other, 1])
        near &= np.minimum(start[other, 1], end[other, 1]) <= np.maximum(start[one, 1], end[one, 1])
        one, other = one[near], other[near]
        apart = _separated(start[one], end[one], start[other], end[other])
        one, other = one[apart], other[apart]
        apart = _separated(start[other], end[other], start[one], end[one])
        crossing[ring[one[apart]]] = True
    return crossing


def _separated(start, end, one, other):
    """[N] bool: `one` and `other` lie on different sides of the lines from `start` to `end`, DEPTH away or more."""
    edge = end - start
    least = DEPTH * np.hypot(edge[:, 0], edge[:, 1])
    sides = [edge[:, 0] * (p[:, 1] - start[:, 1]) - edge[:, 1] * (p[:, 0] - start[:, 0]) for p in (one, other)]
    return (sides[0] * sides[1] < 0) & (np.abs(sides[0]) > least) & (np.abs(sides[1]) > least)


def _next(sizes):
    """The index of the vertex after each; a ring's last is followed by its first."""
    following = np.arange(1, sizes.sum() + 1)
    filled = sizes > 0
    following[np.cumsum(sizes)[filled] - 1] -= sizes[filled]
    return following


def _ring_extents(points, sizes):
    starts = np.cumsum(sizes) - sizes
    low, high = np.minimum.reduceat(points, starts, axis=0), np.maximum.reduceat(points, starts, axis=0)
    return np.concatenate([low, high], axis=1)


def _ring_areas(points, sizes):
    """By the shoelace formula, around each ring's first vertex to keep numbers small."""
    starts = np.cumsum(sizes) - sizes
    points = points - np.repeat(points[starts], sizes, axis=0)
    following = points[_next(sizes)]
    doubled = points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]
    return np.abs(np.add.reduceat(doubled, starts)) / 2


def _joined(rings, ring_areas, owner, ring_counts):
    """(extents [T, 4], areas [T]) of annotations from those of their rings."""
    extents = np.full([ring_counts.size, 4], np.nan)
    areas = np.full(ring_counts.size, np.nan)
    some = np.flatnonzero(ring_counts)
    if some.size:
        starts = (np.cumsum(ring_counts) - ring_counts)[some]
        extents[some, :2] = np.minimum.reduceat(rings[:, :2], starts, axis=0)
        extents[some, 2:] = np.maximum.reduceat(rings[:, 2:], starts, axis=0)
        areas[some] = np.bincount(owner, ring_areas, minlength=ring_counts.size)[some]
    return extents, areas


def _add_runs(records, extents, areas):
    """Fills in what is made of run lengths."""
    counts = np.asarray(records.run_counts)
    starts, runs = np.asarray(records.run_starts), np.asarray(records.runs)
    heights = np.asarray(records.rle_sizes).reshape(-1, 2)[:, 0]
    rows = np.flatnonzero(counts)
    # Compressed masks were decoded in blocks, so the runs aren't in the order of the records.
    rows = rows[np.argsort(starts[rows], kind="stable")]
    for first, last, start, end in _blocks(counts[rows]):
        part = rows[first:last]
        extents[part], areas[part] = _run_extents(runs[start:end], counts[part], heights[part])


def _run_extents(runs, counts, heights):
    """([n, 4] extents, [n] areas) of n masks; NaN and 0 for one without a pixel inside."""
    first = np.cumsum(counts) - counts
    mask = np.repeat(np.arange(counts.size), counts)
    total = np.cumsum(runs)
    ends = total - np.repeat(total[first] - runs[first], counts)
    inside = ((np.arange(runs.size) - np.repeat(first, counts)) % 2 == 1) & (runs > 0)
    mask, length, ends = mask[inside], runs[inside], ends[inside]
    height = np.maximum(heights, 1)[mask]
    left, right = (ends - length) // height, (ends - 1) // height
    several = left < right  # a run that goes on in the next column touches the bottom of one and the top of the other
    top = np.where(several, 0, (ends - length) % height)
    bottom = np.where(several, height - 1, (ends - 1) % height)
    extents = np.full([counts.size, 4], np.nan)
    if mask.size:
        heads = np.flatnonzero(np.r_[True, mask[1:] != mask[:-1]])
        low, high = np.minimum.reduceat, np.maximum.reduceat
        sides = (low(left, heads), low(top, heads), high(right, heads) + 1, high(bottom, heads) + 1)
        extents[mask[heads]] = np.stack(sides, axis=1)
    return extents, np.bincount(mask, length, minlength=counts.size)


def _blocks(counts):
    """(first, last, start, end): consecutive owners and the range of what is theirs, about BLOCK at a time."""
    offsets = np.r_[0, np.cumsum(counts)]
    for first, last in blocks(counts, BLOCK):
        yield first, last, int(offsets[first]), int(offsets[last])
