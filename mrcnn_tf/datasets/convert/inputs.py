"""For all readers of foreign datasets: parses files, recognises formats, finds images and reads their sizes."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import xml.etree.ElementTree as ElementTree

from PIL import Image

from mrcnn_tf.common.errors import BrokenFile, UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.common.problems import CONSOLE

LARGE_JSON = 100 << 20  # bytes, from which on reading is announced
MEMORY_FACTOR = 7  # memory that a json takes, of its own size
FORMAT_OF_SUFFIX = {".yaml": "yolo", ".yml": "yolo", ".xml": "voc", ".csv": "via"}
JSONS_TRIED = 20  # of a folder whose format is asked for

_ORIENTATION = 0x0112  # EXIF's tag
_TURNED = (5, 6, 7, 8)  # its values that exchange width and height


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
    except json.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno}"
        raise BrokenFile(f"{path} isn't valid json ({where}): save it again, it may have been cut off.") from None


def read_xml(path):
    """The root element of an xml file; raises BrokenFile."""
    try:
        return ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        where = f"line {error.position[0]}"
        raise BrokenFile(f"{path} isn't valid xml ({where}): save it again, it may have been cut off.") from None


@contextlib.contextmanager
def open_image(path):
    """Gives an open PIL image; raises BrokenFile if it can't be opened or what the block does with it fails."""
    try:
        with Image.open(path) as image:
            yield image
    except Exception as error:  # Pillow raises whatever its format plugins run into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenFile(f"{path} isn't a readable image ({reason}): replace it or leave it out.") from error


def raise_wrong_format(source, command, problems=()):
    """Raises the UserError for a file or folder that holds nothing of the format of a subcommand, such as "labelme".

    Of the problems that were noted on the way, a broken file explains more than the other files do.
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
    raise UserError(f"{path} holds nothing of the kind that `mrcnn-tf convert {command} --help` describes.")


def recognise_format(path):
    """The subcommand that a file or folder would be for, "coco" for COCO's json, None if it isn't known."""
    path = pathlib.Path(path)
    if path.is_file():
        return _format_of_file(path)
    if (path / "Annotations").is_dir() or (path / "SegmentationObject").is_dir():
        return "voc"
    if any(path.glob("*.yaml")) or any(path.rglob("labels/**/*.txt")):
        return "yolo"
    for file in itertools.islice(path.rglob("*.json"), JSONS_TRIED):
        if name := _format_of_file(file):
            return name
    if any(path.rglob("*.xml")):
        return "voc"
    if any(path.rglob("masks/*.png")) or any(path.rglob("*mask*.png")):
        return "masks"
    if any(path.glob("via*.csv")):
        return "via"
    return "label-maps" if any(path.rglob("*.png")) else None


def _format_of_file(path):
    suffix = path.suffix.lower()
    if suffix in FORMAT_OF_SUFFIX:
        return FORMAT_OF_SUFFIX[suffix]
    try:
        return json_format(read_json(path))
    except BrokenFile:
        return None


def json_format(content):
    """The format of a json file by its content: "coco", "labelme", "via" or None."""
    if not isinstance(content, dict):
        return None
    if "annotations" in content and "images" in content:
        return "coco"
    if "shapes" in content:
        return "labelme"
    entries = content.get("_via_img_metadata", content)
    entries = entries.values() if isinstance(entries, dict) else ()
    return "via" if any(isinstance(entry, dict) and "regions" in entry for entry in entries) else None


def quote_path(path):
    """A path as it goes into a command."""
    return f'"{path}"' if " " in str(path) else str(path)


@dataclasses.dataclass
class Frame:
    """The size of an image in pixels as seen, and as stored before its EXIF orientation is applied."""

    width: int
    height: int
    stored_width: int
    stored_height: int

    def fits(self, width, height):
        """Whether a described size is one of the two."""
        return (width, height) in ((self.width, self.height), (self.stored_width, self.stored_height))

    def around(self, right, bottom):
        """(width, height) of the frame that coordinates up to `right` and `bottom` belong to: as seen, unless they only
        fit the file as stored."""
        outside = right > self.width + 1 or bottom > self.height + 1
        if outside and right <= self.stored_width + 1 and bottom <= self.stored_height + 1:
            return self.stored_width, self.stored_height
        return self.width, self.height


def read_frame(path):
    """The Frame of an image file, from its header; raises BrokenFile."""
    with open_image(path) as image:
        width, height = image.size
        # Where a PNG's header has no EXIF, getexif would decode all of it to look behind the pixels.
        is_turned = "exif" in image.info and image.getexif().get(_ORIENTATION, 1) in _TURNED
    return Frame(height, width, width, height) if is_turned else Frame(width, height, width, height)
