"""Image files to arrays, for prediction."""

import glob
import pathlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mrcnn_tf.common.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


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
            matches = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
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
