"""The compiled form of a COCO json or TFRecords: flat numpy arrays, and the file that keeps them between launches."""

import dataclasses
import hashlib
import json
import os

import numpy as np

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write, cache_folder
from mrcnn_tf.common.problems import CONSOLE, Problem, report_problems
from mrcnn_tf.datasets.image_files import file_sizes

FORMAT = 6  # of the cached file; raise it when anything that goes into it changes


@dataclasses.dataclass
class CocoIndex:
    """The usable records of a COCO json, I images and T instances.

    An image's instances are neighbours, and so are their rings, points and runs: `*_offsets[i]` to `*_offsets[i + 1]`
    is the range that belongs to the i-th image, instance or ring. Images keep the file's order.
    """

    image_ids: np.ndarray  # [I] int64; of an id that is a name, `coco_records.number_of_text`
    image_names: np.ndarray  # [I] bytes, UTF-8: the ids as they stand in the json where that is text, else empty
    image_files: np.ndarray  # [I] bytes, paths; of the TFRecord file for an image that lies in one
    record_offsets: np.ndarray  # [I] int64, where the image's record begins in that file, bytes; -1 for an image file
    # [I] int32 pixels, after `orientations`; the frame of all coordinates.
    heights: np.ndarray
    widths: np.ndarray
    # [I] int32, the EXIF orientation to apply; 1 where the json describes the file as it is stored.
    orientations: np.ndarray
    by_pillow: np.ndarray  # [I] bool, whether Pillow decodes the file in training, and not TensorFlow
    instance_offsets: np.ndarray  # [I + 1] int64 into the instances
    classes: np.ndarray  # [T] int32, 1 to K; class k is the k-th of `categories`
    category_ids: np.ndarray  # [T] int64, as in the json
    boxes: np.ndarray  # [T, 4] float32 pixels, the annotation's bbox as corners, clipped to the image
    areas: np.ndarray  # [T] float32 square pixels, as in the json (the box's where it has none)
    crowd: np.ndarray  # [T] bool
    annotation_ids: np.ndarray  # [T] int64; of an object in a TFRecord its index there, from 0
    # [T + 1] int64 into the rings, the polygons of instances. For a dataset without masks there are only those rings
    # and runs that a missing bbox was made of.
    ring_offsets: np.ndarray
    point_offsets: np.ndarray  # [rings + 1] int64 into the points
    points: np.ndarray  # [points, 2] float32 pixels (x, y)
    run_offsets: np.ndarray  # [T + 1] int64 into the runs
    runs: np.ndarray  # [runs] int32 pixels, outside and inside by turns down the columns of the image
    # [T + 1] int64 into the keypoints; an instance has all of its category's or, if none of them is labelled, an empty
    # range.
    keypoint_offsets: np.ndarray
    # [keypoints, 3] float32, (x, y) in pixels as in the json and v: 2 visible, 1 hidden; (0, 0, 0) for an unlabelled
    # one.
    keypoints: np.ndarray
    field_values: np.ndarray  # [T, F] float32, the numbers of `DataConfig.fields`; NaN where an annotation has none
    # [I] bytes, paths of the PNGs with the classes of each image's pixels; empty for an image without.
    map_files: np.ndarray
    # [I + 1] int64 into the segments, which are those in a map of the panoptic format: rising ids, the first 0. An
    # image with a label map, or without any, has an empty range.
    segment_offsets: np.ndarray
    # [segments] int32. An instance whose mask is such a segment has its id as `annotation_ids`.
    segment_ids: np.ndarray
    segment_classes: np.ndarray  # [segments] uint8, 0 for things, 1 to S for stuff, 255 for what is ignored
    categories: list[Category]  # for a dataset without keypoints they name none
    problems: list[Problem]  # all records that aren't used as they stand


def image_columns(images):
    """The image arrays of a CocoIndex, as a dict, of its (id, name, path, height, width, orientation, by_pillow,
    record offset)s.

    The name is None where the id is a number.
    """
    columns = zip(*images, strict=True) if images else ((),) * 8
    ids, names, files, heights, widths, orientations, by_pillow, offsets = columns
    return {
        "image_ids": np.array(ids, np.int64),
        "image_names": np.array([(name or "").encode() for name in names], np.bytes_),
        "image_files": np.array([os.fsencode(path) for path in files], np.bytes_),
        "record_offsets": np.array(offsets, np.int64),
        "heights": np.array(heights, np.int32),
        "widths": np.array(widths, np.int32),
        "orientations": np.array(orientations, np.int32),
        "by_pillow": np.array(by_pillow, bool),
    }


def cache_path(config, image_names):
    """Where the index of a `DataConfig` is kept: named by all of the config and the jsons' files that it depends on.

    Without a json it depends on the `image_names` of the folder.
    """
    jsons = [path for path in (config.annotations, config.panoptic) if path]
    key = [
        *file_states(jsons),
        [os.path.realpath(folder) for folder in (config.images, config.panoptic_maps, config.semantic_maps)],
        [dataclasses.asdict(category) for category in config.categories],
        [dataclasses.asdict(category) for category in config.stuff],
        [config.masks is not False, config.keypoints is not False, config.semantic is not False],
        list(config.fields),
        image_names,
    ]
    name = jsons[0] if jsons else os.path.normpath(config.semantic_maps)
    return cached_index_path(os.path.splitext(os.path.basename(name))[0], key)


def cached_index_path(stem, key):
    """Where an index is kept that depends on all of `key`, a list that json can write."""
    digest = hashlib.sha256(json.dumps([FORMAT, *key]).encode()).hexdigest()[:24]
    return os.path.join(cache_folder(), f"{stem}-{digest}.npz")


def file_states(paths):
    """[path, bytes, time of change] of each file, for the key of `cached_index_path`."""
    return [[os.path.realpath(path), os.stat(path).st_size, os.stat(path).st_mtime_ns] for path in paths]


def own_image_ids(image_ids, image_names):
    """The ids of images as they stand in the json, a list of int or str, of the two arrays of a CocoIndex."""
    pairs = zip(image_ids.tolist(), image_names.tolist(), strict=True)
    return [name.decode() if name else number for number, name in pairs]


def load_or_compile_index(path, compile_index):
    """Loads the index at `path` if the files it was made from still have their sizes, else makes and keeps a new one.

    Args:
        path: see `cached_index_path`.
        compile_index: function without arguments that gives the CocoIndex and what it was made from, {path: bytes}.
    """
    cached = read_index(path)
    if cached and file_sizes(cached[1]) == list(cached[1].values()):
        return cached[0]
    index, sizes = compile_index()
    try:
        save_index(path, index, sizes)
    except OSError as error:
        CONSOLE.print(f"The index can't be kept in {path} ({error.strerror}): set MRCNN_TF_CACHE.", markup=False)
    return index


def report_index_problems(index, path, source, max_instances):
    """Reports an index' problems beside its cached file at `path`; images that a batch has no room for are added.

    Raises UserError if it has no image.
    """
    counts = np.diff(index.instance_offsets)
    own_ids = own_image_ids(index.image_ids, index.image_names)
    index.problems = index.problems + find_overfull_images(own_ids, counts, source, max_instances)
    report_problems(index.problems, os.path.splitext(path)[0] + ".problems.json", source)
    if not index.image_ids.size:
        reason = index.problems[0].message if index.problems else "its list of images is empty."
        raise UserError(f"No image of {source} can be used, the first because: {reason}")


def find_overfull_images(image_ids, counts, source, max_instances):
    """A Problem for each image with more instances, `counts` [I] int64, than a batch has room for; their ids a list."""
    problems = []
    for row in np.flatnonzero(counts > max_instances).tolist():
        image = image_ids[row]
        message = (
            f"Image {image} in {source} has {counts[row]} instances, of which the {max_instances} largest are used: "
            "raise data.*.max_instances."
        )
        problems.append(Problem("too_many_instances", image, source, message))
    return problems


def save_index(path, index, sizes):
    """Writes the index and the `sizes` of the image files it was made from, {path: bytes}.

    Raises OSError if the folder can't be written to.
    """
    arrays = {field.name: getattr(index, field.name) for field in dataclasses.fields(index)}
    for name in ("categories", "problems"):
        text = json.dumps([dataclasses.asdict(record) for record in arrays[name]])
        arrays[name] = np.frombuffer(text.encode(), np.uint8)
    arrays["seen_files"] = np.array([os.fsencode(name) for name in sizes], np.bytes_)
    arrays["seen_sizes"] = np.array(list(sizes.values()), np.int64)
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def read_index(path):
    """The index at `path` and what it was made from, {path: bytes}; None if there is none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        sizes = dict(zip(map(os.fsdecode, arrays.pop("seen_files")), arrays.pop("seen_sizes").tolist(), strict=True))
        arrays["categories"] = [Category(**record) for record in json.loads(arrays["categories"].tobytes())]
        arrays["problems"] = [Problem(**record) for record in json.loads(arrays["problems"].tobytes())]
        return CocoIndex(**arrays), sizes
    except Exception:  # a damaged or foreign file is no reason to stop: it's made again
        return None
