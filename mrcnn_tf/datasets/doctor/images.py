"""The image records of a json and the files they name: what is missing, damaged, of another size or turned."""

import collections
import dataclasses
import functools
import os
import re
import unicodedata

import numpy as np
from PIL import Image

from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.datasets.doctor.reading import what_it_is
from mrcnn_tf.datasets.image_files import inspect_files
from mrcnn_tf.datasets.read_coco import image_paths, image_row

# What lies in a folder of images, and which of it a json that names no existing file may have meant.
#

_DECODED = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".gif")
_OTHERS = (".tif", ".tiff", ".webp", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".dng", ".cr2", ".nef")


class Listing:
    """The pictures of a folder and of those in it, by their names' endings.

    Args:
        folder: str.
    """

    def __init__(self, folder):
        self._folder = folder

    @functools.cached_property
    def names(self):
        """list of str relative to the folder, sorted; without hidden files and macOS's leftovers in zips."""
        found = []
        for place, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
            pictures = (
                name for name in files if os.path.splitext(name)[1].lower() in _DECODED + _OTHERS and name[0] != "."
            )
            found += [os.path.relpath(os.path.join(place, name), self._folder) for name in pictures]
        return sorted(found)

    @functools.cached_property
    def _by_name(self):
        found = collections.defaultdict(list)
        for name in self.names:
            found[_key(name)].append(name)
        return found

    def meant(self, file_name):
        """The only picture whose name is that of a missing file but for case, accents' encoding or folder, or None."""
        found = self._by_name[_key(file_name)]
        return found[0] if len(found) == 1 else None

    def others(self, paths):
        """list of str, the pictures that aren't among `paths` (which begin with the folder)."""
        known = {os.path.normpath(os.path.relpath(path, self._folder)) for path in paths}
        return [name for name in self.names if os.path.normpath(name) not in known]


def _key(name):
    # A json from Windows may have its folders' backslashes, one from macOS letters apart from their accents.
    return unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1]).casefold()


PNG_END = b"IEND\xaeB`\x82"
LARGE = 40_000_000  # pixels

_TURNED_ON_ITS_SIDE = 5  # EXIF orientations from here on exchange width and height


@dataclasses.dataclass
class Images:
    """The usable images, I of them, and what became of the others.

    Attributes:
        ids: [I] int64.
        positions: [I] int64, their records' places in "images".
        heights, widths: [I] int32 pixels, the frame of all coordinates.
        paths: [I] list of str.
        skipped: set of the ids of images that can't be used.
        kinds: {position: kind} of the problems of records that can't be used.
        headers: {path: data.image_files.ImageFile} of all files that records name.
        names: {position: file_name as it should be} of misnamed files.
        as_stored: rows of the images that are described as the file stores them, not upright.
    """

    ids: np.ndarray
    positions: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    paths: list[str]
    skipped: set[int]
    kinds: dict[int, str]
    headers: dict
    names: dict[int, str]
    as_stored: list[int]


def check_images(source, findings, bars, headers):
    """Reads the headers of all files that the json names, and sorts its image records.

    Args:
        source: reading.Source.
        findings: Findings, to which what is wrong is added.
        bars: rich Progress.
        headers: {path: ImageFile} that are known already.

    Returns:
        Images.
    """
    paths = list(image_paths(source.images, source.folder))
    headers = headers | _headers([path for path in paths if path not in headers], bars)
    headers = {path: headers[path] for path in paths}
    listing = Listing(source.folder)
    config = DataConfig(annotations=source.path, images=source.folder)
    rows, positions, kinds, names, as_stored, skipped, seen = [], [], {}, {}, [], set(), set()
    for position, record in enumerate(source.images):
        row, problem = image_row(record, headers, config, seen)
        if problem:
            kinds[position] = _report(problem, record, listing, names, position, findings)
            if problem.kind != "duplicate_image" and type(problem.record) is int:
                skipped.add(problem.record)
        else:
            if _described_as_stored(headers[row[1]], row):
                as_stored.append(len(rows))
            _check_record(record, row, headers[row[1]], source.path, findings)
            rows.append(row)
            positions.append(position)
        if isinstance(record, dict) and type(record.get("id")) is int:
            seen.add(record["id"])
    if not source.images:
        findings.add("no_images", None, f"{source.path} lists no image.")
    _check_shared(rows, findings)
    for name in listing.others(headers):
        findings.add("unlisted_file", None, f"{name} isn't in {source.path}.", os.path.join(source.folder, name))
    ids, paths, heights, widths, _ = zip(*rows, strict=True) if rows else ((),) * 5
    sides = (np.array(heights, np.int32), np.array(widths, np.int32))
    columns = (np.array(ids, np.int64), np.array(positions, np.int64), *sides, list(paths))
    return Images(*columns, skipped, kinds, headers, names, as_stored)


def _headers(paths, bars):
    reading = bars.add_task("Looking at images", total=len(paths))
    headers = inspect_files(paths, lambda number: bars.advance(reading, number), decode)
    for path, header in zip(paths, headers, strict=True):
        if header.problem and header.problem[0] == "unreadable_image":
            header.problem = what_it_is(path) or header.problem
    return dict(zip(paths, headers, strict=True))


def decode(path):
    """Raises OSError for a damaged file. Pillow does, without the seconds that importing TensorFlow takes."""
    try:
        with Image.open(path) as image:
            if image.format == "PNG":
                _verify_png(path, image)
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow raises whatever its format plugins run into
        raise OSError(str(error)) from None


def _verify_png(path, image):
    """Raises an exception where what comes after the pixels is damaged, which TensorFlow minds and Pillow doesn't."""
    image.verify()
    with open(path, "rb") as file:
        if PNG_END not in file.read():
            raise OSError("no end")


def _report(problem, record, listing, names, position, findings):
    """Adds a problem, with the file that was probably meant; returns its kind."""
    meant = listing.meant(record["file_name"]) if problem.kind == "missing_image" else None
    if meant is None:
        findings.extend([problem])
        return problem.kind
    names[position] = meant
    sentence = f"{problem.message.rsplit(': ', 1)[0]}; the folder has {meant!r}."
    findings.add("misnamed_image", problem.record, sentence, problem.file)
    return "misnamed_image"


def _described_as_stored(header, row):
    return header.orientation >= _TURNED_ON_ITS_SIDE and row[4] == 1


def _check_record(record, row, header, path, findings):
    """Adds what is worth knowing about a usable image."""
    number, file, height, width, orientation = row
    where = f"Image {number} in {path} ({file})"
    if record.get("height") is None or record.get("width") is None:
        findings.add("missing_size", number, f"{where} has no width and height; the file is {width} x {height}.", file)
    if orientation != 1:
        findings.add("exif_turned", number, f"{where} has EXIF orientation {orientation}.", file)
    if height * width > LARGE:
        findings.add("large_image", number, f"{where} has {width} x {height} pixels.", file)
    if header.deep:
        findings.add("deep_image", number, f"{where} has 16 bits to a channel.", file)
    if header.mode in ("L", "LA", "1", "I", "F") or header.mode.startswith("I;"):
        findings.add("grey_image", number, f"{where} is greyscale.", file)
    if header.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        findings.add("alpha_image", number, f"{where} has transparency.", file)
    if header.mode == "CMYK":
        findings.add("cmyk_image", number, f"{where} is CMYK.", file)
    if header.format == "GIF":
        findings.add("animated_image", number, f"{where} is a GIF.", file)


def _check_shared(rows, findings):
    first = {}
    for number, path, *_ in rows:
        other = first.setdefault(os.path.normpath(path), number)
        if other != number:
            sentence = f"Image {number} in {findings.file} names {path} as image {other} does."
            findings.add("shared_file", number, sentence, path)


# Images whose EXIF orientation turns them by a quarter and whose json describes them as they are stored.
#

OVERHANG = 2.0  # pixels


def check_frames(images, records, outlines, image, findings):
    """Adds such images; where annotations fit only the upright picture, width and height are exchanged.

    Args:
        images: image_records.Images; heights and widths are changed in place.
        records: reading.Records.
        outlines: Outlines of the records.
        image: [T] int64, the row of each record's image; -1 for none.
        findings: Findings.

    Returns:
        int64 rows of the images whose sides were exchanged.
    """
    turned = np.zeros(images.ids.size, bool)
    turned[images.as_stored] = True
    if not turned.any():
        return np.zeros(0, np.int64)
    reach = reach_of_images(records, outlines, image, images.ids.size)
    sides = np.stack([images.widths, images.heights], axis=1)
    fits = (reach <= sides + OVERHANG).all(axis=1)
    upright = turned & ~fits & (reach <= sides[:, ::-1] + OVERHANG).all(axis=1)
    images.widths[upright], images.heights[upright] = images.heights[upright], images.widths[upright]
    for row in np.flatnonzero(turned).tolist():
        number, path = int(images.ids[row]), images.paths[row]
        width, height = sides[row].tolist()
        name = f"Image {number} in {findings.file} ({os.path.basename(path)})"
        if upright[row]:
            sentence = f"{name} is {width} x {height} there; its annotations fit the upright {height} x {width}."
        else:
            sentence = f"{name} is {width} x {height} as stored, and {height} x {width} upright."
        findings.add("exif_mismatch" if upright[row] else "exif_frame", number, sentence, path)
    return np.flatnonzero(upright)


def reach_of_images(records, outlines, image, count):
    """[count, 2] float64: the largest x and y of each image's annotations; -inf for an image without any."""
    boxes = np.asarray(records.boxes).reshape(-1, 4)
    corners = np.where(np.isfinite(outlines.extents), outlines.extents, boxes + np.tile(boxes[:, :2], 2) * [0, 0, 1, 1])
    reach = np.full([count + 1, 2], -np.inf)
    np.maximum.at(reach, image, np.nan_to_num(corners[:, 2:], nan=-np.inf))
    return reach[:count]
