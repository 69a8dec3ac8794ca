"""The four kinds of shapes of the generated dataset: their outlines and keypoints, and polygons cut at an image's edge.

A kind is drawn in a frame of its own, x along the shape, y to its right (as in an image, where y points down), its
middle near the origin. Left and right are those of somebody who looks along x.
"""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Kind:
    """A class of shapes.

    Attributes:
        name: of the category.
        keypoints: their names.
        skeleton: pairs of keypoints, numbered from 1.
        draw: (length, stroke, proportion) -> outline [V, 2], keypoints [P, 2]; length and stroke in pixels, proportion
            0..1 varies what else there is to vary.
    """

    name: str
    keypoints: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    draw: Callable


def _blade(length, stroke, proportion):
    """A long triangle."""
    half = stroke * (0.8 + 0.4 * proportion)
    outline = np.array([[length / 2, 0], [-length / 2, half], [-length / 2, -half]])
    return outline, outline[[0, 2, 1]]


def _arrow(length, stroke, proportion):
    """A shaft with a head whose barbs stand off."""
    tip, tail, half = length / 2, -length / 2, stroke / 2
    neck = tip - length * (0.28 + 0.12 * proportion)
    barb = half + 0.15 * length
    outline = [[tip, 0], [neck, barb], [neck, half], [tail, half], [tail, -half], [neck, -half], [neck, -barb]]
    return np.array(outline), np.array([[tip, 0], [tail, 0], [neck, -barb], [neck, barb]])


def _hook(length, stroke, proportion):
    """Two arms that meet at an angle of 60 to 120 degrees; the shorter one ends in a point."""
    turn = np.pi * (2 / 3 - proportion / 3)
    half = 0.6 * stroke
    across = np.array([0.0, half]), np.array([-np.sin(turn), np.cos(turn)]) * half
    handle = np.array([-0.62 * length, 0.0])
    point = np.array([np.cos(turn), np.sin(turn)]) * 0.48 * length
    corner = (across[0] + across[1]) / (1 + np.cos(turn))  # where the sides of both arms meet
    outline = np.array([handle + across[0], corner, point, -corner, handle - across[0]])
    middle = np.mean([handle, np.zeros(2), point], axis=0)
    return outline - middle, np.array([handle, np.zeros(2), point]) - middle


def _cross(length, stroke, proportion):
    """Two bars at a right angle, one longer; it has no keypoints, as its ends can't be told apart."""
    long, short, half = length / 2, length * (0.25 + 0.15 * proportion), stroke / 2
    quarter = np.array([[long, -half], [long, half], [half, half], [half, short], [-half, short], [-half, half]])
    return np.concatenate([quarter, -quarter]), np.zeros((0, 2))


KINDS = (
    Kind("blade", ("tip", "left_base", "right_base"), ((1, 2), (1, 3), (2, 3)), _blade),
    Kind("arrow", ("tip", "tail", "left_barb", "right_barb"), ((1, 2), (1, 3), (1, 4)), _arrow),
    Kind("hook", ("handle", "bend", "point"), ((1, 2), (2, 3)), _hook),
    Kind("cross", (), (), _cross),
)


def area(outline):
    """The area in square pixels inside a polygon [V, 2] that doesn't cross itself."""
    x, y = outline.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def contains(outline, point):
    """Whether a polygon [V, 2] contains a point [2], by the parity of crossings on the way out."""
    (x0, y0), (x1, y1) = outline.T, np.roll(outline, -1, axis=0).T
    crossed = (y0 > point[1]) != (y1 > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        right = point[0] < x0 + (point[1] - y0) / (y1 - y0) * (x1 - x0)
    return bool((crossed & right).sum() % 2)


def clip(outline, size):
    """The part of a polygon [V, 2] within the square image of `size` pixels, [V', 2]; empty if there is none.

    Sutherland and Hodgman, "Reentrant polygon clipping" (1974). Pieces that only the outside joined stay joined by a
    line to and fro on the image's edge, which encloses nothing; lines that lead to no piece are taken off.
    """
    for axis, limit, sign in ((0, 0, 1), (1, 0, 1), (0, size, -1), (1, size, -1)):
        depth = sign * (outline[:, axis] - limit)  # >= 0 is inside
        kept = []
        for here, (start, end) in enumerate(zip(depth, np.roll(depth, -1), strict=True)):
            first, second = outline[here], outline[(here + 1) % len(outline)]
            if start >= 0:
                kept.append(first)
            if (start >= 0) != (end >= 0):
                cut = first + (second - first) * (start / (start - end))
                cut[axis] = limit
                kept.append(cut)
        outline = _without_spikes(np.array(kept).reshape(-1, 2))
    return outline


def _without_spikes(outline):
    """Drops vertices at which the outline turns straight back, and repeated ones."""
    vertices, index = list(outline), 0
    while len(vertices) > 2 and index < len(vertices):
        before, here, after = vertices[index - 1], vertices[index], vertices[(index + 1) % len(vertices)]
        (ax, ay), (bx, by) = here - before, after - here
        if abs(ax * by - ay * bx) < 1e-9 and ax * bx + ay * by <= 0:
            del vertices[index]
            index = max(index - 2, 0)
        else:
            index += 1
    return np.array(vertices) if len(vertices) > 2 else np.zeros((0, 2))
