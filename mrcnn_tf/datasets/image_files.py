"""Image files: what they are, whether they can be used, the frame that EXIF gives them, and their pixels.

Whatever Pillow reads is trained on. TensorFlow decodes JPEG and PNG in its graph; of every other file (and of an
animated PNG, whose first frame may be smaller than its canvas) Pillow's pixels are taken, of the first frame, composed
on its canvas. Both give the same pixels of a file that both can read.
"""

import concurrent.futures
import dataclasses
import glob
import io
import os
import pathlib

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_faults import NO_PIXELS, UNDEFINED_GREY, explain_decoding, explain_opening, first_line

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp", ".avif"),
    *(".jp2", ".ppm", ".pgm", ".heic", ".heif"),  # the last two can't be read; they are named for that to be said
)
WORKERS = 16
FULL_CHECK_BYTES = 32 << 20  # decoding this much takes seconds; larger sets are only checked at both ends of each file

_BY_TENSORFLOW = ("JPEG", "MPO", "PNG")  # Pillow's names; an MPO is a phone's JPEG with more behind it
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": _PNG_END, "GIF": b";"}
_TAIL = 4096  # bytes at a PNG's end, where some programs write the EXIF block
_LAYERED = ("MPO", "PSD")  # more pictures in a file aren't more frames
_ORIENTATION = 0x0112
_TIFF_PLACES = ((273, 279), (324, 325))  # where strips or tiles begin, and their bytes
_BITS, _PLANES = 258, 284  # TIFF's tags: of each channel, and 2 where channels are stored one after the other
_EXCHANGES_SIDES = 5  # EXIF orientations from here on exchange width and height


@dataclasses.dataclass
class ImageFile:
    """An image file, by its header. Its sides are those seen, once its EXIF orientation is applied."""

    size: int = -1  # bytes; -1 where there is none
    width: int = 0  # pixels
    height: int = 0
    orientation: int = 1  # EXIF, 1 to 8, to apply to the pixels as decoded
    is_suspect: bool = False  # doesn't end as its header or format says
    format: str = ""  # Pillow's name, such as JPEG
    mode: str = ""  # Pillow's name of its channels, such as RGB, L or CMYK
    has_16_bits: bool = False  # to a channel, rather than 8 or fewer
    has_frames: bool = False  # several, or pages, of which the first is used
    problem: tuple[str, str, str] | None = None  # a kind to count by, what is wrong, remedy

    @property
    def by_pillow(self):
        """Whether Pillow decodes it in training, too."""
        return self.format not in _BY_TENSORFLOW or self.format == "PNG" and self.has_frames

    @property
    def stored_width(self):
        """Pixels, before the orientation is applied."""
        return self.height if self.orientation >= _EXCHANGES_SIDES else self.width

    @property
    def stored_height(self):
        """Pixels, before the orientation is applied."""
        return self.width if self.orientation >= _EXCHANGES_SIDES else self.height

    def fits(self, width, height):
        """Whether a described size is that of the image, seen or stored."""
        return (width, height) in ((self.width, self.height), (self.stored_width, self.stored_height))

    def around(self, right, bottom):
        """(width, height) of the frame that coordinates up to `right` and `bottom` belong to: as seen, unless they only
        fit the file as stored."""
        outside = right > self.width + 1 or bottom > self.height + 1
        if outside and right <= self.stored_width + 1 and bottom <= self.stored_height + 1:
            return self.stored_width, self.stored_height
        return self.width, self.height


def inspect_files(paths, on_progress):
    """What image files are, ImageFiles in their order; those without a `problem` are trained on.

    Where the end of a file isn't as it should be, and in a small set, it is decoded, too.

    Args:
        paths: list of str.
        on_progress: called with the number of files done since the last call.
    """
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        images = []
        for image in pool.map(_inspect_header, paths, chunksize=64):
            images.append(image)
            on_progress(1)
        is_small = sum(image.size for image in images) <= FULL_CHECK_BYTES
        list(pool.map(lambda path, image: _check_pixels(path, image, is_small), paths, images))
    return images


def inspect_file(path, thorough=False):
    """What an image file is, an ImageFile; decoded where its end isn't as it should be, or if `thorough`."""
    image = _inspect_header(path)
    _check_pixels(path, image, thorough)
    return image


def inspect_bytes(data, thorough=False):
    """As `inspect_file`, of a file's bytes."""
    image = ImageFile(size=len(data))
    _read_header(io.BytesIO(data), image)
    _check_pixels(io.BytesIO(data), image, thorough)
    return image


def image_frame(image, height, width):
    """How a described size fits an ImageFile: (height, width, EXIF orientation to apply), or None if it doesn't.

    A description may be of the image as it's seen or, if sides differ, of the file as it's stored, which then stays as
    it is.
    """
    if (height, width) == (image.height, image.width):
        return height, width, image.orientation
    return (height, width, 1) if image.fits(width, height) else None


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


def _inspect_header(path):
    image = ImageFile(size=_size(path))
    if image.size < 0:
        image.problem = ("missing_image", "isn't there", "put it into the folder or correct file_name")
        return image
    try:
        with open(path, "rb") as file:
            _read_header(file, image)
    except OSError as error:
        image.problem = ("unreadable_image", f"can't be opened ({error.strerror})", "make it a file that can be read")
    return image


def _read_header(file, image):
    """Fills in an ImageFile from an open file."""
    try:
        with Image.open(file) as opened:
            image.format, image.mode = opened.format, opened.mode
            image.has_16_bits = _has_16_bits(opened)
            image.problem = _find_no_pixels(opened)
            width, height = opened.size
            file.seek(-min(_TAIL, image.size), os.SEEK_END)
            tail = file.read()
            image.is_suspect = _is_suspect(opened, file, tail, image.size)
            image.orientation = _read_orientation(opened, tail)
            turned = image.orientation >= _EXCHANGES_SIDES
            image.width, image.height = (height, width) if turned else (width, height)
            image.has_frames = opened.format not in _LAYERED and getattr(opened, "is_animated", False)
    except Exception as error:  # Pillow raises whatever its format plugins run into
        image.problem = explain_opening(file, error)


def _find_no_pixels(opened):
    """The `problem` of an open PIL image whose pixels Pillow can't give as 8 bits; None of others."""
    if opened.format in NO_PIXELS:
        return "image_format", f"is {opened.format}, a drawing rather than pixels", "save it as PNG and name that file"
    if opened.format == "TIFF" and opened.tag_v2.get(_PLANES) == 2 and max(opened.tag_v2.get(_BITS, (1,))) > 8:
        what = "is a TIFF whose channels of 16 bits are stored one after the other, which Pillow misreads"
        return "image_format", what, "save it as PNG and name that file"
    is_16_bit = opened.mode == "I" and opened.format in ("PNG", "PPM")  # which have no more
    if opened.mode not in UNDEFINED_GREY or is_16_bit:
        return None
    what = f"is a {opened.format} of {UNDEFINED_GREY[opened.mode]}, of which nothing says what is black and white"
    return "image_format", what, "scale its values to 0 to 255, save it as an 8-bit PNG and name that file"


def _has_16_bits(opened):
    # Pillow reads colours of 16 bits as RGB; only how it unpacks them tells.
    raw_modes = (tile[3] if isinstance(tile[3], str) else (tile[3] or ("",))[0] for tile in opened.tile)
    return opened.mode[0] in "IF" or any(";16" in str(mode) and opened.format != "BMP" for mode in raw_modes)


def _is_suspect(opened, file, tail, size):
    """Whether a file doesn't end as its format or header says, or nothing says where it should end."""
    if opened.format in _ENDINGS:
        return not tail.endswith(_ENDINGS[opened.format])
    if opened.format == "TIFF":
        places = [(opened.tag_v2.get(starts), opened.tag_v2.get(lengths)) for starts, lengths in _TIFF_PLACES]
        ends = [sum(pair) for starts, lengths in places if starts for pair in zip(starts, lengths, strict=False)]
        return not ends or max(ends) > size
    if opened.format == "WEBP":
        file.seek(4)
        return 8 + int.from_bytes(file.read(4), "little") > size
    if opened.format == "BMP" and opened.tile[0][0] == "raw":
        _, (_, _, _, rows), start, (_, row_bytes, _) = opened.tile[0]
        return start + rows * row_bytes > size
    return True


def _read_orientation(opened, tail):
    """The EXIF orientation to apply to an open PIL image; 1 where it has none or a damaged one.

    What an editor writes elsewhere (a text chunk, XMP) isn't read. Pillow turns a TIFF by itself.
    """
    if opened.format == "TIFF":
        return 1
    if opened.format == "PNG" and "exif" not in opened.info and b"eXIf" in tail:
        opened.load()  # all of it, to look behind the pixels
    exif = Image.Exif()
    try:
        exif.load(opened.info.get("exif") or b"")
    except Exception:  # Pillow raises whatever it runs into
        return 1
    orientation = exif.get(_ORIENTATION, 1)
    return int(orientation) if orientation in range(1, 9) else 1


def _check_pixels(source, image, thorough):
    """Decodes a file, path or binary file, that is in doubt, and fills in the ImageFile's problem if that fails."""
    if image.problem or not (thorough or image.is_suspect):
        return
    try:
        if image.format == "PNG":
            # What is damaged after the pixels, and checksums, TensorFlow minds and Pillow doesn't.
            with Image.open(source) as opened:
                opened.verify()
            if not _has_png_end(source):
                raise OSError("no end")
        with Image.open(source) as opened:
            opened.load()
            opened.crop((0, 0, 1, 1)).convert("RGB")
    except Exception as error:  # Pillow raises whatever its format plugins run into
        image.problem = explain_decoding(image.format, image.is_suspect, error)


def _has_png_end(source):
    if isinstance(source, io.BytesIO):
        return _PNG_END in source.getvalue()
    with open(source, "rb") as file:
        return _PNG_END in file.read()


# Pixels.


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
            matches = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
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
    image = _inspect_header(path)
    if image.size < 0:
        raise UnreadableImage(f"There is no image {path}: correct its name or leave it out.")
    try:
        if image.problem is None:
            return read_pixels(path, image.orientation)
    except OSError as error:
        image.problem = explain_decoding(image.format, image.is_suspect, error)
    _, what, remedy = image.problem
    raise UnreadableImage(f"{path} {what}: {remedy}, or leave it out.")


def read_pixels(source, orientation=1, least_side=None):
    """The pixels of a file without a `problem`, uint8 [H, W, 3] RGB, turned by an EXIF orientation.

    Alpha is dropped, grey repeated, of 16 bits the upper 8 are taken, of several frames the first.

    Args:
        source: path, or the file's bytes.
        orientation: see `apply_orientation`; 1 for the pixels as stored.
        least_side: pixels; a JPEG of larger sides may be decoded at a half, quarter or eighth.

    Raises OSError for a file that can't be decoded, or isn't there.
    """
    try:
        pixels = _decode(io.BytesIO(source) if isinstance(source, bytes) else source, least_side)
    except OSError:
        raise
    except Exception as error:  # Pillow raises whatever its format plugins run into
        raise OSError(first_line(error)) from error
    return apply_orientation(pixels, orientation)


def _decode(source, least_side=None):
    with Image.open(source) as opened:
        if least_side:
            opened.draft("RGB", (least_side, least_side))
        if opened.mode.startswith("I"):  # 16 bits a pixel: keep the high byte
            return np.repeat((np.asarray(opened).astype(np.uint32) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(opened if opened.mode == "RGB" else opened.convert("RGB"))


def apply_orientation(pixels, orientation):
    """Turns pixels [H, W, C] as their EXIF orientation (1 to 8) asks for; see `ops.image_bytes.apply_orientation`."""
    if orientation >= _EXCHANGES_SIDES:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels[::-1] if orientation in (3, 4, 7, 8) else pixels)
