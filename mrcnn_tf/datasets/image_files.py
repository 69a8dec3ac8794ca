"""Image files: their headers, read once per dataset, the frame that EXIF gives them, and pixels for prediction."""

import concurrent.futures
import dataclasses
import glob
import io
import os
import pathlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mrcnn_tf.common.errors import UserError

FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF")  # what TensorFlow decodes; an MPO is a phone's JPEG with more behind it
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")  # where no json names the files
WORKERS = 16
FULL_CHECK_BYTES = 32 << 20  # decoding this much takes seconds; larger sets are only checked at both ends of each file

_ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
_ORIENTATION = 0x0112


@dataclasses.dataclass
class ImageFile:
    """An image file's header."""

    size: int = -1  # bytes; -1 where there is none
    width: int = 0  # pixels as stored
    height: int = 0
    orientation: int = 1  # EXIF, 1 to 8
    is_suspect: bool = False  # doesn't end as its format should
    format: str = ""  # Pillow's name, such as JPEG
    mode: str = ""  # Pillow's name of its channels, such as RGB, L or CMYK
    has_16_bits: bool = False  # to a channel, rather than 8 or fewer
    problem: tuple[str, str, str] | None = None  # a kind to count by, what is wrong, remedy


def inspect_files(paths, on_progress, decode=None):
    """The headers of image files, ImageFiles in their order; TensorFlow decodes those without a `problem`.

    Args:
        paths: list of str.
        on_progress: called with the number of files done since the last call.
        decode: a function of a path that tries a doubtful file and raises OSError where it is damaged. None:
            TensorFlow's own decoding, for which it has to be imported.
    """
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        headers = []
        for header in pool.map(_read_header, paths, chunksize=64):
            headers.append(header)
            on_progress(1)
        is_small = sum(header.size for header in headers) <= FULL_CHECK_BYTES
        doubtful = [
            (path, header)
            for path, header in zip(paths, headers, strict=True)
            if header.problem is None and (is_small or header.is_suspect)
        ]
        list(pool.map(lambda pair: _try_decoding(decode or _decode_file, *pair), doubtful))
    return headers


def inspect_bytes(data):
    """The header of an image file given as bytes, as an ImageFile; decoded where its end is doubtful."""
    header = ImageFile(size=len(data))
    _parse_header(io.BytesIO(data), header)
    if header.problem is None and header.is_suspect:
        _try_decoding(_decode_bytes, data, header)
    return header


def image_frame(header, height, width):
    """How a described size fits an ImageFile: (height, width, EXIF orientation to apply), or None if it doesn't.

    A description may be of the image as it's seen or, if sides differ, of the file as it's stored, which then stays as
    it is.
    """
    visible, stored = visible_size(header), (header.height, header.width)
    if (height, width) == visible:
        return *visible, header.orientation
    return (*stored, 1) if (height, width) == stored else None


def visible_size(header):
    """(height, width) of an ImageFile's image once its EXIF orientation is applied."""
    stored = (header.height, header.width)
    return stored[::-1] if header.orientation >= 5 else stored


def list_images(folder):
    """The image files in a folder and those within it, as paths relative to it, sorted."""
    files = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(os.path.relpath(file, folder) for file in files if file.lower().endswith(IMAGE_SUFFIXES))


def file_sizes(paths):
    """Bytes of each file, -1 where there is none; list of int."""
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(_size, paths, chunksize=256))


def _size(path):
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _read_header(path):
    header = ImageFile(size=_size(path))
    if header.size < 0:
        header.problem = ("missing_image", "isn't there", "put it into the folder or correct file_name")
        return header
    try:
        with open(path, "rb") as file:
            _parse_header(file, header)
    except OSError as error:
        header.problem = ("unreadable_image", f"isn't a readable image ({error})", "replace the file")
    return header


def _parse_header(file, header):
    """Fills in the header of an open image file."""
    try:
        with Image.open(file) as image:
            header.width, header.height = image.size
            header.format, header.mode = image.format, image.mode
            # Pillow reads colours of 16 bits as RGB; only how it unpacks them tells.
            unpacked_16_bits = any(";16" in tile[3] for tile in image.tile if type(tile[3]) is str)
            header.has_16_bits = image.mode[0] in "IF" or unpacked_16_bits
            if image.format not in FORMATS:
                problem = f"is {image.format}, which TensorFlow doesn't decode"
                header.problem = ("image_format", problem, "convert it to JPEG or PNG")
                return
            # Where a PNG's header has no EXIF, getexif would decode all of it to look behind the pixels.
            orientation = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info else 1
            header.orientation = orientation if orientation in range(1, 9) else 1
            ending = _ENDINGS.get(image.format)
            if ending:
                file.seek(-len(ending), os.SEEK_END)
            header.is_suspect = not ending or file.read() != ending
    except Exception as error:  # Pillow raises whatever its format plugins run into
        problem = f"isn't a readable image ({first_line(error)})"
        header.problem = ("unreadable_image", problem, "replace the file")


def _try_decoding(decode, source, header):
    try:
        decode(source)
    except OSError:
        header.problem = ("truncated_image", "is cut off or damaged", "replace the file")


def _decode_file(path):
    with open(path, "rb") as file:
        _decode_bytes(file.read())


def _decode_bytes(data):
    import tensorflow as tf  # takes seconds, and most datasets have no doubtful file

    from mrcnn_tf.ops.image_bytes import decode_image

    try:
        decode_image(data)
    except tf.errors.OpError as error:
        raise OSError(error.message) from None


# Pixels, for prediction.

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


class UnreadableImage(UserError):
    """A file that isn't an image; the others of its batch aren't concerned."""


def check_pixels(image, position):
    """The image, the `position`-th of a list, as an array; raises UserError if it isn't uint8 [H, W, 3]."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UserError(
            f"Image {position} is {image.dtype} {list(image.shape)}: give uint8 pixels [height, width, 3], RGB."
        )
    return image


def find_images(patterns):
    """The image files that files, folders and glob patterns name, each once, in order.

    Raises UserError for a pattern that matches nothing.
    """
    images = []
    for pattern in map(str, patterns):
        path = pathlib.Path(pattern)
        if path.is_dir():
            matches = sorted(file for file in path.iterdir() if file.suffix.lower() in PHOTO_SUFFIXES)
        elif path.is_file():
            matches = [path]
        else:
            matches = sorted(pathlib.Path(match) for match in glob.glob(pattern, recursive=True))
        if not matches:
            raise UserError(f"'{pattern}' names no image: give files, folders or a quoted glob pattern.")
        images += matches
    return list(dict.fromkeys(images))


def read_image(path):
    """uint8 [H, W, 3] RGB, upright by its EXIF orientation; alpha is dropped, gray is repeated.

    Raises UnreadableImage.
    """
    try:
        with Image.open(path) as image:
            return rgb_pixels(ImageOps.exif_transpose(image))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = first_line(error)
        raise UnreadableImage(f"{path} isn't a readable image ({reason}): replace it or leave it out.") from error


def rgb_pixels(image):
    """A PIL image as uint8 [H, W, 3] RGB; alpha is dropped, gray is repeated."""
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bits a pixel: keep the high byte
        return np.repeat((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def first_line(error):
    """An exception's message, its first line alone, or the name of its class if it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
