"""What a model found, from the files that an evaluation left, checked before anything counts on it."""

import dataclasses
import json
import math
import pathlib

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation.instance_ground_truth import count_rle_pixels
from mrcnn_tf.evaluation.panoptic_ground_truth import PanopticGroundTruth, read_panoptic_ground_truth
from mrcnn_tf.evaluation.results import PanopticResults, SemanticResults

REMEDY = "give the detections.json that `mrcnn-tf evaluate --out` writes, or another in COCO's result format"
FOLDER_REMEDY = "give the whole folder that `mrcnn-tf evaluate --out` wrote"


@dataclasses.dataclass
class ResultFolder:
    """What `mrcnn-tf evaluate --out` left.

    Attributes:
        images: how many were evaluated.
        detections: list of dicts in COCO's result format.
        instances: whether boxes were evaluated: a semantic head by itself finds none.
        panoptic, semantic: `PanopticResults` and `SemanticResults`; None where there was nothing to evaluate.
        segments: the `PanopticGroundTruth` of panoptic.json and its PNGs; None without.
        notes: sentences about what the figures rest on.
    """

    images: int
    detections: list[dict]
    instances: bool
    panoptic: PanopticResults | None
    semantic: SemanticResults | None
    segments: PanopticGroundTruth | None
    notes: list[str]


def read_result_folder(folder):
    """Reads the folder of `mrcnn-tf evaluate --out`.

    Raises:
        UserError: a file is missing or isn't what `evaluate` writes.
    """
    folder = pathlib.Path(folder)
    path = folder / "results.json"
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        panoptic, semantic = (
            kind(**figures[name]) if figures.get(name) else None
            for name, kind in (("panoptic", PanopticResults), ("semantic", SemanticResults))
        )
        images, instances, notes = figures["images"], figures["bbox"] is not None, figures["notes"]
    except OSError as error:
        raise UserError(f"Can't read {path} ({error.strerror}): {FOLDER_REMEDY}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} isn't what an evaluation writes ({error!r}): {FOLDER_REMEDY}.") from None
    segments = None
    if panoptic:
        for part in (folder / "panoptic.json", folder / "panoptic"):
            if not part.exists():
                raise UserError(f"There is no {part}, and {path} has panoptic figures: {FOLDER_REMEDY}.")
        segments = read_panoptic_ground_truth(folder / "panoptic.json", folder / "panoptic")
    detections = read_detections(folder / "detections.json")
    return ResultFolder(images, detections, instances, panoptic, semantic, segments, notes)


def read_detections(path):
    """Reads detections in COCO's result format.

    Args:
        path: of a json with a list of dicts: `image_id`, `category_id`, `bbox` [x, y, width, height] in pixels, `score`
            and, in all or none of them, `segmentation`, an RLE.

    Returns:
        That list.

    Raises:
        UserError: the file can't be read, isn't json or isn't such a list; the first wrong entry is named.
    """
    try:
        results = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Can't read the detections {path} ({error.strerror}): {REMEDY}.") from None
    except ValueError as error:
        raise UserError(f"{path} isn't valid json ({error}): {REMEDY}.") from None
    if not isinstance(results, list):
        raise UserError(f"{path} holds no list of detections: {REMEDY}.")
    for place, result in enumerate(results):
        problem = _problem(result)
        if problem:
            raise UserError(f"Entry {place} of {path} {problem}: {REMEDY}.")
    for place, (result, pixels) in enumerate(zip(results, count_rle_pixels(results), strict=True)):
        height, width = result.get("segmentation", {"size": (0, 0)})["size"]
        if "segmentation" in result and pixels != height * width:  # which would bring pycocotools down
            raise UserError(f"Entry {place} of {path} has a segmentation that doesn't fill its size: {REMEDY}.")
    return results


def _problem(result):
    """What is wrong with an entry, or ""."""
    if not isinstance(result, dict):
        return "isn't a detection"
    for key in ("image_id", "category_id"):
        if type(result.get(key)) is not int:
            return f"has no whole number as {key}"
    box, score, mask = result.get("bbox"), result.get("score"), result.get("segmentation")
    if not isinstance(box, list) or len(box) != 4 or not all(_finite(side) for side in box):
        return "has no bbox of four numbers"
    if not _finite(score):
        return "has no number as score"
    if "segmentation" in result and not _is_rle(mask):
        return "has a segmentation that isn't a compressed RLE"
    points = result.get("keypoints", [])
    if not isinstance(points, list) or len(points) % 3 or not all(_finite(number) for number in points):
        return "has keypoints that aren't three numbers each"
    return ""


def _is_rle(mask):
    size = mask.get("size") if isinstance(mask, dict) else None
    whole = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
    return whole and isinstance(mask.get("counts"), str) and mask["counts"].isascii()


def _finite(number):
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
