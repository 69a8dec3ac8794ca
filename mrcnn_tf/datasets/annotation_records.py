"""Collects annotation records into flat arrays, one record at a time, turning away those that aren't well formed.

What can be told from one record alone is checked here; what needs the images or the other records comes later
(`checks.py`), on all of them at once.
"""

import array
import math

import numpy as np

from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets import run_lengths

STRINGS_AT_ONCE = 20000  # compressed masks decoded together; bounds the memory that this takes
NO_KEYPOINTS, BAD_KEYPOINTS = -1, -2  # in place of their number: there are none, they aren't numbers

_BAD_SEGMENTATION = "give it polygons as lists [x1, y1, x2, y2, ...] of at least 3 points or an RLE"


class Annotations:
    """Annotation records as columns, in the order of the file.

    Args:
        file: the json.
        masks: whether a record needs a segmentation. If not, only one without a bbox is asked for it.

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
        problems: list of Problem.
    """

    def __init__(self, file, masks):
        self.file = file
        self._masks = masks
        self.problems = []
        self.ids, self.image_ids, self.category_ids = array.array("q"), array.array("q"), array.array("q")
        self.crowd, self.box_given = array.array("b"), array.array("b")
        self.boxes, self.areas = array.array("d"), array.array("d")
        self.ring_counts, self.ring_sizes, self.points = array.array("q"), array.array("q"), array.array("f")
        self.rle_sizes = array.array("q")
        self.run_starts, self.run_counts, self.runs = array.array("q"), array.array("q"), array.array("q")
        self.keypoint_numbers, self.keypoint_counts = array.array("q"), array.array("q")
        self.keypoints = array.array("f")
        self._strings, self._string_rows = [], []

    def add(self, record):
        """Takes one element of "annotations"."""
        if not isinstance(record, dict):
            self._turn_away("annotation_fields", None, "isn't a json object", "remove it")
            return
        name = record.get("id")
        keys = (name, record.get("image_id"), record.get("category_id"))
        if not all(type(key) is int and abs(key) < 2**63 for key in keys):
            what, remedy = "lacks a whole number as id, image_id or category_id", "add it"
            if "segments_info" in record:
                what, remedy = "is one of COCO's panoptic format", "name the file as data.*.panoptic"
            self._turn_away("annotation_fields", name, what, remedy)
            return
        try:
            box = array.array("d", record.get("bbox") or ())
            area = float(record.get("area", math.nan))
        except (TypeError, ValueError):
            self._turn_away("bad_box", name, "has a bbox or area that isn't numbers", "give [x, y, width, height]")
            return
        if len(box) not in (0, 4):
            self._turn_away("bad_box", name, f"has a bbox of {len(box)} numbers", "give [x, y, width, height]")
            return
        if not self._add_segmentation(name, record.get("segmentation"), bool(box)):
            return
        self.ids.append(keys[0])
        self.image_ids.append(keys[1])
        self.category_ids.append(keys[2])
        self.crowd.append(bool(record.get("iscrowd", 0)))
        self.box_given.append(len(box) == 4)
        self.boxes.extend(box if box else (math.nan,) * 4)
        self.areas.append(area)
        self._add_keypoints(record.get("keypoints"))

    def finish(self):
        """Decodes what is still waiting; call it once after the last record."""
        runs, counts = run_lengths.decode_strings(self._strings)
        starts = np.cumsum(counts) - counts + len(self.runs)
        self.runs.frombytes(runs.tobytes())
        for row, start, count in zip(self._string_rows, starts.tolist(), counts.tolist(), strict=True):
            self.run_starts[row], self.run_counts[row] = start, count
        self._strings, self._string_rows = [], []

    def whereabouts(self, row):
        """How to name a record in a Problem: its record and file, and the beginning of a sentence."""
        return int(self.ids[row]), self.file, f"Annotation {self.ids[row]} in {self.file}"

    def _add_segmentation(self, name, segmentation, box_given):
        if not self._masks and box_given:
            self._add_rings([])
            return True
        if not segmentation and not self._masks:
            what = "has neither a bbox nor a segmentation to take it from"
            self._turn_away("bad_box", name, what, "give [x, y, width, height]")
            return False
        if not segmentation:
            self._turn_away("empty_segmentation", name, "has no segmentation", _BAD_SEGMENTATION)
            return False
        if isinstance(segmentation, list):
            return self._add_polygons(name, segmentation)
        return self._add_rle(name, segmentation)

    def _add_polygons(self, name, polygons):
        rings = []
        for polygon in polygons:
            try:
                ring = array.array("f", polygon)
            except TypeError:
                self._turn_away("bad_polygon", name, "has a polygon that isn't a list of numbers", _BAD_SEGMENTATION)
                return False
            if len(ring) % 2 or len(ring) < 6:
                problem = f"has a polygon of {len(ring)} numbers, which was left out"
                self._note("bad_polygon", name, problem, "give at least 3 points as x1, y1, x2, y2, ...")
            else:
                rings.append(ring)
        if not rings:
            self._turn_away("empty_segmentation", name, "has no polygon of 3 points or more", _BAD_SEGMENTATION)
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

    def _add_rle(self, name, segmentation):
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
            self._turn_away("bad_rle", name, "has an RLE without size [height, width] and counts", _BAD_SEGMENTATION)
            return False
        self.ring_counts.append(0)
        self.run_starts.append(len(self.runs))
        if isinstance(counts, str):
            self._strings.append(text)
            self._string_rows.append(len(self.run_counts))
            self.run_counts.append(0)
            if len(self._strings) == STRINGS_AT_ONCE:
                self.finish()
        else:
            self.runs.extend(runs)
            self.run_counts.append(len(runs))
        return True

    def _add_keypoints(self, keypoints):
        # What is wrong with them is said in checks, as only the categories tell whether they are wanted at all.
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

    def _turn_away(self, kind, name, what, remedy):
        self._note(kind, name, f"{what} and was skipped", remedy)

    def _note(self, kind, name, what, remedy):
        self.problems.append(Problem(kind, name, self.file, f"Annotation {name} in {self.file} {what}: {remedy}."))
