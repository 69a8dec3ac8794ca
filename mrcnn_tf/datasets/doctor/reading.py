"""Reads a COCO json once, record by record, into what the checks and the repair need."""

import array
import dataclasses
import os

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.common.problems import CONSOLE, Problem
from mrcnn_tf.datasets.doctor.sources import check_sources, explain_failure
from mrcnn_tf.datasets.records import Annotations

SECTIONS = ("images", "annotations", "categories")
ABSENT = -1  # in place of a number that a record doesn't give


class Records(Annotations):
    """Annotation records as columns, and where each stands in the file.

    Attributes:
        positions: int64, the place of each column entry's record in "annotations", from 0.
        rejected: {position: kind} of the records that have no columns.
        faulty: {kind: list of positions} of records that have columns and a problem all the same.
        keypoint_totals: int64, "num_keypoints"; ABSENT where it's no whole number.
    """

    def __init__(self, file, masks):
        super().__init__(file, masks)
        self.positions, self.keypoint_totals = array.array("q"), array.array("q")
        self.rejected, self.faulty = {}, {}
        self.count = 0

    def add(self, record):
        rows, problems = len(self.ids), len(self.problems)
        super().add(record)
        new = self.problems[problems:]
        if len(self.ids) == rows:
            self.rejected[self.count] = new[-1].kind
        else:
            self.positions.append(self.count)
            total = record.get("num_keypoints")
            self.keypoint_totals.append(total if type(total) is int and 0 <= total < 2**31 else ABSENT)
            for problem in new:
                self.faulty.setdefault(problem.kind, []).append(self.count)
            if record.get("iscrowd", 0) not in (0, 1):
                self.faulty.setdefault("crowd_value", []).append(self.count)
                name, value = record["id"], record["iscrowd"]
                what = f"has iscrowd {value!r} and counts as {int(bool(value))}"
                sentence = f"Annotation {name} in {self.file} {what}: give 0 or 1."
                self.problems.append(Problem("crowd_value", name, self.file, sentence))
        self.count += 1


@dataclasses.dataclass
class Source:
    """A dataset as read.

    Attributes:
        path: the json.
        folder: of the images.
        images, categories: their records, whatever they are.
        records: Records, finished.
    """

    path: str
    folder: str
    images: list
    categories: list
    records: Records


def progress_bars():
    """A rich Progress on stderr; silent where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    shown = CONSOLE.is_terminal
    return Progress(*columns, TimeRemainingColumn(), console=CONSOLE, transient=True, disable=not shown)


def read_source(path, folder, masks, bars):
    """Reads the json.

    Args:
        path: the json.
        folder: the images.
        masks: whether annotations need a segmentation.
        bars: rich Progress.

    Returns:
        Source.

    Raises:
        UserError: the json or the folder is missing, an archive, or not COCO's; it says what to do.
    """
    path, folder = os.fspath(path), os.fspath(folder)
    check_sources(path, folder)
    records, images, categories = Records(path, masks), [], []
    takers = {"images": images.append, "annotations": records.add, "categories": categories.append}
    reading = bars.add_task(f"Reading {os.path.basename(path)}", total=os.path.getsize(path))
    try:
        for section, record in stream_arrays(path, SECTIONS, lambda done: bars.update(reading, completed=done)):
            takers[section](record)
    except UserError as error:
        raise explain_failure(path, error) from None
    records.finish()
    return Source(path, folder, images, categories, records)
