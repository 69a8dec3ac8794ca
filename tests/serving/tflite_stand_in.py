"""A .tflite file with the exporter's signature whose detections are known: it reports the picture it was given."""

import dataclasses

import tensorflow as tf
from serving.served_stand_in import output

from mrcnn_tf.common.categories import Category
from mrcnn_tf.serving.interpreter import append_metadata

CATEGORIES = [Category(3, "cat", ["ear", "tail"], [[1, 2]]), Category(17, "sea lion")]
ROWS = 3  # of which two are detections
MASK_SIDE = 28
STUFF = [{"class": 1, "id": 40, "name": "sand"}, {"class": 2, "id": 41, "name": "sea"}]


def document(rule="torchvision", masks=True, keypoints=True, semantic=False):
    """The facts that the exporter adds."""
    outputs = [
        output("boxes", 4, coordinates="boxes"),
        output("scores"),
        output("classes", dtype="int32"),
        output("num_detections", dtype="int32", per_detection=False),
        *([output("masks", MASK_SIDE, MASK_SIDE)] if masks else []),
        *([output("keypoints", 2, 3, coordinates="points")] if keypoints else []),
        *([output("semantic", None, None, dtype="uint8", per_detection=False)] if semantic else []),
    ]
    stuff = {"stuff": STUFF, "panoptic": {"score_threshold": 0.5, "overlap": 0.5, "stuff_area": 4}}
    return (stuff if semantic else {}) | {
        "categories": [{"class": n} | dataclasses.asdict(one) for n, one in enumerate(CATEGORIES, 1)],
        "outputs": outputs,
        "mask_rule": "detectron2",
        "keypoint_offset": 0.5,
        "resize": {"min_size": 800, "max_size": 1333, "rule": rule},
    }


def flatbuffer(height, width, masks=True, keypoints=True, semantic=False):
    """A converted model of an input of height x width pixels.

    First comes a sea lion as large as the picture, whose score is the mean of the red channel over the picture, then a
    cat in its upper left quarter, whose score is the mean of the green channel over the rest of the input. Masks are
    set in their left half. The cat's ear is in the middle of the picture. Left of it is sand, right of it sea.
    """

    class Model(tf.Module):
        @tf.function(autograph=False)
        def detect(self, image, image_size):
            detections = _detections(tf.cast(image, tf.float32)[0], image_size[0], masks, keypoints)
            return detections | (_classes(height, width, image_size[0]) if semantic else {})

    model = Model()
    pixels = tf.TensorSpec([1, height, width, 3], tf.uint8, name="image")
    size = tf.TensorSpec([1, 2], tf.int32, name="image_size")
    function = model.detect.get_concrete_function(image=pixels, image_size=size)
    return tf.lite.TFLiteConverter.from_concrete_functions([function], model).convert()


def write(path, height=64, width=96, rule="torchvision", **heads):
    """Writes such a file; returns its path."""
    facts = document(rule, **heads)
    path.write_bytes(append_metadata(flatbuffer(height, width, **heads), facts, "cat\nsea lion\n"))
    return path


def write_halves(folder, height=64, width=96):
    """Writes the same as name.backbone.tflite, from the image to one map of its pixels, and name.heads.tflite."""
    shape = [1, height, width, 3]
    size = tf.TensorSpec([1, 2], tf.int32, name="image_size")

    class Model(tf.Module):
        @tf.function(autograph=False)
        def look(self, image, image_size):
            return {"map0": tf.reshape(tf.cast(image, tf.float32), [1, height, width * 3])}

        @tf.function(autograph=False)
        def detect(self, map0, image_size):
            return _detections(tf.reshape(map0, shape)[0], image_size[0], True, True)

    model, paths = Model(), []
    first = model.look.get_concrete_function(image=tf.TensorSpec(shape, tf.uint8, name="image"), image_size=size)
    map0 = tf.TensorSpec([1, height, width * 3], name="map0")
    second = model.detect.get_concrete_function(map0=map0, image_size=size)
    for part, function in (("backbone", first), ("heads", second)):
        content = tf.lite.TFLiteConverter.from_concrete_functions([function], model).convert()
        paths.append(folder / f"name.{part}.tflite")
        paths[-1].write_bytes(append_metadata(content, document() | {"part": part}, "cat\nsea lion\n"))
    return paths


def _detections(image, size, masks, keypoints):
    rows, columns = tf.range(image.shape[0])[:, None] < size[0], tf.range(image.shape[1])[None, :] < size[1]
    picture = tf.cast(rows & columns, tf.float32)
    red = tf.reduce_sum(image[..., 0] * picture) / tf.reduce_sum(picture)
    green = tf.reduce_sum(image[..., 1] * (1 - picture)) / tf.maximum(tf.reduce_sum(1 - picture), 1)
    y, x = tf.unstack(tf.cast(size, tf.float32))
    zero = tf.zeros([])
    whole, quarter = tf.stack([zero, zero, x, y]), tf.stack([zero, zero, x / 2, y / 2])
    outputs = {
        "boxes": tf.stack([whole, quarter, tf.zeros([4])])[None],
        "scores": tf.stack([red, green, zero])[None] / 255,
        "classes": tf.constant([[2, 1, 0]]),
        "num_detections": tf.constant([2]),
    }
    if masks:
        left = tf.cast(tf.range(MASK_SIDE) < MASK_SIDE // 2, tf.float32)
        outputs["masks"] = tf.tile(left[None, None, None], [1, ROWS, MASK_SIDE, 1])
    if keypoints:
        ear = tf.stack([x / 2, y / 2, zero + 0.75])
        outputs["keypoints"] = tf.tile(ear[None, None, None], [1, ROWS, 2, 1])
    return outputs


def _classes(height, width, size):
    rows, columns = tf.range(height)[:, None], tf.range(width)[None, :]
    stuff = tf.where(2 * columns < size[1], 1, 2) + 0 * rows
    inside = (rows < size[0]) & (columns < size[1])
    return {"semantic": tf.cast(tf.where(inside, stuff, 255), tf.uint8)[None]}
