"""The image records of a json and the files they name: what is missing, damaged, of another size or turned."""

import dataclasses
import os

import numpy as np

from mrcnn_tf.common.problems import counting_bar
from mrcnn_tf.datasets.image_files import IMAGE_SUFFIXES, inspect_files
from mrcnn_tf.datasets.image_folder import find_image_files, locate_images
from mrcnn_tf.datasets.read_coco import check_image_record

LARGE_IMAGE = 40_000_000  # pixels
SIZE_TOLERANCE = 2.0  # pixels by which annotations may leave the image that they fit

_RAW_SUFFIXES = (".dng", ".cr2", ".nef")
_EXCHANGES_SIDES = 5  # EXIF orientations from here on exchange width and height


@dataclasses.dataclass
class CheckedImages:
    """The usable images, I of them, and what became of the others.

    Attributes:
        ids: [I] int64.
        own_ids: list of I, the ids as they stand in the json.
        positions: [I] int64, where their records stand in "images".
        heights, widths: [I] int32 pixels, the frame of all coordinates.
        paths: [I] list of str.
        skipped: set of the ids of images that can't be used.
        kinds: {position: kind} of the problems of records that can't be used.
        headers: {path: ImageFile} of all files that records name.
        names: {position: file_name as it should be} of files that aren't where their record says.
        locations: {position: ImageLocation} of all records that name a file.
        as_stored: indices of the images that are described as the file stores them, not upright.
    """

    ids: np.ndarray
    own_ids: list
    positions: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    paths: list[str]
    skipped: set[int]
    kinds: dict[int, str]
    headers: dict
    names: dict[int, str]
    locations: dict
    as_stored: list[int]


def check_images(source, findings, bars, headers):
    """Reads the headers of all files that the json names but those known already, and checks its image records.

    Returns:
        CheckedImages.
    """
    locations = locate_images(source.images, source.folder)
    paths = list(dict.fromkeys(location.path for location in locations.values()))
    headers = headers | _read_headers([path for path in paths if path not in headers], bars)
    headers = {path: headers[path] for path in paths}
    rows, positions, own_ids, kinds, names, as_stored, skipped, seen = [], [], [], {}, {}, [], set(), set()
    for position, record in enumerate(source.images):
        location = locations.get(position)
        frame, problems = check_image_record(record, location, headers, source.path, seen)
        findings.extend(problems)
        if location and not location.is_named and len(location.rivals) == 1:
            names[position] = location.rivals[0]
        if frame:
            if headers[location.path].orientation >= _EXCHANGES_SIDES and frame[2] == 1:
                as_stored.append(len(rows))
            _check_usable(record, location.path, frame, headers[location.path], findings)
            rows.append((record.id, location.path, *frame))
            positions.append(position)
            own_ids.append(record.own_id)
        else:
            kinds[position] = problems[-1].kind
            if record.id is not None and record.id not in seen:
                skipped.add(record.id)
        seen.add(record.id)
    if not source.images:
        findings.add("no_images", None, f"{source.path} lists no image.")
    _check_shared_files(rows, own_ids, findings)
    _check_unlisted_files(source, headers, findings)
    ids, paths, heights, widths, _ = zip(*rows, strict=True) if rows else ((),) * 5
    sides = (np.array(heights, np.int32), np.array(widths, np.int32))
    columns = (np.array(ids, np.int64), own_ids, np.array(positions, np.int64), *sides, list(paths))
    return CheckedImages(*columns, skipped, kinds, headers, names, locations, as_stored)


def _check_unlisted_files(source, headers, findings):
    listed = {os.path.normpath(path) for path in headers}
    for path in map(str, find_image_files(source.folder, (*IMAGE_SUFFIXES, *_RAW_SUFFIXES), follow_links=False)):
        if os.path.normpath(path) not in listed:
            name = os.path.relpath(path, source.folder)
            findings.add("unlisted_file", None, f"{name} isn't in {source.path}.", path)


def _read_headers(paths, bars):
    headers = inspect_files(paths, counting_bar(bars, "Looking at images", len(paths)))
    return dict(zip(paths, headers, strict=True))


def _check_usable(record, file, frame, header, findings):
    """Adds what is worth knowing about a usable image."""
    height, width, orientation = frame
    is_grey = header.mode in ("L", "LA", "1", "I", "F") or header.mode.startswith("I;")
    has_alpha = header.mode in ("LA", "RGBA", "PA", "La", "RGBa")
    for kind, applies, detail in (
        ("missing_size", record.size is None, f"has no width and height; the file is {width} x {height}"),
        ("loose_image", bool(record.loose), "has its id in another form than COCO's, and it is read all the same"),
        ("exif_turned", orientation != 1, f"has EXIF orientation {orientation}"),
        ("large_image", height * width > LARGE_IMAGE, f"has {width} x {height} pixels"),
        ("deep_image", header.has_16_bits, "has 16 bits to a channel"),
        ("grey_image", is_grey, "is greyscale"),
        ("alpha_image", has_alpha, "has transparency"),
        ("cmyk_image", header.mode == "CMYK", "is CMYK"),
        ("animated_image", header.has_frames, "has several frames or pages"),
    ):
        if applies:
            findings.add(kind, record.own_id, f"Image {record.own_id} in {findings.file} ({file}) {detail}.", file)


def _check_shared_files(rows, own_ids, findings):
    first_ids = {}
    for (_, path, *_), number in zip(rows, own_ids, strict=True):
        other = first_ids.setdefault(os.path.normpath(path), number)
        if other != number:
            sentence = f"Image {number} in {findings.file} names {path} as image {other} does."
            findings.add("shared_file", number, sentence, path)


def check_exif_orientation(images, records, masks, image_index, findings):
    """Adds images that EXIF turns by a quarter and that the json describes as they are stored.

    Where annotations fit only the upright image, its width and height are exchanged in `images`. `image_index` [T] is
    each record's image; -1 for none.

    Returns:
        int64 indices of the images whose sides were exchanged.
    """
    is_turned = np.zeros(images.ids.size, bool)
    is_turned[images.as_stored] = True
    if not is_turned.any():
        return np.zeros(0, np.int64)
    largest = largest_coordinates(records, masks, image_index, images.ids.size)
    sides = np.stack([images.widths, images.heights], axis=1)
    fits = (largest <= sides + SIZE_TOLERANCE).all(axis=1)
    upright = is_turned & ~fits & (largest <= sides[:, ::-1] + SIZE_TOLERANCE).all(axis=1)
    images.widths[upright], images.heights[upright] = images.heights[upright], images.widths[upright]
    for index in np.flatnonzero(is_turned).tolist():
        number, path = images.own_ids[index], images.paths[index]
        width, height = sides[index].tolist()
        if upright[index]:
            kind, detail = "exif_mismatch", f"there; its annotations fit the upright {height} x {width}"
        else:
            kind, detail = "exif_frame", f"as stored, and {height} x {width} upright"
        where = f"Image {number} in {findings.file} ({os.path.basename(path)})"
        findings.add(kind, number, f"{where} is {width} x {height} {detail}.", path)
    return np.flatnonzero(upright)


def largest_coordinates(records, masks, image_index, count):
    """[count, 2] float64: the largest x and y of each image's annotations; -inf for an image without any."""
    boxes = np.asarray(records.boxes).reshape(-1, 4)
    corners = boxes[:, :2] + boxes[:, 2:]
    corners = np.where(np.isfinite(masks.boxes[:, 2:]), masks.boxes[:, 2:], corners)
    largest = np.full([count + 1, 2], -np.inf)
    np.maximum.at(largest, image_index, np.nan_to_num(corners, nan=-np.inf))
    return largest[:count]
