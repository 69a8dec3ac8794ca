"""TFRecords -> `CocoIndex`, compiled once and cached: all but pixels and masks, which are read when they're needed."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import os
import re
import struct

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn_tf.common.categories import find_record_files, read_record_categories
from mrcnn_tf.common.problems import CONSOLE, Problem
from mrcnn_tf.data.tfrecord_file import scan
from mrcnn_tf.datasets.annotation_checks import Checker
from mrcnn_tf.datasets.annotation_records import NO_KEYPOINTS
from mrcnn_tf.datasets.coco_index import CocoIndex, cache_file, kept_index, report_index
from mrcnn_tf.datasets.image_files import image_frame, inspect_bytes, visible_size
from mrcnn_tf.datasets.label_maps import label_columns

# The features of one tf.train.Example of the Model Garden's detection format -> arrays; pixels are only looked at.
#
# Source of the names: official/vision/data/create_coco_tf_record.py and
# official/vision/dataloaders/tf_example_decoder.py of the TensorFlow Model Garden, for keypoints
# object_detection/dataset_tools/create_coco_tf_record.py.
#

# Normalised float32 coordinates are rounded to this many decimals of a pixel, which gives back those of a json with up
# to three decimals as they were.
DECIMALS = 3
BOX = ("image/object/bbox/xmin", "image/object/bbox/ymin", "image/object/bbox/xmax", "image/object/bbox/ymax")
KEYPOINT = ("image/object/keypoint/x", "image/object/keypoint/y", "image/object/keypoint/visibility")


class BadRecord(Exception):
    """A record that can't be used; arguments: a kind to count by, what is wrong, remedy."""


@dataclasses.dataclass
class RecordFeatures:
    """One image of M objects.

    Attributes:
        image_id: int.
        height, width, orientation: as in CocoIndex.
        boxes: [M, 4] float64 pixels, corners.
        labels: [M] int64, category ids.
        crowd: [M] bool.
        areas: [M] float64 square pixels, NaN where the record has none.
        masked: [M] bool, the object has a PNG of the image's size.
        keypoints: [M, P, 3] float32, (x, y) pixels and v; P is 0 for a record without.
    """

    image_id: int
    height: int
    width: int
    orientation: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    masked: np.ndarray
    keypoints: np.ndarray


def parse_record(data):
    """The features of a serialised tf.train.Example.

    Args:
        data: bytes.

    Returns:
        RecordFeatures.

    Raises:
        BadRecord: it isn't an Example, its image isn't one, or features don't belong together.
    """
    try:
        features = tf.train.Example.FromString(data).features.feature
    except DecodeError as error:
        raise BadRecord("undecodable_record", "isn't a tf.train.Example", "write it anew") from error
    image = features["image/encoded"].bytes_list.value
    if len(image) != 1:
        raise BadRecord("record_fields", "has no image/encoded", "write it anew")
    height, width, orientation = _frame(image[0], features)
    labels = np.array(features["image/object/class/label"].int64_list.value, np.int64)
    boxes = _boxes(features, labels.size, height, width)
    crowd = np.array(features["image/object/is_crowd"].int64_list.value, np.int64)
    areas = np.array(features["image/object/area"].float_list.value, np.float64)
    masks = features["image/object/mask"].bytes_list.value
    for name, column in (("is_crowd", crowd), ("area", areas), ("mask", masks)):
        if len(column) not in (0, labels.size):
            _mismatch(f"{len(column)} values of image/object/{name}", labels.size)
    return RecordFeatures(
        _image_id(features, image[0]),
        height,
        width,
        orientation,
        boxes,
        labels,
        crowd.astype(bool) if crowd.size else np.zeros(labels.size, bool),
        areas if areas.size else np.full(labels.size, np.nan),
        np.array([_is_png(mask, height, width) for mask in masks or [b""] * labels.size], bool),
        _keypoints(features, labels.size, height, width),
    )


def _frame(image, features):
    """(height, width, EXIF orientation) of the image, whose header has to agree with the record."""
    header = inspect_bytes(image)
    if header.problem:
        kind, what, _ = header.problem
        raise BadRecord(kind, f"has an image that {what}", "write it anew with a JPEG or PNG")
    seen = visible_size(header)
    given = []
    for name, side in zip(("image/height", "image/width"), seen, strict=True):
        values = features[name].int64_list.value
        given.append(values[0] if len(values) == 1 and values[0] > 0 else side)  # Model Garden writes -1 for unknown
    frame = image_frame(header, *given)
    if frame is None:
        what = f"has an image of {seen[1]} x {seen[0]} pixels and says {given[1]} x {given[0]}"
        raise BadRecord("image_size", what, "write it anew with the image's height and width")
    return frame


def _image_id(features, image):
    """image/source_id as a number: its digits, else a hash of it or, where it's empty, of the image."""
    values = features["image/source_id"].bytes_list.value
    text = values[0] if values else b""
    if text.isdigit() and int(text) < 2**63:
        return int(text)
    return int.from_bytes(hashlib.sha256(text or image).digest()[:8], "big") >> 1


def _boxes(features, count, height, width):
    sides = [np.array(features[name].float_list.value, np.float64) for name in BOX]
    for name, side in zip(BOX, sides, strict=True):
        if side.size != count:
            _mismatch(f"{side.size} values of {name}", count)
    return np.round(np.stack(sides, axis=1) * (width, height, width, height), DECIMALS)


def _keypoints(features, count, height, width):
    x, y, visibility = (features[name] for name in KEYPOINT)
    columns = [x.float_list.value, y.float_list.value, visibility.int64_list.value]
    sizes = [len(column) for column in columns]
    if len(set(sizes)) > 1 or sizes[0] % max(count, 1) or sizes[0] and not count:
        _mismatch(f"{sizes} values of image/object/keypoint/x, y and visibility", count)
    values = np.stack([np.array(column, np.float64) for column in columns], axis=1) * (width, height, 1)
    return np.round(values, DECIMALS).astype(np.float32).reshape(count, sizes[0] // max(count, 1), 3)


def _mismatch(what, count):
    raise BadRecord("record_fields", f"has {what} for {count} objects", "write it anew")


def _is_png(data, height, width):
    """Whether data begin as a PNG of that size does."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[16:24] == struct.pack(">II", width, height)


# The objects of records as the columns that `checks.Checker` takes from a json's annotations.
#

class RecordObjects:
    """The objects of I records, T of them, as columns; see `records.Annotations`. They have no polygons and runs.

    Args:
        images: list of I tfrecord_features.RecordFeatures.
        sources: list of I (file, number) of their records.
        categories: list of Category.
        masks: whether an object needs a mask. If so, those without are left out.

    Attributes:
        ids: [T] int64, 0, 1, ...
        places: [T] int64, their places in their records.
        problems: list of Problem, for those left out.
    """

    def __init__(self, images, sources, categories, masks):
        counts = np.array([image.labels.size for image in images], np.int64)
        owners = np.repeat(np.arange(len(images)), counts)
        places = np.arange(owners.size) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = np.ones(owners.size, bool)
        if masks:
            kept = _joined([image.masked for image in images], bool)
        self.problems = [_unmasked(*sources[owners[row]], places[row]) for row in np.flatnonzero(~kept).tolist()]
        self._sources = sources
        self._owners, self.places = owners[kept], places[kept]
        self.ids = np.arange(self.places.size)
        self.image_ids = np.array([image.image_id for image in images], np.int64)[self._owners]
        self.category_ids = _joined([image.labels for image in images], np.int64)[kept]
        self.crowd = _joined([image.crowd for image in images], bool)[kept]
        self.areas = _joined([image.areas for image in images], np.float64)[kept]
        corners = _joined([image.boxes for image in images], np.float64).reshape(-1, 4)[kept]
        self.boxes = np.c_[corners[:, :2], corners[:, 2:] - corners[:, :2]]
        self.box_given = np.ones(self.ids.size, bool)
        self.ring_counts = self.run_starts = self.run_counts = np.zeros(self.ids.size, np.int64)
        self.rle_sizes = np.full([self.ids.size, 2], -1)
        self.ring_sizes, self.points, self.runs = np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64)
        self._set_keypoints([image.keypoints for image in images], categories)

    def whereabouts(self, row):
        """See `records.Annotations.whereabouts`."""
        return _named(*self._sources[self._owners[row]], self.places[row])

    def _set_keypoints(self, keypoints, categories):
        # A record has room for the category with the most; others fill the beginning of theirs.
        numbers = {category.id: len(category.keypoints) for category in categories}
        kept = []
        self.keypoint_numbers = np.full(self.ids.size, NO_KEYPOINTS)
        self.keypoint_counts = np.zeros(self.ids.size, np.int64)
        for row, (owner, place, label) in enumerate(
            zip(self._owners.tolist(), self.places.tolist(), self.category_ids.tolist(), strict=True)
        ):
            if keypoints[owner].size:
                values = keypoints[owner][place, : numbers.get(label)]
                self.keypoint_numbers[row] = values.size
                if values[:, 2].any():
                    self.keypoint_counts[row] = values.size
                    kept.append(values.ravel())
        self.keypoints = _joined(kept, np.float32)


def _joined(arrays, kind):
    return np.concatenate([np.zeros(0, kind), *(array.ravel() for array in arrays)]).astype(kind)


def _unmasked(file, number, place):
    record, file, name = _named(file, number, place)
    what = "has no mask, a PNG of the image's size, and was skipped: write image/object/mask or train without masks."
    return Problem("empty_segmentation", record, file, f"{name} {what}")


def _named(file, number, place):
    return f"{number}/{place}", file, f"Object {place} of record {number} of {file}"


WORKERS = 8  # files read at the same time


def load_record_index(pattern, config):
    """The usable records of TFRecord files in the Model Garden's format.

    The first call reads the files once, checks the checksum of every record, looks at the headers of images and masks,
    and keeps the result in the user's cache folder as `coco.load_index` does; later calls compare the files' sizes and
    times of change. Bad records are left out, counted on stderr and listed in a json report.

    Args:
        pattern: of the files, such as records/train-*.tfrecord.
        config: settings.DataConfig; `categories`, `max_instances`, `masks` and `keypoints` are read. Without categories
            those of the files' manifest count.

    Returns:
        CocoIndex. Images are in the order of the files' names and of the records in them; `record_offsets` and
        `image_files` say where they lie, and `annotation_ids` are the objects' places in their record, from 0.

    Raises:
        UserError: no file matches, one is compressed or can't be read, no categories are known, or no image is usable.
    """
    files = find_record_files(pattern)
    categories = config.categories or read_record_categories(pattern)
    if config.keypoints is False:
        categories = [dataclasses.replace(category, keypoints=[], skeleton=[]) for category in categories]
    masks = config.masks is not False
    path = _cache_path(files, categories, masks)
    index = kept_index(path, lambda: _compile(str(pattern), files, categories, masks))
    report_index(index, path, str(pattern), config.max_instances)
    return index


def _cache_path(files, categories, masks):
    states = [(os.path.realpath(file), os.stat(file)) for file in files]
    key = [[path, state.st_size, state.st_mtime_ns] for path, state in states]
    key += [[dataclasses.asdict(category) for category in categories], masks]
    return cache_file(os.path.splitext(os.path.basename(files[0]))[0], key)


def _compile(pattern, files, categories, masks):
    """(CocoIndex, {file: bytes}) from the files."""
    sizes = {file: os.path.getsize(file) for file in files}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with (
        Progress(*columns, TimeRemainingColumn(), console=CONSOLE, transient=CONSOLE.is_terminal) as progress,
        concurrent.futures.ThreadPoolExecutor(WORKERS) as pool,
    ):
        reading = progress.add_task(f"Reading {pattern}", total=sum(sizes.values()))
        read = list(pool.map(lambda file: _read_file(file, lambda size: progress.advance(reading, size)), files))
    images, problems = _unique([image for found, _ in read for image in found])
    problems = _missing_shards(files) + [problem for _, bad in read for problem in bad] + problems
    objects = RecordObjects(
        [image.features for image in images], [(image.file, image.number) for image in images], categories, masks
    )
    fields = {
        "image_ids": np.array([image.features.image_id for image in images], np.int64),
        "image_files": np.array([os.fsencode(image.file) for image in images], np.bytes_),
        "record_offsets": np.array([image.offset for image in images], np.int64),
        "heights": np.array([image.features.height for image in images], np.int32),
        "widths": np.array([image.features.width for image in images], np.int32),
        "orientations": np.array([image.features.orientation for image in images], np.int32),
    }
    checker = Checker(objects, fields["image_ids"], fields["heights"], fields["widths"], set(), categories)
    fields |= checker.instances(len(images)) | label_columns([""] * len(images))
    fields["annotation_ids"] = objects.places[fields["annotation_ids"]]
    problems = problems + objects.problems + checker.problems
    return CocoIndex(**fields, categories=list(categories), problems=problems), sizes


@dataclasses.dataclass
class _Image:
    """A usable record and where it is."""

    file: str
    number: int
    offset: int
    features: RecordFeatures


def _read_file(file, advance):
    """([_Image], [Problem]) of one file; `advance` is called with the number of bytes read since the last call."""
    images, problems, done = [], [], 0
    for number, offset, data, damage in scan(file):
        try:
            if damage:
                raise BadRecord("corrupted_record", damage, "write the file anew")
            images.append(_Image(file, number, offset, parse_record(data)))
        except BadRecord as error:
            kind, what, remedy = error.args
            message = f"Record {number} of {file} (byte {offset}) {what} and was skipped: {remedy}."
            problems.append(Problem(kind, number, file, message))
        advance(offset - done)
        done = offset
    return images, problems


def _unique(images):
    """([_Image], [Problem]): of images with the same id the first."""
    first, problems = {}, []
    for image in images:
        other = first.setdefault(image.features.image_id, image)
        if other is not image:
            message = (
                f"Record {image.number} of {image.file} has the image id {image.features.image_id} of record "
                f"{other.number} of {other.file} and was skipped: give it an image/source_id of its own, or leave "
                "copies of the same images out of the pattern."
            )
            problems.append(Problem("duplicate_image", image.number, image.file, message))
    return list(first.values()), problems


def _missing_shards(files):
    """A Problem for each set of files NAME-00000-of-00010 that isn't whole, as after a conversion that was stopped."""
    found = collections.Counter(re.sub(r"-\d{5}-of-(\d{5})(?=\D*$)", r"-*-of-\1", file) for file in files)
    problems = []
    for name, count in found.items():
        total = re.search(r"-\*-of-(\d{5})\D*$", name)
        if total and count != int(total.group(1)):
            message = (
                f"Of the {int(total.group(1))} files {name} {count} are there: finish writing them, or train on these."
            )
            problems.append(Problem("missing_shards", None, name, message))
    return problems
