"""Collects annotation records into flat arrays, one record at a time, without those that can't be used.

What can be told from one record alone is known by then (`coco_records.py`); what needs the images or the other records
comes later (`annotation_checks.py`), on all of them at once.
"""

import array
import dataclasses
import difflib
import itertools
import math
import reprlib

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.coco_records import LARGEST_FLOAT32
from mrcnn_tf.datasets.coco_segmentations import Fault

MASKS_AT_ONCE = 20000  # compressed masks decoded together; bounds the memory that this takes
NO_KEYPOINTS, BAD_KEYPOINTS = -1, -2  # in place of their number: there are none, they aren't numbers
BAD_BOX = -1  # in `box_given`: there is a bbox, of which nothing can be made


class AnnotationColumns:
    """Annotation records as columns, in the order of the file. A record's row is its index there.

    Args:
        file: the json.
        masks: whether a record needs a segmentation. If not, only one without a bbox is asked for it.
        field_names: keys of numbers of its own that a record may have, F of them.

    Attributes:
        ids, image_ids, category_ids: int64.
        image_names: {image id: the text that stands there for it}, where it's text.
        crowd: int8.
        box_given: int8, 1 for a record with a bbox, 0 for one without, or BAD_BOX.
        boxes: float64, four to a record: x, y, width, height as in the json, or NaN where `box_given` isn't 1.
        areas: float64, NaN where there is none.
        ring_counts: int64, polygons of each record; `ring_sizes` holds their vertices, `points` x and y by turns.
        rle_sizes: int64, two to a record: height and width of its RLE; -1 for polygons.
        run_starts, run_counts: int64, the range of its RLE in `runs`.
        keypoint_numbers: int64, how many numbers its "keypoints" hold; NO_KEYPOINTS or BAD_KEYPOINTS.
        keypoint_counts: int64, how many of them `keypoints` keeps: all, or none if they label nothing.
        keypoints: float32, x, y and visibility by turns.
        field_values: float32, F to a record; NaN where it has no finite number.
        problems: list of Problem.
    """

    def __init__(self, file, masks, field_names=()):
        self.file = file
        self.field_names = field_names
        self._masks = masks
        self.problems = []
        self.ids, self.image_ids, self.category_ids = array.array("q"), array.array("q"), array.array("q")
        self.image_names = {}
        self.crowd, self.box_given = array.array("b"), array.array("b")
        self.boxes, self.areas = array.array("d"), array.array("d")
        self.ring_counts, self.ring_sizes, self.points = array.array("q"), array.array("q"), array.array("f")
        self.rle_sizes = array.array("q")
        self.run_starts, self.run_counts, self.runs = array.array("q"), array.array("q"), array.array("q")
        self.keypoint_numbers, self.keypoint_counts = array.array("q"), array.array("q")
        self.keypoints, self.field_values = array.array("f"), array.array("f")
        self._numbers = set()  # the keys of any
        self._compressed, self._compressed_rows = [], []

    def add(self, record):
        """Takes an AnnotationRecord; whether it is among the columns now."""
        if record.faults and not self._report_faults(record):
            return False
        self.ids.append(record.id)
        self.image_ids.append(record.image_id)
        if isinstance(record.source["image_id"], str):
            self.image_names[record.image_id] = record.source["image_id"]
        self.category_ids.append(record.category_id)
        self.crowd.append(record.crowd)
        self.box_given.append(BAD_BOX if "bbox" in record.faults else record.box is not None)
        self.boxes.extend(record.box if record.box else (math.nan,) * 4)
        self.areas.append(record.area)
        self._add_segmentation(record)
        self._add_keypoints(record)
        if self.field_names:
            self._add_fields(record.source)
        return True

    def finish(self):
        """Decodes what is still waiting; call it once after the last record."""
        runs, counts = run_lengths.decode_strings(self._compressed)
        starts = np.cumsum(counts) - counts + len(self.runs)
        self.runs.frombytes(runs.tobytes())
        for row, start, count in zip(self._compressed_rows, starts.tolist(), counts.tolist(), strict=True):
            self.run_starts[row], self.run_counts[row] = start, count
        self._compressed, self._compressed_rows = [], []

    def check_fields(self):
        """Raises UserError if not one record has a number of a name, while there are records."""
        if not self.field_values:
            return
        has_number = np.isfinite(self.field_values).reshape(-1, len(self.field_names)).any(axis=0)
        for name in itertools.compress(self.field_names, ~has_number):
            similar = difflib.get_close_matches(name, self._numbers, n=1)
            remedy = f"name {similar[0]!r} there" if similar else "give it to annotations, or leave it out there"
            raise UserError(
                f"No annotation of {self.file} has a number {name!r}, which data.*.fields asks for: {remedy}."
            )

    def locate(self, row):
        """How to name a record in a Problem: its `record` and `file`, and the beginning of a sentence."""
        return int(self.ids[row]), self.file, f"Annotation {self.ids[row]} in {self.file}"

    def _report_faults(self, record):
        """Reports what can't be used of a record; whether the rest can."""
        fault = self._fatal_fault(record)
        if fault:
            self._report(fault.kind, record.own_id, f"{fault.what} and was skipped", fault.remedy)
            return False
        for kind, what, remedy in record.faults.get("polygons", ()):
            self._report(kind, record.own_id, what, remedy)
        for part in ("bbox", "area"):
            if part in record.faults:
                kind, what, remedy = record.faults[part]
                instead = "mask's" if part == "bbox" or record.box is None else "box's"
                self._report(kind, record.own_id, f"{what}, its {instead} was taken", remedy)
        return True

    def _fatal_fault(self, record):
        """The Fault that keeps a record from being used; None if nothing does."""
        if "record" in record.faults:
            return record.faults["record"]
        has_mask = record.rings or record.rle
        if not has_mask and (self._masks or record.box is None):
            if not self._masks and record.box is None and record.faults["segmentation"].kind == "empty_segmentation":
                what = "has neither a bbox nor a segmentation to take it from"
                return record.faults.get("bbox") or Fault("bad_box", what, "give [x, y, width, height]")
            return record.faults["segmentation"]
        return None

    def _add_segmentation(self, record):
        if record.rle:
            self.ring_counts.append(0)
            self.rle_sizes.extend(record.rle.size)
            self.run_starts.append(len(self.runs))
            if isinstance(record.rle.counts, bytes):
                self._compressed.append(record.rle.counts)
                self._compressed_rows.append(len(self.run_counts))
                self.run_counts.append(0)
                if len(self._compressed) == MASKS_AT_ONCE:
                    self.finish()
            else:
                self.runs.extend(record.rle.counts)
                self.run_counts.append(len(record.rle.counts))
            return
        for ring in record.rings:
            self.ring_sizes.append(len(ring) // 2)
            self.points.extend(array.array("f", ring))
        self.ring_counts.append(len(record.rings))
        self.rle_sizes.extend((-1, -1))
        self.run_starts.append(len(self.runs))
        self.run_counts.append(0)

    def _add_keypoints(self, record):
        # What is wrong with them is said by `Checker`, as only the categories tell whether they are wanted at all.
        values = record.keypoints or ()
        is_bad = "keypoints" in record.faults
        self.keypoint_numbers.append(BAD_KEYPOINTS if is_bad else len(values) or NO_KEYPOINTS)
        # Of COCO's people more than half have no keypoint labelled: zeros that aren't worth their room.
        kept = values if any(values[2::3]) else ()
        self.keypoint_counts.append(len(kept))
        self.keypoints.extend(array.array("f", kept))

    def _add_fields(self, source):
        self._numbers.update(key for key, value in source.items() if isinstance(value, (int, float)))
        for name in self.field_names:
            given = source.get(name)
            try:
                value = math.nan if given is None else float(given)
            except (TypeError, ValueError, OverflowError):
                value = math.inf
            if abs(value) > LARGEST_FLOAT32:
                what = f"has {reprlib.repr(given)} as {name!r}, which isn't a finite number and counts as missing"
                self._report("bad_field", source.get("id"), what, "correct or remove it")
                value = math.nan
            self.field_values.append(value)

    def _report(self, kind, own_id, what, remedy):
        self.problems.append(Problem(kind, own_id, self.file, f"Annotation {own_id} in {self.file} {what}: {remedy}."))


class BoxColumns:
    """The columns of N objects that have a box and neither polygons, runs, keypoints nor fields of their own, as far as
    all have the same.

    A subclass sets the others and `locate`, see `AnnotationColumns`.
    """

    def __init__(self, count):
        self.ids, self.image_names = np.arange(count), {}
        self.box_given = np.ones(count, bool)
        self.ring_counts = self.run_starts = self.run_counts = np.zeros(count, np.int64)
        self.rle_sizes = np.full([count, 2], -1)
        self.ring_sizes, self.points, self.runs = np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64)
        self.keypoint_numbers = np.full(count, NO_KEYPOINTS)
        self.keypoint_counts, self.keypoints = np.zeros(count, np.int64), np.zeros(0, np.float32)
        self.field_names, self.field_values = (), np.zeros(0, np.float32)


def without_keypoints(categories):
    """The `Category`s without keypoints, for a dataset that is used without."""
    return [dataclasses.replace(category, keypoints=[], skeleton=[]) for category in categories]
