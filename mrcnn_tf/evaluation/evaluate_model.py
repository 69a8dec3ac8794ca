"""Evaluation of a model on a dataset: detections in every image against the ground truth, also after each epoch."""

import dataclasses
import itertools
import json
import pathlib

import keras
import tensorflow as tf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn_tf.common.categories import UNUSED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write, write_json
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.datasets.map_files import semantic_classes
from mrcnn_tf.evaluation import lvis
from mrcnn_tf.evaluation.average_precision import check_backend, evaluate_detections, plan_evaluation
from mrcnn_tf.evaluation.ground_truth import (
    read_ground_truth,
    read_pixel_classes,
    segments_to_annotations,
    segments_to_classes,
)
from mrcnn_tf.evaluation.panoptic_metrics import PanopticQuality, SemanticIoU
from mrcnn_tf.evaluation.results import CocoResults
from mrcnn_tf.ops.replicas import count_local_replicas, gather_from_workers, worker_rank_and_count

SEGMENT_MAPS = "panoptic"  # the folder of PNGs, beside panoptic.json
KIND_OUTPUTS = {"segm": "masks", "keypoints": "keypoints"}  # without the output, a model doesn't detect the kind
LOGGED_KINDS = ("bbox", "segm", "keypoints")
# More would bury the losses in the progress bar. LVIS alone has the last three.
LOGGED_METRICS = ("AP", "AP50", "AP75", "APr", "APc", "APf")
PRINTED_METRICS = (*(f"{kind}_{name}" for kind in LOGGED_KINDS for name in ("AP", "AP50")), "PQ", "mIoU")


def evaluate(model, data_config, progress=True, out=None):
    """Run a model over a dataset and compute COCO's metrics.

    Boxes, masks and keypoints are compared with `data_config.annotations` or, without these, with the things of
    `data_config.panoptic`. A model with a semantic head is compared with `data_config.panoptic`, or as far as the
    classes of pixels go with `data_config.semantic_maps`, too.

    Args:
        model: has `detect_batch(batch)`, which takes a batch of `coco_dataset` and returns a `Detections` per image,
            and `gives(name)`, whether there are "boxes", "masks", "keypoints" and "semantic_logits".
        data_config: the `DataConfig` of the split; only its categories and stuff are evaluated where it names any, and
            not those without objects that torchvision calls "N/A". Its `keypoint_sigmas` are those of OKS, and
            its `coco_backend` counts.
        progress: show a progress bar.
        out: a folder for `results.json`, `detections.json` (COCO's result format) and, of a model with a semantic head,
            `panoptic.json` with its PNGs in `panoptic/` (COCO's panoptic format); None writes nothing.

    Returns:
        (`CocoResults`, the detections as a list of dicts in COCO's result format). Every image that could be read
        counts once; those that could not are named in `CocoResults.skipped`.

    Raises:
        UserError: no image could be read, or what `read_ground_truth` and `evaluate_detections` refuse.
    """
    check_backend(data_config.coco_backend)
    unused_ids = {category.id for category in data_config.categories if category.name == UNUSED}
    categories = [category for category in data_config.categories if category.id not in unused_ids] or None
    classifies_pixels = model.gives("semantic_logits") and data_config.semantic is not False
    ground_truth = read_ground_truth(data_config, categories, model.gives("boxes"), classifies_pixels)
    instances = ground_truth.instances
    if instances:
        plan_evaluation(instances, categories, data_config.keypoint_sigmas)
    evaluated = EvaluatedImages(ground_truth, out)
    _detect_all(model, data_config, evaluated, progress)
    if not evaluated:
        raise UserError(f"Not one image of {ground_truth.source} could be read: check data.val.images.")
    detections = [result for result in evaluated.detections() if result["category_id"] not in unused_ids]
    results = CocoResults(len(evaluated), None, None, None, [], [])
    if instances:
        instances.annotations += evaluated.annotations_from_segments()
        kinds = [kind for kind, output in KIND_OUTPUTS.items() if model.gives(output)]
        settings = categories, data_config.keypoint_sigmas, kinds, data_config.coco_backend
        results = evaluate_detections(detections, instances, evaluated.image_ids(), *settings)
        results.notes += _notes_on_detection_limit(model, instances)
    results.panoptic, results.semantic = evaluated.panoptic_results(), evaluated.semantic_results()
    results.skipped += evaluated.unread_images()
    results.notes += _notes_on_missing_metrics(model, data_config, results)
    if out and worker_rank_and_count(_strategy(model))[0] == 0:
        folder = pathlib.Path(out)
        write_json(results.to_json(), folder / "results.json", indent=1)
        own_ids = ({"image_id": evaluated.own_id(result["image_id"])} for result in detections)
        write_json([result | own for result, own in zip(detections, own_ids, strict=True)], folder / "detections.json")
        if evaluated.segment_records():
            write_json(evaluated.panoptic_json(), folder / "panoptic.json")
    return results, detections


class CocoAP(keras.callbacks.Callback):
    """Evaluates after an epoch and adds the metrics to its logs, where other callbacks find them.

    The names are `val_bbox_AP`, `val_bbox_AP50`, `val_bbox_AP75` and the same with `segm` and `keypoints`; on LVIS also
    `val_bbox_APr`, `val_bbox_APc` and `val_bbox_APf` of rare, common and frequent categories; with a semantic head
    `val_PQ`, `val_PQ_things`, `val_PQ_stuff` and `val_mIoU`. All metrics of the last evaluation are in `results`.
    Metrics without ground truth of their kind are absent. It saves nothing itself.

    Keras calls callbacks in order, so this one must come before those that read its metrics:

        callbacks=[CocoAP(cfg.data.val), keras.callbacks.ModelCheckpoint("best.keras", monitor="val_segm_AP",
                   mode="max", save_best_only=True)]

    In epochs without evaluation the names are absent, and a ModelCheckpoint or EarlyStopping that monitors them warns
    and does nothing; EarlyStopping's patience then counts evaluations.
    """

    def __init__(self, data_config, every_epochs=1, prefix="val_", verbose=1):
        """
        Args:
            data_config: the `DataConfig` to evaluate on.
            every_epochs: evaluate after each n-th epoch, and after the last.
            prefix: goes before each name.
            verbose: 1 shows a progress bar and prints a line, 0 is silent.

        Raises:
            UserError: its `coco_backend` isn't installed, which would otherwise show after an epoch.
        """
        super().__init__()
        check_backend(data_config.coco_backend)
        self.data_config, self.every_epochs, self.prefix, self.verbose = data_config, every_epochs, prefix, verbose
        self.results = None  # the CocoResults of the last evaluation

    def on_epoch_end(self, epoch, logs=None):
        number = epoch + 1
        if number % self.every_epochs and number != self.params.get("epochs"):
            return
        self.results, _ = evaluate(self.model, self.data_config, progress=bool(self.verbose))
        metrics = {f"{self.prefix}{name}": value for name, value in _metrics_to_log(self.results) if value is not None}
        if logs is not None:
            logs.update(metrics)
        if self.verbose:
            names = [f"{self.prefix}{name}" for name in PRINTED_METRICS]
            shown = [f"{name}: {metrics[name]:.3f}" for name in names if name in metrics]
            # Keras' progress bar leaves the cursor in its line.
            print(f"\nEpoch {number}: {', '.join(shown) or 'no ground truth to evaluate on'}", flush=True)


def _metrics_to_log(results):
    """(name, value) of each metric for the logs."""
    for kind in LOGGED_KINDS:
        metrics = getattr(results, kind) or {}
        yield from ((f"{kind}_{name}", metrics[name]) for name in LOGGED_METRICS if name in metrics)
    if results.panoptic:
        yield "PQ", results.panoptic.all["PQ"]
        yield "PQ_things", results.panoptic.things["PQ"]
        yield "PQ_stuff", results.panoptic.stuff["PQ"]
    if results.semantic:
        yield "mIoU", results.semantic.mIoU


def main_metric(model, data_config):
    """The name in the logs of the metric that says how good a model is; higher is better.

    Panoptic quality where the model has segments and `data_config` their ground truth, else mean IoU of a model without
    instances or of data without, else the AP of masks or boxes.

    Args:
        model: the `MaskRCNN`.
        data_config: the `DataConfig` that it is evaluated on.
    """
    if model.gives("semantic_logits") and data_config.semantic is not False:
        if data_config.panoptic and model.gives("masks"):
            return "val_PQ"
        if not (model.gives("boxes") and (data_config.annotations or data_config.panoptic)):
            return "val_mIoU"
    return "val_segm_AP" if model.gives("masks") else "val_bbox_AP"


class EvaluatedImages:
    """Compares the detections of each image with its ground truth, as far as that doesn't need all of them at once.

    Args:
        ground_truth: the `GroundTruth`.
        folder: the PNGs of predicted segments go into a folder in it; None writes none.
    """

    def __init__(self, ground_truth, folder=None):
        self.ground_truth, self.folder = ground_truth, folder and pathlib.Path(folder)
        # {image id: {"detections": in COCO's format, "annotations": things of a panoptic json, "segments": the record
        # for a panoptic json or None, "size": {"height", "width"}}}
        self._images = {}
        self._quality = self._iou = None
        things, stuff = ground_truth.things, ground_truth.stuff
        if ground_truth.has_segments:  # a model without instances isn't asked for things
            self._quality = PanopticQuality(things if ground_truth.instances else [], stuff)
        if ground_truth.has_pixel_classes:
            self._classes, self._iou = semantic_classes(things, stuff), SemanticIoU(stuff)

    def __len__(self):
        return len(self._images)

    def add(self, image_id, detections):
        """Take the `Detections` of an image, unless it was added before, as in a last batch that is filled up."""
        if image_id in self._images:
            return
        height, width = detections.image_size
        image = {"detections": detections.to_coco(image_id), "annotations": [], "segments": None}
        image["size"] = {"height": height, "width": width}
        predicted = detections.panoptic if self.ground_truth.has_segments or self.folder else None
        if predicted is not None:
            file_name = f"{self.own_id(image_id):0>12}.png".replace("/", "_")
            image["segments"] = predicted.to_coco(self.own_id(image_id), file_name)
            if self.folder:
                with atomic_write(self.folder / SEGMENT_MAPS / file_name) as file:
                    file.write_bytes(predicted.png())
        panoptic, label_files = self.ground_truth.panoptic, self.ground_truth.label_files
        if panoptic and image_id in panoptic.annotation_indices:
            image["annotations"] = self._compare_segments(image_id, detections, predicted, image["segments"])
        elif label_files and image_id in label_files and detections.semantic is not None:
            self._iou.add(image_id, read_pixel_classes(label_files[image_id], self._classes), detections.semantic)
        self._images[image_id] = image

    def _compare_segments(self, image_id, detections, predicted, record):
        """Count an image with segments and return its things as annotations, if they are the instances."""
        panoptic = self.ground_truth.panoptic
        segment_map, segments = panoptic.segment_map(image_id), panoptic.segments(image_id)
        if self._quality and record:
            self._quality.add(image_id, segment_map, segments, predicted.segment_map, record["segments_info"])
        if self._iou and detections.semantic is not None:
            self._iou.add(image_id, segments_to_classes(segment_map, segments, self._classes), detections.semantic)
        if not self.ground_truth.has_instances_from_segments:
            return []
        thing_ids = {category.id for category in self.ground_truth.things}
        things = [segment for segment in segments if segment["category_id"] in thing_ids]
        return segments_to_annotations(segment_map, things, image_id)

    def merge(self, strategy):
        """Take the images of the other processes of a strategy; all of them end up with everything."""
        by_image = [self._images, *(metric.counts for metric in (self._quality, self._iou) if metric)]
        data = json.dumps([list(values.items()) for values in by_image]).encode()
        for worker_data in gather_from_workers(strategy, data):
            for values, worker_items in zip(by_image, json.loads(worker_data), strict=True):
                values |= dict(worker_items) | values

    def own_id(self, image_id):
        """An image's id as it stands in the ground truth's file."""
        return self.ground_truth.image_names.get(image_id, image_id)

    def image_ids(self):
        """The ids of all images added, rising."""
        return sorted(self._images)

    def detections(self):
        """All detections in COCO's result format."""
        return [result for image in self._images.values() for result in image["detections"]]

    def annotations_from_segments(self):
        """The annotations of all images that come from segments, with ids from 1, for an `InstanceGroundTruth`."""
        records = (record for image_id in self.image_ids() for record in self._images[image_id]["annotations"])
        return [{"id": number} | record for number, record in enumerate(records, 1)]

    def segment_records(self):
        """The annotations of a panoptic json with the predicted segments."""
        return [image["segments"] for image in self._images.values() if image["segments"]]

    def panoptic_json(self):
        """COCO's panoptic json with the predicted segments."""
        kinds = (self.ground_truth.things, 1), (self.ground_truth.stuff, 0)
        categories = [{"id": c.id, "name": c.name, "isthing": isthing} for kind, isthing in kinds for c in kind]
        images = [{"id": self.own_id(number)} | self._images[number]["size"] for number in self.image_ids()]
        return {"images": images, "annotations": self.segment_records(), "categories": categories}

    def unread_images(self):
        """A sentence for each image of the ground truth that wasn't added."""
        source, image_ids = self.ground_truth.source, self.ground_truth.image_ids
        unread = [image_id for image_id in image_ids if image_id not in self._images]
        return [f"{source}: image {self.own_id(number)} is left out: it could not be read." for number in unread]

    def panoptic_results(self):
        """`PanopticResults`, or None without segments."""
        if not self._quality or not self.segment_records():
            return None
        panoptic = self.ground_truth.panoptic
        unlisted = [image_id for image_id in self.image_ids() if image_id not in panoptic.sizes]
        names = map(self.own_id, unlisted)
        sentences = [f"{panoptic.source}: image {name} is left out: it isn't in there." for name in names]
        return self._quality.results(panoptic.skipped + sentences)

    def semantic_results(self):
        """`SemanticResults`, or None without classes of pixels."""
        if not self._iou:
            return None
        files = self.ground_truth.label_files
        unlabelled = [] if files is None else [number for number in self.image_ids() if number not in files]
        names = map(self.own_id, unlabelled)
        results = self._iou.results([f"Image {name} is left out: it has no label map." for name in names])
        return results if results.images else None


def _detect_all(model, data_config, evaluated, progress):
    """Add the detections of all images to the `EvaluatedImages`, on all devices and hosts.

    Every host detects in its share of the batches, and all of them end up with everything.
    """
    strategy = _strategy(model)
    rank, workers = worker_rank_and_count(strategy)
    batch_size = (data_config.images_per_batch or 1) * count_local_replicas(strategy)
    # Their classes of pixels are read at the size of the original; maps alone must still say which images there are.
    semantic = False if data_config.annotations or data_config.panoptic else data_config.semantic
    data_config = dataclasses.replace(data_config, images_per_batch=batch_size, semantic=semantic)
    dataset = coco_dataset(data_config, training=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images")
    with Progress(*columns, TimeRemainingColumn(), transient=True, disable=not progress) as bar:
        task = bar.add_task("evaluating", total=-(-len(evaluated.ground_truth.image_ids) // workers))
        for batch in itertools.islice(dataset, rank, None, workers):
            for image_id, detections in zip(batch["image_id"].numpy().tolist(), model.detect_batch(batch), strict=True):
                evaluated.add(image_id, detections)
            bar.update(task, completed=len(evaluated))
    evaluated.merge(strategy)


def _strategy(model):
    return getattr(model, "distribute_strategy", tf.distribute.get_strategy())


def _notes_on_detection_limit(model, instances):
    """A sentence if the model gives fewer detections than LVIS counts, and the ground truth is LVIS's."""
    limits = (getattr(head, "detections", None) for head in getattr(model, "heads", ()))
    most = min((limit.max_per_image for limit in limits if limit), default=lvis.MOST_DETECTIONS)
    if most >= lvis.MOST_DETECTIONS or not lvis.read_image_lists(instances.images, instances.source):
        return []
    return [
        f"The model gives at most {most} detections an image, LVIS counts {lvis.MOST_DETECTIONS}: train with "
        f"model.detections.max_per_image={lvis.MOST_DETECTIONS}, or export with --max-detections "
        f"{lvis.MOST_DETECTIONS} and evaluate that."
    ]


def _notes_on_missing_metrics(model, data_config, results):
    """Sentences on metrics that a model with such outputs could have and that there is no ground truth for."""
    notes = []
    if model.gives("boxes") and results.bbox is None:
        notes.append("No average precision: set data.val.annotations or data.val.panoptic.")
    if model.gives("semantic_logits") and results.panoptic is None and data_config.semantic is not False:
        has_masks = model.gives("masks") or not model.gives("boxes")
        reason = "set data.val.panoptic and data.val.panoptic_maps" if has_masks else "the model's boxes have no masks"
        notes.append(f"No panoptic quality: {reason}.")
    return notes
