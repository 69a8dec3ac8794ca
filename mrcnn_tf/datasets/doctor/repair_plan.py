"""Plans a repair: what to do with each record of a dataset, decided from its examination."""

import dataclasses
import os
from typing import Any

import numpy as np

from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.annotation_checks import MIN_SIDE, find_indices
from mrcnn_tf.datasets.coco_records import parse_annotation
from mrcnn_tf.datasets.coco_segmentations import as_coco_rle
from mrcnn_tf.datasets.doctor.image_checks import SIZE_TOLERANCE, largest_coordinates
from mrcnn_tf.datasets.doctor.object_checks import KEYPOINT_FAULTS

FITTING = 0.95  # of the images of a wrong size with annotations: fewer that fit, and the annotations are of other files

_REMOVED_ANNOTATIONS = (
    "unknown_image",
    "unknown_category",
    "rle_size",
    "empty_segmentation",
    "outside_mask",
    "flat_mask",
    "duplicate_object",
)
_KEPT_IMAGES = ("missing_image", "image_fields")  # the file may turn up, and its objects were worth drawing
_LOOSE_KINDS = ("bad_polygon", "loose_annotation")
_BOXES_FROM_MASKS = ("degenerate_box", "outside_box", "nan_coordinate")


def _sections():
    return {"images": {}, "annotations": {}, "categories": {}}


@dataclasses.dataclass
class RepairPlan:
    """Decisions by the position of a record in its section, from 0. Kinds are those of problem_kinds.yaml.

    Attributes:
        next_id: the first number that no annotation has.
        loose: {position of an annotation: kind}, to be written in COCO's form.
        removals: {section: {position: kind}}.
        changes: {section: {position: [(kind, field, value)]}}.
        merged_images: {image id: id of the image that takes its annotations}.
        removed_images: {image id: kind}, whose annotations go with them.
        flat_polygons: {position of an annotation: numbers of the polygons to remove}.
        layouts: {position of an annotation: [(kind, width, height)]}, coordinates to read in another way.
        cleared_keypoints: {position of an annotation: (kind, [P] bool of the keypoints to set to zero)}.
    """

    next_id: int
    loose: dict[int, str]
    removals: dict[str, dict[int, str]] = dataclasses.field(default_factory=_sections)
    changes: dict[str, dict[int, list[tuple[str, str, Any]]]] = dataclasses.field(default_factory=_sections)
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
    records = examination.source.records
    loose = {position: kind for kind in _LOOSE_KINDS for position in records.faulty.get(kind, ())}
    plan = RepairPlan(next_free_id(records.ids), loose)
    plan.removals["annotations"].update(records.rejected)
    _plan_images(examination, plan)
    _plan_copies(examination, plan)
    _plan_layouts(examination, plan)
    _plan_annotations(examination, plan)
    _plan_keypoints(examination.annotations, plan)
    return plan


def _plan_images(examination, plan):
    images, source = examination.images, examination.source
    file_sizes = _fitting_sizes(examination)
    next_id = next_free_id(record.id for record in source.images if record.id is not None)
    for position, kind in images.kinds.items():
        record = source.images[position]
        if kind == "image_size" and position in file_sizes:
            height, width = file_sizes[position]
            plan.change("images", position, kind, height=height, width=width)
        elif kind == "image_fields" and isinstance(record.source, dict) and record.id is None:
            plan.change("images", position, kind, id=next_id)
            next_id += 1
        elif kind not in _KEPT_IMAGES or not isinstance(record.source, dict):
            plan.removals["images"][position] = kind
            if kind != "duplicate_image" and record.id is not None:
                plan.removed_images[record.id] = "skipped_image"
    for position, name in images.names.items():
        plan.change("images", position, "misnamed_image", file_name=name)
    exchanged = set(examination.exchanged.tolist())
    for index, position in enumerate(images.positions.tolist()):
        record = source.images[position]
        if record.loose:
            plan.change("images", position, "loose_image", id=record.id)
        if index in exchanged or record.size is None:
            kind = "exif_mismatch" if index in exchanged else "missing_size"
            plan.change("images", position, kind, height=int(images.heights[index]), width=int(images.widths[index]))


def _fitting_sizes(examination):
    """{position: (height, width) of the file} of images of a wrong size whose annotations fit the file.

    Nothing where too many don't: then the annotations were made on pictures of another size.
    """
    images, source = examination.images, examination.source
    positions = [position for position, kind in images.kinds.items() if kind == "image_size"]
    if not positions:
        return {}
    records = [source.images[position] for position in positions]
    headers = (images.headers[images.locations[position].path] for position in positions)
    sizes = np.array([[header.height, header.width] for header in headers])
    ids = np.array([record.id for record in records], np.int64)
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


def _plan_annotations(examination, plan):
    annotations = examination.annotations
    checker, masks, positions = annotations.checker, annotations.masks, np.asarray(annotations.records.positions)
    removals = plan.removals["annotations"]
    for kind in _REMOVED_ANNOTATIONS:
        removals.update((int(positions[row]), kind) for row in _rows(annotations, kind))
    _plan_boxes(annotations, plan)
    for row in _rows(annotations, "area_mask"):
        plan.change("annotations", positions[row], "area_mask", area=round(float(masks.areas[row]), 2))
    for position in annotations.records.faulty.get("bad_area", ()):
        row = np.searchsorted(positions, position)
        area = masks.areas[row] if np.isfinite(masks.areas[row]) else checker.areas[row]
        plan.change("annotations", position, "bad_area", area=round(float(area), 2))
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
    for position in annotations.records.faulty.get("bad_box", ()):
        set_box(np.searchsorted(positions, position), "bad_box", mask_boxes)


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


# Single records in COCO's form.


def next_free_id(ids):
    """A whole number above those that are taken, far from the end of 64 bits."""
    return max((number for number in ids if number < 2**62), default=0) + 1


def polygons_of(record):
    """The polygons of an annotation as it stands in a json, lists [x, y, x, y, ...] of at least three points."""
    return [ring.tolist() for ring in parse_annotation(record).rings]


def in_coco_form(record, free_id):
    """The fields of an annotation that stand in a json in another form than COCO's, in that form: a dict.

    `free_id` is an id that no other annotation has.
    """
    parsed = parse_annotation(record)
    fields = {
        "id": parsed.id if parsed.id >= 0 or record.get("id") is not None else free_id,
        "image_id": parsed.image_id,
        "category_id": parsed.category_id,
        "area": parsed.area,
    }
    if parsed.box:
        fields["bbox"] = parsed.box.tolist()
    if parsed.keypoints:
        fields["keypoints"] = parsed.keypoints.tolist()
    fields = {key: fields[key] for key in parsed.loose if key in fields}
    if "segmentation" in parsed.loose or "polygons" in parsed.faults:
        rle = parsed.rle and run_lengths.as_text(as_coco_rle(parsed.rle))
        fields["segmentation"] = rle or [ring.tolist() for ring in parsed.rings]
    return fields
