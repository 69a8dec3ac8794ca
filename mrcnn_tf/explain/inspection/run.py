"""An inspection from beginning to end: reads a dataset, runs or reads a model's detections, writes the report."""

import concurrent.futures
import dataclasses
import os
import pathlib
import tempfile

import numpy as np
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mrcnn_tf.common.categories import UNUSED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation.average_precision import evaluate_detections
from mrcnn_tf.evaluation.evaluate_model import evaluate
from mrcnn_tf.evaluation.instance_ground_truth import read_instance_ground_truth
from mrcnn_tf.evaluation.results import CocoResults
from mrcnn_tf.explain.inspection.curves import Curves, compute_curves
from mrcnn_tf.explain.inspection.dataset_statistics import DatasetStatistics, compute_statistics
from mrcnn_tf.explain.inspection.errors import ErrorSplit, RankedImage, rank_worst_images, split_errors
from mrcnn_tf.explain.inspection.matching import Confusion, Overlaps, compute_overlaps, count_confusion
from mrcnn_tf.explain.inspection.region_matching import Pixels, judge_model_regions, judge_regions
from mrcnn_tf.explain.inspection.regions import PanopticRegions, count_pixels, read_region_truth
from mrcnn_tf.explain.inspection.report import ReportFile, write_report
from mrcnn_tf.explain.inspection.result_file import ResultFolder

# Keeps the classes of pixels that a model finds while it is evaluated, which has no use for them afterwards.
#

class RecordingModel:
    """A model whose answers are kept; else it is the model.

    Args:
        model: has `detect_batch`, as `evaluation.evaluate_model.evaluate` needs it.
        folder: that exists, for a PNG of each image.
    """

    def __init__(self, model, folder):
        self._model, self._folder = model, str(folder)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def detect_batch(self, batch):
        """What the model detects in a batch of `coco_dataset`."""
        found = self._model.detect_batch(batch)
        for image_id, detections in zip(np.asarray(batch["image_id"]).tolist(), found, strict=True):
            if detections.semantic is not None:
                Image.fromarray(np.asarray(detections.semantic, np.uint8)).save(self._path(image_id), compress_level=1)
        return found

    def seen(self, images):
        """Those of some records of images that the model gave classes for."""
        return [image for image in images if os.path.isfile(self._path(image["id"]))]

    def labels(self, image_id):
        """uint8 [H, W], what it found in an image."""
        with Image.open(self._path(image_id)) as image:
            return np.asarray(image)

    def _path(self, image_id):
        return os.path.join(self._folder, f"{image_id}.png")


# What a report says of a model: COCO's figures, curves, errors and confusion of its detections.
#

IOU = 0.5  # of a detection that counts as right
USUAL_THRESHOLD = 0.5  # of scores, where no other is better


@dataclasses.dataclass
class Findings:
    """Everything that is known of a model's detections on a dataset.

    Attributes:
        results: `CocoResults`.
        pairs: `Overlaps`, of masks if they were evaluated, else of boxes.
        errors: `ErrorSplit` at `threshold`.
        curves: `Curves`.
        confusion: `Confusion` at `threshold`.
        ranking: `RankedImage`s, worst first; images without mistakes are left out.
        threshold: the score that gives the best F1, to two decimals.
    """

    results: CocoResults
    pairs: Overlaps
    errors: ErrorSplit
    compute_curves: Curves
    count_confusion: Confusion
    ranking: list[RankedImage]
    threshold: float

    def to_json(self):
        """The figures as a plain dict for `json.dump`, without curves and ranking."""
        return {
            "results": self.results.to_json(),
            "errors": self.errors.to_json(),
            "confusion": self.confusion.to_json(),
            "threshold": self.threshold,
        }


def make_findings(truth, detections, image_ids=None, categories=None, sigmas=None, backend="pycocotools", results=None):
    """`Findings` of detections.

    Args:
        truth: the `InstanceGroundTruth`.
        detections: list of dicts in COCO's result format.
        image_ids, categories, sigmas, backend: as for `evaluation.average_precision.evaluate_detections`.
        results: the `CocoResults` if they are known already.

    Raises:
        UserError: what `evaluate_detections` refuses.
    """
    if results is None:
        results = evaluate_detections(detections, truth, image_ids, categories, sigmas, backend=backend)
    kind = "segm" if results.segm is not None else "bbox"
    pairs = compute_overlaps(truth, detections, kind, image_ids, categories)
    drawn = compute_curves(pairs)
    best = drawn.whole.best_threshold
    threshold = USUAL_THRESHOLD if best is None else round(float(best), 2)
    split = split_errors(pairs, IOU, min_score=threshold)
    ranking = rank_worst_images(pairs, split, count=None)
    return Findings(results, pairs, split, drawn, count_confusion(pairs, IOU, threshold), ranking, threshold)


@dataclasses.dataclass
class Inspection:
    """What was found out, and the report that says so.

    Attributes:
        report: the HTML file.
        written: what it came to.
        statistics: of the dataset's objects.
        findings: of a model's instances; None without.
        pixels: of segments, or of the classes of pixels; None if the data have neither.
        results: the `CocoResults` of a model; None without.
    """

    report: pathlib.Path
    written: ReportFile
    statistics: DatasetStatistics
    findings: Findings | None
    pixels: Pixels | None = None
    results: CocoResults | None = None

    def to_json(self):
        """All figures as a plain dict for `json.dump`."""
        statistics, model = self.statistics.to_json(), None
        if self.pixels:
            statistics["pixels"] = self.pixels.statistics.to_json()
        if self.results:
            model = self.findings.to_json() if self.findings else {"results": self.results.to_json()}
        return {
            "report": str(self.report),
            "shown": self.written.images,
            "unreadable": self.written.unreadable,
            "bytes": self.written.size,
            "statistics": statistics,
            "model": model,
        }


@dataclasses.dataclass
class _Judged:
    """A model's results, the detections that its findings are of, and what was found out about both."""

    results: CocoResults | None = None
    detections: list[dict] | None = None
    findings: Findings | None = None


def inspect_data(data, out, network=None, model=None, detections=None, facts=(), limit=500, progress=True):
    """Writes a report on a dataset and, if there is a model or what it detected, on that.

    Args:
        data: the `DataConfig` of the split; with a model its categories, stuff and resize rule are the model's.
        out: the HTML file to write.
        network: the `ModelConfig` whose anchors and image size the boxes are compared with; None: the default one's.
        model: has `detect_batch`, as `evaluation.evaluate_model.evaluate` needs it; or None.
        detections: in its place a list of dicts in COCO's result format, or a `ResultFolder`; or None.
        facts: [(what it is, path)] of the model or the file of detections, for the report's head.
        limit: the most images to show.
        progress: show progress bars.

    Returns:
        `Inspection`.

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
    truth, pixels = _read_truth(data, categories or (), progress)
    statistics = compute_statistics(truth, network)
    with tempfile.TemporaryDirectory() as scratch:  # of what a model finds, as long as the report is being made
        judged = _Judged()
        if model is not None:
            judged = _run_model(model, data, categories, truth, pixels, scratch, progress)
        elif detections is not None:
            judged = _read_results(detections, data, truth, pixels)
        title = " on ".join(pathlib.Path(path).name for _, path in [*facts, sources[0]])
        facts = [*sources, ("Images", str(data.images)), *facts]
        with _progress_bar(progress) as bar:
            task = bar.add_task("drawing", total=min(limit, len(truth.images)))
            written = write_report(
                out,
                title,
                facts,
                truth,
                data.images,
                statistics,
                judged.findings,
                judged.detections,
                limit,
                lambda: bar.advance(task),
                pixels,
            )
    return Inspection(pathlib.Path(out), written, statistics, judged.findings, pixels, judged.results)


def _read_truth(data, categories, progress):
    """(`InstanceGroundTruth` of the instances, `Pixels` or None)."""
    if not (data.panoptic or data.semantic_maps):
        return read_instance_ground_truth(data.annotations, categories), None
    pixel_truth = read_region_truth(data)
    truth = read_instance_ground_truth(data.annotations, categories) if data.annotations else pixel_truth.instances()
    with _progress_bar(progress) as bar:
        task = bar.add_task("reading maps", total=len(pixel_truth.images))
        annotate = bool(data.panoptic and not data.annotations)
        statistics, things = count_pixels(pixel_truth, annotate, lambda: bar.advance(task))
    truth.annotations += things
    return truth, Pixels(pixel_truth, statistics)


def _run_model(model, data, categories, truth, pixels, scratch, progress):
    """`_Judged` by running a model; adds findings to `pixels`. `scratch` is a folder for what it finds."""
    recording = RecordingModel(model, scratch) if pixels else model
    keep = scratch if pixels and pixels.truth.judged else None
    results, detections = evaluate(recording, data, progress, out=keep)
    judged = _Judged(results, detections)
    if results.bbox is not None:
        everything = results.images == len(truth.images)
        seen = None if everything else _readable(truth.images, data.images)
        judged.findings = make_findings(truth, detections, seen, categories, results=results)
    if results.panoptic or results.semantic:
        pixels.results = results
        pixels.findings = judge_model_regions(pixels.truth, results, recording, keep)
    return judged


def _read_results(found, data, truth, pixels):
    """`_Judged` of what an evaluation left: detections or a `ResultFolder`; adds findings to `pixels`."""
    settings = {"sigmas": data.keypoint_sigmas, "backend": data.coco_backend}
    if not isinstance(found, ResultFolder):
        findings = make_findings(truth, found, **settings)
        return _Judged(findings.results, found, findings)
    findings, results = None, CocoResults(found.images, None, None, None, [], [])
    if found.instances and truth.categories:
        findings = make_findings(truth, found.detections, **settings)
        results = findings.results
    results.panoptic, results.semantic, results.notes = found.panoptic, found.semantic, found.notes
    if pixels and (results.panoptic or results.semantic):
        pixels.results = results
    if pixels and pixels.truth.judged and found.segments:
        pixels.findings = judge_regions(pixels.truth, PanopticRegions(found.segments), results)
    return _Judged(results, found.detections if findings else None, findings)


def _progress_bar(shown):
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, transient=True, disable=not shown)


def _readable(images, folder):
    """The ids of the images whose files can be opened."""

    def opens(image):
        try:
            with Image.open(os.path.join(folder, image["file_name"])):
                return True
        except Exception:  # Pillow raises whatever its format plugins run into
            return False

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return [image["id"] for image, good in zip(images, pool.map(opens, images), strict=True) if good]
