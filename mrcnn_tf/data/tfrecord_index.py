"""TFRecords -> `CocoIndex`, compiled once and cached: all but pixels and masks, which are read when they're needed."""

import collections
import concurrent.futures
import dataclasses
import os
import re

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn_tf.common.categories import record_categories, record_files
from mrcnn_tf.common.problems import CONSOLE, Problem
from mrcnn_tf.data.tfrecord_features import BadRecord, RecordFeatures, parse_record
from mrcnn_tf.data.tfrecord_objects import RecordObjects
from mrcnn_tf.data.tfrecord_scan import scan
from mrcnn_tf.datasets.checks import Checker
from mrcnn_tf.datasets.image_maps import label_columns
from mrcnn_tf.datasets.index import CocoIndex, cache_file, kept_index, report_index

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
    files = record_files(pattern)
    categories = config.categories or record_categories(pattern)
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
