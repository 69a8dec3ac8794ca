"""A SavedModel with the signatures of `mrcnn-tf export saved-model`; what it finds follows from an image's size."""

import json
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image


def output(name, *shape, dtype="float32", per_detection=True, coordinates=""):
    """What labels.json says of an output."""
    meaning = "what a reader makes of it"
    fields = {"name": name, "shape": list(shape), "dtype": dtype, "per_detection": per_detection}
    return fields | {"coordinates": coordinates, "meaning": meaning}


LABELS = {
    "categories": [
        {"class": 1, "id": 17, "name": "wide", "keypoints": [], "skeleton": []},
        {"class": 2, "id": 4, "name": "tall", "keypoints": ["top", "foot"], "skeleton": [[1, 2]]},
    ],
    "outputs": [
        output("boxes", 4, coordinates="boxes"),
        output("scores"),
        output("classes", dtype="int32"),
        output("num_detections", dtype="int32", per_detection=False),
        output("masks", 8, 8),
        output("keypoints", 2, 3, coordinates="points"),
    ],
    "mask_rule": "detectron2",
    "keypoint_offset": 0.5,
    "resize": {"min_size": 64, "max_size": 128, "rule": "torchvision"},
}
MASK = np.tile(np.arange(8) < 4, (8, 1)).astype(np.float32)  # the box's left half
RUN_LENGTHS = b"6<T1"  # of an image 6 pixels high and 9 wide: its second and third column
BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1")


def save_stand_in(base_path, rle=None):
    """Writes version 7 into a folder; with `rle` its masks are this string for an image of any size.

    It finds one object in every PNG and JPEG, two pixels inside of the image: "wide" or "tall", the score the share of
    red in its first pixel. Everything else is no image.
    """

    def one(data):
        known = tf.reduce_any(tf.equal(tf.strings.substr(data, 0, 4), BEGINNINGS))
        image = tf.cond(
            known, lambda: tf.io.decode_image(data, 3, expand_animations=False), lambda: tf.zeros([0, 0, 3], tf.uint8)
        )
        return outputs(tf.ensure_shape(image, [None, None, 3]), known)

    def outputs(image, known):
        height, width = tf.unstack(tf.shape(image)[:2])
        found, size = tf.cast(known, tf.int32), tf.cast([width, height], tf.float32)
        box = tf.concat([[2.0, 2.0], size - 2], 0)
        red = tf.reduce_sum(tf.cast(image[:1, :1, 0], tf.float32)) / 255
        result = {
            "boxes": tf.stack([box, tf.zeros(4)]) * tf.cast(found, tf.float32),
            "scores": tf.stack([red, 0.0]),
            "classes": tf.stack([found * (1 + tf.cast(height > width, tf.int32)), 0]),
            "num_detections": found,
            "image_size": tf.stack([height, width]),
            "ok": known,
            "keypoints": tf.tile(tf.concat([size / 2, [1.0]], 0)[None, None], [2, 2, 1]),
        }
        masks = {"masks": tf.stack([MASK, MASK * 0])} if rle is None else {"masks_rle_bytes": tf.constant([rle, b""])}
        return result | masks

    def batched(function, values):
        shapes = {"boxes": tf.float32, "scores": tf.float32, "classes": tf.int32, "num_detections": tf.int32}
        shapes |= {"image_size": tf.int32, "ok": tf.bool, "keypoints": tf.float32}
        shapes |= {"masks": tf.float32} if rle is None else {"masks_rle_bytes": tf.string}
        return tf.map_fn(function, values, fn_output_signature=shapes)

    module = tf.Module()
    module.files = tf.function(
        lambda image_bytes: batched(one, image_bytes), [tf.TensorSpec([None], tf.string, "image_bytes")]
    )
    module.pixels = tf.function(
        lambda image: batched(lambda pixels: outputs(pixels, tf.constant(True)), image),
        [tf.TensorSpec([None, None, None, 3], tf.uint8, "image")],
    )
    folder = pathlib.Path(base_path) / "7"
    tf.saved_model.save(module, str(folder), {"serving_default": module.files, "image": module.pixels})
    (folder / "assets").mkdir(exist_ok=True)
    labels = json.dumps(LABELS) if rle is None else json.dumps(LABELS).replace('"masks"', '"masks_rle_bytes"')
    (folder / "assets" / "labels.json").write_text(labels)


def save_image(path, height, width, red=204):
    """Writes a plain image and returns its pixels, uint8 [H, W, 3]."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = red
    Image.fromarray(pixels).save(path)
    return pixels


def save_other(base_path):
    """Writes version 1 of a model that is no detector: one number in, one out."""
    module = tf.Module()
    module.halve = tf.function(lambda x: {"y": x / 2}, [tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(pathlib.Path(base_path) / "1"), {"serving_default": module.halve})
