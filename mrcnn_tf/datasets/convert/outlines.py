"""Masks as polygons that give exactly these pixels again, for formats without run lengths.

The polygons run along the edges of pixels. Filled by the even-odd rule, as pycocotools and OpenCV do, outlines around
holes take away what outlines around parts put there, so one polygon can hold both: a way to and fro encloses nothing.
"""

import numpy as np

from mrcnn_tf.datasets.masks import as_pixels


def outlines(mask):
    """The edges of a bool mask [H, W] as closed polygons, around parts and around holes.

    Returns:
        list of lists [x, y, x, y, ...] of ints; under the even-odd rule they fill the mask.
    """
    rows, columns = _corners(mask)
    beside = _partners(rows, columns)
    above = _partners(columns, rows)
    left = np.ones(rows.size, bool)
    rings = []
    for start in range(rows.size):
        if not left[start]:
            continue
        ring, here = [], start
        while left[here]:
            # One side across and one side down by turns, until the outline is closed.
            there = beside[here]
            ring += [columns[here], rows[here], columns[there], rows[there]]
            left[[here, there]] = False
            here = above[there]
        rings.append([int(value) for value in ring])
    return rings


def one_polygon(rings):
    """A single polygon that fills what `rings` fill together under the even-odd rule.

    Args:
        rings: list of lists [x, y, x, y, ...].

    Returns:
        list [x, y, x, y, ...]: each outline closed and followed by a way to the next, and all the ways back at the end.
    """
    if len(rings) == 1:
        return list(rings[0])
    polygon = []
    for ring in rings:
        polygon += [*ring, *ring[:2]]
    for ring in reversed(rings[:-1]):
        polygon += ring[:2]
    return polygon


def as_one_polygon(segmentation, height, width):
    """An annotation's segmentation as a single polygon [x, y, x, y, ...].

    A polygon stays as it is, and so do several that don't overlap, but for the ways between them. Anything else goes
    along the edges of its pixels, from which the same pixels come again.

    Raises:
        ValueError, TypeError, KeyError: see `masks.as_rle`. Also ValueError for a mask without a pixel.
    """
    if isinstance(segmentation, list) and len(segmentation) == 1:
        return list(segmentation[0])
    mask = as_pixels(segmentation, height, width)
    if isinstance(segmentation, list):
        polygon = one_polygon(segmentation)
        if np.array_equal(as_pixels([polygon], height, width), mask):
            return polygon
    if not mask.any():
        raise ValueError("a mask without a pixel")
    return one_polygon(outlines(mask))


def _corners(mask):
    """(rows, columns) of the corners of the mask's edges; a point where pixels touch by their corners comes twice."""
    padded = np.pad(mask, 1).astype(np.int8)
    quads = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    odd = sum(quads) % 2 == 1
    touching = (quads[0] == quads[3]) & (quads[1] == quads[2]) & (quads[0] != quads[1])
    rows, columns = np.nonzero(odd | touching)
    times = 1 + touching[rows, columns]
    return np.repeat(rows, times), np.repeat(columns, times)


def _partners(lines, places):
    """The corner at the other end of each corner's edge: a line's edges join its 1st and 2nd corner, 3rd and 4th."""
    order = np.lexsort((places, lines))
    partners = np.empty(lines.size, np.int64)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return partners
