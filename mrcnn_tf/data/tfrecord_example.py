"""One image and its objects as the features of a tf.train.Example: the part of writing that runs in worker processes.

Nothing here imports TensorFlow, so that a worker starts at once and stays small.
"""

import dataclasses
import hashlib
import io
import multiprocessing
import os
import signal
import threading

import numpy as np
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from mrcnn_tf.common.errors import UserError

_FORMATS = {"MPO": "jpeg"}  # a phone's JPEG with more behind it; others are called by their own name


@dataclasses.dataclass
class ImageJob:
    """One image of a CocoIndex with M objects.

    Attributes:
        path: of the file.
        name: its file_name.
        image_id, height, width, orientation: as in CocoIndex.
        boxes, crowd, areas: as in CocoIndex, [M, ...].
        labels: [M] int64, category ids.
        texts: list of M str, names of the categories.
        rings: list of M lists of [n, 2] float32 pixels.
        runs: list of M [U] int32; empty for an object of rings.
        keypoints: [M, P, 3] float32, (x, y) pixels and v; P is 0 for a dataset without keypoints.
    """

    path: str
    name: str
    image_id: int
    height: int
    width: int
    orientation: int
    boxes: np.ndarray
    labels: np.ndarray
    texts: list[str]
    crowd: np.ndarray
    areas: np.ndarray
    rings: list[list[np.ndarray]]
    runs: list[np.ndarray]
    keypoints: np.ndarray


def start_worker():
    """Makes this process one that ends with its parent: it leaves Ctrl-C to it and doesn't outlive its being killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def example_features(job):
    """The features of an image's record.

    The image is the file as it is, except for one that EXIF says to turn: the Model Garden's reader doesn't look at
    EXIF, so it is stored upright. As a PNG, which takes more room than a JPEG but loses nothing more.

    Args:
        job: ImageJob.

    Returns:
        dict from feature name to a list of bytes, a float32 array or an int64 array.

    Raises:
        UserError: the file can't be read any more.
    """
    encoded, form = _image(job)
    size = np.array([job.width, job.height, job.width, job.height], np.float64)
    x1, y1, x2, y2 = (job.boxes / size).astype(np.float32).T
    features = {
        "image/height": np.array([job.height], np.int64),
        "image/width": np.array([job.width], np.int64),
        "image/filename": [job.name.encode()],
        "image/source_id": [str(job.image_id).encode()],
        "image/key/sha256": [hashlib.sha256(encoded).hexdigest().encode()],
        "image/encoded": [encoded],
        "image/format": [form.encode()],
        "image/object/bbox/xmin": x1,
        "image/object/bbox/xmax": x2,
        "image/object/bbox/ymin": y1,
        "image/object/bbox/ymax": y2,
        "image/object/class/text": [text.encode() for text in job.texts],
        "image/object/class/label": job.labels,
        "image/object/is_crowd": job.crowd.astype(np.int64),
        "image/object/area": job.areas,
        "image/object/mask": [_png(_mask(job, number)) for number in range(len(job.texts))],
    }
    if job.keypoints.shape[1]:
        x, y, visibility = job.keypoints.reshape(-1, 3).T
        features["image/object/keypoint/x"] = (x / size[0]).astype(np.float32)
        features["image/object/keypoint/y"] = (y / size[1]).astype(np.float32)
        features["image/object/keypoint/visibility"] = visibility.astype(np.int64)
        features["image/object/keypoint/num"] = (job.keypoints[..., 2] > 0).sum(axis=1)
    return features


def several_features(jobs):
    """`example_features` of a list of ImageJobs, as a list."""
    return [example_features(job) for job in jobs]


def _image(job):
    """(bytes, format) of the image file."""
    try:
        with open(job.path, "rb") as file:
            encoded = file.read()
        with Image.open(io.BytesIO(encoded)) as image:
            form = _FORMATS.get(image.format, image.format.lower())
            if job.orientation == 1:
                return encoded, form
            upright = ImageOps.exif_transpose(image)
            return _encoded(upright if upright.mode in ("L", "RGB") else upright.convert("RGB")), "png"
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"Image {job.path} can't be read any more ({reason}): restore it and run the same command again, finished "
            "shards are kept."
        ) from error


def _mask(job, number):
    """[H, W] uint8 of 0 and 1, as pycocotools draws the annotation."""
    size = (job.height, job.width)
    if job.runs[number].size:
        return coco_mask.decode(coco_mask.frPyObjects({"counts": job.runs[number].tolist(), "size": size}, *size))
    rings = [_decimals(ring).tolist() for ring in job.rings[number]]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, *size)))


def _decimals(values):
    """float32 coordinates as the float64 of their shortest decimals: the json's own, up to six digits.

    pycocotools rounds five times a coordinate, where 10.7 is a tie and its float32 isn't.
    """
    return values.ravel().astype("U32").astype(np.float64)


def _png(mask):
    return _encoded(Image.fromarray(mask))


def _encoded(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
