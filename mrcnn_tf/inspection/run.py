"""An inspection from beginning to end: reads a dataset, runs or reads a model's detections, writes the report."""

import concurrent.futures
import dataclasses
import os
import pathlib

from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mrcnn_tf.categories import UNUSED
from mrcnn_tf.errors import UserError
from mrcnn_tf.evaluation.ground_truth import read_ground_truth
from mrcnn_tf.inspection.dataset import DatasetStatistics, dataset_statistics
from mrcnn_tf.inspection.findings import Findings, make_findings
from mrcnn_tf.inspection.report import Written, write_report


@dataclasses.dataclass
class Inspection:
    """What was found out, and the report that says so; `findings` is None without a model."""

    report: pathlib.Path
    written: Written
    statistics: DatasetStatistics
    findings: Findings | None

    def to_json(self):
        """All figures as a plain dict for `json.dump`."""
        return {
            "report": str(self.report),
            "shown": self.written.images,
            "unreadable": self.written.unreadable,
            "bytes": self.written.size,
            "statistics": self.statistics.to_json(),
            "model": self.findings.to_json() if self.findings else None,
        }


def inspect_data(data, out, network=None, model=None, detections=None, facts=(), limit=500, progress=True):
    """Writes a report on a dataset and, if there is a model or what it detected, on that.

    Args:
        data: the `DataConfig` of the split; with a model its categories and resize rule are the model's.
        out: the HTML file to write.
        network: the `ModelConfig` whose anchors and image size the boxes are compared with; None: the default one's.
        model: has `detect_batch`, as `evaluation.runner.evaluate` needs it; or None.
        detections: list of dicts in COCO's result format in its place; or None.
        facts: [(what it is, path)] of the model or the file of detections, for the report's head.
        limit: the most images to show.
        progress: show progress bars.

    Returns:
        `Inspection`.

    Raises:
        UserError: the annotations or the folder are missing or wrong, no image can be read, or detections that don't
            belong to the annotations.
    """
    if not os.path.isdir(data.images):
        raise UserError(f"There is no folder {data.images!r}: say where the images of {data.annotations} are.")
    unused = {category.id for category in data.categories if category.name == UNUSED}
    categories = [category for category in data.categories if category.id not in unused] if model else None
    truth = read_ground_truth(data.annotations, categories or ())
    statistics = dataset_statistics(truth, network)
    findings = None
    if model is not None:
        from mrcnn_tf.evaluation.runner import evaluate  # TensorFlow takes seconds to import, and else isn't needed

        results, detections = evaluate(model, data, progress)
        everything = results.images == len(truth.images)
        seen = None if everything else _readable(truth.images, data.images)
        findings = make_findings(truth, detections, seen, categories, results=results)
    elif detections is not None:
        findings = make_findings(truth, detections, sigmas=data.keypoint_sigmas, backend=data.coco_backend)
    title = " on ".join(pathlib.Path(path).name for path in [*(value for _, value in facts), data.annotations])
    facts = [("Annotations", str(data.annotations)), ("Images", str(data.images)), *facts]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, transient=True, disable=not progress) as bar:
        task = bar.add_task("drawing", total=min(limit, len(truth.images)))
        written = write_report(
            out, title, facts, truth, data.images, statistics, findings, detections, limit, lambda: bar.advance(task)
        )
    return Inspection(pathlib.Path(out), written, statistics, findings)


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
