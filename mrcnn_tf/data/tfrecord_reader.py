"""TFRecord files in the Model Garden's format -> `CocoIndex`, compiled once and cached, and single records thereafter.

The files are read once from end to end, for all but pixels and masks. Those are read when they are needed, in the
graph, each record at its byte offset.
"""

import collections
import concurrent.futures
import dataclasses
import os
import re
import struct

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import find_record_files, read_record_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import Problem, counting_bar, progress_bars
from mrcnn_tf.data.tfrecord_example import BadRecord, RecordFeatures, parse_record
from mrcnn_tf.datasets import coco_index
from mrcnn_tf.datasets.annotation_checks import Checker
from mrcnn_tf.datasets.annotation_columns import BoxColumns, without_keypoints
from mrcnn_tf.datasets.image_files import FULL_CHECK_BYTES
from mrcnn_tf.datasets.map_files import map_columns

FILES_AT_ONCE = 8

# A record is its length (8 bytes), the length's checksum (4), the data and the data's checksum (4).
HEADER_BYTES, FOOTER_BYTES = 12, 4
READ_BYTES = 1 << 18  # read at once; most records lie within
_GZIP = b"\x1f\x8b"
_CASTAGNOLI = 0x82F63B78  # CRC-32C's polynomial, its bits reversed


def load_record_index(pattern, config):
    """The usable records of TFRecord files in the Model Garden's format, a CocoIndex.

    The first call reads the files once, checks the checksum of every record, looks at the headers of images and masks,
    and keeps the result in the user's cache folder as `read_coco.load_index` does; later calls compare the files' sizes
    and times of change. Bad records are left out, counted on stderr and listed in a json report. Images are in the
    order of the files' names and of the records in them; `record_offsets` and `image_files` say where they lie, and
    `annotation_ids` are the objects' indices in their record, from 0.

    Args:
        pattern: of the files, such as records/train-*.tfrecord.
        config: settings.DataConfig; `categories`, `max_instances`, `masks` and `keypoints` are read. Without categories
            those of the files' manifest count.

    Raises:
        UserError: no file matches, one is compressed or can't be read, no categories are known, or no image is usable.
    """
    files = find_record_files(pattern)
    categories = config.categories or read_record_categories(pattern)
    if config.keypoints is False:
        categories = without_keypoints(categories)
    masks = config.masks is not False
    key = [*coco_index.file_states(files), [dataclasses.asdict(category) for category in categories], masks]
    path = coco_index.cached_index_path(os.path.splitext(os.path.basename(files[0]))[0], key)
    index = coco_index.load_or_compile_index(path, lambda: _compile(str(pattern), files, categories, masks))
    coco_index.report_index_problems(index, path, str(pattern), config.max_instances)
    return index


def _compile(pattern, files, categories, masks):
    """(CocoIndex, {file: bytes}) from the files."""
    sizes = {file: os.path.getsize(file) for file in files}
    with progress_bars() as bars, concurrent.futures.ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        advance = counting_bar(bars, f"Reading {pattern}", sum(sizes.values()))
        thorough = sum(sizes.values()) <= FULL_CHECK_BYTES
        contents = list(pool.map(lambda file: _read_file(file, thorough, advance), files))
    records, problems = _drop_duplicates([record for records, _ in contents for record in records])
    problems = _missing_shards(files) + [problem for _, own in contents for problem in own] + problems
    objects = RecordObjects(records, categories, masks)
    fields = coco_index.image_columns([record.columns() for record in records])
    checker = Checker(objects, fields["image_ids"], fields["heights"], fields["widths"], set(), categories)
    fields |= checker.instances(len(records)) | map_columns([""] * len(records))
    fields["annotation_ids"] = objects.indices[fields["annotation_ids"]]
    problems = problems + objects.problems + checker.problems
    return coco_index.CocoIndex(**fields, categories=list(categories), problems=problems), sizes


@dataclasses.dataclass
class _Record:
    """A usable record and where it is: the `number`-th of a file, from 0, at a byte offset."""

    file: str
    number: int
    offset: int
    features: RecordFeatures

    def columns(self):
        """As `image_columns` takes an image."""
        image = self.features
        frame = image.height, image.width, image.orientation
        return image.image_id, None, self.file, *frame, image.by_pillow, self.offset


def _read_file(file, thorough, advance):
    """([_Record], [Problem]) of one file; `advance` is called with the number of bytes read since the last call.

    All images are decoded if `thorough`.
    """
    records, problems, done = [], [], 0
    for number, offset, data, damage in scan_records(file):
        try:
            if damage:
                raise BadRecord("corrupted_record", damage, "write the file anew")
            records.append(_Record(file, number, offset, parse_record(data, thorough)))
        except BadRecord as error:
            kind, what, remedy = error.args
            message = f"Record {number} of {file} (byte {offset}) {what} and was skipped: {remedy}."
            problems.append(Problem(kind, number, file, message))
        advance(offset - done)
        done = offset
    return records, problems


def _drop_duplicates(records):
    """([_Record], [Problem]): of records with the same image id the first."""
    first, problems = {}, []
    for record in records:
        other = first.setdefault(record.features.image_id, record)
        if other is not record:
            message = (
                f"Record {record.number} of {record.file} has the image id {record.features.image_id} of record "
                f"{other.number} of {other.file} and was skipped: give it an image/source_id of its own, or leave "
                "copies of the same images out of the pattern."
            )
            problems.append(Problem("duplicate_image", record.number, record.file, message))
    return list(first.values()), problems


def _missing_shards(files):
    """A Problem for each incomplete set of files NAME-00000-of-00010, as after a conversion that was stopped."""
    counts = collections.Counter(re.sub(r"-\d{5}-of-(\d{5})(?=\D*$)", r"-*-of-\1", file) for file in files)
    problems = []
    for name, count in counts.items():
        total = re.search(r"-\*-of-(\d{5})\D*$", name)
        if total and count != int(total.group(1)):
            message = (
                f"Of the {int(total.group(1))} files {name} {count} are there: finish writing them, or train on these."
            )
            problems.append(Problem("missing_shards", None, name, message))
    return problems


class RecordObjects(BoxColumns):
    """The objects of I records, T of them, as the columns that `Checker` takes, see `AnnotationColumns`.

    Args:
        records: list of I _Record.
        categories: list of Category.
        masks: whether an object needs a mask. If so, those without are left out.

    Attributes:
        indices: [T] int64, their indices in their records.
        problems: list of Problem, for those left out.
    """

    def __init__(self, records, categories, masks):
        self._records, images = records, [record.features for record in records]
        counts = np.array([image.labels.size for image in images], np.int64)
        owners = np.repeat(np.arange(len(images)), counts)
        indices = np.arange(owners.size) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = np.ones(owners.size, bool)
        if masks:
            kept = _join([image.has_mask for image in images], bool)
        self._owners, self.indices = owners[kept], indices[kept]
        super().__init__(self.indices.size)
        self.problems = [self._unmasked(owners[row], indices[row]) for row in np.flatnonzero(~kept).tolist()]
        self.image_ids = np.array([image.image_id for image in images], np.int64)[self._owners]
        self.category_ids = _join([image.labels for image in images], np.int64)[kept]
        self.crowd = _join([image.crowd for image in images], bool)[kept]
        self.areas = _join([image.areas for image in images], np.float64)[kept]
        corners = _join([image.boxes for image in images], np.float64).reshape(-1, 4)[kept]
        self.boxes = np.c_[corners[:, :2], corners[:, 2:] - corners[:, :2]]
        self._add_keypoints([image.keypoints for image in images], categories)

    def locate(self, row):
        """See `annotation_columns.AnnotationColumns.locate`."""
        return self._locate(self._owners[row], self.indices[row])

    def _locate(self, owner, index):
        record = self._records[owner]
        name = f"Object {index} of record {record.number} of {record.file}"
        return f"{record.number}/{index}", record.file, name

    def _unmasked(self, owner, index):
        record, file, name = self._locate(owner, index)
        what = "has no mask, a PNG of the image's size, and was skipped"
        message = f"{name} {what}: write image/object/mask or train without masks."
        return Problem("empty_segmentation", record, file, message)

    def _add_keypoints(self, keypoints, categories):
        # A record has room for the category with the most; others fill the beginning of theirs.
        numbers = {category.id: len(category.keypoints) for category in categories}
        labelled = []
        objects = zip(self._owners.tolist(), self.indices.tolist(), self.category_ids.tolist(), strict=True)
        for row, (owner, index, category_id) in enumerate(objects):
            if keypoints[owner].size:
                values = keypoints[owner][index, : numbers.get(category_id)]
                self.keypoint_numbers[row] = values.size
                if values[:, 2].any():
                    self.keypoint_counts[row] = values.size
                    labelled.append(values)
        self.keypoints = _join(labelled, np.float32)


def _join(arrays, dtype):
    return np.concatenate([np.zeros(0, dtype), *(array.ravel() for array in arrays)]).astype(dtype)


# Files of records. TensorFlow reads and checks them; what it doesn't say is where a record began, and how to go on
# behind a damaged one.


def scan_records(file):
    """Yields the records of a file, given its path, in their order; raises UserError if it's compressed or unreadable.

    Yields:
        number: int, counts the file's records, from 0.
        offset: int, where it begins, bytes.
        data: bytes, or None for a damaged record.
        damage: None, or what is wrong with it, words for a sentence.
    """
    number = offset = 0
    try:
        size = os.path.getsize(file)
        while offset < size:
            for data in _intact_records(file, offset):
                yield number, offset, data, None
                number, offset = number + 1, offset + HEADER_BYTES + len(data) + FOOTER_BYTES
            if offset == size:
                return
            damage, following = _diagnose(file, offset, size)
            yield number, offset, None, damage
            number, offset = number + 1, following
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise UserError(f"{file} can't be read ({reason}): restore it or leave it out of data.*.records.") from error


def _intact_records(file, offset):
    """The data of the records from `offset` up to the first damaged one."""
    # A dataset can't be iterated from an offset, only its first record be taken: slower, but seldom needed.
    records = iter(tf.data.TFRecordDataset(file)) if offset == 0 else None
    while True:
        try:
            data = (next(records) if records else _read_data(file, offset)).numpy()
        except (StopIteration, tf.errors.DataLossError, tf.errors.InvalidArgumentError):
            return
        yield data
        offset += HEADER_BYTES + len(data) + FOOTER_BYTES


def _diagnose(file, offset, size):
    """(what is wrong with the record at `offset`, where the next one begins)."""
    with open(file, "rb") as opened:
        opened.seek(offset)
        header = opened.read(HEADER_BYTES)
    if offset == 0 and header.startswith(_GZIP):
        raise UserError(f"{file} is compressed, and records are read at their place: decompress it (gunzip).")
    if len(header) < HEADER_BYTES:
        return "is cut off by the end of the file", size
    length, checksum = struct.unpack("<QI", header)
    if checksum != _masked_crc(header[:8]):
        return "has a damaged length, so the rest of the file can't be found either,", size
    following = offset + HEADER_BYTES + length + FOOTER_BYTES
    if following > size:
        return "is cut off by the end of the file", size
    return "doesn't match its checksum", following


def _masked_crc(data):
    """The checksum that a TFRecord file holds of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_record(file, offset):
    """The pixels of one record, without reading what lies before it; for use inside Dataset.map.

    Args:
        file: string scalar, the path of an uncompressed TFRecord file of tf.train.Examples.
        offset: int64 scalar, bytes from the file's beginning to the record's.

    Returns:
        image: string scalar, the bytes of an image file.
        pngs: [M] strings, the PNG masks of the record's objects in their order; [0] where it has none.

    Raises:
        tf.errors.OpError: when run, if the file is gone or the record's checksum is wrong.
    """
    features = tf.io.parse_single_example(
        _read_data(file, offset),
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/object/mask": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
        },
    )
    return features["image/encoded"], features["image/object/mask"]


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)])
def _read_data(file, offset):
    """The data of one record, string scalar; `file` and `offset` are those of `read_record`.

    Raises:
        tf.errors.DataLossError: when run, if a checksum is wrong.
        tf.errors.OpError: when run, if there is no record or the file is gone.
    """
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=[file], compression_type="", buffer_size=READ_BYTES, byte_offsets=[offset]
    )
    records = tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string))
    return records.take(1).get_single_element()
