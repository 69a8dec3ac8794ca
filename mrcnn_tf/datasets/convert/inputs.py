"""Where the images of a dataset lie and how large they are."""

import dataclasses
import json
import os
import pathlib
import xml.etree.ElementTree as ElementTree

from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.common.problems import CONSOLE
from mrcnn_tf.datasets.image_files import PHOTO_SUFFIXES

# Text files of datasets, with sentences that name the file and the line of what is wrong in it.
#

LARGE = 100 << 20  # bytes
MEMORY = 7  # that a json takes, of its own size


class BrokenFile(UserError):
    """A file that can't be parsed; the others of its folder aren't concerned."""


def existing(path, what):
    """`path` as a pathlib.Path.

    Args:
        path: file or folder.
        what: what should be there, such as "a folder of labelme files".

    Raises:
        UserError: there is nothing, or an archive, which has to be unpacked or was cut off.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"There is no {path}: give {what}.")
    refuse_archive(path, what)
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
    if size > LARGE:
        needs = f"this takes a while, and up to {MEMORY * size / 2**30:.1f} GiB of memory"
        CONSOLE.print(f"Reading {path}, {size / 2**20:.0f} MiB: {needs}.", markup=False, soft_wrap=True)
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BrokenFile(
            f"{path} isn't valid json ({error.msg}, line {error.lineno}): save it again, it may have been cut off."
        ) from None


def read_xml(path):
    """The root element of an xml file; raises BrokenFile."""
    try:
        return ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        raise BrokenFile(
            f"{path} isn't valid xml (line {error.position[0]}): save it again, it may have been cut off."
        ) from None


# What format a file or folder seems to have, for those who chose another one.
#

FEW = 20  # files looked into


def refuse_other(source, chosen, problems=()):
    """Raises the UserError for a source in which nothing of the chosen format was found.

    Args:
        source: file or folder.
        chosen: the subcommand that was used, such as "labelme".
        problems: what was noted on the way; a broken file explains more than a guess.
    """
    broken = [problem.message for problem in problems if problem.kind == "broken_file"]
    if broken:
        raise UserError(broken[0])
    path = pathlib.Path(source)
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"{path} is empty: give the folder that holds the annotations.")
    found = guess(path)
    if found == "coco":
        raise UserError(f"{path} is COCO's already: train on it as it is, or see `mrcnn-tf convert coco-to --help`.")
    if found and found != chosen:
        raise UserError(f"{path} looks like another format: try `mrcnn-tf convert {found} {_quoted(path)}`.")
    raise UserError(f"{path} holds nothing of the kind that `mrcnn-tf convert {chosen} --help` describes.")


def guess(path):
    """The subcommand that a file or folder would be for, "coco" for COCO's json, None if it isn't known."""
    path = pathlib.Path(path)
    if path.is_file():
        return _of_file(path)
    if (path / "Annotations").is_dir() or (path / "SegmentationObject").is_dir():
        return "voc"
    if any(path.glob("*.yaml")) or any(path.rglob("labels/**/*.txt")):
        return "yolo"
    for file in _some(path.rglob("*.json")):
        if found := _of_file(file):
            return found
    if any(path.rglob("*.xml")):
        return "voc"
    if any(path.rglob("masks/*.png")) or any(path.rglob("*mask*.png")):
        return "masks"
    if any(path.glob("via*.csv")):
        return "via"
    return "label-maps" if any(path.rglob("*.png")) else None


def _of_file(path):
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return "yolo"
    if suffix == ".xml":
        return "voc"
    if suffix == ".csv":
        return "via"
    try:
        content = read_json(path)
    except BrokenFile:
        return None
    if not isinstance(content, dict):
        return None
    if "annotations" in content and "images" in content:
        return "coco"
    if "shapes" in content:
        return "labelme"
    entries = content.get("_via_img_metadata", content)
    if isinstance(entries, dict) and any(isinstance(one, dict) and "regions" in one for one in entries.values()):
        return "via"
    return None


def _some(files):
    for _, file in zip(range(FEW), files, strict=False):
        yield file


def _quoted(path):
    return f'"{path}"' if " " in str(path) else str(path)


_ORIENTATION = 0x0112


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


class ImageFolder:
    """The folder that file names in COCO's json are relative to.

    Args:
        root: the folder.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, root):
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise UserError(f"There is no folder {self.root}: give --images the folder of the images.")
        self._by_name = None

    def find(self, name, beside=None):
        """The image of a name that an annotation gives; None if there is none, or several that fit alike.

        Args:
            name: file name or path, with slashes or backslashes. Folders that are other ones here only help to choose
                among images of the same name.
            beside: folder to look in first.
        """
        parts = [part for part in str(name).replace("\\", "/").split("/") if part]
        if not parts:
            return None
        if not str(name).startswith("/"):
            for folder in dict.fromkeys((beside or self.root, self.root)):
                path = pathlib.Path(folder, *parts)
                if path.is_file():
                    return path
        fits = [(_common_end(path.parts, parts), path) for path in self._index().get(parts[-1].lower(), [])]
        best = [path for length, path in fits if length == max(fits)[0]]
        return best[0] if len(best) == 1 else None

    def with_stem(self, stem):
        """The images whose file name without its suffix is `stem`, list of Path."""
        return self._index().get(stem, [])

    def relative(self, path):
        """A path as COCO's file_name.

        Raises:
            UserError: it isn't in the folder.
        """
        try:
            return pathlib.Path(os.path.abspath(path)).relative_to(os.path.abspath(self.root)).as_posix()
        except ValueError:
            raise UserError(f"{path} isn't in {self.root}: give --images a folder that holds all images.") from None

    def _index(self):
        if self._by_name is None:
            self._by_name = {}
            for path in image_files(self.root):
                for key in {path.name.lower(), path.stem}:
                    self._by_name.setdefault(key, []).append(path)
        return self._by_name


def _common_end(parts, others):
    """How many of the last parts of two paths are the same, whatever their case."""
    length = 0
    for one, other in zip(reversed(parts), reversed(others), strict=False):
        if one.lower() != other.lower():
            break
        length += 1
    return length


def image_files(folder):
    """All image files in a folder and those below, sorted by path, but for hidden ones, as macOS leaves in zips."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        found += [
            pathlib.Path(place) / name
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES
        ]
    return sorted(found, key=lambda path: path.as_posix())


def frame_of(path):
    """The Frame of an image file, from its header.

    Raises:
        BrokenFile: it isn't a readable image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Where a PNG's header has no EXIF, getexif would decode all of it to look behind the pixels.
            turned = "exif" in image.info and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:  # Pillow raises whatever its format plugins run into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenFile(f"{path} isn't a readable image ({reason}): replace it or leave it out.") from error
    return Frame(height, width, width, height) if turned else Frame(width, height, width, height)
