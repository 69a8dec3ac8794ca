"""Coordinates that a whole dataset gives in another form than COCO's: shares of the image, y before x, corners.

One box that sticks out of its image is a slip. When nearly all that tells the two readings apart speaks for the other
one, it's the exporter's habit, and all of the dataset's records are read that way.
"""

import dataclasses

import numpy as np

AT_LEAST = 3  # records that must speak for another reading
DISSENT = 0.05  # of the records that tell readings apart, how many may speak for COCO's
OVERHANG = 1.0  # pixels by which a record may leave its image
UNIT = 1.0001  # the largest share of a side, rounding included
SMALLEST_IMAGE = 8  # pixels; in smaller ones everything might lie between 0 and 1

# How four numbers may be meant, as corners. COCO's own reading comes first.
_READINGS = {
    "": ((0, 1), "as x, y, width, height", lambda b: np.stack([b[0], b[1], b[0] + b[2], b[1] + b[3]], axis=1)),
    "corner_boxes": ((0, 1), "as x1, y1, x2, y2", lambda b: np.stack([b[0], b[1], b[2], b[3]], axis=1)),
    "swapped_boxes": ((1, 0), "as y, x, height, width", lambda b: np.stack([b[1], b[0], b[1] + b[3], b[0] + b[2]], 1)),
    "swapped_corners": ((1, 0), "as y1, x1, y2, x2", lambda b: np.stack([b[1], b[0], b[3], b[2]], axis=1)),
    "centre_boxes": (
        (0, 1),
        "as centre, width, height",
        lambda b: np.stack([b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2], axis=1),
    ),
}


@dataclasses.dataclass
class Correction:
    """Records read in another form.

    Attributes:
        kind: of `kinds.LAYOUTS`.
        rows: [n] int64, the rows of `reading.Records`.
        reading: how they were read.
    """

    kind: str
    rows: np.ndarray
    reading: str


def correct_layouts(records, outlines, width, height):
    """Finds the dataset's habits and changes the columns, the points and the extents to COCO's form.

    Args:
        records: reading.Records, finished; changed in place.
        outlines: their `Outlines`; extents and areas are changed in place.
        width, height: [T] float64 pixels of each record's image; NaN where it isn't known.

    Returns:
        list of Correction.
    """
    found = []
    rows = np.flatnonzero(np.asarray(records.ring_counts) > 0)
    habit = _point_habit(outlines.extents[rows], width[rows], height[rows])
    if habit:
        kind, chosen, factors = habit
        rows = rows[chosen]
        found.append(Correction(f"{kind}_polygons", rows, _words(kind)))
        _change_points(records, outlines, rows, kind, factors)
        _change_extents(outlines, rows, kind, factors)
    found += _correct_keypoints(records, width, height)
    found += _correct_boxes(records, outlines.extents, width, height)
    return found


def _words(kind):
    return "as shares of the image's sides" if kind == "normalised" else "as y, x"


def _point_habit(extents, width, height):
    """(kind, which of the n records [n] bool, factors [n, 2]) for points within `extents` [n, 4]; None for no habit."""
    known = np.isfinite(extents).all(axis=1) & (np.minimum(width, height) >= SMALLEST_IMAGE)
    unit = known & (extents >= 0).all(axis=1) & (extents <= UNIT).all(axis=1)
    factors = np.stack([width, height], axis=1)
    if _prevails(unit, known & ~unit):
        return "normalised", unit, factors[unit]
    inside = known & _fits(extents, width, height)
    turned = known & _fits(extents[:, [1, 0, 3, 2]], width, height)
    if _prevails(turned & ~inside, inside & ~turned):
        return "swapped", turned, factors[turned]
    return None


def _prevails(other, usual):
    """Whether the records [n] that speak for the other reading outweigh those for the usual one."""
    return other.sum() >= AT_LEAST and usual.sum() <= DISSENT * (other.sum() + usual.sum())


def _fits(corners, width, height):
    """[n] bool: boxes of some size within their image."""
    inside = (corners[:, :2] >= -OVERHANG).all(axis=1)
    inside &= (corners[:, 2] <= width + OVERHANG) & (corners[:, 3] <= height + OVERHANG)
    return inside & (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])


def _change_points(records, outlines, rows, kind, factors):
    points = np.asarray(records.points).reshape(-1, 2)
    owner = np.repeat(outlines.ring_owner, np.asarray(records.ring_sizes))
    factor = np.zeros([outlines.areas.size, 2], np.float32)
    factor[rows] = factors
    chosen = factor[owner, 0] > 0
    points[chosen] = points[chosen, ::-1] if kind == "swapped" else points[chosen] * factor[owner[chosen]]


def _change_extents(outlines, rows, kind, factors):
    if kind == "swapped":
        outlines.extents[rows] = outlines.extents[rows][:, [1, 0, 3, 2]]
        return
    outlines.extents[rows] *= np.tile(factors, 2)
    outlines.areas[rows] *= factors.prod(axis=1)
    scale = np.ones(outlines.areas.size)
    scale[rows] = factors.prod(axis=1)
    outlines.ring_areas *= scale[outlines.ring_owner]


def _correct_keypoints(records, width, height):
    counts = np.asarray(records.keypoint_counts)
    # A list of another length than a multiple of three is reported as such.
    rows = np.flatnonzero((counts > 0) & (counts % 3 == 0))
    if not rows.size or (counts % 3).any():
        return []
    keypoints = np.asarray(records.keypoints).reshape(-1, 3)
    owner = np.repeat(np.arange(counts.size), counts // 3)
    labelled = keypoints[:, 2] > 0
    extents = np.full([counts.size, 4], np.nan)
    low, high = np.full([counts.size, 2], np.inf), np.full([counts.size, 2], -np.inf)
    np.minimum.at(low, owner[labelled], keypoints[labelled, :2])
    np.maximum.at(high, owner[labelled], keypoints[labelled, :2])
    extents = np.concatenate([low, high], axis=1)[rows]
    # A single keypoint has no extent, which a box would need.
    extents[:, 2:] += 1e-6
    habit = _point_habit(extents, width[rows], height[rows])
    if not habit:
        return []
    kind, chosen, _ = habit
    mine = np.isin(owner, rows[chosen]) & labelled
    if kind == "swapped":
        keypoints[mine, :2] = keypoints[mine, 1::-1]
    else:
        keypoints[mine, :2] *= np.stack([width, height], axis=1)[owner[mine]]
    return [Correction(f"{kind}_keypoints", rows[chosen], _words(kind))]


def _correct_boxes(records, extents, width, height):
    boxes = np.asarray(records.boxes).reshape(-1, 4)
    given = np.asarray(records.box_given) > 0
    rows = np.flatnonzero(given & np.isfinite(boxes).all(axis=1) & (np.minimum(width, height) >= SMALLEST_IMAGE))
    if not rows.size:
        return []
    unit = (boxes[rows] >= 0).all(axis=1) & (boxes[rows] <= UNIT).all(axis=1)
    normalised = _prevails(unit, ~unit)
    rows = rows[unit] if normalised else rows
    sides = np.stack([width[rows], height[rows]], axis=1)
    best = _best_reading(boxes[rows], extents[rows], sides, normalised)
    if not best and not normalised:
        return []
    name, chosen = best or ("", np.ones(rows.size, bool))
    corners = _read(name, boxes[rows], sides, normalised)[chosen]
    rows = rows[chosen]
    boxes[rows] = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    kind = "normalised_boxes" if normalised else name.replace("swapped_corners", "swapped_boxes")
    reading = _READINGS[name][1]
    return [Correction(kind, rows, f"as shares of the image's sides, {reading[3:]}" if normalised else reading)]


def _read(name, boxes, sides, normalised):
    """[n, 4] corners in pixels."""
    order, _, corners = _READINGS[name]
    factors = np.tile(sides[:, list(order)], 2) if normalised else 1.0
    return corners((boxes * factors).T)


def _best_reading(boxes, extents, sides, normalised):
    """(name, which records) of the reading that prevails over COCO's own; None if none does.

    Masks decide where there are any, else whether the boxes lie in their images.
    """
    masked = np.isfinite(extents).all(axis=1)
    judged = masked if masked.sum() >= AT_LEAST else ~masked

    def sound(name):
        corners = _read(name, boxes, sides, normalised)
        return np.where(masked, agree(corners, extents), _fits(corners, sides[:, 0], sides[:, 1]))

    usual, best = sound(""), None
    for name in list(_READINGS)[1:]:
        other = sound(name)
        if _prevails(other & ~usual & judged, usual & ~other & judged) and (other & judged).sum() * 2 > judged.sum():
            score = (other & judged).sum()
            if best is None or score > best[0]:
                best = score, name, other | ~usual
    return best[1:] if best else None


def agree(boxes, others):
    """[n] bool: corners [n, 4] that differ by no more than 2 pixels or a twentieth of the larger side."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], others[:, 2:] - others[:, :2]).max(axis=1)
    return np.abs(boxes - others).max(axis=1) <= np.maximum(2.0, sides / 20)
