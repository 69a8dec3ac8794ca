"""The ground truth of a split, of whatever kinds there are: instances, segments, classes of pixels."""

import dataclasses
import os

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.common.categories import IGNORED, Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data.map_reader import label_table
from mrcnn_tf.datasets.label_maps import read_label_map, unknown_labels
from mrcnn_tf.datasets.read_coco import load_index, source_name
from mrcnn_tf.evaluation.instance_ground_truth import InstanceGroundTruth, read_instance_ground_truth
from mrcnn_tf.evaluation.panoptic_ground_truth import PanopticGroundTruth, check_categories, read_panoptic_ground_truth


@dataclasses.dataclass
class GroundTruth:
    """What the detections of a split are compared with.

    Attributes:
        source: the file or folder that the images are listed in.
        image_ids: of all images, list of int.
        instances: `GroundTruth`; None without. Of a panoptic json it has no annotations until the maps are read.
        panoptic: `PanopticTruth`; None without.
        label_files: {image id: path of its label map}; None without label maps.
        things, stuff: lists of the `Category`s to evaluate; both may be empty without `panoptic`.
        things_are_segments: whether the instances are the things of `panoptic`.
        segments, pixels: whether segments, and classes of pixels, are to be evaluated.
    """

    source: str
    image_ids: list[int]
    instances: InstanceGroundTruth | None
    panoptic: PanopticGroundTruth | None
    label_files: dict[int, str] | None
    things: list[Category]
    stuff: list[Category]
    things_are_segments: bool
    segments: bool
    pixels: bool


def read_ground_truth(data_config, categories, instances, pixels):
    """Reads all ground truth that a model has a use for.

    Args:
        data_config: the `DataConfig` of the split. Where it names no stuff, all of the files' is evaluated.
        categories: the `Category`s of the things to evaluate; None for all that the files have.
        instances: whether the model finds instances.
        pixels: whether it classifies pixels.

    Returns:
        `Truth`.

    Raises:
        UserError: none of the files is what such a model can be evaluated on, or see `read_ground_truth`,
            `read_panoptic_truth` and `load_index`.
    """
    annotations, stuff = data_config.annotations, data_config.stuff
    panoptic = None
    if data_config.panoptic and (pixels or not annotations):
        panoptic = read_panoptic_ground_truth(data_config.panoptic, data_config.panoptic_maps)
        check_categories(panoptic, categories or () if instances else (), stuff if pixels else ())
    truth = None
    if instances and annotations:
        truth = read_instance_ground_truth(annotations, categories or ())
    elif instances and panoptic:
        truth = _things_truth(panoptic, left_out=[] if pixels else panoptic.left_out)
    index = None
    if pixels and data_config.semantic_maps and not panoptic:
        index = load_index(dataclasses.replace(data_config, semantic=True))
    if not (truth or panoptic or index):
        raise UserError(explain_missing_ground_truth(data_config, pixels))
    return GroundTruth(
        source=source_name(data_config),
        image_ids=_image_ids(truth, panoptic, index),
        instances=truth,
        panoptic=panoptic,
        label_files=_label_files(index) if index else None,
        things=categories or (panoptic.things if panoptic else []),
        stuff=stuff or (panoptic.stuff if panoptic else []),
        things_are_segments=bool(truth and not annotations),
        segments=bool(panoptic and pixels),
        pixels=bool(pixels and (panoptic or index)),
    )


def segments_to_annotations(segment_map, segments, image_id):
    """The segments of one image as annotations of a `GroundTruth`, but without an `id`.

    Args:
        segment_map: int32 [H, W].
        segments: those of things, as `PanopticTruth.segments` gives them. A box or an area that isn't there is taken
            from the pixels.
        image_id: int.
    """
    annotations = []
    for segment in segments:
        rle = coco_mask.encode(np.asfortranarray(segment_map == segment["id"], np.uint8))
        box, area = segment["bbox"], segment["area"]
        annotations.append(
            {
                "image_id": image_id,
                "category_id": segment["category_id"],
                "iscrowd": segment["iscrowd"],
                "bbox": box if np.isfinite(box).all() else np.asarray(coco_mask.toBbox(rle)).tolist(),
                "area": area if np.isfinite(area) else float(coco_mask.area(rle)),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            }
        )
    return annotations


def segments_to_classes(segment_map, segments, classes):
    """The class of each pixel, uint8 [H, W]: 255 in void and in segments of no class.

    Args:
        segment_map: int32 [H, W].
        segments: list of dicts with `id` and `category_id`; no other ids are in the map.
        classes: {category id: class}, `image_maps.semantic_classes`.
    """
    ids = np.array([0, *(segment["id"] for segment in segments)])
    values = [IGNORED, *(classes.get(segment["category_id"], IGNORED) for segment in segments)]
    order = np.argsort(ids)
    return np.array(values, np.uint8)[order][np.searchsorted(ids[order], segment_map)]


def read_pixel_classes(path, classes):
    """The same from a label map.

    Raises:
        UserError: the file can't be read, or has a value that isn't the id of a category.
    """
    values = read_label_map(path)
    labels = label_table(classes)[values]
    if (labels < 0).any():
        raise UserError(f"{unknown_labels(path, np.unique(values[labels < 0]))}.")
    return labels.astype(np.uint8)


def _things_truth(panoptic, left_out):
    images = [
        {"id": image_id, "height": panoptic.sizes[image_id][0], "width": panoptic.sizes[image_id][1]}
        for image_id in panoptic.places
    ]
    categories = [{"id": category.id, "name": category.name} for category in panoptic.things]
    return InstanceGroundTruth(panoptic.source, images, categories, [], {}, list(left_out))


def _image_ids(truth, panoptic, index):
    if truth:
        return [image["id"] for image in truth.images]
    return list(panoptic.places) if panoptic else index.image_ids.tolist()


def _label_files(index):
    files = (os.fsdecode(path) for path in index.map_files.tolist())
    return {image_id: path for image_id, path in zip(index.image_ids.tolist(), files, strict=True) if path}


def explain_missing_ground_truth(data_config, pixels):
    """The sentence for a split without ground truth for a model; `pixels`: whether that classifies pixels."""
    named = source_name(data_config)
    if not named:
        return "There is nothing to evaluate on: set data.val.annotations and data.val.images."
    if pixels:
        return (
            f"{named} has no classes of pixels, and those are all that the model finds: set data.val.panoptic and "
            "data.val.panoptic_maps, or data.val.semantic_maps."
        )
    return f"{named} has no instances, and those are all that the model finds: set data.val.annotations."
