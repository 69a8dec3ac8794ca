"""COCO's average precision and recall of boxes, masks and keypoints, for detections in COCO's result format.

Ground truth with LVIS's lists of categories is evaluated by LVIS's protocol.
"""

import contextlib
import functools
import io
import itertools
import warnings

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation import instance_ground_truth, lvis
from mrcnn_tf.evaluation.results import CocoResults

BACKENDS = ("pycocotools", "hotcoco")  # implementations of COCOeval: the reference, and one that gives the same sooner
OPTIONAL_KINDS = ("segm", "keypoints")  # what may be evaluated besides boxes
# The order of COCOeval.stats. s, m, l: small (< 32^2 pixels), medium and large (> 96^2); AR1: at most 1 detection.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# At most 20 detections. None for small ones: COCO didn't label their keypoints.
KEYPOINT_METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
# What COCOeval reads of an annotation or detection, for each kind besides what all need.
SHARED_FIELDS = ("image_id", "category_id", "score")
KIND_FIELDS = {"bbox": ("bbox",), "segm": ("segmentation",), "keypoints": ("keypoints", "num_keypoints", "bbox")}
MASKS_AT_ONCE = 255  # that coco_mask.area takes: it writes their number into a byte


def evaluate_detections(
    results, annotations, image_ids=None, categories=None, sigmas=None, kinds=OPTIONAL_KINDS, backend="pycocotools"
):
    """Compute COCO's metrics for detections in COCO's result format.

    Args:
        results: list of dicts as `Detections.to_coco` gives them; it may be empty, which scores 0.
        annotations: path of the COCO json with the ground truth, or the `InstanceGroundTruth` read from it.
        image_ids: the images to evaluate; None: all of the json.
        categories: the `Category`s to evaluate; None: all of the json.
        sigmas: {category name: a list with the OKS sigma of each of its keypoints}. Categories without take COCO's if
            their keypoints are COCO's of persons, otherwise 0.05, as the results' `notes` then say.
        kinds: which of `OPTIONAL_KINDS` to evaluate besides boxes; what a model doesn't detect would count as missed.
        backend: one of `BACKENDS`; hotcoco is the faster one and comes with mrcnn-tf[coco].

    Returns:
        `CocoResults`. Masks are evaluated if the ground truth has any and every detection has one, keypoints if the
        ground truth has labelled any and every detection of a category with keypoints has them. What puts a detection
        among small, medium and large ones is the area of its box for boxes, of its mask for masks and of the rectangle
        around its keypoints for keypoints. If the images have LVIS's lists of categories, boxes and masks are evaluated
        by LVIS's protocol.

    Raises:
        UserError: a detection for an image or category that the json lacks, with a mask of another size than its image
            or with more or fewer keypoints than its category; a category of `categories` that the json lacks; wrong
            sigmas; a backend that isn't installed.
    """
    check_backend(backend)
    ground_truth = annotations
    if not isinstance(ground_truth, instance_ground_truth.InstanceGroundTruth):
        ground_truth = instance_ground_truth.read_instance_ground_truth(annotations, categories or ())
    image_ids = [image["id"] for image in ground_truth.images] if image_ids is None else [int(i) for i in image_ids]
    names, sigmas, sigma_notes = plan_evaluation(ground_truth, categories, sigmas)
    _check_results(results, ground_truth, names)

    settings = image_ids, list(names), backend
    evaluations = {"bbox": run_protocol("bbox", ground_truth, results, *settings), "segm": None, "keypoints": None}
    has_masks = "segm" in kinds and any(a["segmentation"] for a in ground_truth.annotations)
    if has_masks and all("segmentation" in r for r in results):
        evaluations["segm"] = run_protocol("segm", ground_truth, results, *settings)
    has_keypoints = "keypoints" in kinds and any(
        a.get("num_keypoints") for a in ground_truth.annotations if a["category_id"] in sigmas
    )
    if has_keypoints and all("keypoints" in r for r in results if r["category_id"] in sigmas):
        evaluations["keypoints"] = run_keypoint_protocol(ground_truth, results, image_ids, sigmas, backend)
    per_class = [{"id": category_id, "name": name} for category_id, name in sorted(names.items())]
    for kind, evaluation in evaluations.items():
        by_class = class_metrics(evaluation) if evaluation else {}
        for row in per_class:
            row[f"{kind}_AP"], row[f"{kind}_AP50"] = by_class.get(row["id"], (None, None))
    return CocoResults(
        images=len(set(image_ids)),
        **{kind: evaluation and summary_metrics(evaluation) for kind, evaluation in evaluations.items()},
        per_class=per_class,
        skipped=list(ground_truth.skipped),
        notes=_protocol_notes(ground_truth, evaluations) + (sigma_notes if evaluations["keypoints"] else []),
    )


def plan_evaluation(ground_truth, categories, sigmas):
    """Say what `evaluate_detections` evaluates: a model need not detect for hours before a mistake in it comes out.

    Returns ({category id: name}, {category id: sigmas, float64 [P]} of those with keypoints, sentences about guessed
    sigmas); raises UserError for a category that the json lacks, for wrong sigmas and for wrong lists of LVIS.
    """
    lvis.read_image_lists(ground_truth.images, ground_truth.source)
    names = {c["id"]: str(c.get("name", c["id"])) for c in ground_truth.categories}
    if categories is not None:
        instance_ground_truth.check_categories(categories, names, ground_truth.source)
        names = {category.id: category.name for category in categories}
    keypoints, source = ground_truth.keypoints, ground_truth.source
    return names, *instance_ground_truth.keypoint_sigmas(names, keypoints, sigmas or {}, source)


def _protocol_notes(ground_truth, evaluations):
    """Sentences about what LVIS's protocol leaves open or does otherwise; none for ground truth without its lists."""
    if not lvis.read_image_lists(ground_truth.images, ground_truth.source):
        return []
    notes = ["By LVIS's protocol: what is detected of a category counts only in images annotated for it."]
    if not any(category.get("frequency") in lvis.FREQUENCIES for category in ground_truth.categories):
        notes.append(f"No APr, APc and APf: the categories of {ground_truth.source} have no frequency r, c or f.")
    crowds = sum(annotation["iscrowd"] for annotation in ground_truth.annotations)
    if crowds:
        notes.append(f"{crowds} crowds of {ground_truth.source} count as objects: LVIS has no crowds.")
    if evaluations["keypoints"]:
        notes.append("Keypoints are evaluated by COCO's protocol, for LVIS has none for them.")
    return notes


def _check_results(results, ground_truth, names):
    """Raise UserError for a detection that doesn't belong to the ground truth; `names`: {category id: name}."""
    sizes = {image["id"]: [image["height"], image["width"]] for image in ground_truth.images}
    for result in results:
        image_id, category_id = result["image_id"], result["category_id"]
        if image_id not in sizes:
            raise UserError(
                f"A detection belongs to image {image_id}, which {ground_truth.source} lacks: evaluate on its own json."
            )
        if category_id not in names:
            raise UserError(
                f"A detection in image {image_id} is of category {category_id}, which is not evaluated: "
                f"take the category ids of {ground_truth.source}."
            )
        if "segmentation" in result and list(result["segmentation"]["size"]) != sizes[image_id]:
            raise UserError(
                f"A mask detected in image {image_id} is of size {list(result['segmentation']['size'])} but "
                f"{ground_truth.source} says {sizes[image_id]} (height, width): correct the json or the image file."
            )
        keypoints = ground_truth.keypoints.get(category_id)
        if keypoints and len(result.get("keypoints", ())) not in (0, 3 * len(keypoints)):
            raise UserError(
                f"A detection in image {image_id} has {len(result['keypoints'])} numbers for keypoints, but category "
                f"{category_id} of {ground_truth.source} has {len(keypoints)} keypoints, three numbers each: "
                "evaluate on annotations with the model's keypoints."
            )


def run_protocol(kind, ground_truth, results, image_ids, category_ids, backend="pycocotools"):
    """Run COCO's protocol, or LVIS's, for boxes or masks and return the finished COCOeval.

    Args:
        kind: "bbox" or "segm".
        ground_truth: the `InstanceGroundTruth`.
        results: list of dicts in COCO's result format, with masks if `kind` is "segm".
        image_ids, category_ids: those to evaluate.
        backend: one of `BACKENDS`.
    """
    annotations = [a for a in ground_truth.annotations if kind == "bbox" or a["segmentation"]]
    return _run_cocoeval(kind, ground_truth, annotations, results, image_ids, category_ids, None, backend)


def run_keypoint_protocol(ground_truth, results, image_ids, sigmas, backend="pycocotools"):
    """Run COCO's protocol for keypoints and return the finished COCOeval.

    Args:
        ground_truth, results, image_ids, backend: as for `run_protocol`.
        sigmas: {category id: float64 [P]} of the categories to evaluate, whose results have keypoints; P may differ.
    """
    # COCOeval takes one set of sigmas, so each category is a run of its own. COCO's metrics are means over categories,
    # which `summarize` takes of arrays that have an axis of categories: joined, they are one run's.
    category_ids = sorted(sigmas)
    runs = []
    for category_id in category_ids:
        records = [[r for r in side if r["category_id"] == category_id] for side in (ground_truth.annotations, results)]
        runs.append(
            _run_cocoeval("keypoints", ground_truth, *records, image_ids, [category_id], sigmas[category_id], backend)
        )
    evaluation = runs[0]
    evaluation.params.catIds = category_ids
    evaluation.eval = {
        "precision": np.concatenate([run.eval["precision"] for run in runs], axis=2),
        "recall": np.concatenate([run.eval["recall"] for run in runs], axis=1),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return evaluation


def summary_metrics(evaluation):
    """{name: 0..1, or None where there was nothing to find} of a finished COCOeval."""
    names = KEYPOINT_METRICS if evaluation.params.iouType == "keypoints" else METRICS
    names = lvis.METRICS if isinstance(evaluation, lvis.LvisEval) else names
    # pycocotools says -1 where there was nothing to find.
    values = [None if value < 0 or np.isnan(value) else float(value) for value in evaluation.stats]
    return dict(zip(names, values, strict=True))


def class_metrics(evaluation):
    """{category id: (AP, AP50)} of a finished COCOeval, of all sizes and with the most detections per image."""
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU thresholds, recalls, categories]
    return {
        category_id: (_mean_precision(precision[:, :, index]), _mean_precision(precision[:1, :, index]))
        for index, category_id in enumerate(evaluation.params.catIds)
    }


def _mean_precision(precision):
    precision = precision[precision > -1]  # where there was something to find
    return float(precision.mean()) if precision.size else None


def check_backend(name):
    """Raise UserError for a backend that doesn't exist or isn't installed."""
    if name not in BACKENDS:
        raise UserError(f"There is no COCO backend '{name}': choose one of {', '.join(BACKENDS)}.")
    if name == "hotcoco":
        _import_hotcoco()


def _run_cocoeval(kind, ground_truth, annotations, results, image_ids, category_ids, sigmas, backend):
    """A finished COCOeval, summarized by pycocotools whichever backend counted; `sigmas`: float64 [P] of keypoints."""
    fields = SHARED_FIELDS + KIND_FIELDS[kind]
    annotations = [
        {name: a[name] for name in fields if name in a} | {"id": a["id"], "area": a["area"], "iscrowd": a["iscrowd"]}
        for a in annotations
    ]
    detections = [
        {name: result[name] for name in fields if name in result} | {"id": number, "area": area, "iscrowd": 0}
        for number, (result, area) in enumerate(zip(results, _areas(kind, results), strict=True), start=1)
    ]
    image_lists = kind != "keypoints" and lvis.read_image_lists(ground_truth.images, ground_truth.source)
    make_evaluation = COCOeval
    if image_lists:
        annotations, detections = lvis.drop_uncounted(annotations, detections, image_lists)
        frequencies = {category["id"]: category.get("frequency") for category in ground_truth.categories}
        make_evaluation = functools.partial(lvis.LvisEval, image_lists=image_lists, frequencies=frequencies)
    image_fields = ("id", "height", "width", *(lvis.IMAGE_LISTS if image_lists else ()))
    images = [{name: image[name] for name in image_fields} for image in ground_truth.images]
    categories = [{"id": category["id"], "name": str(category["id"])} for category in ground_truth.categories]
    truth_json, detections_json = (
        {"images": images, "categories": categories, "annotations": records} for records in (annotations, detections)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        if backend == "pycocotools":
            evaluation = make_evaluation(_make_coco(truth_json), _make_coco(detections_json), kind)
        else:
            evaluation = make_evaluation(None, None, kind)
        evaluation.params.imgIds = sorted(set(image_ids))
        evaluation.params.catIds = sorted(set(category_ids))
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        if backend == "pycocotools":
            evaluation.evaluate()
            evaluation.accumulate()
        else:
            evaluation.eval = _run_hotcoco(truth_json, detections_json, evaluation.params, bool(image_lists))
        evaluation.summarize()
    return evaluation


def _areas(kind, results):
    """Pixels by which detections are small, medium or large, as COCO.loadRes has them for results of one kind."""
    if kind == "segm":
        masks = [result["segmentation"] for result in results]
        chunks = [masks[start : start + MASKS_AT_ONCE] for start in range(0, len(masks), MASKS_AT_ONCE)]
        return list(map(float, itertools.chain.from_iterable(map(coco_mask.area, chunks))))
    if kind == "keypoints":
        return [float(np.ptp(r["keypoints"][0::3]) * np.ptp(r["keypoints"][1::3])) for r in results]
    return [result["bbox"][2] * result["bbox"][3] for result in results]


def _make_coco(dataset):
    """A COCO object without a file. COCO.loadRes would do for detections, but fails where there are none."""
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _run_hotcoco(truth_json, detections_json, params, by_lvis):
    """{"precision", "recall"} as COCOeval.accumulate has them."""
    hotcoco = _import_hotcoco()
    sides = hotcoco.COCO(truth_json), hotcoco.COCO(detections_json)
    evaluation = hotcoco.COCOeval(*sides, params.iouType, lvis_style=by_lvis)
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
            "COCO metrics by hotcoco need a package that isn't there: pip install 'mrcnn-tf[coco]', or set "
            "data.val.coco_backend=pycocotools."
        ) from error
    return hotcoco
