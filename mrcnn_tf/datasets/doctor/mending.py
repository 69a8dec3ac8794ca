"""Single records of a json brought into COCO's form, as far as it can be told what they mean."""

import math

from mrcnn_tf.common.categories import as_categories
from mrcnn_tf.common.errors import UserError

_NO = ("", "0", "0.0", "false", "no", "none")


def whole(value):
    """The whole number of 64 bits that a value stands for, such as "12" or 12.0; None where it's none."""
    if type(value) is not int:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return None
        if isinstance(value, bool) or not math.isfinite(number) or number != int(number):
            return None
        value = int(number)
    return value if abs(value) < 2**63 else None


def unused(taken):
    """A whole number above those that are taken, far from the end of 64 bits."""
    return max((number for number in taken if number < 2**62), default=0) + 1


def numbers(values, count=None):
    """Whether `values` is a list of (`count`) finite numbers."""
    if not isinstance(values, list) or count not in (None, len(values)):
        return False
    try:
        return all(type(one) in (int, float) and math.isfinite(one) for one in values)
    except OverflowError:
        return False


def as_crowd(value):
    """0 or 1 for whatever stands in "iscrowd"."""
    return int(str(value).strip().lower() not in _NO)


def as_rings(segmentation):
    """The polygons [x1, y1, x2, y2, ...] of at least three points in a list, which may be a single bare one or hold
    points as [x, y]."""
    if numbers(segmentation) or all(numbers(point, 2) for point in segmentation):
        segmentation = [segmentation]
    rings = []
    for ring in segmentation:
        if isinstance(ring, list) and ring and all(numbers(point, 2) for point in ring):
            ring = [number for point in ring for number in point]
        if isinstance(ring, list) and len(ring) >= 6 and len(ring) % 2 == 0:
            rings.append(ring)
    return [ring for ring in rings if all(type(number) in (int, float) for number in ring)]


def mended_annotation(record, kind, image_ids, fresh_id):
    """A record that couldn't be read, in COCO's form.

    Args:
        record: what stands in the json.
        kind: what is wrong with it.
        image_ids: {image_id as in the json: whole number}.
        fresh_id: an id that no other annotation has.

    Returns:
        dict, or None if it can't be told what it means.
    """
    if not isinstance(record, dict):
        return None
    mended = dict(record)
    if kind == "annotation_fields":
        image = record.get("image_id")
        known = image_ids.get(image) if isinstance(image, str | float | int) and not isinstance(image, bool) else None
        mended["image_id"] = known if known is not None else whole(image)
        mended["category_id"] = whole(record.get("category_id"))
        number = whole(record.get("id"))
        mended["id"] = fresh_id if number is None else number
        return None if mended["image_id"] is None or mended["category_id"] is None else mended
    if kind == "bad_box":
        if not numbers(record.get("bbox"), 4):
            mended.pop("bbox", None)
        if not numbers([record.get("area")]):
            mended.pop("area", None)
        return mended if "bbox" in mended or record.get("segmentation") else None
    if kind in ("bad_polygon", "empty_segmentation") and isinstance(record.get("segmentation"), list):
        mended["segmentation"] = as_rings(record["segmentation"])
        return mended if mended["segmentation"] else None
    return None


def mended_category(record, path):
    """A category that can be used, or None where it has no id."""
    number = whole(record.get("id")) if isinstance(record, dict) else None
    if number is None:
        return None
    mended = dict(record, id=number)
    name = record.get("name")
    if not isinstance(name, str) or not name.strip():
        mended["name"] = f"class {number}" if name is None or not str(name).strip() else str(name)
    for without in ((), ("skeleton",), ("skeleton", "keypoints")):
        attempt = {key: value for key, value in mended.items() if key not in without}
        try:
            as_categories([attempt], path)
            return attempt
        except UserError:
            continue
    return None


def moved_points(coordinates, kind, width, height):
    """x and y by turns, read otherwise.

    Args:
        coordinates: list of numbers.
        kind: of `kinds.LAYOUTS`: swapped_... exchanges x and y, normalised_... multiplies by the image's sides.
        width, height: pixels of the image.
    """
    if kind.startswith("swapped"):
        return [number for pair in zip(coordinates[1::2], coordinates[::2], strict=True) for number in pair]
    return [round(number * (height if place % 2 else width), 2) for place, number in enumerate(coordinates)]


def unlabelled_keypoints(record, zero):
    """{"keypoints", "num_keypoints"} of an annotation with some keypoints set to zero.

    Args:
        record: the annotation; keypoints that aren't a list of the right length are all replaced.
        zero: [P] bool, the keypoints that count as unlabelled.
    """
    given = record.get("keypoints")
    keypoints = list(given) if isinstance(given, list) and len(given) == 3 * len(zero) else [0] * (3 * len(zero))
    for place, gone in enumerate(zero):
        if gone:
            keypoints[3 * place : 3 * place + 3] = [0, 0, 0]
    return {"keypoints": keypoints, "num_keypoints": sum(visibility > 0 for visibility in keypoints[2::3])}
