"""kwcoco's own forms of polygons and keypoints, which COCO's json doesn't have, in COCO's form.

A polygon is {"exterior": [[x, y], ...], "interiors": [[[x, y], ...], ...]}, whose interiors are holes. Keypoints name
themselves: [{"xy": [x, y], "keypoint_category_id": 3, "visible": 2}, ...], with a name in "keypoint_category" instead
of the id, or {"x": [...], "y": [...], "keypoint_category_id": [...], "visible": [...]}. Those that aren't labelled are
not there. "keypoint_categories" at the top of the json has their names, "keypoints" of a category its own ones.
"""

import array
import math

from mrcnn_tf.common.json_stream import stream_members
from mrcnn_tf.common.json_values import parse_integer, parse_number
from mrcnn_tf.datasets.run_lengths import join_polygons

VISIBLE = 2  # COCO's visibility of a keypoint that kwcoco says nothing of
_NAME_KEYS = ("keypoint_category_id", "keypoint_category", "keypoint_category_name", "category")


def flatten_polygon(polygon):
    """[x, y, x, y, ...] of {"exterior", "interiors"}, which the even-odd rule fills but for the holes.

    Raises:
        TypeError, ValueError: the points aren't lists of two numbers.
    """
    exterior = _flatten(polygon["exterior"])
    holes = [_flatten(hole) for hole in polygon.get("interiors") or []]
    # Holes go round the other way, so that their area counts against that of the exterior.
    holes = [_reverse(hole) if (_signed_area(hole) > 0) == (_signed_area(exterior) > 0) else hole for hole in holes]
    return join_polygons([exterior, *holes]) if exterior else []


def _flatten(points):
    return [float(number) for x, y in points for number in (x, y)]


def _reverse(polygon):
    return [number for x, y in zip(polygon[-2::-2], polygon[::-2], strict=True) for number in (x, y)]


def _signed_area(polygon):
    points = list(zip(polygon[0::2], polygon[1::2], strict=True))
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True))


def has_named_keypoints(record):
    """Whether an annotation's keypoints, if it has any, name themselves."""
    keypoints = record.get("keypoints")
    if isinstance(keypoints, dict):
        return "x" in keypoints
    return isinstance(keypoints, list) and bool(keypoints) and all(isinstance(point, dict) for point in keypoints)


class KeypointOrder:
    """In which order COCO's json has the keypoints of each category, read from a json's top.

    Args:
        path: of the json.
    """

    def __init__(self, path):
        top = {}
        for name, value in stream_members(path, opened=("images", "annotations")):
            if name in ("categories", "keypoint_categories") and isinstance(value, list):
                top[name] = [record for record in value if isinstance(record, dict)]
            if len(top) == 2:
                break
        names = ((record.get("id"), record.get("name")) for record in top.get("keypoint_categories", ()))
        self._names = {number: name for number, name in names if isinstance(number, int) and isinstance(name, str)}
        self._places = {}  # by category id: {name: place}
        for record in top.get("categories", ()):
            names = [name for name in record.get("keypoints") or () if isinstance(name, str)]
            self._places[parse_integer(record.get("id"))] = {name: place for place, name in enumerate(names)}

    def arrange(self, keypoints, category):
        """Named keypoints of an annotation as COCO has them.

        Args:
            keypoints: as they stand in the json, see `has_named_keypoints`.
            category: its category's id.

        Returns:
            An array of doubles, x, y and visibility of each of the category's keypoints, zeros for those that aren't
            there.

        Raises:
            ValueError: what is wrong with them, as it goes on after "has keypoints".
        """
        places = self._places.get(category, {})
        values = array.array("d", bytes(8 * 3 * len(places)))
        for point in _points_of(keypoints):
            name = next((point[key] for key in _NAME_KEYS if isinstance(point.get(key), int | str)), None)
            name = self._names.get(name, name)
            if name not in places:
                raise ValueError(f'of which {name!r} is not among the "keypoints" of category {category}')
            x, y = (parse_number(value) for value in point["xy"])
            if not (math.isfinite(x) and math.isfinite(y)):
                raise ValueError(f"of which {name!r} has no place")
            visible = parse_integer(point.get("visible"))
            first = 3 * places[name]
            values[first : first + 3] = array.array("d", (x, y, VISIBLE if visible is None else visible))
        return values


def _points_of(keypoints):
    """Keypoints as dicts of one each; raises ValueError for those without two coordinates."""
    if isinstance(keypoints, dict):
        columns = {key: values for key, values in keypoints.items() if isinstance(values, list)}
        count = len(columns.get("x", ()))
        if any(len(values) != count for values in columns.values()) or "y" not in columns:
            raise ValueError("whose lists aren't of one length")
        rows = ({key: values[row] for key, values in columns.items()} for row in range(count))
        keypoints = [row | {"xy": [row["x"], row["y"]]} for row in rows]
    for point in keypoints:
        if not isinstance(point.get("xy"), list) or len(point["xy"]) != 2:
            raise ValueError('of which one has no "xy" of two numbers')
    return keypoints
