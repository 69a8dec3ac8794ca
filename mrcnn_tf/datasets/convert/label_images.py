"""PNGs whose pixels are numbers rather than colours."""

import numpy as np
from PIL import Image

from mrcnn_tf.datasets.convert.inputs import BrokenFile
from mrcnn_tf.datasets.label_maps import colour_numbers


def read_labels(path):
    """The numbers in an image file.

    Args:
        path: of a palette image (the places in the palette count), a gray one of 1, 8 or 16 bits, or a colour one,
            where each colour counts as the number red + 256 green + 65536 blue. Transparency is ignored.

    Returns:
        int32 [H, W].

    Raises:
        BrokenFile: it isn't readable, or of another kind.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
            mode = image.mode
    except Exception as error:  # Pillow raises whatever its format plugins run into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenFile(f"{path} isn't a readable image ({reason}): replace it or leave it out.") from error
    if mode in ("LA", "PA"):
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and mode in ("RGB", "RGBA"):
        return colour_numbers(pixels)
    if pixels.ndim != 2 or pixels.dtype.kind not in "bui":
        raise BrokenFile(f"{path} is of mode {mode}, which isn't a map of numbers: save it as an 8- or 16-bit PNG.")
    return pixels.astype(np.int32)


def read_mask(path):
    """bool [H, W] of a black and white image file: what is brighter than half of its brightest; raises BrokenFile."""
    try:
        with Image.open(path) as image:
            # As colours, since a palette's places say nothing about brightness; 16 bits would be cut off by that.
            plain = image.mode in ("1", "L", "I;16", "I;16B", "I")
            pixels = np.asarray(image if plain else image.convert("RGB"))
    except Exception as error:  # Pillow raises whatever its format plugins run into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenFile(f"{path} isn't a readable image ({reason}): replace it or leave it out.") from error
    bright = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    return bright > bright.max() / 2


def palette():
    """[256, 3] uint8, Pascal VOC's colours: the bits of a place are dealt to red, green and blue, highest first."""
    places = np.arange(256)
    colours = np.zeros([256, 3], np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((places >> channel) & 1) << (7 - bit)).astype(np.uint8)
        places >>= 3
    return colours
