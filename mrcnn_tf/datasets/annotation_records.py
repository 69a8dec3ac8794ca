"""Collects annotation records into flat arrays, one record at a time, rejecting those that aren't well formed.

What can be told from one record alone is checked here; what needs the images or the other records comes later
(`annotation_checks.py`), on all of them at once.
"""

import array
import collections
import dataclasses
import difflib
import itertools
import math
import reprlib

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets import run_lengths

MASKS_AT_ONCE = 20000  # compressed masks decoded together; bounds the memory that this takes
NO_KEYPOINTS, BAD_KEYPOINTS = -1, -2  # in place of their number: there are none, they aren't numbers
LARGEST_NUMBER = float(np.finfo(np.float32).max)
COCO_FIELDS = {  # of an annotation
    *("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints", "num_keypoints"),
    *("score", "ignore"),
}

_BAD_SEGMENTATION = "give it polygons as lists [x1, y1, x2, y2, ...] of at least 3 points or an RLE"


class Annotations:
    """Annotation records as columns, in the order of the file. A record's row is its index there.

    Args:
        file: the json.
        masks: whether a record needs a segmentation. If not, only one without a bbox is asked for it.
        field_names: keys of numbers of its own that a record may have, F of them.

    Attributes:
        ids, image_ids, category_ids: int64.
        crowd: int8.
        boxes: float64, four to a record: x, y, width, height as in the json, or NaN where `box_given` is 0.
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
        """Takes one element of "annotations"."""
        if not isinstance(record, dict):
            self._reject("annotation_fields", None, "isn't a json object", "remove it")
            return
        record_id = record.get("id")
        ids = (record_id, record.get("image_id"), record.get("category_id"))
        if not all(type(number) is int and abs(number) < 2**63 for number in ids):
            what, remedy = "lacks a whole number as id, image_id or category_id", "add it"
            if "segments_info" in record:
                what, remedy = "is one of COCO's panoptic format", "name the file as data.*.panoptic"
            self._reject("annotation_fields", record_id, what, remedy)
            return
        try:
            box = array.array("d", record.get("bbox") or ())
            area = float(record.get("area", math.nan))
        except (TypeError, ValueError):
            self._reject("bad_box", record_id, "has a bbox or area that isn't numbers", "give [x, y, width, height]")
            return
        if len(box) not in (0, 4):
            self._reject("bad_box", record_id, f"has a bbox of {len(box)} numbers", "give [x, y, width, height]")
            return
        if not self._add_segmentation(record_id, record.get("segmentation"), bool(box)):
            return
        self.ids.append(record_id)
        self.image_ids.append(ids[1])
        self.category_ids.append(ids[2])
        self.crowd.append(bool(record.get("iscrowd", 0)))
        self.box_given.append(len(box) == 4)
        self.boxes.extend(box if box else (math.nan,) * 4)
        self.areas.append(area)
        self._add_keypoints(record.get("keypoints"))
        if self.field_names:
            self._add_fields(record)

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

    def _add_segmentation(self, record_id, segmentation, box_given):
        if not self._masks and box_given:
            self._add_rings([])
            return True
        if not segmentation:
            if not self._masks:
                what = "has neither a bbox nor a segmentation to take it from"
                self._reject("bad_box", record_id, what, "give [x, y, width, height]")
                return False
            self._reject("empty_segmentation", record_id, "has no segmentation", _BAD_SEGMENTATION)
            return False
        if isinstance(segmentation, list):
            return self._add_polygons(record_id, segmentation)
        return self._add_rle(record_id, segmentation)

    def _add_polygons(self, record_id, polygons):
        rings = []
        for polygon in polygons:
            try:
                ring = array.array("f", polygon)
            except TypeError:
                self._reject("bad_polygon", record_id, "has a polygon that isn't a list of numbers", _BAD_SEGMENTATION)
                return False
            if len(ring) % 2 or len(ring) < 6:
                problem = f"has a polygon of {len(ring)} numbers, which was left out"
                self._report("bad_polygon", record_id, problem, "give at least 3 points as x1, y1, x2, y2, ...")
            else:
                rings.append(ring)
        if not rings:
            self._reject("empty_segmentation", record_id, "has no polygon of 3 points or more", _BAD_SEGMENTATION)
            return False
        self._add_rings(rings)
        return True

    def _add_rings(self, rings):
        for ring in rings:
            self.ring_sizes.append(len(ring) // 2)
            self.points.extend(ring)
        self.ring_counts.append(len(rings))
        self.rle_sizes.extend((-1, -1))
        self.run_starts.append(len(self.runs))
        self.run_counts.append(0)

    def _add_rle(self, record_id, segmentation):
        try:
            counts = segmentation["counts"]
            height, width = segmentation["size"]
            self.rle_sizes.extend(array.array("q", (height, width)))
            if isinstance(counts, str):
                text = counts.encode("latin-1")
            else:
                runs = array.array("q", counts)
        except (TypeError, KeyError, ValueError, OverflowError):
            del self.rle_sizes[2 * len(self.run_counts) :]
            self._reject("bad_rle", record_id, "has an RLE without size [height, width] and counts", _BAD_SEGMENTATION)
            return False
        self.ring_counts.append(0)
        self.run_starts.append(len(self.runs))
        if isinstance(counts, str):
            self._compressed.append(text)
            self._compressed_rows.append(len(self.run_counts))
            self.run_counts.append(0)
            if len(self._compressed) == MASKS_AT_ONCE:
                self.finish()
        else:
            self.runs.extend(runs)
            self.run_counts.append(len(runs))
        return True

    def _add_keypoints(self, keypoints):
        # What is wrong with them is said by `Checker`, as only the categories tell whether they are wanted at all.
        try:
            values = array.array("f", keypoints or ())
            number = len(values) or NO_KEYPOINTS
        except (TypeError, ValueError, OverflowError):
            values, number = (), BAD_KEYPOINTS
        # Of COCO's people more than half have no keypoint labelled: zeros that aren't worth their room.
        kept = values if any(values[2::3]) else ()
        self.keypoint_numbers.append(number)
        self.keypoint_counts.append(len(kept))
        self.keypoints.extend(kept)

    def _add_fields(self, record):
        self._numbers.update(key for key, value in record.items() if isinstance(value, (int, float)))
        for name in self.field_names:
            given = record.get(name)
            try:
                value = math.nan if given is None else float(given)
            except (TypeError, ValueError, OverflowError):
                value = math.inf
            if abs(value) > LARGEST_NUMBER:
                what = f"has {reprlib.repr(given)} as {name!r}, which isn't a finite number and counts as missing"
                self._report("bad_field", record["id"], what, "correct or remove it")
                value = math.nan
            self.field_values.append(value)

    def _reject(self, kind, record_id, what, remedy):
        self._report(kind, record_id, f"{what} and was skipped", remedy)

    def _report(self, kind, record_id, what, remedy):
        message = f"Annotation {record_id} in {self.file} {what}: {remedy}."
        self.problems.append(Problem(kind, record_id, self.file, message))


def count_own_numbers(records):
    """How many annotation records have a finite number under each key that isn't COCO's, a dict in order of the keys.

    These are what `DataConfig.fields` may name; `records` are elements of "annotations", sound or not.
    """
    counts = collections.Counter()
    for record in records:
        if isinstance(record, dict):
            own = ((key, record[key]) for key in record.keys() - COCO_FIELDS)
            counts.update(key for key, value in own if isinstance(value, (int, float)) and abs(value) <= LARGEST_NUMBER)
    return dict(sorted(counts.items()))


class BoxColumns:
    """The columns of N objects that have a box and neither polygons, runs, keypoints nor fields of their own, as far as
    all have the same.

    A subclass sets the others and `locate`, see `Annotations`.
    """

    def __init__(self, count):
        self.ids = np.arange(count)
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
