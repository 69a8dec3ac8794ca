"""Annotations looked at one by one: objects marked twice, keypoints, and objects that no anchor of the config fits."""

import dataclasses
import re

import numpy as np

from mrcnn_tf.datasets.annotation_checks import Checker
from mrcnn_tf.datasets.doctor.coco_source import ABSENT, AnnotationRecords
from mrcnn_tf.datasets.doctor.findings import Findings
from mrcnn_tf.datasets.doctor.mask_checks import MaskGeometry
from mrcnn_tf.datasets.polygons import overlapping_intervals

SAME_IOU = 0.95  # of the boxes of one object that is marked twice
SAME_AREA = 0.1  # of the masks: how much larger one may be
LONG = 4  # times as long as wide, from which on shape rather than size keeps an object from the anchors
FEW = 0.25  # of the objects, which is more than COCO has at 800 pixels; below it's only worth a note
FINE = 0.05  # of the objects that may stay too small for the anchors that are proposed
MAX_FACTOR = 16  # by which images may be enlarged or anchors shrunk

# Of these the Checker sets all keypoints, or those outside, to zero and reports them.
KEYPOINT_FAULTS = ("bad_keypoints", "keypoint_count", "keypoint_visibility", "nan_coordinate", "outside_keypoint")


@dataclasses.dataclass
class CheckedAnnotations:
    """The annotations of a dataset, T of them with columns.

    Attributes:
        records: AnnotationRecords.
        checker: annotation_checks.Checker; `kept` says which are usable, `boxes` are their clipped corners.
        masks: MaskGeometry of all T.
        findings: Findings, where problems go.
        rows: {kind: rows of the annotations that have it}.
    """

    records: AnnotationRecords
    checker: Checker
    masks: MaskGeometry
    findings: Findings
    rows: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def note(self, kind, chosen, sentence, **columns):
        """Adds a problem for each of the chosen annotations.

        Args:
            kind: of the section "annotations" in problem_kinds.yaml.
            chosen: [T] bool.
            sentence: goes on after "Annotation 5 in a.json " and may use {image}, {category} and the `columns` [T] by
                name.
        """
        columns = {"image": self.checker.image_ids, "category": self.checker.category_ids, **columns}
        rows = np.flatnonzero(chosen)
        if rows.size:
            self.rows[kind] = rows
        for row in rows.tolist():
            number, file, name = self.records.locate(row)
            detail = sentence.format(**{key: column[row] for key, column in columns.items()})
            self.findings.add(kind, number, f"{name} {detail}.", file)


def check_repeats(annotations):
    """Adds objects that mark the same thing as an earlier one in the same image."""
    checker, areas = annotations.checker, annotations.masks.areas
    same_class, other_class = np.full([2, checker.ids.size], -1)
    for first, second in _same_boxes(checker.boxes, checker.image_index, np.flatnonzero(checker.kept)):
        with np.errstate(invalid="ignore"):
            differ = np.abs(areas[first] - areas[second]) > SAME_AREA * np.maximum(areas[first], areas[second])
        same = (checker.crowd[first] == checker.crowd[second]) & ~differ
        first, second = np.minimum(first[same], second[same]), np.maximum(first[same], second[same])
        alike = checker.category_index[first] == checker.category_index[second]
        same_class[second[alike]] = first[alike]
        other_class[second[~alike]] = first[~alike]
    sentence = "marks the same object of image {image} as annotation {other}"
    annotations.note("duplicate_object", same_class >= 0, sentence, other=checker.ids[same_class])
    conflict, sentence = (other_class >= 0) & (same_class < 0), sentence + ", with another category"
    annotations.note("conflicting_object", conflict, sentence, other=checker.ids[other_class])


def _same_boxes(boxes, image, rows):
    """Yields (first, second): rows of the same image whose boxes overlap by `SAME_IOU` or more."""
    if rows.size < 2:
        return
    rows = rows[np.lexsort((boxes[rows, 0], image[rows]))]
    # Boxes that overlap so much begin within 1 - SAME_IOU of the longer one's width; twice that is safe.
    span = 2.0 * (boxes[rows, 2].max() + 1.0)
    left = image[rows] * span + boxes[rows, 0]
    right = left + 2 * (1 - SAME_IOU) * (boxes[rows, 2] - boxes[rows, 0])
    for first, second in overlapping_intervals(left, right):
        first, second = rows[first], rows[second]
        same = _iou(boxes[first], boxes[second]) >= SAME_IOU
        yield first[same], second[same]


def _iou(boxes, others):
    """[n] of the boxes [n, 4] with the others [n, 4], one by one."""
    shared = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    shared = np.maximum(shared, 0.0).prod(axis=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    return shared / np.maximum(union, 1e-12)


def check_keypoints(annotations):
    """Adds annotations whose num_keypoints is wrong or whose category names no keypoints.

    The keypoints' coordinates and visibility are the Checker's business.
    """
    checker, records = annotations.checker, annotations.records
    numbers = np.asarray(records.keypoint_numbers)
    expected = np.array([len(names) for names in checker.keypoint_names] or [0])[checker.category_index]
    unnamed = checker.kept & (expected == 0) & (numbers > 0)
    sentence = "has {count} numbers of keypoints, and category {category} names none"
    annotations.note("unnamed_keypoints", unnamed, sentence, count=numbers)
    is_reported = np.zeros(checker.ids.size, bool)
    for kind in KEYPOINT_FAULTS:
        is_reported[checker.rows.get(kind, [])] = True
    owner = np.repeat(np.arange(checker.ids.size), checker.keypoint_counts)
    labelled = np.bincount(owner[checker.keypoints[:, 2] > 0], minlength=checker.ids.size)
    total = np.asarray(records.keypoint_totals)
    wrong = checker.kept & (expected > 0) & (numbers >= 0) & (total != ABSENT) & (total != labelled) & ~is_reported
    sentence = "has num_keypoints {own} and {labelled} labelled keypoints"
    annotations.note("keypoint_number", wrong, sentence, own=total, labelled=labelled)


def check_anchors(annotations, model):
    """Adds objects that overlap with the best anchor less than the RPN's background_iou.

    Images are resized as the settings.ModelConfig says. An anchor right on the object's centre is taken, so that it's
    about size and shape alone.
    """
    checker, resize, rpn = annotations.checker, model.resize, model.rpn
    is_object = checker.kept & ~checker.crowd
    if not is_object.any():
        return
    short, long = np.minimum(checker.height, checker.width), np.maximum(checker.height, checker.width)
    scale = np.minimum(resize.min_size / short, resize.max_size / long)
    sides = (checker.boxes[:, 2:] - checker.boxes[:, :2]) * scale[:, None]
    sides[~is_object] = 1.0
    sizes = np.array(rpn.anchor_sizes, np.float64)
    is_small, is_missed = _misfits(sides, sizes, rpn)
    is_tiny = is_object & is_small & is_missed
    is_long = is_object & is_missed & ~is_tiny & (sides.max(axis=1) / sides.min(axis=1) > LONG)
    texts = [f"{width:.0f} x {height:.0f}" for width, height in sides.tolist()] if (is_tiny | is_long).any() else []
    sentence = "is {size} pixels in the resized image"
    annotations.note("tiny_object", is_tiny, sentence + f"; the smallest anchor is {sizes.min():g}", size=texts)
    annotations.note("elongated_object", is_long, sentence, size=texts)
    if is_tiny.any():
        _explain_tiny(annotations.findings, model, sides[is_object], is_tiny.sum() / is_object.sum())
    if is_long.any() and is_long.sum() < FEW * is_object.sum():
        annotations.findings.explain("elongated_object", severity="note")


def _misfits(sides, sizes, rpn):
    """Which boxes of `sides` [n, 2] (width, height) are smaller than the smallest anchor, and which none fits."""
    best_iou = np.zeros(len(sides))
    for size in sizes.ravel():  # a map may have several
        for ratio in rpn.aspect_ratios:
            anchor = size / np.sqrt(ratio), size * np.sqrt(ratio)
            shared = np.minimum(sides, anchor).prod(axis=1)
            best_iou = np.maximum(best_iou, shared / (sides.prod(axis=1) + size**2 - shared))
    return sides.prod(axis=1) < sizes.min() ** 2, best_iou < rpn.background_iou


def _explain_tiny(findings, model, sides, fraction):
    sizes, resize = np.array(model.rpn.anchor_sizes, np.float64), model.resize
    median = float(np.median(np.sqrt(sides.prod(axis=1))))
    summary = (
        f"With model.resize.min_size={resize.min_size} and max_size={resize.max_size} half of the objects have sides "
        f"under {median:.0f} pixels; the smallest anchor is {sizes.min():g}."
    )
    factor = 2
    while factor < MAX_FACTOR and np.logical_and(*_misfits(sides, sizes / factor, model.rpn)).mean() > FINE:
        factor *= 2
    anchors = re.sub(r"\.0\b| ", "", str((sizes / factor).tolist()))
    remedy = (
        f"set model.rpn.anchor_sizes={anchors}, or enlarge images with "
        f"model.resize.min_size={resize.min_size * factor} and model.resize.max_size={resize.max_size * factor}"
    )
    if fraction < FEW:
        remedy = f"nothing to do if they don't matter; else {remedy}"
    findings.explain("tiny_object", summary, "note" if fraction < FEW else None, remedy)
