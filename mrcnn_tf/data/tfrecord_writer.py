"""COCO json + image folder -> sharded TFRecords in the Model Garden's format, written by several processes."""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import glob
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import sys

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import max_keypoints
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write, sha256, write_json
from mrcnn_tf.common.problems import counting_bar, progress_bars, reading_bar
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.data.tfrecord_example import ImageJob, make_features, make_features_of, start_worker
from mrcnn_tf.datasets.coco_records import count_own_numbers, stream_records
from mrcnn_tf.datasets.image_files import file_sizes
from mrcnn_tf.datasets.panoptic_json import is_panoptic
from mrcnn_tf.datasets.read_coco import load_index

FORMAT = 1  # of the records; raise it when anything in them changes
IMAGES_PER_SHARD = 1000
IMAGES_PER_TASK = 8  # that a worker takes at a time: each handover costs two switches of processes
TASKS_AHEAD = 3  # that wait for each worker; bounds the memory that results take

# What has to agree for shards to belong together, and how to say that it doesn't.
_IDENTITY = {
    "format": "another version of mrcnn_tf wrote them",
    "json_sha256": "the json has changed",
    "images": "other images can be used",
    "image_bytes": "image files have changed",
    "shards": "their number of shards is another",
}
_SHARD_NUMBERS = "[0-9]" * 5 + "-of-" + "[0-9]" * 5  # a glob pattern


@dataclasses.dataclass
class WrittenRecords:
    """What `write_records` made."""

    files: list[pathlib.Path]  # all shards
    written: int  # how many of them this call wrote; the others were there
    # In all of them together.
    images: int
    objects: int
    problems: list  # what of the json was left out or used otherwise than it stands
    own_numbers: dict[str, int]  # of the json, see `count_own_numbers`; the records have no place for them


def write_records(annotations, images, out, name="train", shards=None, processes=1, force=False, progress=True):
    """Converts a COCO dataset to TFRecord files that the Model Garden and `data.train.records` read; `WrittenRecords`.

    Files are OUT/NAME-00000-of-00010.tfrecord and so on; image i lies in file i modulo their number. Each is written
    under a temporary name first, so a call that was stopped goes on with the first unfinished one when it's repeated.
    OUT/NAME.json describes the inputs and lists the categories. Records that can't be used are left out and reported as
    by `load_index`; images without objects are kept.

    Args:
        annotations: the COCO json.
        images: the folder that its file names are relative to.
        out: the folder to write to.
        name: with which the files' names begin.
        shards: their number; None for one for each 1000 images.
        processes: which draw and encode masks. With more than one, a script has to call this under
            `if __name__ == "__main__":`, as multiprocessing asks.
        force: replace records of other inputs.
        progress: show a progress bar on stderr.

    Raises:
        UserError: see `load_index`; also if the json is a panoptic one, if `out` holds records of other inputs under
            that name or can't be written to, or if an image disappears.
    """
    if processes < 1 or (shards is not None and shards < 1):
        raise UserError(f"{shards} shards by {processes} processes can't be written: give numbers of at least 1.")
    if name != os.path.basename(name) or name in ("", ".", ".."):
        raise UserError(f"{name!r} can't begin the name of a file: give letters and digits, such as train.")
    if os.path.isfile(annotations) and is_panoptic(annotations):
        raise UserError(
            f"{annotations} is a panoptic json, and TFRecords hold instances without the classes of pixels: train on "
            "it as it is (data.train.panoptic, data.train.panoptic_maps), or give a json of instances."
        )
    config = DataConfig(annotations=str(annotations), images=str(images), max_instances=sys.maxsize)
    index = load_index(config)
    count = shards or math.ceil(index.image_ids.size / IMAGES_PER_SHARD)
    out = pathlib.Path(out)
    files = [out / f"{name}-{shard:05d}-of-{count:05d}.tfrecord" for shard in range(count)]
    prepare_folder(out, name, make_manifest(index, config, count), force)
    missing = [shard for shard, file in enumerate(files) if not file.exists()]
    images_of = [range(shard, index.image_ids.size, count) for shard in missing]
    jobs = (_make_job(index, number, str(images)) for number in itertools.chain(*images_of))
    with progress_bars(progress) as bars, _in_processes(jobs, processes) as features:
        on_progress = counting_bar(bars, f"Writing {name}", sum(map(len, images_of)))
        for shard, numbers in zip(missing, images_of, strict=True):
            _write_shard(files[shard], itertools.islice(features, len(numbers)), on_progress)
    own_numbers = _count_own_numbers(annotations, progress)
    return WrittenRecords(files, len(missing), index.image_ids.size, index.classes.size, index.problems, own_numbers)


def _count_own_numbers(annotations, progress):
    """`count_own_numbers` of a json, which is read again, as an index has only the numbers that its config names."""
    with progress_bars(progress) as bars:
        on_progress = reading_bar(bars, f"Reading {annotations}", annotations)
        records = stream_records(annotations, on_progress, masks=False, sections=("annotations",))
        return count_own_numbers(record for _, record in records)


@contextlib.contextmanager
def _in_processes(jobs, processes):
    """Gives an iterator over the features of jobs in their order, computed by that many processes."""
    if processes == 1:
        yield map(make_features, jobs)
        return
    context = multiprocessing.get_context("spawn")  # forking isn't safe where TensorFlow's threads run
    pool = concurrent.futures.ProcessPoolExecutor(processes, context, start_worker)
    try:
        yield _in_order(pool, jobs, TASKS_AHEAD * processes)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "A worker process died, perhaps for want of memory: run the same command again with fewer --processes, "
            "finished shards are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool, jobs, ahead):
    waiting = collections.deque()
    while task := list(itertools.islice(jobs, IMAGES_PER_TASK)):
        waiting.append(pool.submit(make_features_of, task))
        if len(waiting) > ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _write_shard(file, features, on_progress):
    try:
        with atomic_write(file) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for image in features:
                writer.write(_make_example(image).SerializeToString(deterministic=True))
                on_progress(1)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise UserError(
            f"{file} can't be written ({reason}): mend that and run the same command again, finished shards are kept."
        ) from error


def _make_example(features):
    feature = {}
    for name, values in features.items():
        if isinstance(values, list):
            feature[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif values.dtype.kind == "f":
            feature[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            feature[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Example(features=tf.train.Features(feature=feature))


def _make_job(index, image, folder):
    """The ImageJob of an index' image, given its number."""
    first, last = index.instance_offsets[image : image + 2]
    path = os.fsdecode(index.image_files[image])
    return ImageJob(
        path=path,
        name=os.path.relpath(path, folder),
        image_id=index.image_names[image].decode() or int(index.image_ids[image]),
        height=int(index.heights[image]),
        width=int(index.widths[image]),
        orientation=int(index.orientations[image]),
        by_pillow=bool(index.by_pillow[image]),
        boxes=index.boxes[first:last],
        labels=index.category_ids[first:last],
        texts=[index.categories[number - 1].name for number in index.classes[first:last].tolist()],
        crowd=index.crowd[first:last],
        areas=index.areas[first:last],
        rings=[_rings(index, number) for number in range(first, last)],
        runs=[index.runs[slice(*index.run_offsets[number : number + 2])] for number in range(first, last)],
        keypoints=_keypoints(index, first, last),
    )


def _rings(index, number):
    rings = range(*index.ring_offsets[number : number + 2])
    return [index.points[slice(*index.point_offsets[ring : ring + 2])] for ring in rings]


def _keypoints(index, first, last):
    """[M, P, 3]; objects of categories with fewer fill the beginning of theirs."""
    keypoints = np.zeros([last - first, max_keypoints(index.categories), 3], np.float32)
    for row, number in enumerate(range(first, last)):
        own = index.keypoints[slice(*index.keypoint_offsets[number : number + 2])]
        keypoints[row, : len(own)] = own
    return keypoints


# The manifest beside TFRecords: the categories, and the inputs, by which a stopped conversion knows how to go on.


def make_manifest(index, config, shards):
    """Makes the manifest, a dict for json, of a CocoIndex made from a DataConfig and written to so many shards."""
    files = {os.fsdecode(path) for path in index.image_files.tolist()}
    return {
        "format": FORMAT,
        "json": os.path.realpath(config.annotations),
        "json_bytes": os.path.getsize(config.annotations),
        "json_sha256": sha256(config.annotations),
        "image_folder": os.path.realpath(config.images),
        "images": index.image_ids.size,
        "image_bytes": sum(file_sizes(files)),
        "objects": index.classes.size,
        "shards": shards,
        "categories": [dataclasses.asdict(category) for category in index.categories],
    }


def prepare_folder(folder, name, manifest, force):
    """Makes a folder ready for records: finished shards of the same manifest stay, others are removed by `force`.

    Raises:
        UserError: the folder holds records of that name that were made from something else, or another NAME.json, or
            can't be written to.
    """
    path = folder / f"{name}.json"
    present = _read_manifest(path) if path.exists() else {}
    shards = sorted(folder.glob(f"{glob.escape(name)}-{_SHARD_NUMBERS}.tfrecord"))
    difference = _difference(present, manifest) if present or shards else None
    if difference and not force:
        raise UserError(
            f"{folder} holds records called {name!r} of another conversion ({difference}): give --force to replace "
            "them, or another --out or --name."
        )
    try:
        stopped = folder.glob(f".{glob.escape(name)}-{_SHARD_NUMBERS}.*.tfrecord")
        for file in [*(shards if difference else []), *stopped]:
            file.unlink(missing_ok=True)
        write_json(manifest, path, indent=1)
    except OSError as error:
        raise UserError(f"{folder} can't be written to ({error.strerror}): give another --out.") from error


def _read_manifest(path):
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["json_sha256"]:
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is there and isn't a manifest of records: give another --name or --out.")


def _difference(present, manifest):
    """What keeps records of the manifest `present` from being those of `manifest`, as words; None for nothing."""
    if not present:
        return "they have no manifest"
    return next((words for key, words in _IDENTITY.items() if present.get(key) != manifest[key]), None)
