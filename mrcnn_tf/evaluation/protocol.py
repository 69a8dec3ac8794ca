"""COCO's protocol as pycocotools runs it, but without files and without printing."""

import contextlib
import copy
import io

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# The order of COCOeval.stats. s, m, l: small (< 32^2 pixels), medium and large (> 96^2); AR1: at most 1 detection.
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# At most 20 detections. None for small ones: COCO didn't label their keypoints.
KEYPOINT_FIGURES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


def run_protocol(kind, truth, results, image_ids, category_ids):
    """A finished COCOeval for boxes or masks.

    Args:
        kind: "bbox" or "segm".
        truth: the `GroundTruth`.
        results: list of dicts in COCO's result format, with masks if `kind` is "segm".
        image_ids, category_ids: those to evaluate.
    """
    annotations = [a for a in truth.annotations if kind == "bbox" or a["segmentation"]]
    return _run(kind, truth, annotations, results, image_ids, category_ids)


def run_keypoint_protocol(truth, results, image_ids, sigmas):
    """A finished COCOeval for keypoints, over all categories of `sigmas`.

    Args:
        truth: the `GroundTruth`.
        results: list of dicts in COCO's result format; those of the categories of `sigmas` have keypoints.
        image_ids: those to evaluate.
        sigmas: {category id: float64 [P]}; P may differ.
    """
    # COCOeval knows one set of sigmas, so each category is a run of its own. COCO's figures are means over categories,
    # which `summarize` takes of arrays that have an axis of categories: joined, they are one run's.
    category_ids = sorted(sigmas)
    runs = []
    for category_id in category_ids:
        own = [[r for r in records if r["category_id"] == category_id] for records in (truth.annotations, results)]
        runs.append(_run("keypoints", truth, *own, image_ids, [category_id], sigmas[category_id]))
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


def _run(kind, truth, annotations, results, image_ids, category_ids, sigmas=None):
    detections = [
        {**result, "id": index, "area": _area(kind, result), "iscrowd": 0}
        for index, result in enumerate(results, start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_index(truth, annotations), _index(truth, detections), kind)
        evaluation.params.imgIds = image_ids
        evaluation.params.catIds = category_ids
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _area(kind, result):
    """Pixels by which a detection is small, medium or large, as COCO.loadRes has it for results of one kind."""
    if kind == "segm":
        return float(coco_mask.area(result["segmentation"]))
    if kind == "keypoints":
        return float(np.ptp(result["keypoints"][0::3]) * np.ptp(result["keypoints"][1::3]))
    return result["bbox"][2] * result["bbox"][3]


def _index(truth, annotations):
    """A COCO object without a file. COCO.loadRes would do for detections, but fails where there are none."""
    coco = COCO()
    # COCOeval writes into the annotations that it is given.
    records = [copy.copy(annotation) for annotation in annotations]
    coco.dataset = {"images": truth.images, "categories": truth.categories, "annotations": records}
    coco.createIndex()
    return coco


def _mean(precision):
    precision = precision[precision > -1]
    return float(precision.mean()) if precision.size else None


def _known(value):
    """None for the -1 by which pycocotools says that there was nothing to find."""
    return None if value < 0 or np.isnan(value) else float(value)
