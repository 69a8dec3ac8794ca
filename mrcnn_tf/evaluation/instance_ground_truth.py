"""A COCO json made fit for pycocotools, which trips over several things that real files contain or lack."""

import dataclasses
import json
import math
import pathlib

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.run_lengths import decode_strings

# Keypoints of a COCO json and the sigmas of object keypoint similarity (OKS), by which they are compared.
#
# OKS (cocodataset.org, "keypoint evaluation") is the mean over an object's labelled keypoints of exp(-d^2 / (2 area (2
# sigma)^2)), where d is the distance in pixels and sigma the spread of annotators who label that keypoint, relative to
# the root of the object's area.
#

# As COCO measured them on 5000 persons that two people labelled.
COCO_SIGMAS = {
    "nose": 0.026,
    "left_eye": 0.025,
    "right_eye": 0.025,
    "left_ear": 0.035,
    "right_ear": 0.035,
    "left_shoulder": 0.079,
    "right_shoulder": 0.079,
    "left_elbow": 0.072,
    "right_elbow": 0.072,
    "left_wrist": 0.062,
    "right_wrist": 0.062,
    "left_hip": 0.107,
    "right_hip": 0.107,
    "left_knee": 0.087,
    "right_knee": 0.087,
    "left_ankle": 0.089,
    "right_ankle": 0.089,
}
OTHER_SIGMA = 0.05  # between COCO's for ears and for wrists


def keypoint_names(records, categories, source):
    """The keypoints of each category that has any, as the json names them or, where it doesn't, the model.

    Args:
        records: "categories" of the json.
        categories: the model's `Category`s; they may be fewer.
        source: the json's path, for messages.

    Returns:
        {category id: list of names}.

    Raises:
        UserError: both name a category's keypoints, and differently.
    """
    names = {}
    for record in records:
        listed = record.get("keypoints")
        names[record["id"]] = [str(name) for name in listed] if isinstance(listed, list) else []
    for category in categories:
        named = names.get(category.id)
        if named and category.keypoints and named != list(category.keypoints):
            raise UserError(
                f"{source} names the keypoints of category {category.id} ({category.name}) {', '.join(named)}, the "
                f"model {', '.join(category.keypoints)}: make both the same, in one order."
            )
        if not named and category.id in names:
            names[category.id] = list(category.keypoints)
    return {category_id: named for category_id, named in names.items() if named}


def read_keypoints(record, count):
    """The keypoints of an annotation that should have `count` of them.

    Returns:
        (3 `count` numbers x, y, v, zeros where they are missing or wrong; what is wrong with them, or ""). An
        annotation without keypoints is no fault: a crowd has none.
    """
    nothing = [0] * (3 * count)
    given = record.get("keypoints")
    if not given:
        return nothing, ""
    if not isinstance(given, list) or len(given) != 3 * count:
        length = f"{len(given)} numbers" if isinstance(given, list) else "no list"
        return nothing, f"its keypoints are {length} instead of {3 * count}, x, y and visibility of each of {count}"
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in given):
        return nothing, "its keypoints are not all numbers"
    if not {*given[2::3]} <= {0, 1, 2}:
        return nothing, "the visibility of a keypoint is not 0, 1 or 2"
    return given, ""


def keypoint_sigmas(names, keypoints, given, source):
    """Sigmas of each category's keypoints: the given ones, COCO's for COCO's keypoints of persons, otherwise 0.05.

    Args:
        names: {category id: name} of those to evaluate.
        keypoints: {category id: names of its keypoints}, as `keypoint_names` gives it.
        given: {category name: list of sigmas}.
        source: the json's path, for messages.

    Returns:
        ({category id: float64 [P]}, a list of sentences about those that nobody measured).

    Raises:
        UserError: `given` names a category that isn't evaluated or has no keypoints, or holds a wrong number of sigmas
            or one that isn't positive.
    """
    for name in given:
        if name not in names.values():
            known = ", ".join(names[category_id] for category_id in keypoints if category_id in names)
            raise UserError(
                f"keypoint_sigmas are given for '{name}', which is no category of {source}: "
                f"{f'those with keypoints are {known}' if known else 'remove them, for none of it has keypoints'}."
            )
    sigmas, guessed = {}, []
    for category_id in sorted(names):
        name, points = names[category_id], keypoints.get(category_id, ())
        if name in given:
            sigmas[category_id] = _checked(given[name], name, points)
        elif points and {*points} == {*COCO_SIGMAS}:
            sigmas[category_id] = np.array([COCO_SIGMAS[point] for point in points])
        elif points:
            sigmas[category_id] = np.full(len(points), OTHER_SIGMA)
            guessed.append(name)
    notes = [
        f"The keypoints of {name} were compared with a sigma of {OTHER_SIGMA} each, for want of measured ones: "
        "data.val.keypoint_sigmas sets others."
        for name in guessed
    ]
    return sigmas, notes


def _checked(values, name, points):
    if not points:
        raise UserError(f"keypoint_sigmas are given for '{name}', which has no keypoints: remove them.")
    if len(values) != len(points):
        raise UserError(f"keypoint_sigmas of '{name}' must be {len(points)}, one for each keypoint, not {len(values)}.")
    for value, point in zip(values, points, strict=True):
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise UserError(f"keypoint_sigmas of '{name}' give {value} for {point}: it must be more than 0.")
    return np.array(values, np.float64)


MASK_MISSING = "its mask is left out of the evaluation"
AT_ONCE = 4096  # annotations whose masks are decoded together
KEYPOINTS_MISSING = "they are left out of the evaluation"


@dataclasses.dataclass
class InstanceGroundTruth:
    """A dataset in COCO's form, every annotation complete, and a sentence for each thing left out."""

    source: str
    images: list[dict]
    categories: list[dict]
    # `segmentation` is a compressed RLE, or None; those of a category with keypoints have `keypoints`, `num_keypoints`
    annotations: list[dict]
    keypoints: dict[int, list[str]]  # names, for each category id that has any
    left_out: list[str]


def read_instance_ground_truth(path, categories=()):
    """Reads a COCO json for evaluation.

    Fills in `iscrowd`, `area` and `bbox` where they are missing; turns every segmentation into a compressed RLE;
    numbers the annotations anew from 1, because pycocotools takes a match with annotation 0 for no match and merges
    annotations that share an id. Boxes, areas and numbers of keypoints that the file does give are kept as they are, as
    in COCO's protocol. An instance whose keypoints are missing or wrong counts as one without labelled keypoints: what
    is detected near it is neither right nor wrong.

    Args:
        path: of the json.
        categories: the model's `Category`s, which name the keypoints where the json doesn't.

    Returns:
        `GroundTruth`; annotations that can't be evaluated are left out of it and named in `left_out`.

    Raises:
        UserError: no such file, not COCO's format, no images, an image without size, two images with one id, or other
            keypoints than the model's.
    """
    data = _load(path)
    sizes = _image_sizes(data["images"], path)
    category_ids = {category["id"] for category in data["categories"]}
    keypoints = keypoint_names(data["categories"], categories, path)
    annotations, left_out = [], []
    for record, pixels in zip(data["annotations"], count_rle_pixels(data["annotations"]), strict=True):
        name = f"{path}: annotation {record.get('id')}"
        if record.get("image_id") not in sizes:
            left_out.append(f"{name} is left out: there is no image {record.get('image_id')}.")
            continue
        if record.get("category_id") not in category_ids:
            left_out.append(f"{name} is left out: there is no category {record.get('category_id')}.")
            continue
        rle, problem = _encode(record.get("segmentation"), pixels, *sizes[record["image_id"]])
        if problem:
            left_out.append(f"{name}: {problem}; {MASK_MISSING}.")
        box = _box(record, rle)
        if box is None:
            left_out.append(f"{name} is left out: it has neither a box of four numbers nor a mask.")
            continue
        points, problem = _keypoints(record, keypoints.get(record["category_id"], ()))
        if problem:
            left_out.append(f"{name}: {problem}; {KEYPOINTS_MISSING}.")
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": record["image_id"],
                "category_id": record["category_id"],
                "iscrowd": int(record.get("iscrowd") or 0),
                "bbox": box,
                "area": _area(record, box, rle),
                "segmentation": rle,
                **points,
            }
        )
    return InstanceGroundTruth(str(path), data["images"], data["categories"], annotations, keypoints, left_out)


def _load(path):
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
    for key in ("images", "categories"):
        for index, record in enumerate(data[key]):
            if not isinstance(record.get("id"), int):
                raise UserError(f"{path}: entry {index} of {key} has no whole number as id: give it one.")
    if not data["images"]:
        raise UserError(f"{path} lists no images: there is nothing to evaluate.")
    return data


def _image_sizes(images, path):
    """{id: (height, width)}."""
    sizes = {}
    for image in images:
        if image["id"] in sizes:
            raise UserError(f"{path} has two images with the id {image['id']}: give each image its own id.")
        if not image.get("height") or not image.get("width"):
            raise UserError(f'{path}: image {image["id"]} has no "height" and "width": add them, in pixels.')
        sizes[image["id"]] = image["height"], image["width"]
    return sizes


def count_rle_pixels(records):
    """For each annotation the pixels that its compressed RLE covers, or -1 if that is broken or there is none."""
    for start in range(0, len(records), AT_ONCE):
        shapes = [record.get("segmentation") for record in records[start : start + AT_ONCE]]
        strings = [s["counts"] if isinstance(s, dict) and isinstance(s.get("counts"), str) else "" for s in shapes]
        runs, counts = decode_strings([string.encode() for string in strings])
        last = np.cumsum(counts)
        total = np.r_[0, np.cumsum(runs)]
        negative = np.r_[0, np.cumsum(runs < 0)]
        broken = (counts == 0) | (negative[last] > negative[last - counts])
        yield from np.where(broken, -1, total[last] - total[last - counts]).tolist()


def _encode(segmentation, pixels, height, width):
    """(compressed RLE or None, what is wrong or ""). A missing segmentation is no fault: box datasets have none.

    `pixels`: as `compressed_pixels` gives it.
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
    polygons = [p for p in segmentation if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and _finite(p)]
    if not polygons:
        return None, "its segmentation is empty"
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)), ""


def _finite(numbers):
    return all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)


def _box(record, rle):
    box = record.get("bbox")
    if isinstance(box, list) and len(box) == 4 and _finite(box):
        return box
    return None if rle is None else np.asarray(coco_mask.toBbox(rle)).tolist()


def _keypoints(record, names):
    """({"keypoints": ..., "num_keypoints": ...}, what is wrong or ""); an empty dict if the category has no names."""
    if not names:
        return {}, "its category names no keypoints" if record.get("keypoints") else ""
    numbers, problem = read_keypoints(record, len(names))
    labelled = sum(visibility > 0 for visibility in numbers[2::3])
    return {"keypoints": numbers, "num_keypoints": labelled and record.get("num_keypoints", labelled)}, problem


def _area(record, box, rle):
    if record.get("area") is not None:
        return record["area"]
    return box[2] * box[3] if rle is None else float(coco_mask.area(rle))
