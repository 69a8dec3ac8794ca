"""From an exported model's map of classes, and its segments, to what `Detections` take."""

import io

import numpy as np
from PIL import Image

from mrcnn_tf.datasets.map_files import colour_numbers
from mrcnn_tf.ops.panoptic import Fused
from mrcnn_tf.results.detections import MapSemantics


def semantics_from(outputs, facts, image_size, found):
    """The `MapSemantics` of one image; None without a semantic head.

    Args:
        outputs: dictionary of arrays without the batch's dimension: `semantic_png_bytes` or, decoded, `semantic` uint8
            [H, W], and where the model fuses `segments_png_bytes`, `num_segments`, `segment_classes`,
            `segment_instances` and `segment_areas`, as `ServedGraph` gives them.
        facts: the model's `Facts`.
        image_size: (height, width) of the image, pixels.
        found: how many detections there are.

    Raises:
        ValueError: maps that aren't of this image, these classes or these detections.
        KeyError: a part of the segments is missing.
    """
    if "semantic_png_bytes" in outputs:
        labels = _decoded(outputs["semantic_png_bytes"], "L", image_size)
    elif "semantic" in outputs:
        labels = np.asarray(outputs["semantic"])
    elif facts.stuff:
        raise ValueError("no map of the stuff that is listed")
    else:
        return None
    if not facts.stuff or labels.max() > len(facts.stuff):
        raise ValueError(f"a map with class {labels.max()} where {len(facts.stuff)} classes of stuff are listed")
    fused = _fused(outputs, facts, image_size, found) if "segments_png_bytes" in outputs else None
    return MapSemantics(labels, fused, facts.stuff, facts.fusion)


def _fused(outputs, facts, image_size, found):
    segment_map = colour_numbers(_decoded(outputs["segments_png_bytes"], "RGB", image_size))
    names = ("segment_instances", "segment_classes", "segment_areas")
    count = int(np.asarray(outputs["num_segments"]).reshape(()))
    instances, classes, areas = (np.asarray(outputs[name])[:count] for name in names)
    # Each row a segment of the map and the other way round: else all that is said of segments would be of others.
    pixels = np.bincount(segment_map.ravel(), minlength=count + 1)[1:]
    if not np.array_equal(pixels, areas) or not (areas > 0).all():
        raise ValueError("a table of segments that aren't those of the map")
    most = np.where(instances < 0, len(facts.stuff), len(facts.categories))
    if not ((classes >= 1) & (classes <= most) & (instances < found)).all():
        raise ValueError(f"segments of classes or detections that aren't among {found} detections and the labels")
    return Fused(segment_map, instances, classes, areas, count)


def _decoded(data, mode, image_size):
    """The pixels of a PNG in bytes, which must have this mode of Pillow's and this (height, width)."""
    try:
        with Image.open(io.BytesIO(bytes(data))) as image:
            pixels, kind = np.asarray(image), image.mode
    except (OSError, SyntaxError) as error:
        raise ValueError(f"a map that isn't a PNG: {error}") from error
    if kind != mode or pixels.shape[:2] != tuple(image_size):
        raise ValueError(f"a map of {kind} {pixels.shape[:2]} pixels for an image of {tuple(image_size)}")
    return pixels
