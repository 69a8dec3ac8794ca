"""From the named outputs of an exported model to `Detections`: boxes, masks, keypoints and the semantic head's maps."""

import io

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.map_files import rgb_to_ids
from mrcnn_tf.ops.panoptic_maps import Fused
from mrcnn_tf.results.detections import Detections, EncodedMaskDetections, SemanticMap

NO_INSTANCES = {"boxes": np.zeros([0, 4]), "scores": np.zeros(0), "classes": np.zeros(0), "num_detections": 0}
# Of what is given for each detection, that which `Detections` have arguments for.
DETECTION_OUTPUTS = ("boxes", "scores", "classes", "masks", "masks_rle_bytes", "keypoints")


def make_detections(outputs, labels, image_size):
    """The `Detections` of one image.

    Args:
        outputs: dictionary of arrays without the batch's dimension: `boxes` [D, 4] in pixels of the image, `scores`
            [D], `classes` [D], `num_detections` and, where the model has them, `masks` [D, M, M], `masks_rle_bytes`
            [D], `keypoints` [D, P, 3], what else the labels list for each detection, which become attributes, and what
            `make_semantic_map` reads. Rows beyond num_detections are padding.
        labels: the model's `ExportLabels`.
        image_size: (height, width) of the image, pixels.

    Raises:
        UserError: an output is missing or doesn't fit the labels, as where model and labels are of two exports.
    """
    if not labels.gives("boxes"):
        outputs = NO_INSTANCES | outputs
    missing = [name for name in NO_INSTANCES if name not in outputs]
    if missing:
        raise UserError(f"The model's outputs lack {', '.join(missing)}: export it with mrcnn-tf export.")
    try:
        count = int(np.asarray(outputs["num_detections"]).reshape(()))
        arrays = {name: np.asarray(value)[:count] for name, value in outputs.items() if np.ndim(value)}
        common = {
            "boxes": arrays["boxes"],
            "scores": arrays["scores"],
            "classes": arrays["classes"],
            "image_size": image_size,
            "categories": labels.categories,
            "keypoints": arrays.get("keypoints"),
            "keypoint_offset": labels.keypoint_offset,
            "semantics": make_semantic_map(outputs, labels, image_size, count),
        }
        own = [spec.name for spec in labels.outputs if spec.per_detection and spec.name not in DETECTION_OUTPUTS]
        common |= {name: arrays[name] for name in own}
        if "masks_rle_bytes" in arrays:
            return EncodedMaskDetections(arrays["masks_rle_bytes"], **common)
        return Detections(mask_probabilities=arrays.get("masks"), mask_rule=labels.mask_rule, **common)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The model's outputs don't fit its labels ({error}): take labels.json from the same export."
        ) from error


def scale(values, coordinates, ratio):
    """An output [D, ...] in an image that is `ratio` = (x, y) times as large; `coordinates` as of its `OutputSpec`."""
    if coordinates == "boxes":
        return values * np.tile(ratio, 2)
    if coordinates == "points":
        return values * np.concatenate([ratio, np.ones(values.shape[-1] - 2, np.float32)])
    return values


def make_semantic_map(outputs, labels, image_size, detection_count):
    """The `SemanticMap` of one image; None without a semantic head.

    Args:
        outputs: dictionary of arrays without the batch's dimension: `semantic_png_bytes` or, decoded, `semantic` uint8
            [H, W], and where the model fuses, the outputs of segments as `ServedGraph` gives them.
        labels, image_size: as in `make_detections`.

    Raises:
        ValueError: maps that aren't of this image, these classes or these detections.
        KeyError: a part of the segments is missing.
    """
    if "semantic_png_bytes" in outputs:
        classes = _decode_png(outputs["semantic_png_bytes"], "L", image_size)
    elif "semantic" in outputs:
        classes = np.asarray(outputs["semantic"])
    elif labels.stuff:
        raise ValueError("no map of the stuff that is listed")
    else:
        return None
    if not labels.stuff or classes.max() > len(labels.stuff):
        raise ValueError(f"a map with class {classes.max()} where {len(labels.stuff)} classes of stuff are listed")
    has_segments = "segments_png_bytes" in outputs
    fused = _read_segments(outputs, labels, image_size, detection_count) if has_segments else None
    return SemanticMap(classes, fused, labels.stuff, labels.fusion)


def _read_segments(outputs, labels, image_size, detection_count):
    """The `Fused` segments, which must be those of the map: else all that is said of segments would be of others."""
    segment_map = rgb_to_ids(_decode_png(outputs["segments_png_bytes"], "RGB", image_size))
    names = ("segment_instances", "segment_classes", "segment_areas")
    count = int(np.asarray(outputs["num_segments"]).reshape(()))
    instances, classes, areas = (np.asarray(outputs[name])[:count] for name in names)
    pixels = np.bincount(segment_map.ravel(), minlength=count + 1)[1:]
    if not np.array_equal(pixels, areas) or not (areas > 0).all():
        raise ValueError("a table of segments that aren't those of the map")
    class_count = np.where(instances < 0, len(labels.stuff), len(labels.categories))
    if not ((classes >= 1) & (classes <= class_count) & (instances < detection_count)).all():
        raise ValueError(
            f"segments of classes or detections that aren't among {detection_count} detections and the labels"
        )
    return Fused(segment_map, instances, classes, areas, count)


def _decode_png(data, mode, image_size):
    """The pixels of a PNG in bytes, which must have this mode of Pillow's and this (height, width)."""
    try:
        with Image.open(io.BytesIO(bytes(data))) as image:
            pixels, actual_mode = np.asarray(image), image.mode
    except (OSError, SyntaxError) as error:
        raise ValueError(f"a map that isn't a PNG: {error}") from error
    if actual_mode != mode or pixels.shape[:2] != tuple(image_size):
        raise ValueError(f"a map of {actual_mode} {pixels.shape[:2]} pixels for an image of {tuple(image_size)}")
    return pixels
