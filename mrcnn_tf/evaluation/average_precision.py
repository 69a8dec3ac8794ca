"""COCO's protocol for boxes, masks and keypoints, without files and without printing."""

import contextlib
import io
import json
import warnings

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.evaluation.instance_ground_truth import InstanceGroundTruth, keypoint_sigmas, read_instance_ground_truth
from mrcnn_tf.evaluation.results import CocoResults

# Who does the counting of COCO's protocol: pycocotools, the reference, or hotcoco, which gives the same sooner.
#

BACKENDS = ("pycocotools", "hotcoco")


def check_backend(name):
    """Raises UserError for a backend that doesn't exist or isn't installed."""
    if name not in BACKENDS:
        raise UserError(f"There is no COCO backend '{name}': choose one of {', '.join(BACKENDS)}.")
    if name == "hotcoco":
        _import_hotcoco()


def run_backend(name, kind, truth, detections, image_ids, category_ids, sigmas=None):
    """A finished COCOeval, summarized by pycocotools whoever counted.

    Args:
        name: one of `BACKENDS`.
        kind: "bbox", "segm" or "keypoints".
        truth, detections: COCO datasets as dicts of images, categories and annotations; the annotations are written to.
        image_ids, category_ids: those to evaluate.
        sigmas: [P] float64 of keypoints.
    """
    check_backend(name)
    with contextlib.redirect_stdout(io.StringIO()):
        sides = [_index(truth), _index(detections)] if name == "pycocotools" else [None, None]
        evaluation = COCOeval(*sides, kind)
        evaluation.params.imgIds = sorted(set(image_ids))
        evaluation.params.catIds = sorted(set(category_ids))
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        if name == "pycocotools":
            evaluation.evaluate()
            evaluation.accumulate()
        else:
            evaluation.eval = _hotcoco(truth, detections, evaluation.params)
        evaluation.summarize()
    return evaluation


def _index(dataset):
    """A COCO object without a file. COCO.loadRes would do for detections, but fails where there are none."""
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _hotcoco(truth, detections, params):
    """{"precision", "recall"} as COCOeval.accumulate has them."""
    hotcoco = _import_hotcoco()
    evaluation = hotcoco.COCOeval(hotcoco.COCO(truth), hotcoco.COCO(detections), params.iouType)
    evaluation.params.imgIds = [int(i) for i in params.imgIds]
    evaluation.params.catIds = [int(i) for i in params.catIds]
    if params.iouType == "keypoints":
        evaluation.params.kpt_oks_sigmas = params.kpt_oks_sigmas.tolist()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "hotcoco: kpt_oks_sigmas differ")  # they are meant to
        evaluation.evaluate()
        evaluation.accumulate()
    return {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall")}


def _import_hotcoco():
    try:
        import hotcoco
    except ImportError as error:
        raise UserError(
            "COCO figures by hotcoco need a package that isn't there: pip install 'mrcnn-tf[coco]', or set "
            "data.val.coco_backend=pycocotools."
        ) from error
    return hotcoco


# The order of COCOeval.stats. s, m, l: small (< 32^2 pixels), medium and large (> 96^2); AR1: at most 1 detection.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# At most 20 detections. None for small ones: COCO didn't label their keypoints.
KEYPOINT_METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
# What is compared of an annotation or detection besides `SHARED`.
COMPARED = {"bbox": ("bbox",), "segm": ("segmentation",), "keypoints": ("keypoints", "num_keypoints", "bbox")}
SHARED = ("image_id", "category_id", "score")
MASKS_AT_ONCE = 255  # masks that coco_mask.area takes: it writes their number into a byte


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


def summary_metrics(evaluation):
    """{name: 0..1, or None where there was nothing to find} of a finished COCOeval; None of None."""
    if evaluation is None:
        return None
    names = KEYPOINT_METRICS if evaluation.params.iouType == "keypoints" else METRICS
    return {name: _known(value) for name, value in zip(names, evaluation.stats, strict=True)}


def class_metrics(evaluation):
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
        parts = [masks[start : start + MASKS_AT_ONCE] for start in range(0, len(masks), MASKS_AT_ONCE)]
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


# COCO's figures for detections in COCO's result format.
#

KINDS = ("segm", "keypoints")  # what may be evaluated besides boxes


def evaluate_detections(
    results, annotations, image_ids=None, categories=None, sigmas=None, kinds=KINDS, backend="pycocotools"
):
    """COCO's figures for detections in COCO's result format.

    Args:
        results: list of dicts as `Detections.to_coco` gives them; it may be empty, which scores 0.
        annotations: path of the COCO json with the ground truth, or the `GroundTruth` read from it.
        image_ids: the images to evaluate; None: all of the json.
        categories: the `Category`s to evaluate; None: all of the json.
        sigmas: {category name: a list with the OKS sigma of each of its keypoints}. Categories without take COCO's if
            their keypoints are COCO's of persons, otherwise 0.05, as the results' `notes` then say.
        kinds: which of `KINDS` to evaluate besides boxes; what a model doesn't detect would count as missed.
        backend: who counts, one of `backends.BACKENDS`; hotcoco is the faster one and comes with mrcnn-tf[coco].

    Returns:
        `CocoResults`. Masks are evaluated if the ground truth has any and every detection has one, keypoints if the
        ground truth has labelled any and every detection of a category with keypoints has them. What puts a detection
        among small, medium and large ones is the area of its box for boxes, of its mask for masks and of the rectangle
        around its keypoints for keypoints.

    Raises:
        UserError: a detection for an image or category that the json lacks, with a mask of another size than its image
            or with more or fewer keypoints than its category; a category of `categories` that the json lacks; wrong
            sigmas; a backend that isn't installed.
    """
    check_backend(backend)
    truth = annotations
    if not isinstance(truth, InstanceGroundTruth):
        truth = read_instance_ground_truth(annotations, categories or ())
    image_ids = [image["id"] for image in truth.images] if image_ids is None else [int(i) for i in image_ids]
    names, known_sigmas, notes = plan_evaluation(truth, categories, sigmas)
    _check(results, truth, names)

    asked = results, image_ids, list(names), backend
    found = {"bbox": run_protocol("bbox", truth, *asked), "segm": None, "keypoints": None}
    outlined = "segm" in kinds and any(a["segmentation"] for a in truth.annotations)
    if outlined and all("segmentation" in r for r in results):
        found["segm"] = run_protocol("segm", truth, *asked)
    labelled = "keypoints" in kinds and any(
        a.get("num_keypoints") for a in truth.annotations if a["category_id"] in known_sigmas
    )
    if labelled and all("keypoints" in r for r in results if r["category_id"] in known_sigmas):
        found["keypoints"] = run_keypoint_protocol(truth, results, image_ids, known_sigmas, backend)
    per_class = [{"id": key, "name": name} for key, name in sorted(names.items())]
    for kind, evaluation in found.items():
        of_class = class_metrics(evaluation)
        for row in per_class:
            row[f"{kind}_AP"], row[f"{kind}_AP50"] = of_class.get(row["id"], (None, None))
    return CocoResults(
        images=len(set(image_ids)),
        **{kind: summary_metrics(evaluation) for kind, evaluation in found.items()},
        per_class=per_class,
        left_out=list(truth.left_out),
        notes=notes if found["keypoints"] else [],
    )


def plan_evaluation(truth, categories, sigmas):
    """What `evaluate_detections` evaluates; a model need not detect for hours before a mistake in it comes out.

    Args:
        truth: the `GroundTruth`.
        categories, sigmas: as for `evaluate_detections`.

    Returns:
        ({category id: name}, {category id: float64 [P]} of those with keypoints, sentences about guessed sigmas).

    Raises:
        UserError: a category that the json lacks, or wrong sigmas.
    """
    names = {c["id"]: str(c.get("name", c["id"])) for c in truth.categories}
    if categories is not None:
        for category in categories:
            if category.id not in names:
                raise UserError(
                    f"{truth.source} has no category {category.id} ({category.name}), which the model detects: "
                    "evaluate on annotations with the model's category ids."
                )
        names = {category.id: category.name for category in categories}
    return names, *keypoint_sigmas(names, truth.keypoints, sigmas or {}, truth.source)


def write_results(results, path):
    """Writes detections in COCO's result format to a json, under a temporary name until complete; makes the folder."""
    with atomic_write(path) as file:
        file.write_text(json.dumps(results), encoding="utf-8")


def _check(results, truth, names):
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth.images}
    for result in results:
        image_id, category_id = result["image_id"], result["category_id"]
        if image_id not in sizes:
            raise UserError(
                f"A detection belongs to image {image_id}, which {truth.source} lacks: evaluate on its own json."
            )
        if category_id not in names:
            raise UserError(
                f"A detection in image {image_id} is of category {category_id}, which is not evaluated: "
                f"take the category ids of {truth.source}."
            )
        if "segmentation" in result and list(result["segmentation"]["size"]) != sizes[image_id]:
            raise UserError(
                f"A mask detected in image {image_id} is of size {list(result['segmentation']['size'])} but "
                f"{truth.source} says {sizes[image_id]} (height, width): correct the json or the image file."
            )
        points = truth.keypoints.get(category_id)
        if points and len(result.get("keypoints", ())) not in (0, 3 * len(points)):
            raise UserError(
                f"A detection in image {image_id} has {len(result['keypoints'])} numbers for keypoints, but category "
                f"{category_id} of {truth.source} has {len(points)} keypoints, three numbers each: "
                "evaluate on annotations with the model's keypoints."
            )
