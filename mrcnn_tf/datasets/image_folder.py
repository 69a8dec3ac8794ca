"""Finds image files in the folder that names in annotation files are relative to, also those that are named wrongly."""

import collections
import dataclasses
import functools
import itertools
import os
import pathlib
import re
import unicodedata
import urllib.parse

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_files import IMAGE_SUFFIXES, file_sizes

# What COCO put before the names of 2014 and not later, and cityscapesScripts' panoptic json puts into names of images.
_SOMETIMES_THERE = re.compile(r"coco_(train|val|test)20\d\d_|_gtfine(?=_leftimg8bit$)")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}(-|__)")  # that Label Studio puts before the names of uploads and downloads


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
        parts = _parts(name)
        if not parts:
            return None
        if not str(name).startswith("/"):
            for folder in dict.fromkeys((beside or self.root, self.root)):
                path = pathlib.Path(folder, *parts)
                if path.is_file():
                    return path
        candidates = self.candidates(name)
        return candidates[0] if len(candidates) == 1 else None

    def candidates(self, name, taken=frozenset()):
        """The images that a name may mean which isn't a file's: list of Path, of which the best fit alike.

        Folders, letter case, the encoding of accents, the suffix, and what COCO had in 2014, cityscapesScripts put into
        names and Label Studio before them may differ; the first of these that leaves any decides, and among those the
        number of folders that agree. `taken` are paths, normalised, of files that are others' for sure.
        """
        parts = _parts(name)
        for key, index in zip(_keys(parts[-1]) if parts else (), self._indices, strict=False):
            paths = [path for path in index.get(key, ()) if os.path.normpath(path) not in taken]
            if paths:
                lengths = [_common_end(path.parts[:-1], parts[:-1]) for path in paths]
                return [path for path, length in zip(paths, lengths, strict=True) if length == max(lengths)]
        return []

    def relative(self, path):
        """A path as COCO's file_name; raises UserError if it isn't in the folder."""
        try:
            return pathlib.Path(os.path.abspath(path)).relative_to(os.path.abspath(self.root)).as_posix()
        except ValueError:
            raise UserError(f"{path} isn't in {self.root}: give --images a folder that holds all images.") from None

    @functools.cached_property
    def _indices(self):
        """The images by each of their `_keys`."""
        indices = [collections.defaultdict(list) for _ in range(4)]
        for path in find_image_files(self.root):
            for index, key in zip(indices, _keys(path.name), strict=True):
                index[key].append(path)
        return indices


@dataclasses.dataclass
class ImageLocation:
    """Where the file of an image record is."""

    path: str  # of the file; where it should be, if there is none
    is_named: bool  # whether the record names this place
    rivals: list[str]  # files, relative to the folder, of which the name may mean each


def locate_images(records, folder):
    """The file of each `coco_records.ImageRecord` with a name: {index: ImageLocation}.

    A file that isn't where a record says is the one that can be meant and that no other record names.
    """
    places = {index: [os.path.join(folder, name) for name in record.names] for index, record in enumerate(records)}
    places = {index: paths for index, paths in places.items() if paths}
    files = list(dict.fromkeys(itertools.chain.from_iterable(places.values())))
    is_there = {path: size >= 0 for path, size in zip(files, file_sizes(files), strict=True)}
    locations = {}
    for index, paths in places.items():
        path = next((path for path in paths if is_there[path] and not os.path.isdir(path)), None)
        locations[index] = ImageLocation(path or paths[0], path is not None, [])
    missing = [index for index, location in locations.items() if not location.is_named]
    if missing and os.path.isdir(folder):
        taken = {os.path.normpath(location.path) for location in locations.values() if location.is_named}
        images = ImageFolder(folder)
        for index in missing:
            found = next(filter(None, (images.candidates(name, taken) for name in records[index].names)), [])
            if len(found) == 1:
                locations[index].path = str(found[0])
            locations[index].rivals = [images.relative(path) for path in found]
    return locations


def _parts(name):
    return [part for part in str(name).replace("\\", "/").split("/") if part]


def _keys(name):
    """What names are compared by: whole, without suffix, without what scripts add too, as Label Studio's addresses."""
    stem, suffix = os.path.splitext(name)
    stem = _comparable(stem if suffix.lower() in IMAGE_SUFFIXES else name)
    return _comparable(name), stem, _SOMETIMES_THERE.sub("", stem), without_upload_prefix(stem)


def without_upload_prefix(stem):
    """A file's name without suffix as it was before Label Studio put its prefix, and %20 for a space, there."""
    return _UPLOAD_PREFIX.sub("", urllib.parse.unquote(stem))


def _comparable(name):
    # A json from macOS may have letters apart from their accents.
    return unicodedata.normalize("NFC", name).casefold()


def _common_end(parts, others):
    """How many of the last parts of two paths are the same, whatever their case."""
    same = (part.lower() == other.lower() for part, other in zip(reversed(parts), reversed(others), strict=False))
    return sum(itertools.takewhile(bool, same))


def find_image_files(folder, suffixes=IMAGE_SUFFIXES, follow_links=True):
    """All image files in a folder and those below, sorted by path, but for hidden ones, as macOS leaves in zips."""
    paths = []
    for place, folders, names in os.walk(folder, followlinks=follow_links):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        names = [name for name in names if not name.startswith(".")]
        paths += [pathlib.Path(place, name) for name in names if os.path.splitext(name)[1].lower() in suffixes]
    return sorted(paths, key=lambda path: path.as_posix())
