"""What a repair will do to each record of a dataset, decided from its examination."""

import dataclasses
import math
import os
from typing import Any

import numpy as np

from mrcnn_tf.common.categories import parse_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.annotation_checks import SMALLEST_SIDE, places
from mrcnn_tf.datasets.doctor.images import OVERHANG, reach_of_images
from mrcnn_tf.datasets.image_files import visible_size

# Single records of a json brought into COCO's form, as far as it can be told what they mean.
#

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
            parse_categories([attempt], path)
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


FITTING = 0.95  # of the images of a wrong size with annotations: fewer that fit, and the annotations are of other files

_SIZES = ("image_size", "missing_size", "exif_mismatch")
_MASK_TELLS = ("degenerate_box", "outside_box", "nan_coordinate")
_UNUSABLE = ("unknown_image", "unknown_category", "rle_size", "empty_segmentation")


@dataclasses.dataclass
class Plan:
    """Decisions by the place of a record in its section, from 0. Kinds are those of `kinds.KINDS`.

    Attributes:
        drop: {section: {position: kind}}.
        change: {section: {position: [(kind, field, value)]}}.
        image_ids: {id as in the json: whole number}, of images that had none; annotations follow.
        joined: {image id: id of the image that takes its annotations}.
        dropped_images: {image id: kind}, whose annotations go with them.
        rings: {position of an annotation: numbers of the polygons to remove}.
        layouts: {position of an annotation: [(kind, width, height)]}, coordinates to read in another way.
        unlabelled: {position of an annotation: (kind, [P] bool of the keypoints to set to zero)}.
        rejected: {position of an annotation: kind}, to be brought into COCO's form if possible.
        expected: {"unknown_image", "unknown_category": set of the ids that there will be once this is carried out}.
        next_id: the first number that no annotation has.
    """

    drop: dict[str, dict[int, str]]
    change: dict[str, dict[int, list[tuple[str, str, Any]]]]
    image_ids: dict[Any, int]
    joined: dict[int, int]
    dropped_images: dict[int, str]
    rings: dict[int, list[int]]
    layouts: dict[int, list[tuple[str, float, float]]]
    unlabelled: dict[int, tuple[str, np.ndarray]]
    rejected: dict[int, str]
    expected: dict[str, set[int]]
    next_id: int


def make_plan(examination):
    """The `Plan` for an `Examination`."""
    records = examination.source.records
    sections = ("images", "annotations", "categories")
    rejected = records.rejected | {place: "bad_polygon" for place in records.faulty.get("bad_polygon", [])}
    mended = (mended_category(record, examination.source.path) for record in examination.source.categories)
    expected = {"unknown_image": set(), "unknown_category": {category["id"] for category in mended if category}}
    drop, change = ({section: {} for section in sections} for _ in range(2))
    plan = Plan(drop, change, {}, {}, {}, {}, {}, {}, rejected, expected, unused(records.ids))
    _plan_images(examination, plan)
    _plan_copies(examination, plan)
    _plan_layouts(examination, plan)
    _plan_annotations(examination, plan)
    _plan_keypoints(examination, plan)
    return plan


def _change(plan, section, position, kind, field, value):
    plan.change[section].setdefault(int(position), []).append((kind, field, value))


def _plan_images(examination, plan):
    images, source = examination.images, examination.source
    fitting = _fitting(examination)
    numbers = [one["id"] for one in source.images if isinstance(one, dict) and type(one.get("id")) is int]
    for position, kind in images.kinds.items():
        record = source.images[position]
        if kind == "misnamed_image":
            _change(plan, "images", position, kind, "file_name", images.names[position].replace(os.sep, "/"))
        elif kind == "image_size" and position in fitting:
            for field, value in zip(("height", "width"), fitting[position], strict=True):
                _change(plan, "images", position, kind, field, value)
        elif kind == "image_fields" and isinstance(record, dict) and type(record.get("file_name")) is str:
            number = _image_number(record.get("id"), numbers, plan)
            _change(plan, "images", position, kind, "id", number)
        else:
            plan.drop["images"][position] = kind
            if kind != "duplicate_image" and isinstance(record, dict) and type(record.get("id")) is int:
                plan.dropped_images[record["id"]] = "skipped_image"
    exchanged = np.zeros(images.ids.size, bool)
    exchanged[examination.exchanged] = True
    for row, position in enumerate(images.positions.tolist()):
        record = source.images[position]
        kind = "exif_mismatch" if exchanged[row] else "missing_size"
        if exchanged[row] or record.get("height") is None or record.get("width") is None:
            _change(plan, "images", position, kind, "height", int(images.heights[row]))
            _change(plan, "images", position, kind, "width", int(images.widths[row]))


def _image_number(given, numbers, plan):
    """A whole number for an image's id; `numbers`, those that are taken, grow by it."""
    number = whole(given)
    if number is None or number in numbers:
        number = unused(numbers)
    numbers.append(number)
    plan.expected["unknown_image"].add(number)
    if isinstance(given, str | float | int) and not isinstance(given, bool):
        plan.image_ids.setdefault(given, number)
    return number


def _fitting(examination):
    """{position: (height, width) of the file} of images of a wrong size whose annotations fit the file.

    Nothing where too many don't: then the annotations were made on pictures of another size.
    """
    images, source = examination.images, examination.source
    records, outlines = source.records, examination.annotated.outlines
    places_ = [place for place, kind in images.kinds.items() if kind == "image_size"]
    if not places_:
        return {}
    paths = [os.path.join(source.folder, source.images[place]["file_name"]) for place in places_]
    sizes = np.array([visible_size(images.headers[path]) for path in paths])
    ids = np.array([source.images[place]["id"] for place in places_], np.int64)
    reach = reach_of_images(records, outlines, places(ids, np.asarray(records.image_ids)), ids.size)
    fits = (reach <= sizes[:, ::-1] + OVERHANG).all(axis=1)
    annotated = np.isfinite(reach).all(axis=1)
    if fits[annotated].sum() < FITTING * annotated.sum():
        fits &= ~annotated
    return {place: size for place, size, fit in zip(places_, sizes.tolist(), fits.tolist(), strict=True) if fit}


def _plan_copies(examination, plan):
    images = examination.images
    first, rows = {}, {}
    for row, path in enumerate(images.paths):
        key = os.path.normpath(path)
        rows.setdefault(key, row)
        number = int(images.ids[row])
        other = first.setdefault(key, number)
        if other != number:
            plan.joined[number] = other
            plan.drop["images"][int(images.positions[row])] = "shared_file"
    for group in examination.copies:
        for path in group[1:]:
            row = rows[path]
            plan.drop["images"][int(images.positions[row])] = "duplicate_picture"
            plan.dropped_images[int(images.ids[row])] = "duplicate_picture"


def _plan_layouts(examination, plan):
    records, checker = examination.source.records, examination.annotated.checker
    positions = np.asarray(records.positions)
    for correction in examination.corrections:
        if correction.kind.endswith("_boxes"):
            boxes = np.asarray(records.boxes).reshape(-1, 4)[correction.rows]
            for place, box in zip(positions[correction.rows].tolist(), boxes.tolist(), strict=True):
                _change(plan, "annotations", place, correction.kind, "bbox", [round(number, 2) for number in box])
            continue
        for row in correction.rows.tolist():
            frame = (correction.kind, float(checker.width[row]), float(checker.height[row]))
            plan.layouts.setdefault(int(positions[row]), []).append(frame)


def _plan_annotations(examination, plan):
    annotated = examination.annotated
    checker, outlines, positions = annotated.checker, annotated.outlines, np.asarray(annotated.records.positions)
    drop = plan.drop["annotations"]
    for kind in (*_UNUSABLE, "outside_mask", "flat_mask", "duplicate_object"):
        drop.update((int(positions[row]), kind) for row in _rows(annotated, kind))
    for kind, column in (("unknown_image", checker.image_ids), ("unknown_category", checker.category_ids)):
        for row in _rows(annotated, kind):
            if int(column[row]) in plan.expected[kind]:
                del drop[int(positions[row])]
    _plan_boxes(annotated, plan)
    for row in _rows(annotated, "area_mask"):
        _change(plan, "annotations", positions[row], "area_mask", "area", round(float(outlines.areas[row]), 2))
    for row in _rows(annotated, "duplicate_annotation"):
        _change(plan, "annotations", positions[row], "duplicate_annotation", "id", plan.next_id)
        plan.next_id += 1
    ring_starts = np.cumsum(checker.ring_counts) - checker.ring_counts
    for row in _rows(annotated, "flat_polygon"):
        own = outlines.flat[ring_starts[row] :][: checker.ring_counts[row]]
        plan.rings[int(positions[row])] = np.flatnonzero(own).tolist()


def _rows(annotated, kind):
    """list of int, the annotations that have a problem of a kind."""
    return np.r_[annotated.checker.rows.get(kind, []), annotated.rows.get(kind, [])].astype(np.int64).tolist()


def _plan_boxes(annotated, plan):
    checker, extents, positions = annotated.checker, annotated.outlines.extents, np.asarray(annotated.records.positions)
    of_mask = np.clip(extents, 0.0, np.stack([checker.width, checker.height] * 2, axis=1))
    masked = (annotated.outlines.areas > 0) & (of_mask[:, 2:] - of_mask[:, :2] > SMALLEST_SIDE).all(axis=1)

    def set_box(row, kind, corners):
        x1, y1, x2, y2 = corners[row].tolist()
        box = [round(number, 2) for number in (x1, y1, x2 - x1, y2 - y1)]
        _change(plan, "annotations", positions[row], kind, "bbox", box)

    for kind in _MASK_TELLS:
        for row in _rows(annotated, kind):
            if checker.kept[row]:
                continue  # only a keypoint is at fault
            if masked[row]:
                set_box(row, kind, of_mask)
            else:
                plan.drop["annotations"][int(positions[row])] = kind
    for row in _rows(annotated, "clipped_box"):
        set_box(row, "clipped_box", checker.boxes)
    for kind in ("missing_box", "box_mask"):
        for row in _rows(annotated, kind):
            set_box(row, kind, of_mask)


def _plan_keypoints(examination, plan):
    annotated = examination.annotated
    checker, positions = annotated.checker, np.asarray(annotated.records.positions)
    starts = np.cumsum(checker.keypoint_counts) - checker.keypoint_counts
    kinds = ("bad_keypoints", "keypoint_count", "keypoint_visibility", "nan_coordinate", "missing_keypoints")
    for kind in (*kinds, "outside_keypoint"):
        for row in checker.rows.get(kind, []):
            if not checker.kept[row]:
                continue
            expected = len(checker.keypoint_names[checker.place[row]])
            left = checker.keypoints[starts[row] :][: checker.keypoint_counts[row], 2]
            zero = left == 0 if left.size == expected else np.ones(expected, bool)
            plan.unlabelled[int(positions[row])] = (kind, zero)
    for row in annotated.rows.get("keypoint_number", np.zeros(0, np.int64)).tolist():
        labelled = checker.keypoints[starts[row] :][: checker.keypoint_counts[row], 2] > 0
        _change(plan, "annotations", positions[row], "keypoint_number", "num_keypoints", int(labelled.sum()))
