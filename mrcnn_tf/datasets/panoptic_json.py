"""COCO's panoptic json -> columns: its images, the PNG of each, and the segments in it.

Format: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

import array
import dataclasses
import math

import numpy as np

from mrcnn_tf.common.categories import Category, things_and_stuff
from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.common.problems import Problem

SECTIONS = ("images", "annotations", "categories")
MOST_SEGMENT_IDS = 1 << 24  # as many as a PNG has colours; 0 is void
NO_CATEGORY = -(1 << 63)  # of a segment whose category_id isn't a whole number


@dataclasses.dataclass
class PanopticJson:
    """The well-formed records of a file, A annotations (one to an image) with T segments.

    Attributes:
        path: of the json.
        images: its list of images, unchecked.
        things, stuff: lists of Category, sorted by id: those with and without instances to count.
        image_ids: [A] int64.
        map_names: list of A str, file names of the PNGs.
        segment_offsets: [A + 1] int64; the a-th annotation's segments are those from its a-th to its next number.
        segment_ids: [T] int64, 1 to 2^24 - 1, each once in an image.
        category_ids: [T] int64; NO_CATEGORY where the json has no whole number.
        crowd: [T] bool.
        areas: [T] float64 square pixels, NaN where there is none.
        boxes: [T, 4] float64 pixels x, y, width, height; NaN where there is none.
        problems: list of Problem, for all that was left out.
    """

    path: str
    images: list
    things: list[Category]
    stuff: list[Category]
    image_ids: np.ndarray
    map_names: list[str]
    segment_offsets: np.ndarray
    segment_ids: np.ndarray
    category_ids: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    problems: list[Problem]

    def segments_info(self, place):
        """The segments of the annotation at `place`, as dicts with `id`, `category_id`, `iscrowd`, `area`, `bbox`."""
        rows = range(self.segment_offsets[place], self.segment_offsets[place + 1])
        return [
            {
                "id": int(self.segment_ids[row]),
                "category_id": int(self.category_ids[row]),
                "iscrowd": int(self.crowd[row]),
                "area": float(self.areas[row]),
                "bbox": self.boxes[row].tolist(),
            }
            for row in rows
        ]


def read_panoptic(path, on_progress=None, kinds=things_and_stuff):
    """Reads a panoptic json, however large.

    Args:
        path: of the json.
        on_progress: called with the number of bytes read so far.
        kinds: a function of the category records and the path that gives the things and the stuff.

    Returns:
        PanopticJson. What isn't well formed is left out of it and listed in its `problems`.

    Raises:
        UserError: the file is missing, isn't json, or see `categories.read_panoptic_categories`.
    """
    images, categories, columns = [], [], _Columns(str(path))
    takers = {"images": images.append, "annotations": columns.add, "categories": categories.append}
    for section, record in stream_arrays(path, SECTIONS, on_progress):
        takers[section](record)
    things, stuff = kinds(categories, path)
    return PanopticJson(str(path), images, things, stuff, **columns.arrays(), problems=columns.problems)


def is_panoptic(path):
    """Whether a json is one of COCO's panoptic format, which its first annotation tells; raises UserError as above."""
    for _, record in stream_arrays(path, ("annotations",)):
        keys = record if isinstance(record, dict) else {}
        return "segments_info" in keys or ("file_name" in keys and "bbox" not in keys)
    return False


class _Columns:
    """Takes annotation records one at a time."""

    def __init__(self, file):
        self.file = file
        self.problems = []
        self._seen = set()
        self._map_names = []
        self._image_ids, self._counts = array.array("q"), array.array("q")
        self._ids, self._category_ids, self._crowd = array.array("q"), array.array("q"), array.array("b")
        self._areas, self._boxes = array.array("d"), array.array("d")

    def add(self, record):
        """One annotation: the PNG of an image and its segments."""
        image = record.get("image_id") if isinstance(record, dict) else None
        name = f"The annotation of image {image} in {self.file}"
        if not _whole(image) or not isinstance(record.get("file_name"), str):
            what = f"An annotation in {self.file} (image_id {image!r}) lacks a whole number as image_id or a file_name"
            self._note("map_annotation", image, f"{what} and was skipped: add it.")
        elif not isinstance(record.get("segments_info"), list):
            remedy = "give its list of segments, or name the file as data.*.annotations if it is one of instances"
            self._note("map_annotation", image, f"{name} has no segments_info and was skipped: {remedy}.")
        elif image in self._seen:
            self._note("second_map", image, f"{name} isn't the first and was skipped: remove it.")
        else:
            self._seen.add(image)
            self._image_ids.append(image)
            self._map_names.append(record["file_name"])
            before, taken = len(self._ids), set()
            for segment in record["segments_info"]:
                self._add_segment(segment, image, taken)
            self._counts.append(len(self._ids) - before)

    def arrays(self):
        """The columns of a PanopticJson, as a dict."""
        return {
            "image_ids": np.asarray(self._image_ids),
            "map_names": self._map_names,
            "segment_offsets": np.r_[0, np.cumsum(np.asarray(self._counts))].astype(np.int64),
            "segment_ids": np.asarray(self._ids),
            "category_ids": np.asarray(self._category_ids),
            "crowd": np.asarray(self._crowd).astype(bool),
            "areas": np.asarray(self._areas),
            "boxes": np.asarray(self._boxes).reshape(-1, 4),
        }

    def _add_segment(self, record, image, taken):
        number = record.get("id") if isinstance(record, dict) else None
        where = f"Segment {number} of image {image} in {self.file}"
        if type(number) is not int or not 0 < number < MOST_SEGMENT_IDS:
            remedy = f"give it a whole number from 1 to {MOST_SEGMENT_IDS - 1}, R + 256 G + 65536 B of its pixels"
            self._note("segment_fields", f"{image}/{number}", f"{where} has no usable id and was skipped: {remedy}.")
            return
        if number in taken:
            remedy = "give each segment of an image an id of its own"
            self._note("duplicate_segment", f"{image}/{number}", f"{where} isn't the first and was skipped: {remedy}.")
            return
        taken.add(number)
        category = record.get("category_id")
        if not _whole(category):
            remedy = "give the id of one of the categories"
            what = "has no whole number as category_id and its pixels are ignored"
            self._note("segment_fields", f"{image}/{number}", f"{where} {what}: {remedy}.")
            category = NO_CATEGORY
        self._ids.append(number)
        self._category_ids.append(category)
        self._crowd.append(bool(record.get("iscrowd", 0)))
        self._areas.append(_number(record.get("area")))
        box = record.get("bbox")
        box = [_number(side) for side in box] if isinstance(box, list) and len(box) == 4 else [math.nan]
        self._boxes.extend(box if all(map(math.isfinite, box)) else [math.nan] * 4)

    def _note(self, kind, record, message):
        self.problems.append(Problem(kind, record, self.file, message))


def _whole(value):
    return type(value) is int and abs(value) < 1 << 63


def _number(value):
    return float(value) if isinstance(value, int | float) else math.nan
