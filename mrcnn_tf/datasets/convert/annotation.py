"""An object's outlines, masks or box in COCO's form."""

import numpy as np

from mrcnn_tf.datasets import masks

DECIMALS = 3  # of a coordinate in pixels
FEWEST_NUMBERS = 6  # of a polygon: three points


def as_annotation(parts, box, width, height):
    """What an object's shape makes of its annotation.

    Args:
        parts: list of polygons [x, y, x, y, ...] and run-length masks, which are joined: polygons stay polygons unless
            some part is a mask.
        box: [x, y, width, height], asked for where there are no parts.
        width, height: of the image, pixels.

    Returns:
        (dict with segmentation, bbox and area, None), or (None, (kind, what is wrong with it)). The bbox is that of the
        points or pixels, within the image; the area counts pixels. An object with a box only has an empty segmentation.
    """
    try:
        parts = [np.asarray(part, np.float64) if isinstance(part, list) else part for part in parts]
        box = None if box is None else np.asarray(box, np.float64)
    except (TypeError, ValueError):
        return None, ("bad_coordinate", "has a coordinate that isn't a number and was left out: draw it again")
    if any(isinstance(part, np.ndarray) and not np.isfinite(part).all() for part in [*parts, box]):
        return None, ("bad_coordinate", "has a coordinate that isn't finite and was left out: draw it again")
    parts = [part for part in parts if isinstance(part, dict) or part.size >= FEWEST_NUMBERS]
    if parts:
        return _masked(parts, width, height)
    if box is None:
        return None, ("too_few_points", "has fewer than 3 points and was left out: outline the object")
    bbox = _clipped(box[:2], box[:2] + box[2:], width, height)
    if min(bbox[2:]) <= 0:
        return None, ("outside", "has a box without a part inside its image and was left out: correct the box")
    return {"bbox": bbox, "area": round(bbox[2] * bbox[3], DECIMALS), "segmentation": []}, None


def _masked(parts, width, height):
    if any(isinstance(part, dict) for part in parts):
        parts = [part if isinstance(part, dict) else part.tolist() for part in parts]
        segmentation = parts[0] if len(parts) == 1 else masks.joined(parts, height, width)
        bbox = masks.box_of_runs(segmentation)
    else:
        segmentation = [part.round(DECIMALS).tolist() for part in parts]
        points = np.concatenate(parts).reshape(-1, 2)
        bbox = _clipped(points.min(axis=0), points.max(axis=0), width, height)
    area = masks.area(segmentation, height, width)
    if not area:
        return None, ("outside", "covers no pixel of its image and was left out: remove it or draw it again")
    return {"bbox": bbox, "area": area, "segmentation": segmentation}, None


def _clipped(first, last, width, height):
    """[x, y, width, height] of what lies in the image between two corners [2]."""
    first, last = (np.clip(corner, 0, (width, height)) for corner in (first, last))
    return np.concatenate([first, last - first]).round(DECIMALS).tolist()
