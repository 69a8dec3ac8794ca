"""Where the images of a dataset lie and how large they are."""

import dataclasses
import os
import pathlib

from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.reading import BrokenFile
from mrcnn_tf.datasets.images import SUFFIXES

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
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
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
