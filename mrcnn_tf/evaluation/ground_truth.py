"""Ground truth of a split, of whatever kinds there are: instances, panoptic segments, classes of pixels."""

import dataclasses
import os

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.common.categories import IGNORED, Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data.map_reader import make_label_table
from mrcnn_tf.datasets.coco_index import own_image_ids
from mrcnn_tf.datasets.map_files import describe_unknown_labels, read_label_map
from mrcnn_tf.datasets.read_coco import load_index, source_name
from mrcnn_tf.datasets.run_lengths import box_of_rle, encode
from mrcnn_tf.evaluation.instance_ground_truth import InstanceGroundTruth, read_instance_ground_truth
from mrcnn_tf.evaluation.panoptic_ground_truth import PanopticGroundTruth, read_panoptic_ground_truth


@dataclasses.dataclass
class GroundTruth:
    """What the detections of a split are compared with."""

    source: str  # the file or folder that the images are listed in
    image_ids: list[int]  # of all images
    image_names: dict[int, str]  # {image id: the text that stands in the json for it}, where it's text
    instances: InstanceGroundTruth | None  # of a panoptic json it has no annotations before the maps are read
    panoptic: PanopticGroundTruth | None
    label_files: dict[int, str] | None  # {image id: path of its label map}; None without label maps
    things: list[Category]  # those to evaluate; this and `stuff` may be empty without `panoptic`
    stuff: list[Category]
    has_instances_from_segments: bool  # the instances are the things of `panoptic`
    has_segments: bool  # segments are to be evaluated
    has_pixel_classes: bool  # classes of pixels are to be evaluated


def read_ground_truth(data_config, categories, detects_instances, classifies_pixels):
    """Read all `GroundTruth` that a model has a use for.

    Args:
        data_config: the `DataConfig` of the split. Where it names no stuff, all of the files' is evaluated.
        categories: the `Category`s of the things to evaluate; None for all that the files have.
        detects_instances, classifies_pixels: what the model does.

    Raises:
        UserError: none of the files is what such a model can be evaluated on, or see `read_instance_ground_truth`,
            `read_panoptic_ground_truth` and `load_index`.
    """
    annotations, stuff = data_config.annotations, data_config.stuff
    instances = panoptic = index = None
    if data_config.panoptic and (classifies_pixels or not annotations):
        panoptic = read_panoptic_ground_truth(data_config.panoptic, data_config.panoptic_maps, data_config.images)
        panoptic.check_categories(categories or () if detects_instances else (), stuff if classifies_pixels else ())
    if detects_instances and annotations:
        instances = read_instance_ground_truth(annotations, categories or (), data_config.images)
    elif detects_instances and panoptic:
        instances = _instances_of(panoptic, skipped=[] if classifies_pixels else list(panoptic.skipped))
    if classifies_pixels and data_config.semantic_maps and not panoptic:
        index = load_index(dataclasses.replace(data_config, semantic=True))
    if instances:
        image_ids, names = [image["id"] for image in instances.images], instances.image_names
    elif panoptic:
        image_ids, names = list(panoptic.annotation_indices), panoptic.records.image_names
    elif index:
        image_ids = index.image_ids.tolist()
        names = dict(zip(image_ids, own_image_ids(index.image_ids, index.image_names), strict=True))
    else:
        raise UserError(explain_missing_ground_truth(data_config, classifies_pixels))
    label_files = None
    if index:
        files = zip(index.image_ids.tolist(), map(os.fsdecode, index.map_files.tolist()), strict=True)
        label_files = {image_id: path for image_id, path in files if path}
    return GroundTruth(
        source=source_name(data_config),
        image_ids=image_ids,
        image_names=names,
        instances=instances,
        panoptic=panoptic,
        label_files=label_files,
        things=categories or (panoptic.things if panoptic else []),
        stuff=stuff or (panoptic.stuff if panoptic else []),
        has_instances_from_segments=bool(instances and not annotations),
        has_segments=bool(panoptic and classifies_pixels),
        has_pixel_classes=bool(classifies_pixels and (panoptic or index)),
    )


def explain_missing_ground_truth(data_config, classifies_pixels):
    """Word the error for a split without ground truth for a model, which classifies pixels or detects instances."""
    source = source_name(data_config)
    if not source:
        return "There is nothing to evaluate on: set data.val.annotations and data.val.images."
    if classifies_pixels:
        return (
            f"{source} has no classes of pixels, and those are all that the model finds: set data.val.panoptic and "
            "data.val.panoptic_maps, or data.val.semantic_maps."
        )
    return f"{source} has no instances, and those are all that the model finds: set data.val.annotations."


def segments_to_annotations(segment_map, segments, image_id):
    """Turn the segments of one image into annotations of an `InstanceGroundTruth`, but without an `id`.

    Args:
        segment_map: int32 [H, W].
        segments: those of things, as `PanopticGroundTruth.segments` gives them. A box or an area that isn't there is
            taken from the pixels.
        image_id: int.
    """
    annotations = []
    for segment in segments:
        rle, box, area = encode(segment_map == segment["id"]), segment["bbox"], segment["area"]
        annotations.append(
            {
                "image_id": image_id,
                "category_id": segment["category_id"],
                "iscrowd": segment["iscrowd"],
                "bbox": box if np.isfinite(box).all() else box_of_rle(rle),
                "area": area if np.isfinite(area) else float(coco_mask.area(rle)),
                "segmentation": rle,
            }
        )
    return annotations


def segments_to_classes(segment_map, segments, classes):
    """The class of each pixel, uint8 [H, W]: 255 in void and in segments of no class.

    Args:
        segment_map: int32 [H, W].
        segments: list of dicts with `id` and `category_id`; no other ids are in the map.
        classes: {category id: class}, `map_files.semantic_classes`.
    """
    ids = np.array([0, *(segment["id"] for segment in segments)])
    segment_classes = [IGNORED, *(classes.get(segment["category_id"], IGNORED) for segment in segments)]
    order = np.argsort(ids)
    return np.array(segment_classes, np.uint8)[order][np.searchsorted(ids[order], segment_map)]


def read_pixel_classes(path, classes):
    """Read the class of each pixel from a label map, as `segments_to_classes` gives it.

    Raises UserError if the file can't be read, or has a value that isn't the id of a category.
    """
    values = read_label_map(path)
    labels = make_label_table(classes)[values]
    if (labels < 0).any():
        raise UserError(f"{describe_unknown_labels(path, np.unique(values[labels < 0]))}.")
    return labels.astype(np.uint8)


def _instances_of(panoptic, skipped):
    """The things of a `PanopticGroundTruth` as an `InstanceGroundTruth`, without annotations yet."""
    sizes = {image_id: panoptic.sizes[image_id] for image_id in panoptic.annotation_indices}
    images = [{"id": image_id, "height": height, "width": width} for image_id, (height, width) in sizes.items()]
    categories = [{"id": category.id, "name": category.name} for category in panoptic.things]
    return InstanceGroundTruth(panoptic.source, images, categories, [], {}, skipped, panoptic.records.image_names)
