"""Images whose pixels are numbers, of classes or segments, read with numpy: what is in them, and what is wrong.

In a *segment map* (COCO's panoptic format) a pixel's colour is the id of its segment, R + 256 G + 65536 B, 0 for none.
In a *label map* a pixel's value is the id of its category. data/map_reader.py reads both in the graph, for which they
have to be PNGs. What other tools write has either kind of pixel, in other files, too: convert reads these as ANY_MAP.
"""

import concurrent.futures
import dataclasses
import os
import re

import numpy as np
from PIL import Image

from mrcnn_tf.common.categories import MAX_STUFF_CLASSES, THINGS
from mrcnn_tf.common.errors import BrokenFile, UserError
from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets.annotation_checks import find_indices
from mrcnn_tf.datasets.coco_index import own_image_ids
from mrcnn_tf.datasets.image_faults import first_line
from mrcnn_tf.datasets.image_files import FULL_CHECK_BYTES, WORKERS, inspect_files


@dataclasses.dataclass(frozen=True)
class MapKind:
    """Which image files are read as maps.

    Attributes:
        formats, modes: Pillow's names.
        wanted: what to save a map as, for messages.
    """

    formats: tuple[str, ...]
    modes: tuple[str, ...]
    wanted: str


_COLOURS = ("RGB", "RGBA")  # channels of 8 bits
_VALUES = ("1", "L", "P", "I", "I;16")
_GREYS = ("1", "L", "I", "I;16", "I;16B")
SEGMENT_MAP = MapKind(("PNG",), _COLOURS, "a PNG of 8 bit RGB, R + 256 G + 65536 B of each segment's id")
LABEL_MAP = MapKind(("PNG",), _VALUES, "a PNG of 8 or 16 bit grey or a palette")
ANY_MAP = MapKind(
    ("PNG", "TIFF", "BMP", "GIF"),
    (*_VALUES, "I;16B", "LA", "PA", *_COLOURS),
    "a PNG of 8 or 16 bit grey, a palette or 8 bit colours that stand for numbers",
)

UNLABELLED = (0, 255)  # values of a label map that are ignored, unless they are a category's id
UNLISTED_REMEDY = "list it in segments_info or make its pixels black"

_STRETCH = {"L;2": 85, "L;4": 17}  # what Pillow multiplies grey samples of so few bits by
_INVERTED = re.compile("[1L];[24]?IR?")  # how it names samples of which it gives the complement
_LOSSY = re.compile(".*;1[56].*")  # and colours of 5 or 16 bits to a channel, of which it gives 8


def read_segment_map(path):
    """The segment id of each pixel of a panoptic PNG, [H, W] int32; raises BrokenFile, see `read_map`."""
    return read_map(path, SEGMENT_MAP)


def read_label_map(path):
    """The value of each pixel of a grey or palette PNG, [H, W] int32; raises BrokenFile, see `read_map`."""
    return read_map(path, LABEL_MAP)


def read_any_map(path):
    """The number of each pixel of a map that another tool wrote, [H, W] int32; raises BrokenFile, see `read_map`."""
    return read_map(path, ANY_MAP)


def read_map(path, kind):
    """The number of each pixel of an image file, [H, W] int32.

    It is a grey's sample, however few bits it has, a palette's index, or a colour's R + 256 G + 65536 B. Alpha is
    ignored.

    Raises:
        BrokenFile: there is no such file, it's damaged, or not of the kind.
    """
    try:
        with Image.open(path) as image:
            stored = _stored_as(image)
            fault = _find_fault(image, stored, kind)
            if not fault:
                image.verify()  # checksums, of which nothing is asked where pixels are read: they'd be another's ids
        if not fault:
            with Image.open(path) as image:
                pixels, mode = np.asarray(image), image.mode
            if mode in _COLOURS:
                return rgb_to_ids(pixels)
            return (pixels[..., 0] if pixels.ndim == 3 else pixels).astype(np.int32) // _STRETCH.get(stored[:3], 1)
    except FileNotFoundError:
        raise BrokenFile(f"There is no map {path}: put it into the folder or correct its file_name.") from None
    except Exception as error:  # Pillow raises whatever its format plugins run into
        raise BrokenFile(f"The map {path} can't be read ({first_line(error)}): replace the file.") from None
    raise BrokenFile(f"The map {path} {fault}: save it as {kind.wanted}.")


def read_brightness(path):
    """How bright each pixel of a picture of a mask is, [H, W], up to 1, 255 or 65535 as its file has it.

    It is a grey's sample, and the largest channel of a colour or of what a palette has for an index. Alpha is
    ignored.

    Raises BrokenFile.
    """
    try:
        with Image.open(path) as image:
            # 16 bits would be cut off by a conversion.
            pixels = np.asarray(image if image.mode in _GREYS else image.convert("RGB"))
    except Exception as error:  # Pillow raises whatever its format plugins run into
        raise BrokenFile(f"The mask {path} can't be read ({first_line(error)}): replace the file.") from None
    return pixels if pixels.ndim == 2 else pixels.max(axis=2)


def _stored_as(image):
    """How an open image's samples are stored, Pillow's name such as "L;4"; "" if it doesn't say."""
    arguments = image.tile[0][3] if image.tile else ""
    name = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return name if isinstance(name, str) else ""


def _find_fault(image, stored, kind):
    """What keeps an open image from being a map of the kind; None if nothing does."""
    has_colours = len(image.getbands()) > 1
    if image.format not in kind.formats or image.mode not in kind.modes or has_colours and _LOSSY.fullmatch(stored):
        return _describe_format(image.format, image.mode, has_colours and ";16" in stored)
    if _INVERTED.fullmatch(stored):
        return f"is a {image.format} in which 0 is white, so that its numbers are ambiguous"
    pages = getattr(image, "n_frames", 1) if image.format != "PNG" else 1  # an animated PNG has its picture for all
    return f"is a {image.format} of {pages} pages, of which only one would be read" if pages > 1 else None


def rgb_to_ids(colours):
    """R + 256 G + 65536 B, panopticapi's rgb2id: [H, W] int32 of colours [H, W, 3] uint8 (or 4, of which 3 count)."""
    return colours[..., :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)


def check_map_header(header, segments):
    """What is wrong with the ImageFile of a segment map, or a label map: (kind, what, remedy); None if nothing is."""
    if header.problem and header.format in ("", "PNG"):
        kind, what, remedy = header.problem
        return kind.replace("image", "map"), what, remedy
    kind = SEGMENT_MAP if segments else LABEL_MAP
    if header.format in kind.formats and header.mode in kind.modes and not (segments and header.has_16_bits):
        return None
    what = _describe_format(header.format, header.mode, header.has_16_bits)
    return "map_format", what, f"save {'segment' if segments else 'category'} ids as {kind.wanted}"


def count_values(pixels):
    """Counts the pixels of each value in a map [H, W]: (values, rising, and counts), both [V] int64."""
    flat = pixels.ravel()
    # A map has few stretches of one value, compared with its pixels, so sorting those takes a fraction of the time.
    starts = np.r_[0, np.flatnonzero(flat[1:] != flat[:-1]) + 1]
    values, indices = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(indices.ravel(), np.diff(starts, append=flat.size))
    return values.astype(np.int64), counts.astype(np.int64)


def find_segment_fault(path, size, listed):
    """What keeps a segment map from being used, "what: remedy" without the period; None if nothing does.

    `size` is its image's (height, width), and `listed` [M] the ids that it has to have, and no others; 0 needs no
    pixel.
    """
    pixels, fault = _read_of_size(path, size, read_segment_map)
    if fault:
        return fault
    unknown, _, lacking = compare_ids(pixels, listed)
    if unknown.size:
        return f"{describe_unknown_segments(path, unknown)}: {UNLISTED_REMEDY}"
    return f"The map {path} has no pixel of segment {lacking[0]}: take it out of the json" if lacking.size else None


def find_label_fault(path, size, known):
    """The same for a label map. `known` are the ids of categories, in any iterable."""
    pixels, fault = _read_of_size(path, size, read_label_map)
    if fault:
        return fault
    unknown = np.setdiff1d(count_values(pixels)[0], [*known, *UNLABELLED])
    return describe_unknown_labels(path, unknown) if unknown.size else None


def _read_of_size(path, size, read):
    """(what `read` gives of a map, what keeps it from being one of an image of this size or None)."""
    try:
        pixels = read(path)
    except UserError as error:
        return None, str(error).removesuffix(".")
    return pixels, None if pixels.shape == tuple(size) else describe_wrong_size(path, pixels.shape, size)


def compare_ids(pixels, listed):
    """Compares a segment map [H, W] with a list of ids: (unlisted ids, their pixels, listed ids without a pixel)."""
    values, counts = count_values(pixels)
    unlisted = ~np.isin(values, listed) & (values > 0)
    return values[unlisted], counts[unlisted], np.setdiff1d(np.setdiff1d(listed, values), [0])


def describe_wrong_size(path, size, wanted):
    """The sentence, "what: remedy", for a map of other pixels than its image; sizes are (height, width)."""
    return (
        f"The map {path} is {size[1]} x {size[0]} pixels and its image {wanted[1]} x {wanted[0]}: "
        "save it at the image's width and height"
    )


def describe_unknown_segments(path, ids):
    """The sentence's beginning for ids [N] in a segment map that the json doesn't list."""
    colour = int(ids[0]) & 255, int(ids[0]) >> 8 & 255, int(ids[0]) >> 16
    others = "" if len(ids) == 1 else " and another" if len(ids) == 2 else f" and {len(ids) - 1} others"
    return f"The map {path} has the colour {colour}, segment {ids[0]},{others} which the json doesn't list"


def describe_unknown_labels(path, values):
    """The sentence, "what: remedy", for values [N] of a label map that are no category's."""
    several = ", ".join(map(str, values[:5])) + (" ..." if len(values) > 5 else "")
    return (
        f"The map {path} has pixels of the value {several}, which is the id of no category: "
        "add the class to model.stuff or model.categories, or make such pixels 255"
    )


def _describe_format(name, mode, has_16_bits):
    return f"is a {name} of mode {mode}{' of 16 bits' if has_16_bits else ''}"


# Which PNG holds the classes of each image's pixels, whether it can be used, and what its values mean.


@dataclasses.dataclass
class ImageMaps:
    """The maps of I usable images."""

    kept: np.ndarray  # [I] bool; the others have no map that can be used
    files: list[str]  # those of the kept images
    sizes: dict[str, int]  # {path: bytes} of all maps
    problems: list[Problem]

    @property
    def is_small(self):
        """Whether all pixels can be looked at when the dataset is opened."""
        return sum(self.sizes[path] for path in self.files) <= FULL_CHECK_BYTES


def semantic_classes(categories, stuff):
    """{category id: its class in a semantic label map}: 0 for all things, 1 to S for stuff.

    Raises UserError if one id is both, or there is more stuff than a byte can number.
    """
    if len(stuff) > MAX_STUFF_CLASSES:
        raise UserError(f"There are {len(stuff)} classes in model.stuff: leave at most {MAX_STUFF_CLASSES}.")
    classes = {category.id: THINGS for category in categories}
    for number, category in enumerate(stuff, 1):
        if category.id in classes:
            raise UserError(
                f"Category {category.id} ({category.name!r}) is used twice in model.categories and model.stuff: "
                "give each class an id of its own."
            )
        classes[category.id] = number
    return classes


def map_columns(files, segment_offsets=None, segment_ids=(), segment_classes=()):
    """The map columns of a CocoIndex, as a dict; `files` are "" for images without a map.

    Label maps, and images without any, have no segments.
    """
    return {
        "map_files": np.array([os.fsencode(path) for path in files], np.bytes_),
        "segment_offsets": np.zeros(len(files) + 1, np.int64) if segment_offsets is None else segment_offsets,
        "segment_ids": np.array(segment_ids, np.int32),
        "segment_classes": np.array(segment_classes, np.uint8),
    }


def segment_map_paths(panoptic, folder, image_ids):
    """(paths, annotations): the PNG of each image, None without one, and [I] int64 its annotation's index, or -1."""
    annotations = find_indices(panoptic.image_ids, image_ids)
    names = panoptic.map_names
    return [os.path.join(folder, names[i]) if i >= 0 else None for i in annotations.tolist()], annotations


def find_orphan_annotations(panoptic):
    """A Problem for each annotation of a PanopticJson whose image isn't among its images."""
    listed = np.array([record.id for record in panoptic.images if record.id is not None], np.int64)
    problems = []
    for number in panoptic.image_ids[~np.isin(panoptic.image_ids, listed)].tolist():
        image = panoptic.name_of_image(number)
        name = f"The annotation of image {image} in {panoptic.path}"
        message = f"{name} belongs to no image and was skipped: correct image_id or add the image."
        problems.append(Problem("unknown_image", image, panoptic.path, message))
    return problems


def label_map_paths(folder, images, image_files):
    """Where the label map of each image is in `folder`: the path that the image has in `images`, but .png."""
    names = (os.path.relpath(os.fsdecode(path), images) for path in image_files.tolist())
    return [os.path.join(folder, os.path.splitext(name)[0] + ".png") for name in names]


def check_maps(paths, fields, source, segments, on_progress):
    """The ImageMaps by the headers of maps. In a small set, and where a file's end is missing, they are decoded, too.

    Args:
        paths: list of I str or None, the maps of images.
        fields: the image arrays of a CocoIndex, as a dict.
        source: the json or folder that lists the images.
        segments: whether the maps are segment maps.
        on_progress: see `inspect_files`.
    """
    files = list(dict.fromkeys(path for path in paths if path))
    headers = dict(zip(files, inspect_files(files, on_progress), strict=True))
    kept, problems = np.ones(len(paths), bool), []
    frames = zip(
        own_image_ids(fields["image_ids"], fields["image_names"]),
        fields["heights"].tolist(),
        fields["widths"].tolist(),
        strict=True,
    )
    for row, (path, (image, height, width)) in enumerate(zip(paths, frames, strict=True)):
        problem = _find_problem(headers.get(path), height, width, segments)
        if problem:
            kept[row] = False
            kind, what, remedy = problem
            what = f"has a map, {path}, that {what}" if path else what
            message = f"Image {image} in {source} {what} and was skipped: {remedy}."
            problems.append(Problem(kind, image, path or source, message))
    usable = [path for path, is_kept in zip(paths, kept.tolist(), strict=True) if is_kept]
    return ImageMaps(kept, usable, {path: header.size for path, header in headers.items()}, problems)


def check_label_values(maps, known):
    """Raises UserError if one of the label maps has a value that isn't among `known`, ids of categories."""
    listed = [*known, *UNLABELLED]

    def unknown_values(path):
        return np.setdiff1d(count_values(read_label_map(path))[0], listed)

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for path, values in zip(maps.files, pool.map(unknown_values, maps.files), strict=True):
            if values.size:
                raise UserError(f"{describe_unknown_labels(path, values)}.")


def _find_problem(header, height, width, segments):
    """As `check_map_header`, also where there is no map or it is of another size than its image."""
    if header is None:
        return "unmapped_image", "has no annotation with a map", "add it or remove the image"
    problem = check_map_header(header, segments)
    if problem or (header.stored_height, header.stored_width) == (height, width):
        return problem
    what = f"is {header.stored_width} x {header.stored_height} pixels and not {width} x {height} like the image"
    return "map_size", what, "save it at the image's width and height"
