"""Coordinates that a whole dataset gives in another form than COCO's: as fractions of the image, y before x, corners.

One box that sticks out of its image is a slip. When nearly all that tells the two readings apart speaks for the other
one, it's the exporter's habit, and all of the dataset's records are read that way.
"""

import dataclasses

import numpy as np

AT_LEAST = 3  # records that must speak for another reading
DISSENT = 0.05  # of the records that tell readings apart, how many may speak for COCO's
OVERHANG = 1.0  # pixels by which a record may leave its image
UNIT = 1.0001  # the largest fraction of a side, rounding included
SMALLEST_IMAGE = 8  # pixels; in smaller ones everything might lie between 0 and 1

_POINT_READINGS = {"normalised": "as shares of the image's sides", "swapped": "as y, x"}
# How four numbers b may be meant: which sides scale the first two, in words, as corners. COCO's own reading is first.
_BOX_READINGS = {
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
class LayoutCorrection:
    """Records read in another form.

    Attributes:
        kind: of the section "layouts" in problem_kinds.yaml.
        rows: [n] int64, the rows of AnnotationRecords.
        reading: how they were read.
    """

    kind: str
    rows: np.ndarray
    reading: str


def correct_layouts(records, masks, sides):
    """Finds the dataset's habits and changes the columns, the points and the masks' boxes to COCO's form.

    Args:
        records, masks: changed in place.
        sides: [T, 2] float64 pixels, width and height of each record's image; NaN where it isn't known.

    Returns:
        list of LayoutCorrection.
    """
    corrections = _correct_polygons(records, masks, sides)
    corrections += _correct_keypoints(records, sides)
    return corrections + _correct_boxes(records, masks.boxes, sides)


def _correct_polygons(records, masks, sides):
    rows = np.flatnonzero(np.asarray(records.ring_counts) > 0)
    habit, chosen = _point_habit(masks.boxes[rows], sides[rows])
    if not habit:
        return []
    rows = rows[chosen]
    points = np.asarray(records.points).reshape(-1, 2)
    owner = np.repeat(masks.owner, np.asarray(records.ring_sizes))
    factor = np.zeros([masks.areas.size, 2], np.float32)
    factor[rows] = sides[rows]
    mine = factor[owner, 0] > 0
    if habit == "swapped":
        points[mine] = points[mine, ::-1]
        masks.boxes[rows] = masks.boxes[rows][:, [1, 0, 3, 2]]
    else:
        points[mine] = points[mine] * factor[owner[mine]]
        masks.boxes[rows] *= np.tile(sides[rows], 2)
        scale = np.ones(masks.areas.size)
        scale[rows] = sides[rows].prod(axis=1)
        masks.areas *= scale
        masks.polygon_areas *= scale[masks.owner]
    return [LayoutCorrection(f"{habit}_polygons", rows, _POINT_READINGS[habit])]


def _correct_keypoints(records, sides):
    counts = np.asarray(records.keypoint_counts)
    # A list of another length than a multiple of three is reported as such.
    rows = np.flatnonzero((counts > 0) & (counts % 3 == 0))
    if not rows.size or (counts % 3).any():
        return []
    keypoints = np.asarray(records.keypoints).reshape(-1, 3)
    owner = np.repeat(np.arange(counts.size), counts // 3)
    labelled = keypoints[:, 2] > 0
    low, high = np.full([counts.size, 2], np.inf), np.full([counts.size, 2], -np.inf)
    np.minimum.at(low, owner[labelled], keypoints[labelled, :2])
    np.maximum.at(high, owner[labelled], keypoints[labelled, :2])
    boxes = np.concatenate([low, high], axis=1)[rows]
    # A single keypoint has no width and height, which a box would need.
    boxes[:, 2:] += 1e-6
    habit, chosen = _point_habit(boxes, sides[rows])
    if not habit:
        return []
    mine = np.isin(owner, rows[chosen]) & labelled
    if habit == "swapped":
        keypoints[mine, :2] = keypoints[mine, 1::-1]
    else:
        keypoints[mine, :2] *= sides[owner[mine]]
    return [LayoutCorrection(f"{habit}_keypoints", rows[chosen], _POINT_READINGS[habit])]


def _point_habit(boxes, sides):
    """How the points of n records are given, from the boxes [n, 4] around them and their images' sides [n, 2].

    Returns:
        ("normalised" or "swapped", which records [n] bool), or (None, None) for COCO's form.
    """
    known = np.isfinite(boxes).all(axis=1) & (sides.min(axis=1) >= SMALLEST_IMAGE)
    unit = known & (boxes >= 0).all(axis=1) & (boxes <= UNIT).all(axis=1)
    if _prevails(unit, known & ~unit):
        return "normalised", unit
    inside = known & _is_inside(boxes, sides)
    swapped = known & _is_inside(boxes[:, [1, 0, 3, 2]], sides)
    if _prevails(swapped & ~inside, inside & ~swapped):
        return "swapped", swapped
    return None, None


def _prevails(other, usual):
    """Whether the records [n] that speak for the other reading outweigh those for the usual one."""
    return other.sum() >= AT_LEAST and usual.sum() <= DISSENT * (other.sum() + usual.sum())


def _is_inside(corners, sides):
    """[n] bool: boxes of some size within their image."""
    inside = (corners[:, :2] >= -OVERHANG).all(axis=1) & (corners[:, 2:] <= sides + OVERHANG).all(axis=1)
    return inside & (corners[:, 2:] > corners[:, :2]).all(axis=1)


def _correct_boxes(records, mask_boxes, sides):
    boxes = np.asarray(records.boxes).reshape(-1, 4)
    has_box = np.asarray(records.box_given) > 0
    rows = np.flatnonzero(has_box & np.isfinite(boxes).all(axis=1) & (sides.min(axis=1) >= SMALLEST_IMAGE))
    if not rows.size:
        return []
    unit = (boxes[rows] >= 0).all(axis=1) & (boxes[rows] <= UNIT).all(axis=1)
    normalised = _prevails(unit, ~unit)
    rows = rows[unit] if normalised else rows
    name, chosen = _best_reading(boxes[rows], mask_boxes[rows], sides[rows], normalised)
    if not name and not normalised:
        return []
    rows = rows[chosen]
    corners = _as_corners(name, boxes[rows], sides[rows], normalised)
    boxes[rows] = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    kind = "normalised_boxes" if normalised else name.replace("swapped_corners", "swapped_boxes")
    reading = _BOX_READINGS[name][1]
    if normalised:
        reading = f"{_POINT_READINGS['normalised']}, {reading.removeprefix('as ')}"
    return [LayoutCorrection(kind, rows, reading)]


def _as_corners(name, boxes, sides, normalised):
    """[n, 4] corners in pixels of boxes [n, 4] by a reading."""
    order, _, corners = _BOX_READINGS[name]
    factors = np.tile(sides[:, list(order)], 2) if normalised else 1.0
    return corners((boxes * factors).T)


def _best_reading(boxes, mask_boxes, sides, normalised):
    """(name, which records) of the reading that prevails over COCO's own, whose name is "", or that one and all.

    Masks decide where there are any, else whether the boxes lie in their images.
    """
    has_mask = np.isfinite(mask_boxes).all(axis=1)
    judged = has_mask if has_mask.sum() >= AT_LEAST else ~has_mask

    def makes_sense(name):
        corners = _as_corners(name, boxes, sides, normalised)
        return np.where(has_mask, boxes_match(corners, mask_boxes), _is_inside(corners, sides))

    usual, best, best_score = makes_sense(""), ("", np.ones(len(boxes), bool)), 0
    for name in list(_BOX_READINGS)[1:]:
        other = makes_sense(name)
        score = (other & judged).sum()
        prevails = _prevails(other & ~usual & judged, usual & ~other & judged)
        if prevails and score * 2 > judged.sum() and score > best_score:
            best, best_score = (name, other | ~usual), score
    return best


def boxes_match(boxes, others):
    """[n] bool: corners [n, 4] that differ by no more than 2 pixels or a twentieth of the larger side."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], others[:, 2:] - others[:, :2]).max(axis=1)
    return np.abs(boxes - others).max(axis=1) <= np.maximum(2.0, sides / 20)
