"""A COCO json made fit for pycocotools, which trips over several things that real files contain or lack."""

import dataclasses
import json
import math
import pathlib

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.rle import decode_strings
from mrcnn_tf.evaluation.keypoints import keypoint_names, read_keypoints

MASK_MISSING = "its mask is left out of the evaluation"
AT_ONCE = 4096  # annotations whose masks are decoded together
KEYPOINTS_MISSING = "they are left out of the evaluation"


@dataclasses.dataclass
class GroundTruth:
    """A dataset in COCO's form, every annotation complete, and a sentence for each thing left out."""

    source: str
    images: list[dict]
    categories: list[dict]
    # `segmentation` is a compressed RLE, or None; those of a category with keypoints have `keypoints`, `num_keypoints`
    annotations: list[dict]
    keypoints: dict[int, list[str]]  # names, for each category id that has any
    left_out: list[str]


def read_ground_truth(path, categories=()):
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
    for record, pixels in zip(data["annotations"], compressed_pixels(data["annotations"]), strict=True):
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
    return GroundTruth(str(path), data["images"], data["categories"], annotations, keypoints, left_out)


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


def compressed_pixels(records):
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
