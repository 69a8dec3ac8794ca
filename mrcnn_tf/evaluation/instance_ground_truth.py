"""Ground truth of instances: a COCO json made fit for pycocotools, which trips over much that real files have or lack.

Also the sigmas of object keypoint similarity (OKS), by which keypoints are compared. OKS (cocodataset.org, "keypoint
evaluation") is the mean over an object's labelled keypoints of exp(-d^2 / (2 area (2 sigma)^2)), where d is the
distance in pixels and sigma the spread of annotators who label that keypoint, relative to the root of its area.
"""

import dataclasses
import math
import os

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.common.categories import parse_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_values import parse_integer
from mrcnn_tf.datasets.coco_records import stream_records
from mrcnn_tf.datasets.coco_segmentations import RLES_AT_ONCE, as_coco_rle, count_rle_pixels
from mrcnn_tf.datasets.image_files import inspect_file
from mrcnn_tf.datasets.image_folder import locate_images
from mrcnn_tf.datasets.run_lengths import box_of_rle

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
    images: list[dict]  # their records, with `id`, `height` and `width` as numbers
    categories: list[dict]
    # `segmentation` is a compressed RLE, or None; those of a category with keypoints have `keypoints`, `num_keypoints`
    annotations: list[dict]
    keypoints: dict[int, list[str]]  # names, for each category id that has any
    skipped: list[str]
    # {image id: the text that stands in the json for it}, where it's text
    image_names: dict[int, str] = dataclasses.field(default_factory=dict)


def read_instance_ground_truth(path, categories=(), images=None):
    """Read a COCO json for evaluation.

    Fills in `iscrowd`, `area` and `bbox` where they are missing; turns every segmentation into a compressed RLE;
    numbers the annotations anew from 1, because pycocotools takes a match with annotation 0 for no match and merges
    annotations that share an id. Boxes, areas and numbers of keypoints that the file does give are kept as they are, as
    in COCO's protocol. An instance whose keypoints are missing or wrong counts as one without labelled keypoints: what
    is detected near it is neither right nor wrong.

    Args:
        path: of the json.
        categories: the model's `Category`s, which name the keypoints where the json doesn't.
        images: the folder of the images, where sizes are read that the json doesn't know.

    Returns:
        `InstanceGroundTruth`; images and annotations that can't be evaluated are not in it but named in `skipped`.

    Raises:
        UserError: no such file, not COCO's format, no images, an image whose size isn't known, or other keypoints than
            the model's.
    """
    records, own_categories, annotations, listed = [], [], _AnnotationReader(path), None
    for section, record in stream_records(path):
        if section == "images":
            records.append(record)
        elif section == "categories":
            own_categories.append(record)
        else:
            if records and listed is None:
                listed = read_images(records, path, images)
                annotations.frames = listed.frames
            annotations.add(record)
    if not records:
        raise UserError(f"{path} lists no images: there is nothing to evaluate.")
    listed = listed or read_images(records, path, images)
    annotations.frames = listed.frames
    by_id = {category.id: category for category in (parse_categories(own_categories, path) if own_categories else [])}
    kinds = [(record, by_id[parse_integer(record["id"])]) for record in own_categories]
    kinds = [record | {"id": category.id, "name": category.name} for record, category in kinds]
    keypoints = _keypoint_names(kinds, categories, path)
    complete, skipped = annotations.finish({kind["id"] for kind in kinds}, keypoints)
    return InstanceGroundTruth(
        str(path), listed.records, kinds, complete, keypoints, listed.skipped + skipped, listed.names
    )


@dataclasses.dataclass
class ListedImages:
    """The images of a json that can be evaluated."""

    records: list[dict]  # with `id`, `height` and `width` as numbers, and `file_name` where the file is
    frames: dict[int, tuple[int, int]]  # {image id: (height, width)} pixels
    names: dict[int, str]  # see `InstanceGroundTruth.image_names`
    skipped: list[str]  # a sentence for each image left out


def read_images(records, path, folder=None):
    """The `ListedImages` of `ImageRecord`s of the json at `path`, whose files are in `folder`.

    Raises UserError for an image whose size isn't known where there is no folder.
    """
    locations = locate_images(records, folder) if folder else {}
    listed = ListedImages([], {}, {}, [])
    for index, record in enumerate(records):
        name, location, size = f"{path}: image {record.own_id}", locations.get(index), record.size
        if record.id is None:
            listed.skipped.append(f"{path}: entry {index} of images is left out: it has no id.")
            continue
        if record.id in listed.frames:
            listed.skipped.append(f"{name} is left out: it has an id that was used before.")
            continue
        if size is None and not folder:
            raise UserError(f'{name} has no "height" and "width": add them, in pixels.')
        if size is None:
            file = inspect_file(location.path) if location else None
            if file is None or file.problem:
                listed.skipped.append(f"{name} is left out: it has no width and height, and no file that has them.")
                continue
            size = file.height, file.width
        listed.frames[record.id] = size
        if record.name is not None:
            listed.names[record.id] = record.name
        fields = {"id": record.id, "height": size[0], "width": size[1]}
        if record.names:
            fields["file_name"] = os.path.relpath(location.path, folder) if location else record.names[0]
        listed.records.append(record.source | fields)
    return listed


class _AnnotationReader:
    """Makes annotations complete, some thousands at a time, and keeps of each what evaluation needs.

    `frames` are the images' {id: (height, width)}, once they are known.
    """

    def __init__(self, path):
        self.path, self.frames = path, None
        self._waiting, self._read = [], []

    def add(self, record):
        """Takes an AnnotationRecord."""
        self._waiting.append(record)
        if self.frames is not None and len(self._waiting) >= RLES_AT_ONCE:
            self._encode()

    def finish(self, category_ids, keypoints):
        """(complete annotations with ids from 1, a sentence for each that is left out or lacks a part)."""
        self._encode()
        complete, skipped = [], []
        for annotation, own_id, points, total, sentences in self._read:
            name = f"{self.path}: annotation {own_id}"
            skipped += [f"{name}{sentence}" for sentence in sentences]
            if annotation is None:
                continue
            category = annotation["category_id"]
            if category not in category_ids:
                skipped.append(f"{name} is left out: there is no category {category}.")
                continue
            fields, problem = _keypoint_fields(points, total, len(keypoints.get(category, ())))
            if problem:
                skipped.append(f"{name}: {problem}; they are left out of the evaluation.")
            complete.append({"id": len(complete) + 1} | annotation | fields)
        return complete, skipped

    def _encode(self):
        pixel_counts = count_rle_pixels([record.rle for record in self._waiting])
        for record, pixels in zip(self._waiting, pixel_counts, strict=True):
            sentences = []
            annotation = self._complete(record, pixels, sentences)
            points = "keypoints" not in record.faults and (record.keypoints or ())
            total = record.source.get("num_keypoints") if isinstance(record.source, dict) else None
            self._read.append((annotation, record.own_id, points, parse_integer(total), sentences))
        self._waiting = []

    def _complete(self, record, pixels, sentences):
        """An annotation without keypoints, or None; `sentences` gets what is left out."""
        if "record" in record.faults:
            sentences.append(f" is left out: it {record.faults['record'].what}.")
            return None
        frame = self.frames.get(record.image_id)
        if frame is None:
            sentences.append(f" is left out: there is no image {record.source['image_id']}.")
            return None
        rle, problem = _compressed_rle(record, pixels, *frame)
        if problem:
            sentences.append(f": {problem}; its mask is left out of the evaluation.")
        box = record.box and record.box.tolist()
        if box is None or not np.isfinite(box).all():
            if rle is None:
                sentences.append(" is left out: it has neither a box of four numbers nor a mask.")
                return None
            box = box_of_rle(rle)
        area = record.area
        if math.isnan(area):
            area = box[2] * box[3] if rle is None else float(coco_mask.area(rle))
        return {
            "image_id": record.image_id,
            "category_id": record.category_id,
            "iscrowd": int(record.crowd),
            "bbox": box,
            "area": area,
            "segmentation": rle,
        }


def check_categories(predicted, category_ids, source, kind="category"):
    """Raise UserError for a `Category` of `predicted`, a model's, that isn't among those of the json at `source`."""
    for category in predicted:
        if category.id not in category_ids:
            raise UserError(
                f"{source} has no {kind} {category.id} ({category.name}), which the model predicts: "
                "evaluate on annotations with the model's category ids."
            )


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
        if not (isinstance(value, int | float) and 0 < value < math.inf):
            raise UserError(f"keypoint_sigmas of '{name}' give {value} for {point}: it must be more than 0.")
    return np.array(values, np.float64)


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


def _compressed_rle(record, pixels, height, width):
    """(compressed RLE or None, what is wrong or ""). A missing segmentation is no fault: box datasets have none.

    `pixels`: as `count_rle_pixels` gives it.
    """
    if record.rle:
        if record.rle.size != (height, width):
            return None, f"its RLE is of size {list(record.rle.size)}, its image of {[height, width]}"
        if pixels != height * width:
            return None, f"its RLE does not cover {height} x {width} pixels"
        return as_coco_rle(record.rle), ""
    if record.rings:
        return coco_mask.merge(coco_mask.frPyObjects([ring.tolist() for ring in record.rings], height, width)), ""
    fault = record.faults["segmentation"]
    return None, "" if record.source.get("segmentation") is None else f"it {fault.what}"


def _keypoint_fields(keypoints, total, count):
    """({"keypoints": ..., "num_keypoints": ...} of an annotation, what is wrong or "").

    Keypoints are 3 `count` numbers x, y, v, zeros where they are missing, which is no fault since a crowd has none, or
    wrong. If the category has no keypoints, and `count` is 0, the dict is empty.

    Args:
        keypoints: numbers; empty where there are none, False where they aren't numbers.
        total: "num_keypoints"; None where it's no whole number.
    """
    if not count:
        return {}, "its category names no keypoints" if keypoints else ""
    problem = _keypoint_problem(keypoints, count) if keypoints is False or keypoints else ""
    keypoints = [0] * (3 * count) if problem or not keypoints else list(keypoints)
    labelled = sum(visibility > 0 for visibility in keypoints[2::3])
    return {"keypoints": keypoints, "num_keypoints": labelled and (labelled if total is None else total)}, problem


def _keypoint_problem(keypoints, count):
    if keypoints is False:
        return "its keypoints aren't a list of numbers"
    if len(keypoints) != 3 * count:
        numbers = f"{len(keypoints)} numbers instead of {3 * count}"
        return f"its keypoints are {numbers}, x, y and visibility of each of {count}"
    if not np.isfinite(keypoints).all():
        return "its keypoints are not all numbers"
    return "" if {*keypoints[2::3]} <= {0, 1, 2} else "the visibility of a keypoint is not 0, 1 or 2"
