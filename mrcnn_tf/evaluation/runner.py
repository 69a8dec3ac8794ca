"""Detect in every image of a dataset and score the outcome."""

import dataclasses
import itertools
import json

import tensorflow as tf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn_tf.categories import UNUSED
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.errors import UserError
from mrcnn_tf.evaluation.backends import check_backend
from mrcnn_tf.evaluation.coco import evaluate_detections, plan_evaluation
from mrcnn_tf.evaluation.ground_truth import read_ground_truth
from mrcnn_tf.ops.replicas import from_all_workers, local_replicas, workers

HEADS = {"segm": "mask_head", "keypoints": "keypoint_head"}  # what a model without the part doesn't detect


def evaluate(model, data_config, progress=True):
    """Runs the model over a dataset and computes COCO's figures.

    Args:
        model: has `detect_batch(batch)`, which takes a batch of `coco_dataset` and returns a `Detections` per image.
        data_config: the `DataConfig` of the split; only its categories are evaluated where it names any, and not those
            without objects that torchvision calls "N/A". Its `keypoint_sigmas` are those of OKS, and
            its `coco_backend` counts.
        progress: show a progress bar.

    Returns:
        (`CocoResults`, the detections as a list of dicts in COCO's result format). Every image that could be read
        counts once; those that could not are named in `CocoResults.left_out`.

    Raises:
        UserError: no image could be read, or what `read_ground_truth` and `evaluate_detections` refuse.
    """
    check_backend(data_config.coco_backend)
    unused = {category.id for category in data_config.categories if category.name == UNUSED}
    categories = [category for category in data_config.categories if category.id not in unused] or None
    truth = read_ground_truth(data_config.annotations, categories or ())
    plan_evaluation(truth, categories, data_config.keypoint_sigmas)
    results, seen = _detect_all(model, data_config, len(truth.images), progress)
    if not seen:
        raise UserError(f"Not one image of {data_config.annotations} could be read: check data.val.images.")
    for image in truth.images:
        if image["id"] not in seen:
            truth.left_out.append(f"{truth.source}: image {image['id']} is left out: it could not be read.")
    results = [result for result in results if result["category_id"] not in unused]
    kinds = [kind for kind, head in HEADS.items() if getattr(model, head, True)]
    sigmas, backend = data_config.keypoint_sigmas, data_config.coco_backend
    return evaluate_detections(results, truth, sorted(seen), categories, sigmas, kinds, backend), results


def _detect_all(model, data_config, images, progress):
    """(detections of all images in COCO's result format, set of the ids of images seen), on all devices and hosts.

    Every host detects in its share of the batches, and all of them end up with everything.
    """
    strategy = getattr(model, "distribute_strategy", tf.distribute.get_strategy())
    worker, count = workers(strategy)
    at_once = (data_config.images_per_batch or 1) * local_replicas(strategy)
    data = coco_dataset(dataclasses.replace(data_config, images_per_batch=at_once), training=False)
    found = {}  # by image: a last batch may be filled up with images that were there before
    with _progress_bar(progress) as bar:
        task = bar.add_task("evaluating", total=-(-images // count))
        for batch in itertools.islice(data, worker, None, count):
            for image_id, detections in zip(batch["image_id"].numpy().tolist(), model.detect_batch(batch), strict=True):
                found.setdefault(image_id, detections.to_coco(image_id))
            bar.update(task, completed=len(found))
    merged = {}
    for part in from_all_workers(strategy, json.dumps(list(found.items())).encode()):
        merged |= dict(json.loads(part))
    return [result for results in merged.values() for result in results], set(merged)


def _progress_bar(shown):
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images")
    return Progress(*columns, TimeRemainingColumn(), transient=True, disable=not shown)
