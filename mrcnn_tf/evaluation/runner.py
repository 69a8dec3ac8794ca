"""Detect in every image of a dataset and score the outcome."""

import dataclasses
import itertools
import json
import pathlib

import tensorflow as tf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn_tf.common.categories import UNUSED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import replaced
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.evaluation.backends import check_backend
from mrcnn_tf.evaluation.coco import evaluate_detections, plan_evaluation, write_results
from mrcnn_tf.evaluation.results import CocoResults
from mrcnn_tf.evaluation.tally import Tally
from mrcnn_tf.evaluation.truth import read_truth
from mrcnn_tf.ops.replicas import local_replicas, workers

HEADS = {"segm": "mask_head", "keypoints": "keypoint_head"}  # what a model without the part doesn't detect


def evaluate(model, data_config, progress=True, out=None):
    """Runs the model over a dataset and computes COCO's figures.

    Boxes, masks and keypoints are compared with `data_config.annotations` or, without these, with the things of
    `data_config.panoptic`. A model with a semantic head is compared with `data_config.panoptic`, or as far as the
    classes of pixels go with `data_config.semantic_maps`, too.

    Args:
        model: has `detect_batch(batch)`, which takes a batch of `coco_dataset` and returns a `Detections` per image.
        data_config: the `DataConfig` of the split; only its categories and stuff are evaluated where it names any, and
            not those without objects that torchvision calls "N/A". Its `keypoint_sigmas` are those of OKS, and
            its `coco_backend` counts.
        progress: show a progress bar.
        out: a folder for `results.json`, `detections.json` (COCO's result format) and, of a model with a semantic head,
            `panoptic.json` with its PNGs in `panoptic/` (COCO's panoptic format); None writes nothing.

    Returns:
        (`CocoResults`, the detections as a list of dicts in COCO's result format). Every image that could be read
        counts once; those that could not are named in `CocoResults.left_out`.

    Raises:
        UserError: no image could be read, or what `read_truth` and `evaluate_detections` refuse.
    """
    check_backend(data_config.coco_backend)
    unused = {category.id for category in data_config.categories if category.name == UNUSED}
    categories = [category for category in data_config.categories if category.id not in unused] or None
    # An exported model need not say which heads it has.
    instances, pixels = (bool(getattr(model, head, True)) for head in ("box_head", "semantic_head"))
    truth = read_truth(data_config, categories, instances, pixels and data_config.semantic is not False)
    if truth.instances:
        plan_evaluation(truth.instances, categories, data_config.keypoint_sigmas)
    tally = Tally(truth, out)
    _detect_all(model, data_config, tally, progress)
    if not tally:
        raise UserError(f"Not one image of {truth.source} could be read: check data.val.images.")
    detections = [result for result in tally.detections() if result["category_id"] not in unused]
    results = CocoResults(len(tally), None, None, None, [], [])
    if truth.instances:
        truth.instances.annotations += tally.things()
        kinds = [kind for kind, head in HEADS.items() if getattr(model, head, True)]
        settings = categories, data_config.keypoint_sigmas, kinds, data_config.coco_backend
        results = evaluate_detections(detections, truth.instances, tally.image_ids(), *settings)
    results.panoptic, results.semantic = tally.panoptic_results(), tally.semantic_results()
    results.left_out += tally.unread()
    results.notes += _missing(model, data_config, results)
    if out and workers(_strategy(model))[0] == 0:
        _write(pathlib.Path(out), results, detections, tally)
    return results, detections


def _detect_all(model, data_config, tally, progress):
    """Adds the detections of all images to the tally, on all devices and hosts.

    Every host detects in its share of the batches, and all of them end up with everything.
    """
    strategy = _strategy(model)
    worker, count = workers(strategy)
    at_once = (data_config.images_per_batch or 1) * local_replicas(strategy)
    # Their classes of pixels are read at the size of the original; maps alone must still say which images there are.
    semantic = False if data_config.annotations or data_config.panoptic else data_config.semantic
    data_config = dataclasses.replace(data_config, images_per_batch=at_once, semantic=semantic)
    data = coco_dataset(data_config, training=False)
    with _progress_bar(progress) as bar:
        task = bar.add_task("evaluating", total=-(-len(tally.truth.image_ids) // count))
        for batch in itertools.islice(data, worker, None, count):
            for image_id, detections in zip(batch["image_id"].numpy().tolist(), model.detect_batch(batch), strict=True):
                tally.add(image_id, detections)
            bar.update(task, completed=len(tally))
    tally.merge(strategy)


def _strategy(model):
    return getattr(model, "distribute_strategy", tf.distribute.get_strategy())


def _missing(model, data_config, results):
    """Sentences on figures that a model with such heads could have and that there is no ground truth for."""
    notes = []
    if getattr(model, "box_head", None) and results.bbox is None:
        notes.append("No average precision: set data.val.annotations or data.val.panoptic.")
    if getattr(model, "semantic_head", None) and results.panoptic is None and data_config.semantic is not False:
        masks = getattr(model, "mask_head", None) or not getattr(model, "box_head", None)
        why = "set data.val.panoptic and data.val.panoptic_maps" if masks else "the model's boxes have no masks"
        notes.append(f"No panoptic quality: {why}.")
    return notes


def _write(folder, results, detections, tally):
    with replaced(folder / "results.json") as file:
        file.write_text(json.dumps(results.to_json(), indent=1), encoding="utf-8")
    write_results(detections, folder / "detections.json")
    if tally.segments():
        with replaced(folder / "panoptic.json") as file:
            file.write_text(json.dumps(tally.panoptic_json()), encoding="utf-8")


def _progress_bar(shown):
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images")
    return Progress(*columns, TimeRemainingColumn(), transient=True, disable=not shown)
