"""Ground truth of instances: a COCO json made fit for pycocotools, which trips over much that real files have or lack.

Also the sigmas of object keypoint similarity (OKS), by which keypoints are compared. OKS (cocodataset.org, "keypoint
evaluation") is the mean over an object's labelled keypoints of exp(-d^2 / (2 area (2 sigma)^2)), where d is the
distance in pixels and sigma the spread of annotators who label that keypoint, relative to the root of its area.
"""

import dataclasses
import json
import math
import pathlib

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.run_lengths import box_of_rle, decode_strings

MASKS_AT_ONCE = 4096  # run lengths that are decoded together
# As COCO measured them on 5000 persons that two people labelled, in the order of its keypoints.
COCO_SIGMAS = {"nose": 0.026} | {
    f"{side}_{part}": sigma
    for part, sigma in (
        *(("eye", 0.025), ("ear", 0.035), ("shoulder", 0.079), ("elbow", 0.072)),
        *(("wrist", 0.062), ("hip", 0.107), ("knee", 0.087), ("ankle", 0.089)),
    )
    for side in ("left", "right")
}
DEFAULT_SIGMA = 0.05  # between COCO's for ears and for wrists


@dataclasses.dataclass
class InstanceGroundTruth:
    """A dataset in COCO's form, every annotation complete, and a sentence for each thing skipped."""

    source: str
    images: list[dict]
    categories: list[dict]
    # `segmentation` is a compressed RLE, or None; those of a category with keypoints have `keypoints`, `num_keypoints`
    annotations: list[dict]
    keypoints: dict[int, list[str]]  # names, for each category id that has any
    skipped: list[str]


def read_instance_ground_truth(path, categories=()):
    """Read a COCO json for evaluation.

    Fills in `iscrowd`, `area` and `bbox` where they are missing; turns every segmentation into a compressed RLE;
    numbers the annotations anew from 1, because pycocotools takes a match with annotation 0 for no match and merges
    annotations that share an id. Boxes, areas and numbers of keypoints that the file does give are kept as they are, as
    in COCO's protocol. An instance whose keypoints are missing or wrong counts as one without labelled keypoints: what
    is detected near it is neither right nor wrong.

    Args:
        path: of the json.
        categories: the model's `Category`s, which name the keypoints where the json doesn't.

    Returns:
        `InstanceGroundTruth`; annotations that can't be evaluated are not in it but named in `skipped`.

    Raises:
        UserError: no such file, not COCO's format, no images, an image without size, two images with one id, or other
            keypoints than the model's.
    """
    data = _read_json(path)
    sizes = read_image_sizes(data["images"], path)
    category_ids = {category["id"] for category in data["categories"]}
    keypoints = _keypoint_names(data["categories"], categories, path)
    annotations, skipped = [], []
    for record, pixels in zip(data["annotations"], count_rle_pixels(data["annotations"]), strict=True):
        name = f"{path}: annotation {record.get('id')}"
        if record.get("image_id") not in sizes:
            skipped.append(f"{name} is left out: there is no image {record.get('image_id')}.")
            continue
        if record.get("category_id") not in category_ids:
            skipped.append(f"{name} is left out: there is no category {record.get('category_id')}.")
            continue
        rle, problem = _compressed_rle(record.get("segmentation"), pixels, *sizes[record["image_id"]])
        if problem:
            skipped.append(f"{name}: {problem}; its mask is left out of the evaluation.")
        box = _box(record, rle)
        if box is None:
            skipped.append(f"{name} is left out: it has neither a box of four numbers nor a mask.")
            continue
        keypoint_fields, problem = _keypoint_fields(record, len(keypoints.get(record["category_id"], ())))
        if problem:
            skipped.append(f"{name}: {problem}; they are left out of the evaluation.")
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": record["image_id"],
                "category_id": record["category_id"],
                "iscrowd": int(record.get("iscrowd") or 0),
                "bbox": box,
                "area": _area(record, box, rle),
                "segmentation": rle,
                **keypoint_fields,
            }
        )
    return InstanceGroundTruth(str(path), data["images"], data["categories"], annotations, keypoints, skipped)


def read_image_sizes(images, path):
    """Read {image id: (height, width)} from "images" of the json at `path`; raises UserError for a wrong record."""
    sizes = {}
    for index, image in enumerate(images):
        image_id = image.get("id") if isinstance(image, dict) else None
        if type(image_id) is not int:
            raise UserError(f"{path}: entry {index} of images has no whole number as id: give it one.")
        if image_id in sizes:
            raise UserError(f"{path} has two images with the id {image_id}: give each image its own id.")
        sizes[image_id] = image.get("height"), image.get("width")
        if not all(isinstance(side, int | float) and side > 0 for side in sizes[image_id]):
            raise UserError(f'{path}: image {image_id} has no "height" and "width": add them, in pixels.')
    return sizes


def check_categories(predicted, category_ids, source, kind="category"):
    """Raise UserError for a `Category` of `predicted`, a model's, that isn't among those of the json at `source`."""
    for category in predicted:
        if category.id not in category_ids:
            raise UserError(
                f"{source} has no {kind} {category.id} ({category.name}), which the model predicts: "
                "evaluate on annotations with the model's category ids."
            )


def count_rle_pixels(records):
    """For each annotation the pixels that its compressed RLE covers, or -1 if that is broken or there is none."""
    for start in range(0, len(records), MASKS_AT_ONCE):
        masks = [record.get("segmentation") for record in records[start : start + MASKS_AT_ONCE]]
        strings = [mask.get("counts") if isinstance(mask, dict) else None for mask in masks]
        runs, counts = decode_strings([string.encode() if isinstance(string, str) else b"" for string in strings])
        last = np.cumsum(counts)
        total = np.r_[0, np.cumsum(runs)]
        negative = np.r_[0, np.cumsum(runs < 0)]
        broken = (counts == 0) | (negative[last] > negative[last - counts])
        yield from np.where(broken, -1, total[last] - total[last - counts]).tolist()


def keypoint_sigmas(names, keypoints, sigmas_by_name, source):
    """Sigmas of each category's keypoints: the user's, COCO's for COCO's keypoints of persons, otherwise 0.05.

    Args:
        names: {category id: name} of those to evaluate.
        keypoints: {category id: names of its keypoints}, as `InstanceGroundTruth` has them.
        sigmas_by_name: {category name: list of sigmas}, the user's.
        source: the json's path, for messages.

    Returns:
        ({category id: float64 [P]}, a list of sentences about those that nobody measured).

    Raises:
        UserError: `sigmas_by_name` has a category that isn't evaluated or has no keypoints, a wrong number of sigmas or
            one that isn't positive.
    """
    for name in sigmas_by_name:
        if name not in names.values():
            candidates = ", ".join(names[category_id] for category_id in keypoints if category_id in names)
            raise UserError(
                f"keypoint_sigmas are given for '{name}', which is no category of {source}: "
                f"{f'those with keypoints are {candidates}' if candidates else 'remove them, for none has keypoints'}."
            )
    sigmas, notes = {}, []
    for category_id in sorted(names):
        name, points = names[category_id], keypoints.get(category_id, ())
        if name in sigmas_by_name:
            sigmas[category_id] = _check_sigmas(sigmas_by_name[name], name, points)
        elif points and {*points} == {*COCO_SIGMAS}:
            sigmas[category_id] = np.array([COCO_SIGMAS[point] for point in points])
        elif points:
            sigmas[category_id] = np.full(len(points), DEFAULT_SIGMA)
            notes.append(
                f"The keypoints of {name} were compared with a sigma of {DEFAULT_SIGMA} each, for want of measured "
                "ones: data.val.keypoint_sigmas sets others."
            )
    return sigmas, notes


def _check_sigmas(values, name, points):
    if not points:
        raise UserError(f"keypoint_sigmas are given for '{name}', which has no keypoints: remove them.")
    if len(values) != len(points):
        raise UserError(f"keypoint_sigmas of '{name}' must be {len(points)}, one for each keypoint, not {len(values)}.")
    for value, point in zip(values, points, strict=True):
        if not (_all_finite([value]) and value > 0):
            raise UserError(f"keypoint_sigmas of '{name}' give {value} for {point}: it must be more than 0.")
    return np.array(values, np.float64)


def _read_json(path):
    try:
        data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Can't read the annotations {path} ({error.strerror}): check data.val.annotations.") from None
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file ({error}): give a COCO annotation file.") from None
    for key in ("images", "annotations", "categories"):
        records = data.get(key) if isinstance(data, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise UserError(f'{path} has no list of records "{key}": give a COCO annotation file.')
    for index, record in enumerate(data["categories"]):
        if not isinstance(record.get("id"), int):
            raise UserError(f"{path}: entry {index} of categories has no whole number as id: give it one.")
    if not data["images"]:
        raise UserError(f"{path} lists no images: there is nothing to evaluate.")
    return data


def _keypoint_names(records, categories, source):
    """{category id: names of its keypoints}, of those that have any: the json's or, where it names none, the model's.

    Raises UserError where the json's category records and the model's `Category`s name different ones.
    """
    names = {}
    for record in records:
        listed = record.get("keypoints")
        names[record["id"]] = [str(name) for name in listed] if isinstance(listed, list) else []
    for category in categories:
        listed = names.get(category.id)
        if listed and category.keypoints and listed != list(category.keypoints):
            raise UserError(
                f"{source} names the keypoints of category {category.id} ({category.name}) {', '.join(listed)}, the "
                f"model {', '.join(category.keypoints)}: make both the same, in one order."
            )
        if not listed and category.id in names:
            names[category.id] = list(category.keypoints)
    return {category_id: listed for category_id, listed in names.items() if listed}


def _compressed_rle(segmentation, pixels, height, width):
    """(compressed RLE or None, what is wrong or ""). A missing segmentation is no fault: box datasets have none.

    `pixels`: as `count_rle_pixels` gives it.
    """
    if segmentation is None:
        return None, ""
    if isinstance(segmentation, dict):
        counts, size = segmentation.get("counts"), segmentation.get("size")
        if size != [height, width]:
            return None, f"its RLE is of size {size}, its image of {[height, width]}"
        if not isinstance(counts, str):
            runs = np.asarray(counts)
            pixels = -1 if runs.dtype.kind != "i" or (runs < 0).any() else runs.sum()
        if pixels != height * width:
            return None, f"its RLE does not cover {height} x {width} pixels"
        return segmentation if isinstance(counts, str) else coco_mask.frPyObjects(segmentation, height, width), ""
    # With fewer than three points there is no area, and pycocotools would take four numbers for a box.
    polygons = [p for p in segmentation if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and _all_finite(p)]
    if not polygons:
        return None, "its segmentation is empty"
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)), ""


def _all_finite(numbers):
    return all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)


def _box(record, rle):
    box = record.get("bbox")
    if isinstance(box, list) and len(box) == 4 and _all_finite(box):
        return box
    return None if rle is None else box_of_rle(rle)


def _area(record, box, rle):
    if record.get("area") is not None:
        return record["area"]
    return box[2] * box[3] if rle is None else float(coco_mask.area(rle))


def _keypoint_fields(record, count):
    """({"keypoints": ..., "num_keypoints": ...} of an annotation, what is wrong or "").

    Keypoints are 3 `count` numbers x, y, v, zeros where they are missing, which is no fault since a crowd has none, or
    wrong. If the category has no keypoints, and `count` is 0, the dict is empty.
    """
    keypoints = record.get("keypoints")
    if not count:
        return {}, "its category names no keypoints" if keypoints else ""
    problem = _keypoint_problem(keypoints, count) if keypoints else ""
    if problem or not keypoints:
        keypoints = [0] * (3 * count)
    labelled = sum(visibility > 0 for visibility in keypoints[2::3])
    return {"keypoints": keypoints, "num_keypoints": labelled and record.get("num_keypoints", labelled)}, problem


def _keypoint_problem(keypoints, count):
    if not isinstance(keypoints, list) or len(keypoints) != 3 * count:
        length = f"{len(keypoints)} numbers" if isinstance(keypoints, list) else "no list"
        return f"its keypoints are {length} instead of {3 * count}, x, y and visibility of each of {count}"
    if not _all_finite(keypoints):
        return "its keypoints are not all numbers"
    return "" if {*keypoints[2::3]} <= {0, 1, 2} else "the visibility of a keypoint is not 0, 1 or 2"
