"""Rectangles, circles and ellipses as polygons."""

import math

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
