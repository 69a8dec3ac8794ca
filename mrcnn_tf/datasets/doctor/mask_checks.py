"""Masks: the boxes and areas of all polygons and run lengths of a dataset at once, and what is wrong with them."""

import concurrent.futures
import dataclasses

import numpy as np

from mrcnn_tf.datasets.doctor.coordinate_layouts import boxes_match
from mrcnn_tf.datasets.polygons import FLAT_AREA, boxes_around, find_self_crossing, owner_ranges, shoelace_areas

OVERHANG = 1.0  # pixels by which a polygon may leave its image
THREADS = 4  # that measure polygons; each holds a block of them
AREA_ERROR = 0.1  # of the mask's area


@dataclasses.dataclass
class MaskGeometry:
    """The masks of T annotations, Q polygons in all.

    Attributes:
        boxes: [T, 4] float64 pixels, x1, y1, x2, y2 around the mask; NaN where there is none.
        areas: [T] float64 square pixels; of several polygons the sum. NaN where there is no mask.
        owner: [Q] int64, the annotation of each polygon.
        polygon_areas: [Q] float64 square pixels.
        is_crossing: [Q] bool, the polygon crosses itself.
    """

    boxes: np.ndarray
    areas: np.ndarray
    owner: np.ndarray
    polygon_areas: np.ndarray
    is_crossing: np.ndarray

    @property
    def is_flat(self):
        """[Q] bool, the polygon has no area. One that crosses itself may have lobes that only cancel out."""
        return ~(self.polygon_areas > FLAT_AREA) & ~self.is_crossing


def check_masks(annotations):
    """Adds what is wrong with the masks of `CheckedAnnotations` that can be used."""
    checker, masks = annotations.checker, annotations.masks
    has_mask = np.isfinite(masks.boxes).all(axis=1)
    limit = np.stack([checker.width, checker.height] * 2, axis=1)
    clipped = np.clip(masks.boxes, 0.0, limit)
    with np.errstate(invalid="ignore"):
        overhangs = (np.abs(clipped - masks.boxes) > OVERHANG).any(axis=1)
    flat_count = np.bincount(masks.owner[masks.is_flat], minlength=checker.ids.size)
    sentence = "has a polygon whose points lie on one line or in one place"
    annotations.note("flat_polygon", checker.kept & (flat_count > 0), sentence)
    usable = checker.kept & has_mask
    annotations.note("overhanging_mask", usable & overhangs, "has a polygon partly outside image {image}")
    crosses = np.bincount(masks.owner[masks.is_crossing], minlength=checker.ids.size) > 0
    annotations.note("self_crossing", usable & crosses, "has a polygon that crosses itself")
    _check_boxes(annotations, usable, clipped)
    _check_areas(annotations, usable & ~crosses & ~overhangs)
    crowd_polygons = checker.kept & checker.crowd & (checker.ring_counts > 0)
    annotations.note("crowd_polygon", crowd_polygons, "is a crowd of polygons")


def _check_boxes(annotations, usable, mask_boxes):
    checker = annotations.checker
    differ = usable & checker.box_given & ~boxes_match(checker.boxes, mask_boxes)
    texts = (_box_texts(checker.boxes, differ), _box_texts(mask_boxes, differ))
    annotations.note("box_mask", differ, "has the bbox {own} and a mask with {mask}", own=texts[0], mask=texts[1])


def _box_texts(corners, chosen):
    """{row: "[x, y, width, height]"} of the chosen corners."""
    rows = np.flatnonzero(chosen)
    boxes = np.concatenate([corners[rows, :2], corners[rows, 2:] - corners[rows, :2]], axis=1).round(1)
    texts = ["[" + ", ".join(f"{number:g}" for number in box) + "]" for box in boxes.tolist()]
    return dict(zip(rows.tolist(), texts, strict=True))


def _check_areas(annotations, usable):
    """Of several polygons that overlap, the area lies between the largest one's and their sum.

    Pixels and outline differ by up to half the length of the outline, according to which pixels on it count.
    """
    masks, areas = annotations.masks, np.asarray(annotations.records.areas)
    largest = np.zeros(areas.size)
    np.fmax.at(largest, masks.owner, masks.polygon_areas)
    least = np.where(annotations.checker.ring_counts > 0, largest, masks.areas)
    sides = (masks.boxes[:, 2:] - masks.boxes[:, :2]).sum(axis=1)
    slack = np.maximum(AREA_ERROR * masks.areas, sides)
    with np.errstate(invalid="ignore"):
        differ = usable & ((areas < least - slack) | (areas > masks.areas + slack))
    sentence = "has the area {own:.1f} and a mask of {mask:.1f} pixels"
    annotations.note("area_mask", differ, sentence, own=areas, mask=masks.areas)
    if differ.any():
        box_areas = np.asarray(annotations.records.boxes).reshape(-1, 4)[:, 2:].prod(axis=1)
        of_box = (np.abs(areas - box_areas) <= 0.01 * box_areas) & differ
        if of_box.sum() * 2 > differ.sum():
            annotations.findings.explain("area_mask", f"{of_box.sum():,} of these give width x height of the bbox.")


def measure_masks(records):
    """`MaskGeometry` of AnnotationRecords; polygons may hold NaN, and run lengths may not fill their image."""
    polygon_counts, point_counts = np.asarray(records.ring_counts), np.asarray(records.ring_sizes)
    points = np.asarray(records.points).reshape(-1, 2)
    owner = np.repeat(np.arange(polygon_counts.size), polygon_counts)
    polygon_boxes = np.full([point_counts.size, 4], np.nan)
    polygon_areas, is_crossing = np.zeros(point_counts.size), np.zeros(point_counts.size, bool)

    def measure(ranges):
        first, last, start, end = ranges
        block, counts = points[start:end].astype(np.float64), point_counts[first:last]
        with np.errstate(invalid="ignore", over="ignore"):
            polygon_boxes[first:last] = boxes_around(block, block, np.cumsum(counts) - counts)
            polygon_areas[first:last] = shoelace_areas(block, counts)
            is_crossing[first:last] = find_self_crossing(block, counts)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(measure, owner_ranges(point_counts)))
    boxes, areas = np.full([polygon_counts.size, 4], np.nan), np.full(polygon_counts.size, np.nan)
    polygon_masks = np.flatnonzero(polygon_counts)
    if polygon_masks.size:
        starts = (np.cumsum(polygon_counts) - polygon_counts)[polygon_masks]
        boxes[polygon_masks] = boxes_around(polygon_boxes[:, :2], polygon_boxes[:, 2:], starts)
        areas[polygon_masks] = np.bincount(owner, polygon_areas, minlength=polygon_counts.size)[polygon_masks]
    _add_run_lengths(records, boxes, areas)
    return MaskGeometry(boxes, areas, owner, polygon_areas, is_crossing)


def _add_run_lengths(records, boxes, areas):
    """Fills in the boxes and areas of the masks that are run lengths."""
    counts = np.asarray(records.run_counts)
    starts, runs = np.asarray(records.run_starts), np.asarray(records.runs)
    heights = np.asarray(records.rle_sizes).reshape(-1, 2)[:, 0]
    rows = np.flatnonzero(counts)
    # Compressed masks were decoded in blocks, so the runs aren't in the order of the records.
    rows = rows[np.argsort(starts[rows], kind="stable")]
    for first, last, start, end in owner_ranges(counts[rows]):
        block = rows[first:last]
        boxes[block], areas[block] = _measure_runs(runs[start:end], counts[block], heights[block])


def _measure_runs(runs, counts, heights):
    """([n, 4] boxes, [n] areas) of n masks; NaN and 0 for one without a pixel inside."""
    first = np.cumsum(counts) - counts
    mask = np.repeat(np.arange(counts.size), counts)
    total = np.cumsum(runs)
    ends = total - np.repeat(total[first] - runs[first], counts)
    inside = ((np.arange(runs.size) - np.repeat(first, counts)) % 2 == 1) & (runs > 0)
    mask, length, ends = mask[inside], runs[inside], ends[inside]
    height = np.maximum(heights, 1)[mask]
    left, right = (ends - length) // height, (ends - 1) // height
    several = left < right  # a run that goes on in the next column touches the bottom of one and the top of the other
    top = np.where(several, 0, (ends - length) % height)
    bottom = np.where(several, height - 1, (ends - 1) % height)
    boxes = np.full([counts.size, 4], np.nan)
    if mask.size:
        starts = np.flatnonzero(np.r_[True, mask[1:] != mask[:-1]])
        low, high = np.stack([left, top], axis=1), np.stack([right + 1, bottom + 1], axis=1)
        boxes[mask[starts]] = boxes_around(low, high, starts)
    return boxes, np.bincount(mask, length, minlength=counts.size)
