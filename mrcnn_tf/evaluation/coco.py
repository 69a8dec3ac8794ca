"""COCO's figures for detections in COCO's result format."""

import json

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.evaluation.ground_truth import GroundTruth
from mrcnn_tf.evaluation.ground_truth import keypoint_sigmas
from mrcnn_tf.evaluation.ground_truth import read_ground_truth
from mrcnn_tf.evaluation.protocol import check_backend
from mrcnn_tf.evaluation.protocol import class_figures
from mrcnn_tf.evaluation.protocol import figures
from mrcnn_tf.evaluation.protocol import run_keypoint_protocol
from mrcnn_tf.evaluation.protocol import run_protocol
from mrcnn_tf.evaluation.results import CocoResults

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
    if not isinstance(truth, GroundTruth):
        truth = read_ground_truth(annotations, categories or ())
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
        of_class = class_figures(evaluation)
        for row in per_class:
            row[f"{kind}_AP"], row[f"{kind}_AP50"] = of_class.get(row["id"], (None, None))
    return CocoResults(
        images=len(set(image_ids)),
        **{kind: figures(evaluation) for kind, evaluation in found.items()},
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
