"""What image files say about themselves, read once per dataset."""

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
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")  # where no json names the files
WORKERS = 16
FULL_CHECK_BYTES = 32 << 20  # decoding this much takes seconds; larger sets are only checked at both ends of each file

_ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
_ORIENTATION = 0x0112


@dataclasses.dataclass
class ImageFile:
    """A file's header. `problem` is None or a (kind, what is wrong, remedy)."""

    size: int = -1  # bytes; -1 where there is none
    width: int = 0  # pixels as stored
    height: int = 0
    orientation: int = 1  # EXIF, 1 to 8
    suspect: bool = False  # doesn't end as its format should
    format: str = ""  # Pillow's name, such as JPEG
    mode: str = ""  # Pillow's name of its channels, such as RGB, L or CMYK
    deep: bool = False  # more than 8 bits to a channel
    problem: tuple[str, str, str] | None = None


def inspect_files(paths, on_progress, decode=None):
    """The headers of image files, in their order; TensorFlow decodes those without a `problem`.

    Args:
        paths: list of str.
        on_progress: called with the number of files done since the last call.
        decode: a function of a path that tries a doubtful file and raises OSError where it is damaged. None:
            TensorFlow's own decoding, for which it has to be imported.

    Returns:
        list of ImageFile.
    """
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        headers = []
        for header in pool.map(_read_header, paths, chunksize=64):
            headers.append(header)
            on_progress(1)
        everything = sum(header.size for header in headers) <= FULL_CHECK_BYTES
        doubtful = [
            (path, header)
            for path, header in zip(paths, headers, strict=True)
            if header.problem is None and (everything or header.suspect)
        ]
        list(pool.map(lambda pair: _decode_once(decode or _decode_file, *pair), doubtful))
    return headers


def inspect_bytes(data):
    """The header of an image file given as bytes, as an ImageFile; decoded where its end is doubtful."""
    header = ImageFile(size=len(data))
    _parse_header(io.BytesIO(data), header)
    if header.problem is None and header.suspect:
        _decode_once(_decode_bytes, data, header)
    return header


def image_frame(header, height, width):
    """How a described size fits a file: (height, width, EXIF orientation to apply), or None if it doesn't.

    A description may be of the image as it's seen or, if sides differ, of the file as it's stored, which then stays as
    it is.

    Args:
        header: ImageFile without a problem.
        height, width: pixels as described.
    """
    seen, stored = visible_size(header), (header.height, header.width)
    if (height, width) == seen:
        return *seen, header.orientation
    return (*stored, 1) if (height, width) == stored else None


def visible_size(header):
    """(height, width) of an ImageFile's image once its EXIF orientation is applied."""
    stored = (header.height, header.width)
    return stored[::-1] if header.orientation >= 5 else stored


def list_images(folder):
    """The image files in a folder and those within it, as paths relative to it, sorted."""
    found = []
    for place, _, names in os.walk(folder):
        files = (os.path.relpath(os.path.join(place, name), folder) for name in names)
        found += [file for file in files if file.lower().endswith(SUFFIXES)]
    return sorted(found)


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
    """Fills in what an open image file says about itself."""
    try:
        with Image.open(file) as image:
            header.width, header.height = image.size
            header.format, header.mode = image.format, image.mode
            # Pillow reads colours of 16 bits as RGB; only how it unpacks them tells.
            header.deep = image.mode[0] in "IF" or any(";16" in tile[3] for tile in image.tile if type(tile[3]) is str)
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
                header.suspect = file.read() != ending
            else:
                header.suspect = True
    except Exception as error:  # Pillow raises whatever its format plugins run into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        header.problem = ("unreadable_image", f"isn't a readable image ({reason})", "replace the file")


def _decode_once(decode, source, header):
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


# Image files to arrays, for prediction.
#

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


class UnreadableImage(UserError):
    """A file that isn't an image; the others of its batch aren't concerned."""


def checked_pixels(image, position):
    """An image as an array, the `position`th of a list.

    Raises:
        UserError: it isn't uint8 [H, W, 3].
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UserError(
            f"Image {position} is {image.dtype} {list(image.shape)}: give uint8 pixels [height, width, 3], RGB."
        )
    return image


def find_images(patterns):
    """The image files that files, folders and glob patterns name, each once, in order.

    Raises:
        UserError: a pattern that matches nothing.
    """
    found = []
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
        found += matches
    return list(dict.fromkeys(found))


def read_image(path):
    """uint8 [H, W, 3] RGB, upright by its EXIF orientation; alpha is dropped, gray is repeated.

    Raises:
        UnreadableImage: it isn't a readable image.
    """
    try:
        with Image.open(path) as image:
            return rgb_pixels(ImageOps.exif_transpose(image))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImage(f"{path} isn't a readable image ({reason}): replace it or leave it out.") from error


def rgb_pixels(image):
    """A PIL image as uint8 [H, W, 3] RGB; alpha is dropped, gray is repeated."""
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bits a pixel: keep the high byte
        return np.repeat((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))
