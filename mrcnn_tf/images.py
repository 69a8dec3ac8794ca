"""Image files to arrays, for prediction."""

import glob
import pathlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mrcnn_tf.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


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
        UserError: not a readable image.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16") or upright.mode == "I":  # 16 bits a pixel: keep the high byte
                return np.repeat((np.asarray(upright).astype(np.uint32) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            return np.asarray(upright.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} isn't a readable image ({reason}): replace it or leave it out.") from error
