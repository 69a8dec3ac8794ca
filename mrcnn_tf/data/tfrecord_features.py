"""The features of one tf.train.Example of the Model Garden's detection format -> arrays; pixels are only looked at.

Source of the names: official/vision/data/create_coco_tf_record.py and official/vision/dataloaders/tf_example_decoder.py
of the TensorFlow Model Garden, for keypoints object_detection/dataset_tools/create_coco_tf_record.py.
"""

import dataclasses
import hashlib
import struct

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from mrcnn_tf.datasets.image_files import image_frame, inspect_bytes, visible_size

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
