"""What was given in the place of a COCO json and a folder of images, told by its looks: archives, other formats."""

import array
import dataclasses
import json
import os
import pathlib

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.common.problems import CONSOLE, Problem
from mrcnn_tf.datasets.annotation_records import Annotations

PARSED_BYTES = 64 << 20  # files of one annotated picture are smaller; only such ones are looked into as a whole

_ENDINGS = {".txt": "yolo", ".yaml": "yolo", ".yml": "yolo", ".xml": "voc", ".csv": "via"}
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def check_sources(path, folder):
    """Makes sure that there are a json file and a folder.

    Args:
        path, folder: str.

    Raises:
        UserError: one is missing, an archive, of the other kind or of another format.
    """
    for given in (path, folder):
        refuse_archive(given, "the json and the folder in it")
    if os.path.isdir(path) and os.path.isfile(folder):
        raise UserError(f"{path} is a folder and {folder} a file: give the json first and the images after it.")
    if os.path.isdir(path):
        raise _not_a_json(path)
    if not os.path.isfile(path):
        raise UserError(f"There is no file {path}: give a COCO json.")
    ending = pathlib.Path(path).suffix.lower()
    if ending in _PICTURES:
        raise UserError(f"{path} is an image: give the COCO json first and the folder of images after it.")
    if ending in _ENDINGS:
        raise UserError(_conversion(path, _ENDINGS[ending]))
    if os.path.isfile(folder):
        raise UserError(f"{folder} is a file: give the folder that the json's file names are relative to.")
    if not os.path.isdir(folder):
        raise UserError(f"There is no folder {folder}: give the one that the json's file names are relative to.")


def explain_failure(path, error):
    """The UserError to raise where a json couldn't be read as COCO's because of `error`, a UserError."""
    if os.path.getsize(path) == 0:
        return UserError(f"{path} is empty: export or copy it again.")
    found = _other_json(path)
    if found:
        return UserError(_conversion(path, found))
    return UserError(str(error).replace(": set data.*.annotations to a COCO json", ": give a COCO json"))


def what_it_is(path):
    """What a file that Pillow can't read is, such as "HEIC"; None where its beginning tells nothing.

    Returns:
        (kind, what is wrong, remedy) as in `ImageFile.problem`, or None.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return None
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"avif", b"avis"):
        name = "AVIF" if head[8:10] == b"av" else "HEIC, a phone's format"
        return "image_format", f"is {name}", "convert it to JPEG"
    if head.startswith(b"version https://git-lfs"):
        return "unreadable_image", "is only a pointer to Git LFS", "run git lfs pull"
    if head.lstrip()[:5].lower() in (b"<html", b"<!doc"):
        return "unreadable_image", "is a web page, not a picture", "download it again"
    return None


def _not_a_json(folder):
    """The UserError for a folder in the json's place."""
    names = sorted(os.listdir(folder))
    for name in names[:50]:
        path = os.path.join(folder, name)
        found = _ENDINGS.get(os.path.splitext(name)[1].lower())
        found = found or (_other_json(path) if name.lower().endswith(".json") else None)
        if found:
            return UserError(_conversion(folder, found))
    jsons = [name for name in names if name.lower().endswith(".json")]
    hint = f", such as {os.path.join(folder, jsons[0])}" if jsons else ""
    return UserError(f"{folder} is a folder: give a COCO json{hint} first and the folder of images after it.")


def _other_json(path):
    """labelme or via if a json is theirs, else None."""
    try:
        if os.path.getsize(path) > PARSED_BYTES:
            return None
        with open(path, encoding="utf-8-sig") as file:
            tree = json.load(file)
    except (OSError, ValueError):
        return None
    if not isinstance(tree, dict):
        return None
    if "shapes" in tree and "imagePath" in tree:
        return "labelme"
    records = tree.get("_via_img_metadata", tree)
    if isinstance(records, dict) and any(isinstance(one, dict) and "regions" in one for one in records.values()):
        return "via"
    return None


def _conversion(source, kind):
    name = {"labelme": "labelme's", "via": "VIA's", "yolo": "YOLO's", "voc": "Pascal VOC's"}[kind]
    quoted = f'"{source}"' if " " in source else source
    return f"{source} is {name}, not COCO's: first run mrcnn-tf convert {kind} {quoted} --out coco.json."


# Reads a COCO json once, record by record, into what the checks and the repair need.
#

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
