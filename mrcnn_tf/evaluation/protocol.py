"""COCO's protocol for boxes, masks and keypoints, without files and without printing."""

import contextlib
import io

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.evaluation.backends import run_backend

# The order of COCOeval.stats. s, m, l: small (< 32^2 pixels), medium and large (> 96^2); AR1: at most 1 detection.
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# At most 20 detections. None for small ones: COCO didn't label their keypoints.
KEYPOINT_FIGURES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
# What is compared of an annotation or detection besides `SHARED`.
COMPARED = {"bbox": ("bbox",), "segm": ("segmentation",), "keypoints": ("keypoints", "num_keypoints", "bbox")}
SHARED = ("image_id", "category_id", "score")
AT_ONCE = 255  # masks that coco_mask.area takes: it writes their number into a byte


def run_protocol(kind, truth, results, image_ids, category_ids, backend="pycocotools"):
    """A finished COCOeval for boxes or masks.

    Args:
        kind: "bbox" or "segm".
        truth: the `GroundTruth`.
        results: list of dicts in COCO's result format, with masks if `kind` is "segm".
        image_ids, category_ids: those to evaluate.
        backend: one of `backends.BACKENDS`.
    """
    annotations = [a for a in truth.annotations if kind == "bbox" or a["segmentation"]]
    return _run(kind, truth, annotations, results, image_ids, category_ids, None, backend)


def run_keypoint_protocol(truth, results, image_ids, sigmas, backend="pycocotools"):
    """A finished COCOeval for keypoints, over all categories of `sigmas`.

    Args:
        truth: the `GroundTruth`.
        results: list of dicts in COCO's result format; those of the categories of `sigmas` have keypoints.
        image_ids: those to evaluate.
        sigmas: {category id: float64 [P]}; P may differ.
        backend: one of `backends.BACKENDS`.
    """
    # COCOeval knows one set of sigmas, so each category is a run of its own. COCO's figures are means over categories,
    # which `summarize` takes of arrays that have an axis of categories: joined, they are one run's.
    category_ids = sorted(sigmas)
    runs = []
    for category_id in category_ids:
        own = [[r for r in records if r["category_id"] == category_id] for records in (truth.annotations, results)]
        runs.append(_run("keypoints", truth, *own, image_ids, [category_id], sigmas[category_id], backend))
    whole = runs[0]
    whole.params.catIds = category_ids
    whole.eval = {
        "precision": np.concatenate([run.eval["precision"] for run in runs], axis=2),
        "recall": np.concatenate([run.eval["recall"] for run in runs], axis=1),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        whole.summarize()
    return whole


def figures(evaluation):
    """{name: 0..1, or None where there was nothing to find} of a finished COCOeval; None of None."""
    if evaluation is None:
        return None
    names = KEYPOINT_FIGURES if evaluation.params.iouType == "keypoints" else FIGURES
    return {name: _known(value) for name, value in zip(names, evaluation.stats, strict=True)}


def class_figures(evaluation):
    """{category id: (AP, AP50)}, of all sizes and with the most detections per image; of None an empty dict."""
    if evaluation is None:
        return {}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU thresholds, recalls, categories]
    return {
        category_id: (_mean(precision[:, :, index]), _mean(precision[:1, :, index]))
        for index, category_id in enumerate(evaluation.params.catIds)
    }


def _run(kind, truth, annotations, results, image_ids, category_ids, sigmas, backend):
    kept = SHARED + COMPARED[kind]
    there = [
        {name: a[name] for name in kept if name in a} | {"id": a["id"], "area": a["area"], "iscrowd": a["iscrowd"]}
        for a in annotations
    ]
    found = [
        {name: result[name] for name in kept if name in result} | {"id": number, "area": area, "iscrowd": 0}
        for number, (result, area) in enumerate(zip(results, _areas(kind, results), strict=True), start=1)
    ]
    images = [{name: image[name] for name in ("id", "height", "width")} for image in truth.images]
    categories = [{"id": category["id"], "name": str(category["id"])} for category in truth.categories]
    sides = [{"images": images, "categories": categories, "annotations": records} for records in (there, found)]
    return run_backend(backend, kind, *sides, image_ids, category_ids, sigmas)


def _areas(kind, results):
    """Pixels by which detections are small, medium or large, as COCO.loadRes has them for results of one kind."""
    if kind == "segm":
        masks = [result["segmentation"] for result in results]
        parts = [masks[start : start + AT_ONCE] for start in range(0, len(masks), AT_ONCE)]
        return [float(area) for part in parts for area in coco_mask.area(part)]
    if kind == "keypoints":
        return [float(np.ptp(r["keypoints"][0::3]) * np.ptp(r["keypoints"][1::3])) for r in results]
    return [result["bbox"][2] * result["bbox"][3] for result in results]


def _mean(precision):
    precision = precision[precision > -1]
    return float(precision.mean()) if precision.size else None


def _known(value):
    """None for the -1 by which pycocotools says that there was nothing to find."""
    return None if value < 0 or np.isnan(value) else float(value)
