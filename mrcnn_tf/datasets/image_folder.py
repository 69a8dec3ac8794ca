"""Finds image files in the folder that names in annotation files are relative to."""

import functools
import itertools
import os
import pathlib

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_files import PHOTO_SUFFIXES


class ImageFolder:
    """The folder that file names in COCO's json are relative to; raises UserError if there is none."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise UserError(f"There is no folder {self.root}: give --images the folder of the images.")

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
        lengths = [(_common_end(path.parts, parts), path) for path in self._by_name.get(parts[-1].lower(), [])]
        best = [path for length, path in lengths if length == max(lengths)[0]]
        return best[0] if len(best) == 1 else None

    def with_stem(self, stem):
        """The images whose file name without its suffix is `stem`, list of Path."""
        return self._by_name.get(stem, [])

    def relative(self, path):
        """A path as COCO's file_name; raises UserError if it isn't in the folder."""
        try:
            return pathlib.Path(os.path.abspath(path)).relative_to(os.path.abspath(self.root)).as_posix()
        except ValueError:
            raise UserError(f"{path} isn't in {self.root}: give --images a folder that holds all images.") from None

    @functools.cached_property
    def _by_name(self):
        by_name = {}
        for path in find_image_files(self.root):
            for key in {path.name.lower(), path.stem}:
                by_name.setdefault(key, []).append(path)
        return by_name


def _common_end(parts, others):
    """How many of the last parts of two paths are the same, whatever their case."""
    same = (part.lower() == other.lower() for part, other in zip(reversed(parts), reversed(others), strict=False))
    return sum(itertools.takewhile(bool, same))


def find_image_files(folder, suffixes=PHOTO_SUFFIXES, follow_links=True):
    """All image files in a folder and those below, sorted by path, but for hidden ones, as macOS leaves in zips."""
    paths = []
    for place, folders, names in os.walk(folder, followlinks=follow_links):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        names = [name for name in names if not name.startswith(".")]
        paths += [pathlib.Path(place, name) for name in names if os.path.splitext(name)[1].lower() in suffixes]
    return sorted(paths, key=lambda path: path.as_posix())
