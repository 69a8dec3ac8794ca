"""Plans a repair: what to do with each record of a dataset, decided from its examination."""

import dataclasses
import math
import os
from typing import Any

import numpy as np

from mrcnn_tf.common.categories import parse_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.annotation_checks import MIN_SIDE, find_indices
from mrcnn_tf.datasets.doctor.image_checks import SIZE_TOLERANCE, largest_coordinates
from mrcnn_tf.datasets.doctor.object_checks import KEYPOINT_FAULTS
from mrcnn_tf.datasets.image_files import visible_size

FITTING = 0.95  # of the images of a wrong size with annotations: fewer that fit, and the annotations are of other files

_FALSE_TEXTS = ("", "0", "0.0", "false", "no", "none")  # in "iscrowd"
_REMOVED_ANNOTATIONS = (
    "unknown_image",
    "unknown_category",
    "rle_size",
    "empty_segmentation",
    "outside_mask",
    "flat_mask",
    "duplicate_object",
)
_BOXES_FROM_MASKS = ("degenerate_box", "outside_box", "nan_coordinate")


def _sections():
    return {"images": {}, "annotations": {}, "categories": {}}


@dataclasses.dataclass
class RepairPlan:
    """Decisions by the position of a record in its section, from 0. Kinds are those of problem_kinds.yaml.

    Attributes:
        rejected: {position of an annotation: kind}, to be brought into COCO's form if possible.
        next_id: the first number that no annotation has.
        expected: {"unknown_image", "unknown_category": set of the ids that there will be once this is carried out}.
        removals: {section: {position: kind}}.
        changes: {section: {position: [(kind, field, value)]}}.
        image_ids: {id as in the json: whole number}, of images that had none; annotations follow.
        merged_images: {image id: id of the image that takes its annotations}.
        removed_images: {image id: kind}, whose annotations go with them.
        flat_polygons: {position of an annotation: numbers of the polygons to remove}.
        layouts: {position of an annotation: [(kind, width, height)]}, coordinates to read in another way.
        cleared_keypoints: {position of an annotation: (kind, [P] bool of the keypoints to set to zero)}.
    """

    rejected: dict[int, str]
    next_id: int
    expected: dict[str, set[int]]
    removals: dict[str, dict[int, str]] = dataclasses.field(default_factory=_sections)
    changes: dict[str, dict[int, list[tuple[str, str, Any]]]] = dataclasses.field(default_factory=_sections)
    image_ids: dict[Any, int] = dataclasses.field(default_factory=dict)
    merged_images: dict[int, int] = dataclasses.field(default_factory=dict)
    removed_images: dict[int, str] = dataclasses.field(default_factory=dict)
    flat_polygons: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    layouts: dict[int, list[tuple[str, float, float]]] = dataclasses.field(default_factory=dict)
    cleared_keypoints: dict[int, tuple[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    def change(self, section, position, kind, **fields):
        """Plans new values of fields of a record."""
        changes = self.changes[section].setdefault(int(position), [])
        changes.extend((kind, field, value) for field, value in fields.items())


def make_plan(examination):
    """The `RepairPlan` for a `validation.Examination`."""
    source = examination.source
    rejected = source.records.rejected | dict.fromkeys(source.records.faulty.get("bad_polygon", []), "bad_polygon")
    categories = (repair_category(record, source.path) for record in source.categories)
    expected = {"unknown_image": set(), "unknown_category": {category["id"] for category in categories if category}}
    plan = RepairPlan(rejected, next_free_id(source.records.ids), expected)
    _plan_images(examination, plan)
    _plan_copies(examination, plan)
    _plan_layouts(examination, plan)
    _plan_annotations(examination.annotations, plan)
    _plan_keypoints(examination.annotations, plan)
    return plan


def _plan_images(examination, plan):
    images, source = examination.images, examination.source
    file_sizes = _fitting_sizes(examination)
    ids = [record["id"] for record in source.images if isinstance(record, dict) and type(record.get("id")) is int]
    for position, kind in images.kinds.items():
        record = source.images[position]
        if kind == "misnamed_image":
            plan.change("images", position, kind, file_name=images.names[position].replace(os.sep, "/"))
        elif kind == "image_size" and position in file_sizes:
            height, width = file_sizes[position]
            plan.change("images", position, kind, height=height, width=width)
        elif kind == "image_fields" and isinstance(record, dict) and type(record.get("file_name")) is str:
            plan.change("images", position, kind, id=_new_image_id(record.get("id"), ids, plan))
        else:
            plan.removals["images"][position] = kind
            if kind != "duplicate_image" and isinstance(record, dict) and type(record.get("id")) is int:
                plan.removed_images[record["id"]] = "skipped_image"
    exchanged = set(examination.exchanged.tolist())
    for index, position in enumerate(images.positions.tolist()):
        record = source.images[position]
        if index in exchanged or record.get("height") is None or record.get("width") is None:
            kind = "exif_mismatch" if index in exchanged else "missing_size"
            plan.change("images", position, kind, height=int(images.heights[index]), width=int(images.widths[index]))


def _new_image_id(value, ids, plan):
    """A whole number for an image whose id is `value`; the list `ids` of those that are taken grows by it."""
    number = parse_integer(value)
    if number is None or number in ids:
        number = next_free_id(ids)
    ids.append(number)
    plan.expected["unknown_image"].add(number)
    if _is_id(value):
        plan.image_ids.setdefault(value, number)
    return number


def _fitting_sizes(examination):
    """{position: (height, width) of the file} of images of a wrong size whose annotations fit the file.

    Nothing where too many don't: then the annotations were made on pictures of another size.
    """
    images, source = examination.images, examination.source
    positions = [position for position, kind in images.kinds.items() if kind == "image_size"]
    if not positions:
        return {}
    records = [source.images[position] for position in positions]
    headers = (images.headers[os.path.join(source.folder, record["file_name"])] for record in records)
    sizes = np.array([visible_size(header) for header in headers])
    ids = np.array([record["id"] for record in records], np.int64)
    image_index = find_indices(ids, np.asarray(source.records.image_ids))
    largest = largest_coordinates(source.records, examination.annotations.masks, image_index, ids.size)
    fits = (largest <= sizes[:, ::-1] + SIZE_TOLERANCE).all(axis=1)
    has_annotations = np.isfinite(largest).all(axis=1)
    if fits[has_annotations].sum() < FITTING * has_annotations.sum():
        fits &= ~has_annotations
    sizes = zip(positions, sizes.tolist(), fits.tolist(), strict=True)
    return {position: size for position, size, does_fit in sizes if does_fit}


def _plan_copies(examination, plan):
    images, removals = examination.images, plan.removals["images"]
    first_index = {}
    for index, path in enumerate(images.paths):
        first = first_index.setdefault(os.path.normpath(path), index)
        if images.ids[first] != images.ids[index]:
            plan.merged_images[int(images.ids[index])] = int(images.ids[first])
            removals[int(images.positions[index])] = "shared_file"
    for group in examination.copies:
        for path in group[1:]:
            index = first_index[path]
            removals[int(images.positions[index])] = "duplicate_picture"
            plan.removed_images[int(images.ids[index])] = "duplicate_picture"


def _plan_layouts(examination, plan):
    records, checker = examination.source.records, examination.annotations.checker
    boxes, positions = np.asarray(records.boxes).reshape(-1, 4), np.asarray(records.positions)
    for correction in examination.corrections:
        for row in correction.rows.tolist():
            if correction.kind.endswith("_boxes"):
                box = [round(number, 2) for number in boxes[row].tolist()]
                plan.change("annotations", positions[row], correction.kind, bbox=box)
            else:
                layout = (correction.kind, float(checker.width[row]), float(checker.height[row]))
                plan.layouts.setdefault(int(positions[row]), []).append(layout)


def _plan_annotations(annotations, plan):
    checker, masks, positions = annotations.checker, annotations.masks, np.asarray(annotations.records.positions)
    removals = plan.removals["annotations"]
    for kind in _REMOVED_ANNOTATIONS:
        removals.update((int(positions[row]), kind) for row in _rows(annotations, kind))
    for kind, ids in (("unknown_image", checker.image_ids), ("unknown_category", checker.category_ids)):
        for row in _rows(annotations, kind):
            if int(ids[row]) in plan.expected[kind]:
                del removals[int(positions[row])]
    _plan_boxes(annotations, plan)
    for row in _rows(annotations, "area_mask"):
        plan.change("annotations", positions[row], "area_mask", area=round(float(masks.areas[row]), 2))
    for row in _rows(annotations, "duplicate_annotation"):
        plan.change("annotations", positions[row], "duplicate_annotation", id=plan.next_id)
        plan.next_id += 1
    starts = np.cumsum(checker.ring_counts) - checker.ring_counts
    for row in _rows(annotations, "flat_polygon"):
        is_flat = masks.is_flat[starts[row] :][: checker.ring_counts[row]]
        plan.flat_polygons[int(positions[row])] = np.flatnonzero(is_flat).tolist()


def _rows(annotations, kind):
    """list of int, the annotations that have a problem of a kind."""
    return np.r_[annotations.checker.rows.get(kind, []), annotations.rows.get(kind, [])].astype(np.int64).tolist()


def _plan_boxes(annotations, plan):
    checker, masks, positions = annotations.checker, annotations.masks, np.asarray(annotations.records.positions)
    mask_boxes = np.clip(masks.boxes, 0.0, np.stack([checker.width, checker.height] * 2, axis=1))
    has_mask = (masks.areas > 0) & (mask_boxes[:, 2:] - mask_boxes[:, :2] > MIN_SIDE).all(axis=1)

    def set_box(row, kind, corners):
        x1, y1, x2, y2 = corners[row].tolist()
        box = [round(number, 2) for number in (x1, y1, x2 - x1, y2 - y1)]
        plan.change("annotations", positions[row], kind, bbox=box)

    for kind in _BOXES_FROM_MASKS:
        for row in _rows(annotations, kind):
            if checker.kept[row]:
                continue  # only a keypoint is at fault
            if has_mask[row]:
                set_box(row, kind, mask_boxes)
            else:
                plan.removals["annotations"][int(positions[row])] = kind
    for kind, corners in (("clipped_box", checker.boxes), ("missing_box", mask_boxes), ("box_mask", mask_boxes)):
        for row in _rows(annotations, kind):
            set_box(row, kind, corners)


def _plan_keypoints(annotations, plan):
    checker, positions = annotations.checker, np.asarray(annotations.records.positions)
    starts = np.cumsum(checker.keypoint_counts) - checker.keypoint_counts

    def visibility(row):
        return checker.keypoints[starts[row] :][: checker.keypoint_counts[row], 2]

    for kind in ("missing_keypoints", *KEYPOINT_FAULTS):
        for row in checker.rows.get(kind, []):
            if checker.kept[row]:
                expected = len(checker.keypoint_names[checker.category_index[row]])
                left = visibility(row)
                cleared = left == 0 if left.size == expected else np.ones(expected, bool)
                plan.cleared_keypoints[int(positions[row])] = (kind, cleared)
    for row in _rows(annotations, "keypoint_number"):
        labelled = int((visibility(row) > 0).sum())
        plan.change("annotations", positions[row], "keypoint_number", num_keypoints=labelled)


# Single records of a json brought into COCO's form, as far as it can be told what they mean.


def parse_integer(value):
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


def next_free_id(ids):
    """A whole number above those that are taken, far from the end of 64 bits."""
    return max((number for number in ids if number < 2**62), default=0) + 1


def _is_id(value):
    return isinstance(value, str | float | int) and not isinstance(value, bool)


def _are_numbers(values, count=None):
    """Whether `values` is a list of (`count`) finite numbers."""
    if not isinstance(values, list) or count not in (None, len(values)):
        return False
    try:
        return all(type(value) in (int, float) and math.isfinite(value) for value in values)
    except OverflowError:
        return False


def parse_iscrowd(value):
    """0 or 1 for whatever stands in "iscrowd"."""
    return int(str(value).strip().lower() not in _FALSE_TEXTS)


def parse_polygons(segmentation):
    """The polygons [x1, y1, x2, y2, ...] of at least three points in a list, which may be a single bare polygon or hold
    points as [x, y]."""
    if _are_numbers(segmentation) or all(_are_numbers(point, 2) for point in segmentation):
        segmentation = [segmentation]
    polygons = []
    for polygon in segmentation:
        if isinstance(polygon, list) and polygon and all(_are_numbers(point, 2) for point in polygon):
            polygon = [number for point in polygon for number in point]
        if isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0:
            polygons.append(polygon)
    return [polygon for polygon in polygons if all(type(number) in (int, float) for number in polygon)]


def repair_annotation(record, kind, image_ids, free_id):
    """A record that couldn't be read, in COCO's form.

    Args:
        record: what stands in the json.
        kind: what is wrong with it.
        image_ids: {image_id as in the json: whole number}.
        free_id: an id that no other annotation has.

    Returns:
        dict, or None if it can't be told what it means.
    """
    if not isinstance(record, dict):
        return None
    repaired = dict(record)
    if kind == "annotation_fields":
        image, number = record.get("image_id"), parse_integer(record.get("id"))
        known = image_ids.get(image) if _is_id(image) else None
        repaired["image_id"] = known if known is not None else parse_integer(image)
        repaired["category_id"] = parse_integer(record.get("category_id"))
        repaired["id"] = free_id if number is None else number
        return None if None in (repaired["image_id"], repaired["category_id"]) else repaired
    if kind == "bad_box":
        if not _are_numbers(record.get("bbox"), 4):
            repaired.pop("bbox", None)
        if not _are_numbers([record.get("area")]):
            repaired.pop("area", None)
        return repaired if "bbox" in repaired or record.get("segmentation") else None
    if kind in ("bad_polygon", "empty_segmentation") and isinstance(record.get("segmentation"), list):
        repaired["segmentation"] = parse_polygons(record["segmentation"])
        return repaired if repaired["segmentation"] else None
    return None


def repair_category(record, path):
    """A category that can be used, or None where it has no id."""
    number = parse_integer(record.get("id")) if isinstance(record, dict) else None
    if number is None:
        return None
    repaired = dict(record, id=number)
    name = record.get("name")
    if not isinstance(name, str) or not name.strip():
        repaired["name"] = f"class {number}" if name is None or not str(name).strip() else str(name)
    for left_out in ((), ("skeleton",), ("skeleton", "keypoints")):
        attempt = {key: value for key, value in repaired.items() if key not in left_out}
        try:
            parse_categories([attempt], path)
            return attempt
        except UserError:
            continue
    return None
