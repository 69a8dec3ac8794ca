"""Keypoints drawn as dots and the limbs between them as lines.

Limbs have their instance's colour. Left keypoints are white dots with a black rim, right ones black dots with a white
rim, which shows on any background and to the colour-blind; those of neither side have the instance's colour. A filled
dot is visible; a hollow one is hidden, or the model is unsure of it, and limbs that end in it are pale.
"""

import dataclasses
import re

import numpy as np

from mrcnn_tf.common.categories import Category

HIDDEN, VISIBLE = 1, 2  # COCO's "v"; 0 is not labelled
SURE = 0.05  # the least probability of a keypoint that is drawn as visible, as in detectron2's pictures
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

_SIDE = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])", re.IGNORECASE)


@dataclasses.dataclass
class Skeleton:
    """Keypoints to draw.

    Attributes:
        points: [P, 3], x and y in pixels of the drawing and COCO's v. P may be more than the category's own; the rest
            isn't drawn.
        category: whose names and limbs they have.
        size: the longer side of the instance's box in pixels of the drawing.
    """

    points: np.ndarray
    category: Category
    size: float


def with_visibility(keypoints):
    """Detected keypoints [..., 3] with v in the place of their scores: HIDDEN where they are unsure.

    Whether the scores are probabilities shows by their lying in 0..1. With logits, which have no such limit, every
    keypoint counts as VISIBLE.
    """
    scores = keypoints[..., 2]
    unsure = (scores < SURE) & (scores.min(initial=0) >= 0) & (scores.max(initial=0) <= 1)
    return np.concatenate([keypoints[..., :2], np.where(unsure, HIDDEN, VISIBLE)[..., None]], axis=-1)


def draw_skeleton(canvas, skeleton, colour, rim, line):
    """Draws into `canvas`.

    Args:
        canvas: uint8 RGB [H, W, 3], changed in place.
        skeleton: a `Skeleton`.
        colour: RGB of its instance.
        rim: black or white, what `colour` stands out against.
        line: the thickness of lines in a drawing of this size, in pixels.
    """
    # Many dots of full size would make a blot of a small instance.
    crowding = 7 * len(skeleton.category.keypoints) ** 0.5
    radius = float(np.clip(skeleton.size / crowding, 1.1 * line, 4 * line))
    edge = max(0.3 * radius, 0.7)
    points = skeleton.points
    limbs = [(points[one - 1], points[other - 1]) for one, other in skeleton.category.skeleton]
    limbs = [limb for limb in limbs if min(limb[0][2], limb[1][2]) > 0]
    for width, paint, pale in ((0.45 * radius + edge, rim, 0.2), (0.45 * radius, colour, 0.6)):
        for start, end in limbs:
            _stroke(canvas, start[:2], end[:2], width, paint, 1.0 if min(start[2], end[2]) == VISIBLE else pale)
    for name, point in zip(skeleton.category.keypoints, points, strict=False):
        if point[2] > 0:
            hole = 0.0 if point[2] == VISIBLE else 0.5 * radius
            inside, outside = _dot_colours(name, colour, rim)
            _stroke(canvas, point[:2], point[:2], radius + edge, outside, hole=hole)
            _stroke(canvas, point[:2], point[:2], radius, inside, hole=hole)


def _dot_colours(name, colour, rim):
    side = _SIDE.search(name)
    if not side:
        return colour, rim
    return (WHITE, BLACK) if side[0][0] in "lL" else (BLACK, WHITE)


def _stroke(canvas, start, end, radius, colour, opacity=1.0, hole=0.0):
    """A line with round ends, a dot where `start` is `end`; nothing is painted within `hole` pixels of it."""
    height, width = canvas.shape[:2]
    low = np.clip(np.floor(np.minimum(start, end) - radius - 1), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(np.maximum(start, end) + radius + 1), 0, (width, height)).astype(int)
    if (low >= high).any():
        return
    x = np.arange(low[0], high[0])[None, :] + 0.5 - start[0]
    y = np.arange(low[1], high[1])[:, None] + 0.5 - start[1]
    along = end - start
    share = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-9), 0, 1)
    distance = np.hypot(x - share * along[0], y - share * along[1])
    cover = np.clip(radius - distance + 0.5, 0, 1) * opacity
    if hole:
        cover *= np.clip(distance - hole + 0.5, 0, 1)
    patch = canvas[low[1] : high[1], low[0] : high[0]]
    patch[:] = (patch + cover[:, :, None] * (np.array(colour) - patch.astype(float))).round()
