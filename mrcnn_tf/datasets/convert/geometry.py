"""Masks as polygons that give exactly these pixels again, for formats without run lengths.

The polygons run along the edges of pixels. Filled by the even-odd rule, as pycocotools and OpenCV do, outlines around
holes take away what outlines around parts put there, so one polygon can hold both: a way to and fro encloses nothing.
"""

import math

import numpy as np

from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.run_lengths import as_pixels


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


# The connected parts of masks, numbered, without a library for it.
#

def connected_parts(labels):
    """Numbers the parts of a map that hang together.

    Args:
        labels: integers [H, W]; 0 is background. Pixels of one value that touch, if only by a corner, hang together.

    Returns:
        int32 [H, W]: 0 for the background, parts from 1 in the order of their topmost rows, from the left.
    """
    height, width = labels.shape
    change = np.ones([height, width], bool)
    change[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = np.cumsum(change).reshape(height, width) - 1  # the number of the horizontal run that each pixel is of
    value = labels[change]
    parents = np.arange(value.size)
    for above, below in (
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
    ):
        same = (labels[above] == labels[below]) & (labels[above] != 0)
        pairs = run[above][same].astype(np.int64) * value.size + run[below][same]
        pairs = np.unique(pairs[np.r_[True, pairs[1:] != pairs[:-1]][: pairs.size]])  # neighbours repeat their pair
        for one, other in zip((pairs // value.size).tolist(), (pairs % value.size).tolist(), strict=True):
            one, other = _root(parents, one), _root(parents, other)
            parents[max(one, other)] = min(one, other)
    roots = np.array([_root(parents, place) for place in range(value.size)])
    wanted = np.unique(roots[value != 0])
    number = np.zeros(value.size + 1, np.int32)
    number[wanted] = np.arange(1, wanted.size + 1)
    return np.where(value != 0, number[roots], 0).astype(np.int32)[run]


def _root(parents, place):
    while parents[place] != place:
        parents[place] = parents[parents[place]]  # halves the way for the next one
        place = parents[place]
    return place


# Rectangles, circles and ellipses as polygons.
#

TOLERANCE = 0.05  # pixels that a polygon may stay inside its circle
FEWEST_SIDES = 16


def rectangle(x1, y1, x2, y2):
    """[x, y, x, y, ...] of the corners, whichever corner was given first."""
    left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    return [left, top, right, top, right, bottom, left, bottom]


def ellipse(cx, cy, rx, ry, angle=0.0):
    """[x, y, x, y, ...] of points on an ellipse, so many that the polygon is within TOLERANCE of it.

    Args:
        cx, cy: the centre, pixels.
        rx, ry: half axes, pixels.
        angle: of the first axis, radians, from x towards y.
    """
    points = []
    sides = _sides(max(rx, ry))
    for number in range(sides):
        turn = 2 * math.pi * number / sides
        along, across = rx * math.cos(turn), ry * math.sin(turn)
        points.append(cx + along * math.cos(angle) - across * math.sin(angle))
        points.append(cy + along * math.sin(angle) + across * math.cos(angle))
    return points


def _sides(radius):
    """A side's middle is radius * (1 - cos(pi / sides)) inside the circle."""
    if radius <= TOLERANCE:
        return FEWEST_SIDES
    return max(FEWEST_SIDES, math.ceil(math.pi / math.acos(1 - TOLERANCE / radius)))


# An image's objects as one map of numbers, where each pixel can belong to one object only.
#

def painted(coco, image, numbers):
    """A map with the number of each object on its pixels.

    Where objects overlap, the smaller one stays, since it would be hidden otherwise.

    Args:
        coco: coco_json.CocoJson; objects without a mask, or of which nothing is left, are noted in it.
        image: coco_json.Image.
        numbers: the number of each of its instances.

    Returns:
        int32 [H, W]; 0 is background.
    """
    labels = np.zeros([image.height, image.width], np.int32)
    found = []
    for instance, number in zip(image.instances, numbers, strict=True):
        where = f"Annotation {instance.id} in {coco.source}"
        if instance.segmentation is None:
            coco.leave_out("no_mask", f"{where} has only a box, which a picture of pixels can't show.", instance.id)
        else:
            size = run_lengths.area(instance.segmentation, image.height, image.width)
            found.append((size, number, instance))
    for _, number, instance in sorted(found, key=lambda one: -one[0]):
        labels[run_lengths.as_pixels(instance.segmentation, image.height, image.width)] = number
    left = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    for size, number, instance in found:
        where = f"Annotation {instance.id} in {coco.source}"
        if number not in left:
            coco.leave_out("hidden", f"{where} lies wholly under smaller objects and is lost.", instance.id)
        elif left[number] < size:
            what = f"{where} keeps {left[number]} of its {size} pixels, as smaller objects overlap it."
            coco.leave_out("overlapped", what, instance.id)
    return labels
