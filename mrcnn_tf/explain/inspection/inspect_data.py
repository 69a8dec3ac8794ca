"""An inspection from beginning to end: read a dataset, run a model or read its results, write the report."""

import dataclasses
import json
import math
import os
import pathlib
import tempfile

import numpy as np
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mrcnn_tf.common.categories import UNUSED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_values import parse_number
from mrcnn_tf.datasets.coco_records import parse_annotation
from mrcnn_tf.datasets.coco_segmentations import as_coco_rle, count_rle_pixels
from mrcnn_tf.datasets.image_files import inspect_files
from mrcnn_tf.evaluation.average_precision import evaluate_detections
from mrcnn_tf.evaluation.evaluate_model import evaluate
from mrcnn_tf.evaluation.instance_ground_truth import read_instance_ground_truth
from mrcnn_tf.evaluation.panoptic_ground_truth import PanopticGroundTruth, read_panoptic_ground_truth
from mrcnn_tf.evaluation.results import CocoResults, PanopticResults, SemanticResults
from mrcnn_tf.explain.inspection.curves import Curves, compute_curves
from mrcnn_tf.explain.inspection.dataset_statistics import DatasetStatistics, compute_statistics
from mrcnn_tf.explain.inspection.detection_errors import ErrorSplit, RankedImage, rank_worst_images, split_errors
from mrcnn_tf.explain.inspection.detection_matching import Confusion, Overlaps, compute_overlaps, count_confusion
from mrcnn_tf.explain.inspection.region_matching import RegionData, judge_model_regions, judge_regions
from mrcnn_tf.explain.inspection.regions import PanopticRegions, count_pixels, read_region_truth
from mrcnn_tf.explain.inspection.report import ReportFile, write_report

MATCH_IOU = 0.5  # of a detection that counts as right
DEFAULT_THRESHOLD = 0.5  # of scores, where no other is better
REMEDY = "give the detections.json that `mrcnn-tf evaluate --out` writes, or another in COCO's result format"
FOLDER_REMEDY = "give the whole folder that `mrcnn-tf evaluate --out` wrote"


@dataclasses.dataclass
class Findings:
    """What a report says of a model: COCO's figures, curves, errors and confusion of its detections."""

    results: CocoResults
    detections: list[dict]  # in COCO's result format
    overlaps: Overlaps  # of masks if they were evaluated, else of boxes
    errors: ErrorSplit  # at `threshold`
    curves: Curves
    confusion: Confusion  # at `threshold`
    ranking: list[RankedImage]  # worst first; images without mistakes are left out
    threshold: float  # the score that gives the best F1, to two decimals

    def to_json(self):
        """The figures as a plain dict for `json.dump`, without curves and ranking."""
        return {
            "results": self.results.to_json(),
            "errors": self.errors.to_json(),
            "confusion": self.confusion.to_json(),
            "threshold": self.threshold,
        }


def make_findings(truth, detections, image_ids=None, categories=None, results=None, **settings):
    """`Findings` of detections in COCO's result format.

    `results` are the `CocoResults` if they are known already; the other arguments, and the errors, are those of
    `evaluate_detections`.
    """
    results = results or evaluate_detections(detections, truth, image_ids, categories, **settings)
    kind = "segm" if results.segm is not None else "bbox"
    overlaps = compute_overlaps(truth, detections, kind, image_ids, categories)
    curves = compute_curves(overlaps)
    best = curves.all_classes.best_threshold
    threshold = DEFAULT_THRESHOLD if best is None else round(float(best), 2)
    errors = split_errors(overlaps, MATCH_IOU, min_score=threshold)
    ranking = rank_worst_images(overlaps, errors, count=None)
    confusion = count_confusion(overlaps, MATCH_IOU, threshold)
    return Findings(results, detections, overlaps, errors, curves, confusion, ranking, threshold)


@dataclasses.dataclass
class Inspection:
    """The figures of an inspection, and the report that shows them."""

    report: ReportFile
    statistics: DatasetStatistics  # of the dataset's objects
    findings: Findings | None  # of a model's instances; None without
    regions: RegionData | None  # of segments, or of the classes of pixels; None if the data have neither
    results: CocoResults | None  # of a model; None without

    def to_json(self):
        """All figures as a plain dict for `json.dump`."""
        statistics, model = self.statistics.to_json(), None
        if self.regions:
            statistics["pixels"] = self.regions.statistics.to_json()
        if self.results:
            model = self.findings.to_json() if self.findings else {"results": self.results.to_json()}
        return {
            "report": str(self.report.path),
            "shown": self.report.images,
            "unreadable": self.report.unreadable,
            "bytes": self.report.size,
            "statistics": statistics,
            "model": model,
        }


def inspect_data(data, out, model_config=None, model=None, detections=None, facts=(), limit=500, progress=True):
    """Write a report on a dataset and, if there is a model or what it detected, on that; the `Inspection`.

    Args:
        data: the `DataConfig` of the split; with a model its categories, stuff and resize rule are the model's.
        out: the HTML file to write.
        model_config: the `ModelConfig` with whose anchors and image size boxes are compared; None: the default one's.
        model: has `detect_batch`, as `evaluate` needs it; or None.
        detections: in its place a list of dicts in COCO's result format, or a `ResultFolder`; or None.
        facts: [(what it is, path)] of the model or the file of detections, for the report's head.
        limit: the most images to show.
        progress: show progress bars.

    Raises:
        UserError: the annotations, maps or the folder are missing or wrong, no image can be read, or detections that
            don't belong to the annotations.
    """
    sources = [("Annotations", data.annotations), ("Panoptic json", data.panoptic), ("Label maps", data.semantic_maps)]
    sources = [(name, str(path)) for name, path in sources if path]
    if not os.path.isdir(data.images):
        raise UserError(f"There is no folder {data.images!r}: say where the images of {sources[0][1]} are.")
    unused = {category.id for category in data.categories if category.name == UNUSED}
    categories = [category for category in data.categories if category.id not in unused] or None if model else None
    truth, regions = _read_truth(data, categories or (), progress)
    statistics = compute_statistics(truth, model_config)
    # The folder is for what a model predicts, as long as the report is being made.
    with tempfile.TemporaryDirectory() as folder:
        results = findings = None
        if model is not None:
            results, findings = _run_model(model, data, categories, truth, regions, folder, progress)
        elif detections is not None:
            results, findings = _judge_results(detections, data, truth, regions)
        title = " on ".join(pathlib.Path(path).name for _, path in [*facts, sources[0]])
        facts = [*sources, ("Images", str(data.images)), *facts]
        with _progress_bar(progress) as bar:
            task = bar.add_task("drawing", total=min(limit, len(truth.images)))
            content = title, facts, truth, data.images, statistics, findings, regions
            report = write_report(out, *content, limit, lambda: bar.advance(task))
    return Inspection(report, statistics, findings, regions, results)


def _read_truth(data, categories, progress):
    """(`InstanceGroundTruth`, `RegionData` or None)."""
    if not (data.panoptic or data.semantic_maps):
        return read_instance_ground_truth(data.annotations, categories, data.images), None
    maps = read_region_truth(data)
    if data.annotations:
        truth = read_instance_ground_truth(data.annotations, categories, data.images)
    else:
        truth = maps.instances()
    with _progress_bar(progress) as bar:
        task = bar.add_task("reading maps", total=len(maps.images))
        annotate = bool(data.panoptic and not data.annotations)
        statistics, things = count_pixels(maps, annotate, lambda: bar.advance(task))
    truth.annotations += things
    return truth, RegionData(maps, statistics)


def _progress_bar(shown):
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, transient=True, disable=not shown)


class RecordingModel:
    """A model whose classes of pixels are kept while it is evaluated, which has no use for them afterwards.

    Args:
        model: has `detect_batch`, as `evaluate` needs it.
        folder: that exists, for a PNG of each image.
    """

    def __init__(self, model, folder):
        self._model, self._folder = model, str(folder)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def detect_batch(self, batch):
        """What the model detects in a batch of `coco_dataset`."""
        results = self._model.detect_batch(batch)
        for image_id, detections in zip(np.asarray(batch["image_id"]).tolist(), results, strict=True):
            if detections.semantic is not None:
                Image.fromarray(np.asarray(detections.semantic, np.uint8)).save(self._path(image_id), compress_level=1)
        return results

    def recorded(self, images):
        """Those of some records of images that the model gave classes for."""
        return [image for image in images if os.path.isfile(self._path(image["id"]))]

    def labels(self, image_id):
        """uint8 [H, W], the classes that it gave the pixels of an image."""
        with Image.open(self._path(image_id)) as image:
            return np.asarray(image)

    def _path(self, image_id):
        return os.path.join(self._folder, f"{image_id}.png")


def _run_model(model, data, categories, truth, regions, folder, progress):
    """(`CocoResults`, `Findings` or None) by running a model, which leaves its regions in `folder`; adds findings to
    `regions`."""
    recording = RecordingModel(model, folder) if regions else model
    out = folder if regions and regions.truth.has_segments else None
    results, detections = evaluate(recording, data, progress, out=out)
    findings = None
    if results.bbox is not None:
        image_ids = None if results.images == len(truth.images) else _find_readable(truth.images, data.images)
        findings = make_findings(truth, detections, image_ids, categories, results)
    if results.panoptic or results.semantic:
        regions.results = results
        regions.findings = judge_model_regions(regions.truth, results, recording, out)
    return results, findings


def _find_readable(images, folder):
    """The ids of the images whose files can be read."""
    paths = [os.path.join(folder, image.get("file_name") or "") for image in images]
    files = inspect_files(paths, lambda number: None)
    return [image["id"] for image, file in zip(images, files, strict=True) if not file.problem]


@dataclasses.dataclass
class ResultFolder:
    """What `mrcnn-tf evaluate --out` left."""

    results: CocoResults  # without the figures of instances, which are computed anew
    has_instances: bool  # whether boxes were evaluated: a semantic head by itself detects none
    detections: list[dict]  # in COCO's result format
    segments: PanopticGroundTruth | None  # of panoptic.json and its PNGs


def _judge_results(evaluation, data, truth, regions):
    """(`CocoResults`, `Findings` or None) of detections or a `ResultFolder`; adds findings to `regions`."""
    settings = {"sigmas": data.keypoint_sigmas, "backend": data.coco_backend}
    if not isinstance(evaluation, ResultFolder):
        findings = make_findings(truth, evaluation, **settings)
        return findings.results, findings
    results, findings = evaluation.results, None
    if evaluation.has_instances and truth.categories:
        findings = make_findings(truth, evaluation.detections, **settings)
        results = findings.results
        results.panoptic, results.semantic = evaluation.results.panoptic, evaluation.results.semantic
        results.notes = evaluation.results.notes
    if regions and (results.panoptic or results.semantic):
        regions.results = results
    if regions and regions.truth.has_segments and evaluation.segments:
        regions.findings = judge_regions(regions.truth, PanopticRegions(evaluation.segments), results)
    return results, findings


def read_result_folder(folder):
    """Read the folder of `mrcnn-tf evaluate --out` as a `ResultFolder`.

    Raises:
        UserError: a file is missing or isn't what `evaluate` writes.
    """
    folder = pathlib.Path(folder)
    path = folder / "results.json"
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        panoptic = PanopticResults(**figures["panoptic"]) if figures.get("panoptic") else None
        semantic = SemanticResults(**figures["semantic"]) if figures.get("semantic") else None
        results = CocoResults(figures["images"], None, None, None, [], [], figures["notes"], panoptic, semantic)
        has_instances = figures["bbox"] is not None
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
    return ResultFolder(results, has_instances, read_detections(folder / "detections.json"), segments)


def read_detections(path):
    """Read and check detections in COCO's result format.

    Args:
        path: of a json with a list of dicts: `image_id`, `category_id`, `bbox` [x, y, width, height] in pixels, `score`
            and, in all or none of them, `segmentation`, an RLE.

    Returns:
        That list, ids and boxes as numbers and RLEs compressed.

    Raises:
        UserError: the file can't be read, isn't json or isn't such a list; the first wrong entry is named.
    """
    try:
        detections = json.loads(pathlib.Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"Can't read the detections {path} ({error.strerror}): {REMEDY}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} isn't valid json ({error}): {REMEDY}.") from None
    if not isinstance(detections, list):
        raise UserError(f"{path} holds no list of detections: {REMEDY}.")
    records = [parse_annotation(detection, position=index) for index, detection in enumerate(detections)]
    complete, pixel_counts = [], count_rle_pixels([record.rle for record in records])
    for index, (record, pixels) in enumerate(zip(records, pixel_counts, strict=True)):
        problem = _find_problem(record)
        if not problem and record.rle and pixels != math.prod(record.rle.size):
            problem = "has a segmentation that doesn't fill its size"  # such a one would bring pycocotools down
        if problem:
            raise UserError(f"Entry {index} of {path} {problem}: {REMEDY}.")
        fields = {"image_id": record.image_id, "category_id": record.category_id, "bbox": record.box.tolist()}
        if record.rle:
            rle = as_coco_rle(record.rle)
            fields["segmentation"] = rle | {"counts": rle["counts"].decode("ascii")}
        if record.keypoints:
            fields["keypoints"] = record.keypoints.tolist()
        complete.append(record.source | fields | {"score": parse_number(record.source["score"])})
    return complete


def _find_problem(record):
    """What is wrong with a detection, or ""."""
    if not isinstance(record.source, dict):
        return "isn't a detection"
    if "record" in record.faults:
        return "lacks an image_id, or a whole number as category_id"
    if record.box is None or not np.isfinite(record.box).all():
        return "has no bbox of four numbers"
    if not math.isfinite(parse_number(record.source.get("score"))):
        return "has no number as score"
    if "segmentation" in record.source and record.rle is None:
        return "has a segmentation that isn't an RLE"
    keypoints = record.keypoints or ()
    if "keypoints" in record.faults or len(keypoints) % 3 or not np.isfinite(keypoints).all():
        return "has keypoints that aren't three numbers each"
    return ""
