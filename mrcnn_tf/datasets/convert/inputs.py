"""For all readers of foreign datasets: reads text, json, xml and the heads of csv files, and recognises formats."""

import csv
import itertools
import json
import os
import pathlib
import xml.etree.ElementTree as ElementTree

from mrcnn_tf.common.errors import BrokenFile, UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.common.problems import CONSOLE

LARGE_JSON = 100 << 20  # bytes, from which on reading is announced
MEMORY_FACTOR = 7  # memory that a json takes, of its own size
FORMAT_OF_SUFFIX = {".yaml": "yolo", ".yml": "yolo"}
XML_HEAD = 1000  # bytes of an xml that tell its first element
ROBOFLOW_CLASSES = "_classes.csv"  # beside maps whose numbers are classes
JSONS_TRIED = 20  # of a folder whose format is asked for
PNGS_TRIED = 20


def existing_path(path, wanted):
    """The path of a file or folder as a pathlib.Path; UserError for nothing there, and for an archive.

    `wanted` is what should be there, such as "a folder of labelme files".
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"There is no {path}: give {wanted}.")
    refuse_archive(path, wanted)
    return path


def read_text(path):
    """The text of a UTF-8 file; raises BrokenFile."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BrokenFile(f"{path} isn't UTF-8 text (line {line}): save it as UTF-8.") from None
    except OSError as error:
        raise BrokenFile(f"{path} can't be read ({error.strerror}).") from None


def read_json(path):
    """The content of a json file; raises BrokenFile."""
    size = os.path.getsize(path)
    if size > LARGE_JSON:
        needs = f"this takes a while, and up to {MEMORY_FACTOR * size / 2**30:.1f} GiB of memory"
        CONSOLE.print(f"Reading {path}, {size / 2**20:.0f} MiB: {needs}.", markup=False, soft_wrap=True)
    try:
        return json.loads(read_text(path))
    except BrokenFile:
        raise
    except (ValueError, RecursionError) as error:  # also for numbers of thousands of digits
        where = f"{error.msg}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise BrokenFile(f"{path} isn't valid json ({where}): save it again, it may have been cut off.") from None


def read_xml(path):
    """The root element of an xml file; raises BrokenFile."""
    try:
        return ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        where = f"line {error.position[0]}"
        raise BrokenFile(f"{path} isn't valid xml ({where}): save it again, it may have been cut off.") from None


def raise_wrong_format(source, command, problems=(), wanted=None):
    """Raises the UserError for a file or folder that holds nothing of the format of a subcommand, such as "labelme".

    Of the problems that were noted on the way, a broken file explains more than the other files do. `wanted` are the
    files that the format needs, for where it isn't another either.
    """
    broken = [problem.message for problem in problems if problem.kind == "broken_file"]
    if broken:
        raise UserError(broken[0])
    path = pathlib.Path(source)
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"{path} is empty: give the folder that holds the annotations.")
    name = recognise_format(path)
    if name == "coco":
        raise UserError(f"{path} is COCO's already: train on it as it is, or see `mrcnn-tf convert coco-to --help`.")
    if name and name != command:
        raise UserError(f"{path} looks like another format: try `mrcnn-tf convert {name} {quote_path(path)}`.")
    if wanted:
        raise UserError(f"{path} isn't a dataset for `mrcnn-tf convert {command}`: give a folder with {wanted}.")
    raise UserError(f"{path} holds nothing of the kind that `mrcnn-tf convert {command} --help` describes.")


def choose_only_file(files, folder, command, whose):
    """The only one of the files of a format in a folder; raises UserError for none or several.

    `command` is the format's subcommand, and `whose` what several are called, such as "xml files of CVAT".
    """
    if not files:
        raise_wrong_format(folder, command)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"{folder} has several {whose} ({names}): give one, and convert each by itself.")
    return files[0]


def recognise_format(path):
    """The subcommand that a file or folder would be for, "coco" for COCO's json, None if it isn't known."""
    path = pathlib.Path(path)
    if path.is_file():
        return _format_of_file(path)
    if name := _format_of_folders(path):
        return name
    csv_formats = {_format_of_csv(file) for file in path.rglob("*.csv")}
    if name := next((name for name in ("open-images", "label-maps") if name in csv_formats), None):
        return name
    if any(map(_lists_classes, path.glob("*.y*ml"))) or any(path.rglob("labels/**/*.txt")):
        return "yolo"
    for file in itertools.islice(path.rglob("*.json"), JSONS_TRIED):
        if name := _format_of_file(file):
            return name
    if xml := next(path.rglob("*.xml"), None):
        return _format_of_file(xml)
    if any(path.rglob("masks/*.png")) or any(path.rglob("*mask*.png")):
        return "masks"
    if "via" in csv_formats:
        return "via"
    pngs = itertools.islice(path.rglob("*.png"), PNGS_TRIED)
    return "label-maps" if any(map(_has_one_channel, pngs)) else None


def _has_one_channel(path):
    """Whether a PNG is grey or has a palette, as label maps; colours are rather a photo's. False for another file."""
    with open(path, "rb") as file:
        head = file.read(26)
    return head[:4] == b"\x89PNG" and head[25:] in (b"\0", b"\3")


def _format_of_folders(path):
    """That of a dataset whose folders and file names no other tool has; None for others."""
    if any((path / name).is_dir() for name in ("gtFine", "gtCoarse")):
        return "cityscapes"
    if any(path.rglob("*_gt*_instanceIds.png")) or any(path.rglob("*_gt*_polygons.json")):
        return "cityscapes"
    # A split has its config beside it.
    if any((*path.glob("config*.json"), *path.absolute().parent.glob("config*.json"))) and any(path.rglob("instances")):
        return "mapillary"
    names = [child.name for child in path.iterdir() if child.is_dir()]
    has_voc = any(
        name == "Annotations" or name.startswith(("SegmentationObject", "SegmentationClass")) for name in names
    )
    return "voc" if has_voc else None


def _format_of_file(path):
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _format_of_csv(path)
    if suffix in FORMAT_OF_SUFFIX:
        return FORMAT_OF_SUFFIX[suffix]
    if suffix == ".xml":
        with open(path, "rb") as file:
            head = file.read(XML_HEAD)
        return "cvat" if b"<annotations" in head else "voc" if b"<annotation" in head else None
    try:
        return json_format(read_json(path)) if suffix == ".json" else None
    except BrokenFile:
        return None


def _format_of_csv(path):
    if path.name == ROBOFLOW_CLASSES:
        return "label-maps"
    if is_open_images_csv(path):
        return "open-images"
    return "via" if "region_shape_attributes" in ";".join(csv_header(path)) else None


def _lists_classes(path):
    """Whether a yaml has names, as YOLO's data.yaml, and isn't a config of something else."""
    try:
        return any(line.startswith("names") for line in read_text(path).splitlines())
    except BrokenFile:
        return False


def json_format(content):
    """The format of a json file by its content: "coco", "labelme", "via", "label-studio" or None."""
    if is_label_studio(content[0] if isinstance(content, list) and content else content):
        return "label-studio"
    if not isinstance(content, dict):
        return None
    if "annotations" in content and "images" in content:
        return "coco"
    if "shapes" in content:
        return "labelme"
    entries = content.get("_via_img_metadata", content)
    entries = entries.values() if isinstance(entries, dict) else ()
    return "via" if any(isinstance(entry, dict) and "regions" in entry for entry in entries) else None


def is_label_studio(value):
    """Whether a json's value is a task of Label Studio's JSON export or a record of its JSON-MIN."""
    keys = set(value) if isinstance(value, dict) else set()
    return ("data" in keys and bool(keys & {"annotations", "completions"})) or {"annotation_id", "lead_time"} <= keys


def refuse_label_studio_pngs(folder):
    """Raises UserError for a folder of Label Studio's brush labels as PNG or NumPy, which don't name their images."""
    if file := next(pathlib.Path(folder).rglob("task-*-annotation-*-by-*.*"), None):
        raise UserError(
            f"{file} is of Label Studio's export of brush labels, whose names don't say which image they belong to: "
            "export JSON instead, and give that to `mrcnn-tf convert label-studio`."
        )


def csv_header(path):
    """The names of a csv's columns, list of str; none if it can't be read."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return next(csv.reader([file.readline()]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def is_open_images_csv(path):
    """Whether a csv lists Open Images' masks."""
    return {"MaskPath", "ImageID", "LabelName"} <= set(csv_header(path))


def quote_path(path):
    """A path as it goes into a command."""
    return f'"{path}"' if " " in str(path) else str(path)
