"""From the named outputs of an exported model to `Detections`, with the facts that travel with it."""

import dataclasses
import io
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.categories import parse_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import PanopticConfig
from mrcnn_tf.config.settings import ResizeConfig
from mrcnn_tf.datasets.label_maps import colour_numbers
from mrcnn_tf.ops.panoptic_maps import Fused
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.detections import EncodedMaskDetections
from mrcnn_tf.results.detections import SemanticMap

# From an exported model's map of classes, and its segments, to what `Detections` take.
#

def make_semantics(outputs, facts, image_size, found):
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
    return SemanticMap(labels, fused, facts.stuff, facts.fusion)


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


NEEDED = ("boxes", "scores", "classes", "num_detections")
MAPS = {"semantic_png_bytes", "semantic"}
MASK_RULES = ("torchvision", "detectron2")


@dataclasses.dataclass
class ExportLabels:
    """What a client must know about an exported model.

    Attributes:
        categories: the model's K `Category`s, class 1 first.
        stuff: the S `Category`s of its semantic head, class 1 first; [] without one.
        fusion: the `PanopticConfig` by which it fuses instances and stuff; None without a semantic head, and with boxes
            that have no masks.
        box_head: bool, whether it finds instances.
        mask_rule, keypoint_offset: as in `Detections`.
        resize: the `ResizeConfig` that the model applies to an image by itself.
        document: all of labels.json, as a dictionary.
    """

    categories: list[Category]
    stuff: list[Category]
    fusion: PanopticConfig | None
    box_head: bool
    mask_rule: str
    keypoint_offset: float
    resize: ResizeConfig
    document: dict[str, Any]


def read_labels(source):
    """The `Facts` of an exported model.

    Args:
        source: labels.json, a folder of a SavedModel or of its numbered versions (the latest counts), or the content
            of labels.json as a dictionary.

    Raises:
        UserError: there is no such file, or it isn't one that `mrcnn-tf export` wrote.
    """
    if isinstance(source, dict):
        return _as_facts(source, "the model's labels")
    path = _labels_file(pathlib.Path(source))
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read as labels.json ({error}): give the file from the assets folder of the export."
        ) from error
    return _as_facts(document, path)


def latest_version(folder):
    """pathlib.Path of the SavedModel in a folder: itself, or the highest of its numbered versions.

    Raises:
        UserError: there is none.
    """
    folder = pathlib.Path(folder)
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = [path for path in folder.glob("*/") if path.name.isdigit() and (path / "saved_model.pb").is_file()]
    if not versions:
        raise UserError(f"There is no SavedModel in {folder}: give the folder that mrcnn-tf export saved-model wrote.")
    return max(versions, key=lambda path: int(path.name))


def _labels_file(path):
    return latest_version(path) / "assets" / "labels.json" if path.is_dir() else path


def _as_facts(document, source):
    try:
        things, stuff = document["categories"], document.get("stuff")  # which older exports lack
        stuff = _classes(stuff, source) if stuff else []
        categories = _classes(things, source) if things or not stuff else []  # a semantic head alone may know none
        if document["mask_rule"] not in MASK_RULES:
            raise ValueError(f"a mask_rule of {document['mask_rule']!r}")
        fusion = PanopticConfig(**document["panoptic"]) if stuff and document["panoptic"] else None
        instances = document.get("max_detections") != 0
        resize = ResizeConfig(**document["resize"])
        offset = float(document["keypoint_offset"])
        return ExportLabels(categories, stuff, fusion, instances, document["mask_rule"], offset, resize, document)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{source} isn't what mrcnn-tf export writes ({error!r}): give labels.json from the export's assets."
        ) from error


def _classes(records, source):
    """The `Category`s of records, class 1 first."""
    records = sorted(records, key=lambda record: record["class"])
    if [record["class"] for record in records] != list(range(1, len(records) + 1)):
        raise ValueError("its classes aren't 1, 2, 3, ...")
    by_id = {category.id: category for category in parse_categories(records, source)}
    return [by_id[record["id"]] for record in records]


def make_detections(outputs, facts, image_size):
    """The `Detections` of one image.

    Args:
        outputs: dictionary of arrays without the batch's dimension: `boxes` [D, 4] in pixels of the image, `scores`
            [D], `classes` [D], `num_detections` and, where the model has them, `masks` [D, M, M], `masks_rle_bytes`
            [D], `keypoints` [D, P, 3] and what `semantics_from` reads. Rows beyond num_detections are padding. A
            semantic head by itself gives maps only.
        facts: the model's `Facts`.
        image_size: (height, width) of the image, pixels.

    Raises:
        UserError: an output is missing or doesn't fit the labels, as where model and labels are of two exports.
    """
    missing = [name for name in NEEDED if name not in outputs]
    if len(missing) == len(NEEDED) and MAPS & set(outputs):  # a semantic head by itself
        none = {"boxes": np.zeros([0, 4]), "scores": np.zeros(0), "classes": np.zeros(0), "num_detections": 0}
        outputs, missing = none | outputs, []
    if missing:
        raise UserError(f"The model's outputs lack {', '.join(missing)}: export it with mrcnn-tf export.")
    try:
        found = int(np.asarray(outputs["num_detections"]).reshape(()))
        row = {name: np.asarray(value)[:found] for name, value in outputs.items() if np.ndim(value)}
        common = {
            "boxes": row["boxes"],
            "scores": row["scores"],
            "classes": row["classes"],
            "image_size": image_size,
            "categories": facts.categories,
            "keypoints": row.get("keypoints"),
            "keypoint_offset": facts.keypoint_offset,
            "semantics": make_semantics(outputs, facts, image_size, found),
        }
        if "masks_rle_bytes" in row:
            return EncodedMaskDetections(row["masks_rle_bytes"], **common)
        return Detections(mask_probabilities=row.get("masks"), mask_rule=facts.mask_rule, **common)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The model's outputs don't fit its labels ({error}): take labels.json from the same export."
        ) from error
