"""One image and its objects as the features of a tf.train.Example in the Model Garden's format: written and read.

Source of the names: official/vision/data/create_coco_tf_record.py and official/vision/dataloaders/tf_example_decoder.py
of the TensorFlow Model Garden, for keypoints object_detection/dataset_tools/create_coco_tf_record.py.

Nothing here imports TensorFlow until a record is read, so that a process that makes features starts at once and stays
small.
"""

import dataclasses
import hashlib
import io
import multiprocessing
import os
import signal
import struct
import threading

import numpy as np
from google.protobuf.message import DecodeError
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_files import image_frame, inspect_bytes, read_pixels

BOX = ("image/object/bbox/xmin", "image/object/bbox/ymin", "image/object/bbox/xmax", "image/object/bbox/ymax")
KEYPOINT = ("image/object/keypoint/x", "image/object/keypoint/y", "image/object/keypoint/visibility")
# Normalised float32 coordinates are rounded to this many decimals of a pixel, which gives back those of a json with up
# to three decimals as they were.
DECIMALS = 3
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass
class ImageJob:
    """One image of a CocoIndex with M objects, to be written."""

    path: str  # of the file
    name: str  # its file_name
    # As in CocoIndex.
    image_id: int | str
    height: int
    width: int
    orientation: int
    by_pillow: bool
    # As in CocoIndex, [M, ...].
    boxes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    labels: np.ndarray  # [M] int64, category ids
    texts: list[str]  # [M] names of the categories
    rings: list[list[np.ndarray]]  # [M] lists of [n, 2] float32 pixels
    runs: list[np.ndarray]  # [M] arrays [U] int32; empty for an object of rings
    keypoints: np.ndarray  # [M, P, 3] float32, (x, y) pixels and v; P is 0 for a dataset without keypoints


def start_worker():
    """Makes this process one that ends with its parent: it leaves Ctrl-C to it and doesn't outlive its being killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def make_features_of(jobs):
    """`make_features` of a list of ImageJobs, as a list."""
    return [make_features(job) for job in jobs]


def make_features(job):
    """The record of an ImageJob: {feature name: a list of bytes, a float32 array or an int64 array}.

    The image is the file as it is, except for one that EXIF says to turn or that isn't a JPEG or PNG: the Model
    Garden's reader doesn't look at EXIF and knows no other formats, so it is stored upright. As a PNG, which takes more
    room than a JPEG but loses nothing more.

    Raises UserError if the file can't be read any more.
    """
    encoded, format_name = _read_upright(job)
    size = np.array([job.width, job.height, job.width, job.height], np.float64)
    features = {
        "image/height": np.array([job.height], np.int64),
        "image/width": np.array([job.width], np.int64),
        "image/filename": [job.name.encode()],
        "image/source_id": [str(job.image_id).encode()],
        "image/key/sha256": [hashlib.sha256(encoded).hexdigest().encode()],
        "image/encoded": [encoded],
        "image/format": [format_name.encode()],
        **dict(zip(BOX, (job.boxes / size).astype(np.float32).T, strict=True)),
        "image/object/class/text": [text.encode() for text in job.texts],
        "image/object/class/label": job.labels,
        "image/object/is_crowd": job.crowd.astype(np.int64),
        "image/object/area": job.areas,
        "image/object/mask": [_encode_png(Image.fromarray(_draw_mask(job, row))) for row in range(len(job.texts))],
    }
    if job.keypoints.shape[1]:
        x, y, visibility = job.keypoints.reshape(-1, 3).T
        columns = (x / size[0]).astype(np.float32), (y / size[1]).astype(np.float32), visibility.astype(np.int64)
        features |= dict(zip(KEYPOINT, columns, strict=True))
        features["image/object/keypoint/num"] = (job.keypoints[..., 2] > 0).sum(axis=1)
    return features


def _read_upright(job):
    """(bytes, format) of the image file."""
    try:
        with open(job.path, "rb") as file:
            encoded = file.read()
        if job.orientation == 1 and not job.by_pillow:
            return encoded, "png" if encoded.startswith(PNG_SIGNATURE) else "jpeg"
        pixels = read_pixels(encoded, job.orientation)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"Image {job.path} can't be read any more ({reason}): restore it and run the same command again, finished "
            "shards are kept."
        ) from error
    is_grey = (pixels == pixels[..., :1]).all()
    return _encode_png(Image.fromarray(pixels[..., 0] if is_grey else pixels)), "png"


def _draw_mask(job, row):
    """[H, W] uint8 of 0 and 1, as pycocotools draws the annotation."""
    size = (job.height, job.width)
    if job.runs[row].size:
        return coco_mask.decode(coco_mask.frPyObjects({"counts": job.runs[row].tolist(), "size": size}, *size))
    rings = [_shortest_decimals(ring).tolist() for ring in job.rings[row]]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, *size)))


def _shortest_decimals(values):
    """float32 coordinates as the float64 of their shortest decimals: the json's own, up to six digits.

    pycocotools rounds five times a coordinate, where 10.7 is a tie and its float32 isn't.
    """
    return values.ravel().astype("U32").astype(np.float64)


def _encode_png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


class BadRecord(Exception):
    """A record that can't be used; arguments: a kind to count by, what is wrong, remedy."""


@dataclasses.dataclass
class RecordFeatures:
    """One image of M objects, as read; its pixels are only looked at."""

    # As in CocoIndex.
    image_id: int
    height: int
    width: int
    orientation: int
    by_pillow: bool
    boxes: np.ndarray  # [M, 4] float64 pixels, corners
    labels: np.ndarray  # [M] int64, category ids
    crowd: np.ndarray  # [M] bool
    areas: np.ndarray  # [M] float64 square pixels, NaN where the record has none
    has_mask: np.ndarray  # [M] bool, the object has a PNG of the image's size
    keypoints: np.ndarray  # [M, P, 3] float32, (x, y) pixels and v; P is 0 for a record without


def parse_record(data, thorough=False):
    """The RecordFeatures of a serialised tf.train.Example, bytes; its image is decoded if in doubt or `thorough`.

    Raises BadRecord if it isn't an Example, its image isn't one, or features don't belong together.
    """
    import tensorflow as tf  # takes seconds, see above

    try:
        features = tf.train.Example.FromString(data).features.feature
    except DecodeError as error:
        raise BadRecord("undecodable_record", "isn't a tf.train.Example", "write it anew") from error
    image = features["image/encoded"].bytes_list.value
    if len(image) != 1:
        raise BadRecord("record_fields", "has no image/encoded", "write it anew")
    (height, width, orientation), by_pillow = _parse_frame(image[0], features, thorough)
    labels = np.array(features["image/object/class/label"].int64_list.value, np.int64)
    boxes = _parse_boxes(features, labels.size, height, width)
    crowd = np.array(features["image/object/is_crowd"].int64_list.value, np.int64)
    areas = np.array(features["image/object/area"].float_list.value, np.float64)
    masks = features["image/object/mask"].bytes_list.value
    for name, column in (("is_crowd", crowd), ("area", areas), ("mask", masks)):
        if len(column) not in (0, labels.size):
            raise _mismatch(f"{len(column)} values of image/object/{name}", labels.size)
    return RecordFeatures(
        _parse_image_id(features, image[0]),
        height,
        width,
        orientation,
        by_pillow,
        boxes,
        labels,
        crowd.astype(bool) if crowd.size else np.zeros(labels.size, bool),
        areas if areas.size else np.full(labels.size, np.nan),
        np.array([_is_png(mask, height, width) for mask in masks or [b""] * labels.size], bool),
        _parse_keypoints(features, labels.size, height, width),
    )


def _parse_frame(image, features, thorough):
    """((height, width, EXIF orientation), by_pillow) of the image, whose header has to agree with the record."""
    header = inspect_bytes(image, thorough)
    if header.problem:
        kind, what, _ = header.problem
        raise BadRecord(kind, f"has an image that {what}", "write it anew with a JPEG or PNG")
    visible, described = (header.height, header.width), []
    for name, side in zip(("image/height", "image/width"), visible, strict=True):
        values = features[name].int64_list.value
        # The Model Garden writes -1 for unknown.
        described.append(values[0] if len(values) == 1 and values[0] > 0 else side)
    frame = image_frame(header, *described)
    if frame is None:
        what = f"has an image of {visible[1]} x {visible[0]} pixels and says {described[1]} x {described[0]}"
        raise BadRecord("image_size", what, "write it anew with the image's height and width")
    return frame, header.by_pillow


def _parse_image_id(features, image):
    """image/source_id as a number: its digits, else a hash of it or, where it's empty, of the image."""
    values = features["image/source_id"].bytes_list.value
    text = values[0] if values else b""
    if text.isdigit() and int(text) < 2**63:
        return int(text)
    return int.from_bytes(hashlib.sha256(text or image).digest()[:8], "big") >> 1


def _parse_boxes(features, count, height, width):
    sides = [np.array(features[name].float_list.value, np.float64) for name in BOX]
    for name, side in zip(BOX, sides, strict=True):
        if side.size != count:
            raise _mismatch(f"{side.size} values of {name}", count)
    return np.round(np.stack(sides, axis=1) * (width, height, width, height), DECIMALS)


def _parse_keypoints(features, count, height, width):
    x, y, visibility = (features[name] for name in KEYPOINT)
    columns = [x.float_list.value, y.float_list.value, visibility.int64_list.value]
    sizes = [len(column) for column in columns]
    if len(set(sizes)) > 1 or sizes[0] % max(count, 1) or sizes[0] and not count:
        raise _mismatch(f"{sizes} values of image/object/keypoint/x, y and visibility", count)
    values = np.stack([np.array(column, np.float64) for column in columns], axis=1) * (width, height, 1)
    return np.round(values, DECIMALS).astype(np.float32).reshape(count, sizes[0] // max(count, 1), 3)


def _mismatch(what, count):
    return BadRecord("record_fields", f"has {what} for {count} objects", "write it anew")


def _is_png(data, height, width):
    """Whether data begin as a PNG of that size does."""
    return data.startswith(PNG_SIGNATURE) and data[16:24] == struct.pack(">II", width, height)
