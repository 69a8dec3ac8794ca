"""Many polygons at once: the boxes around them, their areas, and which of them cross themselves."""

import numpy as np

from mrcnn_tf.datasets.run_lengths import split_into_blocks

CROSSING_DEPTH = 0.05  # pixels; edges that cross by less were only rounded
FLAT_AREA = 1e-3  # square pixels; a polygon of less has no area
BLOCK = 1 << 18  # points or runs worked on together; bounds the memory
PAIRS = 1 << 18  # pairs of edges or boxes compared together


def measure_polygons(points, counts):
    """What training asks of Q polygons.

    Args:
        points: [P, 2] float32 pixels, the vertices of all polygons.
        counts: [Q] int64, vertices of each polygon.

    Returns:
        boxes: [Q, 4] float64 x1, y1, x2, y2.
        is_flat: [Q] bool, the polygon has no area. One that crosses itself may have lobes that only cancel out.
    """
    boxes, is_flat = np.zeros([counts.size, 4]), np.zeros(counts.size, bool)
    for first, last, start, end in owner_ranges(counts):
        block, sizes = points[start:end].astype(np.float64), counts[first:last]
        boxes[first:last] = boxes_around(block, block, np.cumsum(sizes) - sizes)
        flat = ~(shoelace_areas(block, sizes) > FLAT_AREA)
        if flat.any():
            flat[flat] = ~find_self_crossing(block[np.repeat(flat, sizes)], sizes[flat])
        is_flat[first:last] = flat
    return boxes, is_flat


def boxes_around(low, high, starts):
    """[n, 4] around the points or boxes of n groups, which begin at `starts`, from their `low` and `high` corners."""
    corners = np.minimum.reduceat(low, starts, axis=0), np.maximum.reduceat(high, starts, axis=0)
    return np.concatenate(corners, axis=1)


def shoelace_areas(points, counts):
    """By the shoelace formula, around each polygon's first vertex to keep numbers small."""
    starts = np.cumsum(counts) - counts
    points = points - np.repeat(points[starts], counts, axis=0)
    following = points[_next_vertex(counts)]
    doubled = points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]
    return np.abs(np.add.reduceat(doubled, starts)) / 2


def find_self_crossing(points, counts):
    """Which polygons have two edges that cross.

    Touching, repeated points and edges that run back over one another don't count, nor do crossings of less than
    CROSSING_DEPTH. Edges are sorted by where they begin along x, so that each is compared only with those that begin
    before it ends.

    Args:
        points: [P, 2] float64 pixels, the vertices of all polygons.
        counts: [Q] int, vertices of each polygon.

    Returns:
        [Q] bool.
    """
    is_crossing = np.zeros(counts.size, bool)
    points = np.nan_to_num(points, nan=0.0, posinf=0.0, neginf=0.0)
    polygon = np.repeat(np.arange(counts.size), counts)
    next_points = points[_next_vertex(counts)]
    left = np.minimum(points[:, 0], next_points[:, 0])
    right = np.maximum(points[:, 0], next_points[:, 0])
    # One ascending line for the edges of all polygons: each has a stretch of its own.
    low = left.min(initial=0.0)
    span = 2.0 * (right.max(initial=1.0) - low + 1.0)
    left, right = polygon * span + (left - low), polygon * span + (right - low)
    order = np.argsort(left, kind="stable")
    polygon, start, end = polygon[order], points[order], next_points[order]
    for first, second in overlapping_intervals(left[order], right[order]):
        near = np.minimum(start[first, 1], end[first, 1]) <= np.maximum(start[second, 1], end[second, 1])
        near &= np.minimum(start[second, 1], end[second, 1]) <= np.maximum(start[first, 1], end[first, 1])
        first, second = first[near], second[near]
        separated = _separates(start[first], end[first], start[second], end[second])
        first, second = first[separated], second[separated]
        separated = _separates(start[second], end[second], start[first], end[first])
        is_crossing[polygon[first[separated]]] = True
    return is_crossing


def overlapping_intervals(starts, ends):
    """Yields (first, second), indices of pairs of N intervals that overlap, about PAIRS at a time.

    Args:
        starts: [N], rising.
        ends: [N].
    """
    partners = np.searchsorted(starts, ends, side="right") - np.arange(starts.size) - 1
    for begin, stop in split_into_blocks(partners, PAIRS):
        counts = partners[begin:stop]
        first = np.repeat(np.arange(begin, stop), counts)
        yield first, first + 1 + np.arange(first.size) - np.repeat(np.cumsum(counts) - counts, counts)


def _separates(start, end, point, other):
    """[N] bool: `point` and `other` lie on different sides of the line from `start` to `end`, CROSSING_DEPTH away."""
    edge = end - start
    least = CROSSING_DEPTH * np.hypot(edge[:, 0], edge[:, 1])
    sides = [edge[:, 0] * (p[:, 1] - start[:, 1]) - edge[:, 1] * (p[:, 0] - start[:, 0]) for p in (point, other)]
    return (sides[0] * sides[1] < 0) & (np.abs(sides[0]) > least) & (np.abs(sides[1]) > least)


def _next_vertex(counts):
    """The index of the vertex after each; a polygon's last is followed by its first."""
    following = np.arange(1, counts.sum() + 1)
    has_points = counts > 0
    following[np.cumsum(counts)[has_points] - 1] -= counts[has_points]
    return following


def owner_ranges(counts):
    """(first, last, start, end): consecutive owners and the range of what is theirs, about BLOCK at a time."""
    offsets = np.r_[0, np.cumsum(counts)]
    for first, last in split_into_blocks(counts, BLOCK):
        yield first, last, int(offsets[first]), int(offsets[last])
