"""Reads a COCO json once, record by record, and says what a file is that isn't one."""

import array
import dataclasses
import os
import pathlib

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.common.json_values import parse_integer
from mrcnn_tf.common.problems import reading_bar
from mrcnn_tf.datasets.annotation_columns import AnnotationColumns
from mrcnn_tf.datasets.coco_records import ImageRecord, stream_records
from mrcnn_tf.datasets.convert.inputs import quote_path, recognise_format
from mrcnn_tf.datasets.image_files import IMAGE_SUFFIXES

ABSENT = -1  # in place of a number that a record doesn't give
PARSED_BYTES = 64 << 20  # a json of another program for one image is smaller; larger ones aren't parsed as a whole
FOLDER_ENTRIES = 50  # looked at to tell what a folder is that is named instead of a json

_PROGRAMS = {  # that write files which are told by themselves
    "labelme": "labelme's",
    "via": "VIA's",
    "yolo": "YOLO's",
    "voc": "Pascal VOC's",
    "cvat": "CVAT's",
    "label-studio": "Label Studio's",
    "open-images": "Open Images'",
}


class AnnotationRecords(AnnotationColumns):
    """Annotation records as columns, where each stands in the file, and how it stands there.

    Attributes:
        positions: int64, the position in "annotations", from 0, of the record of each entry of the columns.
        rejected: {position: kind} of the records that have no columns.
        faulty: {kind: list of positions} of records that have columns and a problem all the same.
        keypoint_totals: int64, "num_keypoints"; ABSENT where it's no whole number.
        count: of all records.
    """

    def __init__(self, file, masks):
        super().__init__(file, masks)
        self.positions, self.keypoint_totals = array.array("q"), array.array("q")
        self.rejected, self.faulty = {}, {}
        self.count = 0

    def add(self, record):
        problems_before = len(self.problems)
        is_kept = super().add(record)
        if is_kept:
            self.positions.append(self.count)
            total = parse_integer(record.source.get("num_keypoints"))
            self.keypoint_totals.append(total if total is not None and 0 <= total < 2**31 else ABSENT)
            self._note_other_forms(record)
            for problem in self.problems[problems_before:]:
                self.faulty.setdefault(problem.kind, []).append(self.count)
        else:
            self.rejected[self.count] = self.problems[-1].kind
        self.count += 1
        return is_kept

    def _note_other_forms(self, record):
        """Adds what was read from another form than COCO's."""
        crowd = record.source.get("iscrowd", 0)
        if crowd not in (0, 1):
            detail = f"has iscrowd {crowd!r} and counts as {int(record.crowd)}"
            self._report("crowd_value", record.own_id, detail, "give 0 or 1")
        if record.own_id is None:
            self._report("loose_annotation", None, "has no id, and it is read all the same", "number it")
        elif record.loose:
            detail = f"has {' and '.join(record.loose)} in another form than COCO's, and it is read all the same"
            self._report("loose_annotation", record.own_id, detail, "write it as COCO has it")


@dataclasses.dataclass
class CocoSource:
    """A dataset as read.

    Attributes:
        path: the json.
        folder: of the images.
        images: list of ImageRecord.
        categories: their records, unchecked.
        records: AnnotationRecords, finished; a PanopticJson for a panoptic json.
    """

    path: str
    folder: str
    images: list[ImageRecord]
    categories: list
    records: AnnotationRecords


def read_source(path, folder, needs_masks, bars):
    """The CocoSource of a json of instances and its folder of images.

    Args:
        needs_masks: whether annotations need a segmentation.

    Raises:
        UserError: the json isn't COCO's; it says what to do.
    """
    path, folder = os.fspath(path), os.fspath(folder)
    records, images, categories = AnnotationRecords(path, needs_masks), [], []
    takers = {"images": images.append, "annotations": records.add, "categories": categories.append}
    try:
        on_progress = reading_bar(bars, f"Reading {os.path.basename(path)}", path)
        for section, record in stream_records(path, on_progress, needs_masks):
            takers[section](record)
    except UserError as error:
        raise describe_read_error(path, error) from None
    records.finish()
    return CocoSource(path, folder, images, categories, records)


def check_json_and_folder(path, folder):
    """Raises UserError unless there are a json file and a folder: an archive and other formats are told by name."""
    for source in (path, folder):
        refuse_archive(source, "the json and the folder in it")
    if os.path.isdir(path) and os.path.isfile(folder):
        raise UserError(f"{path} is a folder and {folder} a file: give the json first and the images after it.")
    if os.path.isdir(path):
        raise _folder_for_json(path)
    if not os.path.isfile(path):
        raise UserError(f"There is no file {path}: give a COCO json.")
    suffix = pathlib.Path(path).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        raise UserError(f"{path} is an image: give the COCO json first and the folder of images after it.")
    if suffix != ".json" and (program := _program_of(path)):
        raise _other_format(path, program)
    if os.path.isfile(folder):
        raise UserError(f"{folder} is a file: give the folder that the json's file names are relative to.")
    if not os.path.isdir(folder):
        raise UserError(f"There is no folder {folder}: give the one that the json's file names are relative to.")


def describe_read_error(path, error):
    """The UserError to raise where a json couldn't be read as COCO's because of `error`, a UserError."""
    if os.path.getsize(path) == 0:
        return UserError(f"{path} is empty: export or copy it again.")
    program = _program_of(path)
    if program:
        return _other_format(path, program)
    return UserError(str(error).replace(": set data.*.annotations to a COCO json", ": give a COCO json"))


def _folder_for_json(folder):
    """The UserError for a folder in the json's place."""
    names = sorted(os.listdir(folder))
    for name in names[:FOLDER_ENTRIES]:
        if program := _program_of(os.path.join(folder, name)):
            return _other_format(folder, program)
    jsons = [name for name in names if name.lower().endswith(".json")]
    hint = f", such as {os.path.join(folder, jsons[0])}" if jsons else ""
    return UserError(f"{folder} is a folder: give a COCO json{hint} first and the folder of images after it.")


def _program_of(path):
    """The subcommand of convert for a file that one of `_PROGRAMS` wrote, else None."""
    if os.path.isdir(path) or os.path.getsize(path) > PARSED_BYTES:
        return None
    program = "yolo" if path.lower().endswith(".txt") else recognise_format(path)
    return program if program in _PROGRAMS else None


def _other_format(path, program):
    command = f"mrcnn-tf convert {program} {quote_path(path)} --out coco.json"
    return UserError(f"{path} is {_PROGRAMS[program]}, not COCO's: first run {command}.")
