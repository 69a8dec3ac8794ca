"""Shapes as polygons: masks along the edges of their pixels, rectangles and ellipses; and masks in connected parts.

Polygons of masks give exactly their pixels again, for formats without run lengths. Filled by the even-odd rule, as
pycocotools and OpenCV do, outlines around holes take away what outlines around parts put there, so one polygon can hold
both: a way to and fro encloses nothing.
"""

import math

import numpy as np

from mrcnn_tf.datasets.run_lengths import as_pixels, join_polygons

CIRCLE_TOLERANCE = 0.05  # pixels that a polygon may stay inside its circle
FEWEST_SIDES = 16  # of a circle


def as_one_polygon(segmentation, height, width):
    """An annotation's segmentation as a single polygon [x, y, x, y, ...].

    A polygon stays as it is, and so do several that don't overlap, but for the ways between them. Anything else goes
    along the edges of its pixels, from which the same pixels come again.

    Raises:
        ValueError, TypeError, KeyError: see `run_lengths.as_rle`. Also ValueError for a mask without a pixel.
    """
    if isinstance(segmentation, list) and len(segmentation) == 1:
        return list(segmentation[0])
    mask = as_pixels(segmentation, height, width)
    if isinstance(segmentation, list):
        polygon = join_polygons(segmentation)
        if np.array_equal(as_pixels([polygon], height, width), mask):
            return polygon
    if not mask.any():
        raise ValueError("a mask without a pixel")
    return join_polygons(trace_edges(mask))


def trace_edges(mask):
    """The edges of a bool mask [H, W] as closed polygons, around parts and around holes.

    Returns:
        list of lists [x, y, x, y, ...] of ints; under the even-odd rule they fill the mask.
    """
    rows, columns = _edge_corners(mask)
    beside, above = _edge_ends(rows, columns), _edge_ends(columns, rows)
    is_unused = np.ones(rows.size, bool)
    polygons = []
    for start in range(rows.size):
        if not is_unused[start]:
            continue
        polygon, corner = [], start
        while is_unused[corner]:
            # One side across and one side down by turns, until the outline is closed.
            across = beside[corner]
            polygon += [columns[corner], rows[corner], columns[across], rows[across]]
            is_unused[[corner, across]] = False
            corner = above[across]
        polygons.append([int(value) for value in polygon])
    return polygons


def _edge_corners(mask):
    """(rows, columns) of the corners of the mask's edges; a point where pixels touch by their corners comes twice."""
    padded = np.pad(mask, 1).astype(np.int8)
    quads = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    is_corner = sum(quads) % 2 == 1
    is_touching = (quads[0] == quads[3]) & (quads[1] == quads[2]) & (quads[0] != quads[1])
    rows, columns = np.nonzero(is_corner | is_touching)
    times = 1 + is_touching[rows, columns]
    return np.repeat(rows, times), np.repeat(columns, times)


def _edge_ends(lines, offsets):
    """The corner at the other end of each corner's edge: a line's edges join its 1st and 2nd corner, 3rd and 4th."""
    order = np.lexsort((offsets, lines))
    ends = np.empty(lines.size, np.int64)
    ends[order[0::2]], ends[order[1::2]] = order[1::2], order[0::2]
    return ends


def rectangle(x1, y1, x2, y2):
    """[x, y, x, y, ...] of the corners, whichever corner was given first."""
    left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    return [left, top, right, top, right, bottom, left, bottom]


def ellipse(cx, cy, rx, ry, angle=0.0):
    """[x, y, x, y, ...] of points on an ellipse, so many that the polygon is within CIRCLE_TOLERANCE of it.

    Args:
        cx, cy: the centre, pixels.
        rx, ry: half axes, pixels.
        angle: of the first axis, radians, from x towards y.
    """
    radius, sides = max(rx, ry), FEWEST_SIDES
    if radius > CIRCLE_TOLERANCE:
        # A side's middle is radius * (1 - cos(pi / sides)) inside the circle.
        sides = max(sides, math.ceil(math.pi / math.acos(1 - CIRCLE_TOLERANCE / radius)))
    points = []
    for number in range(sides):
        turn = 2 * math.pi * number / sides
        along, across = rx * math.cos(turn), ry * math.sin(turn)
        points.append(cx + along * math.cos(angle) - across * math.sin(angle))
        points.append(cy + along * math.sin(angle) + across * math.cos(angle))
    return points


def connected_parts(labels):
    """Numbers the parts of a map that hang together, without a library for it.

    Args:
        labels: integers [H, W]; 0 is background. Pixels of one value that touch, if only by a corner, hang together.

    Returns:
        int32 [H, W]: 0 for the background, parts from 1 in the order of their topmost rows, from the left.
    """
    height, width = labels.shape
    starts_run = np.ones([height, width], bool)
    starts_run[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = np.cumsum(starts_run).reshape(height, width) - 1  # the number of the horizontal run that each pixel is of
    value = labels[starts_run]
    parents = np.arange(value.size)
    for above, below in (
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
    ):
        same = (labels[above] == labels[below]) & (labels[above] != 0)
        pairs = run[above][same].astype(np.int64) * value.size + run[below][same]
        pairs = np.unique(pairs[np.r_[True, pairs[1:] != pairs[:-1]][: pairs.size]])  # neighbours repeat their pair
        for upper, lower in zip((pairs // value.size).tolist(), (pairs % value.size).tolist(), strict=True):
            roots = _root(parents, upper), _root(parents, lower)
            parents[max(roots)] = min(roots)
    roots = np.array([_root(parents, index) for index in range(value.size)])
    part_roots = np.unique(roots[value != 0])
    number = np.zeros(value.size + 1, np.int32)
    number[part_roots] = np.arange(1, part_roots.size + 1)
    return np.where(value != 0, number[roots], 0).astype(np.int32)[run]


def _root(parents, index):
    while parents[index] != index:
        parents[index] = parents[parents[index]]  # halves the way for the next search
        index = parents[index]
    return index
