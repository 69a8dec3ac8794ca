"""What is kept of each image of an evaluation, on one host or merged from all of them."""

import dataclasses
import itertools
import json
import pathlib

import keras
import tensorflow as tf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn_tf.common.categories import UNUSED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.datasets.label_maps import semantic_classes
from mrcnn_tf.evaluation.average_precision import check_backend, evaluate_detections, plan_evaluation, write_results
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


class EvaluatedImages:
    """Compares the detections of each image with its ground truth, as far as that doesn't need all of them at once.

    Args:
        truth: the `Truth`.
        folder: where the PNGs of segments found go, in a folder of their own; None writes none.
    """

    def __init__(self, truth, folder=None):
        self.truth, self.folder = truth, folder and pathlib.Path(folder)
        self._images = {}  # {image id: what is kept of it}
        self._quality = self._iou = None
        if truth.segments:  # a model without instances isn't asked for things
            self._quality = PanopticQuality(truth.things if truth.instances else [], truth.stuff)
        if truth.pixels:
            self._classes, self._iou = semantic_classes(truth.things, truth.stuff), SemanticIoU(truth.stuff)

    def __len__(self):
        return len(self._images)

    def add(self, image_id, detections):
        """Takes the `Detections` of an image; of one that was there before, as in a last batch that is filled up, no
        notice is taken."""
        if image_id in self._images:
            return
        height, width = detections.image_size
        kept = {"detections": detections.to_coco(image_id), "things": [], "segments": None}
        kept["size"] = {"height": height, "width": width}
        panoptic = self.truth.panoptic
        found = None
        if self.truth.segments or self.folder:
            found = detections.panoptic
        if found is not None:
            kept["segments"] = found.to_coco(image_id, f"{image_id:012d}.png")
            self._write(found, kept["segments"]["file_name"])
        if panoptic and image_id in panoptic.places:
            kept["things"] = self._compare(image_id, detections, kept["segments"])
        elif self.truth.label_files and image_id in self.truth.label_files and detections.semantic is not None:
            labels = read_pixel_classes(self.truth.label_files[image_id], self._classes)
            self._iou.add(image_id, labels, detections.semantic)
        self._images[image_id] = kept

    def _compare(self, image_id, detections, record):
        """Counts an image with segments; returns its things as annotations, if they are the instances."""
        truth = self.truth.panoptic
        segment_map, segments = truth.segment_map(image_id), truth.segments(image_id)
        if self._quality and record:
            found_map = detections.panoptic.segment_map
            self._quality.add(image_id, segment_map, segments, found_map, record["segments_info"])
        if self._iou and detections.semantic is not None:
            self._iou.add(image_id, segments_to_classes(segment_map, segments, self._classes), detections.semantic)
        if not self.truth.things_are_segments:
            return []
        evaluated = {category.id for category in self.truth.things}
        things = [segment for segment in segments if segment["category_id"] in evaluated]
        return segments_to_annotations(segment_map, things, image_id)

    def _write(self, panoptic, name):
        if self.folder:
            with atomic_write(self.folder / SEGMENT_MAPS / name) as file:
                file.write_bytes(panoptic.png())

    def merge(self, strategy):
        """Takes what the other processes of a strategy have; all of them end up with everything."""
        for part in gather_from_workers(strategy, json.dumps(list(self._images.items())).encode()):
            self._images = dict(json.loads(part)) | self._images
        for counts in filter(None, (self._quality, self._iou)):
            for part in gather_from_workers(strategy, counts.to_bytes()):
                counts.merge(part)

    def image_ids(self):
        """Of all images seen, rising."""
        return sorted(self._images)

    def detections(self):
        """All of them in COCO's result format."""
        return [result for image in self._images.values() for result in image["detections"]]

    def things(self):
        """The annotations of all images that come from segments, with ids from 1, as a `GroundTruth` has them."""
        records = (record for image_id in self.image_ids() for record in self._images[image_id]["things"])
        return [{"id": number} | record for number, record in enumerate(records, 1)]

    def segments(self):
        """The annotations of a panoptic json, of what was found."""
        return [image["segments"] for image in self._images.values() if image["segments"]]

    def panoptic_json(self):
        """COCO's panoptic json of what was found."""
        kinds = (self.truth.things, 1), (self.truth.stuff, 0)
        categories = [{"id": c.id, "name": c.name, "isthing": isthing} for kind, isthing in kinds for c in kind]
        images = [{"id": image_id} | self._images[image_id]["size"] for image_id in self.image_ids()]
        return {"images": images, "annotations": self.segments(), "categories": categories}

    def unread(self):
        """A sentence for each image that wasn't seen."""
        ids = [image_id for image_id in self.truth.image_ids if image_id not in self._images]
        return [f"{self.truth.source}: image {one} is left out: it could not be read." for one in ids]

    def panoptic_results(self):
        """`PanopticResults`, or None without segments."""
        if not self._quality or not self.segments():
            return None
        truth = self.truth.panoptic
        unknown = [image_id for image_id in self.image_ids() if image_id not in truth.sizes]
        sentences = [f"{truth.source}: image {one} is left out: it isn't in there." for one in unknown]
        return self._quality.results(truth.left_out + sentences)

    def semantic_results(self):
        """`SemanticResults`, or None without classes of pixels."""
        if not self._iou:
            return None
        files = self.truth.label_files
        without = [] if files is None else [one for one in self.image_ids() if one not in files]
        results = self._iou.results([f"Image {one} is left out: it has no label map." for one in without])
        return results if results.images else None


# Detect in every image of a dataset and score the outcome.
#

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
    truth = read_ground_truth(data_config, categories, instances, pixels and data_config.semantic is not False)
    if truth.instances:
        plan_evaluation(truth.instances, categories, data_config.keypoint_sigmas)
    tally = EvaluatedImages(truth, out)
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
    if out and worker_rank_and_count(_strategy(model))[0] == 0:
        _write(pathlib.Path(out), results, detections, tally)
    return results, detections


def _detect_all(model, data_config, tally, progress):
    """Adds the detections of all images to the tally, on all devices and hosts.

    Every host detects in its share of the batches, and all of them end up with everything.
    """
    strategy = _strategy(model)
    worker, count = worker_rank_and_count(strategy)
    at_once = (data_config.images_per_batch or 1) * count_local_replicas(strategy)
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
    with atomic_write(folder / "results.json") as file:
        file.write_text(json.dumps(results.to_json(), indent=1), encoding="utf-8")
    write_results(detections, folder / "detections.json")
    if tally.segments():
        with atomic_write(folder / "panoptic.json") as file:
            file.write_text(json.dumps(tally.panoptic_json()), encoding="utf-8")


def _progress_bar(shown):
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images")
    return Progress(*columns, TimeRemainingColumn(), transient=True, disable=not shown)


# COCO's figures at the end of each epoch of `model.fit`.
#

LOGGED_KINDS = ("bbox", "segm", "keypoints")
LOGGED_METRICS = ("AP", "AP50", "AP75")  # more would bury the losses in the progress bar
HEADLINES = (*(f"{kind}_{name}" for kind in LOGGED_KINDS for name in ("AP", "AP50")), "PQ", "mIoU")


def main_metric(model, data_config):
    """The name in the logs of the figure that says how good a model is; higher is better.

    Panoptic quality where the model has segments and `data_config` their ground truth, else mean IoU of a model without
    instances or of data without, else the AP of masks or boxes.

    Args:
        model: the `ModelConfig`.
        data_config: the `DataConfig` that it is evaluated on.
    """
    if model.semantic_head and data_config.semantic is not False:
        if data_config.panoptic and model.mask_head:
            return "val_PQ"
        if not (model.box_head and (data_config.annotations or data_config.panoptic)):
            return "val_mIoU"
    return "val_segm_AP" if model.mask_head else "val_bbox_AP"


class CocoAP(keras.callbacks.Callback):
    """Evaluates after an epoch and adds the figures to its logs, where other callbacks find them.

    The names are `val_bbox_AP`, `val_bbox_AP50`, `val_bbox_AP75` and the same with `segm` and `keypoints`; with a
    semantic head `val_PQ`, `val_PQ_things`, `val_PQ_stuff` and `val_mIoU`. All figures of the last evaluation are in
    `results`. Figures without ground truth of their kind are absent. It saves nothing itself.

    Keras calls callbacks in order, so this one must come before those that read its figures:

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
        self.data_config = data_config
        self.every_epochs = every_epochs
        self.prefix = prefix
        self.verbose = verbose
        self.results = None  # the CocoResults of the last evaluation

    def on_epoch_end(self, epoch, logs=None):
        number = epoch + 1
        if number % self.every_epochs and number != self.params.get("epochs"):
            return
        self.results, _ = evaluate(self.model, self.data_config, progress=bool(self.verbose))
        figures = {f"{self.prefix}{name}": value for name, value in _metrics_to_log(self.results) if value is not None}
        if logs is not None:
            logs.update(figures)
        if self.verbose:
            headlines = [f"{self.prefix}{name}" for name in HEADLINES]
            shown = [f"{name}: {figures[name]:.3f}" for name in headlines if name in figures]
            # Keras' progress bar leaves the cursor in its line.
            print(f"\nEpoch {number}: {', '.join(shown) or 'no ground truth to evaluate on'}", flush=True)


def _metrics_to_log(results):
    """(name, value) of what goes into the logs."""
    for kind in LOGGED_KINDS:
        known = getattr(results, kind) or {}
        yield from ((f"{kind}_{name}", known[name]) for name in LOGGED_METRICS if name in known)
    if results.panoptic:
        for name in ("all", "things", "stuff"):
            yield "PQ" if name == "all" else f"PQ_{name}", getattr(results.panoptic, name)["PQ"]
    if results.semantic:
        yield "mIoU", results.semantic.mIoU
