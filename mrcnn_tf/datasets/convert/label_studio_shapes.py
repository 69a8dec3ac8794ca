"""Shapes of Label Studio's regions: percentages of the image's sides to pixels, and its two forms of brushed masks."""

import base64
import io
import math

import numpy as np
from PIL import Image

from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.geometry import ellipse

CHANNELS = 4  # of a brushed picture: red, green, blue, and how much it covers, which is the mask
HEADER_BITS = 53  # of a brush's rle: 32 for the number of values, 5 for their size, 4 for each of 4 sizes of lengths
LENGTH_SIZES = 4
WINDOW = 8  # bytes that are looked at to read a few bits


def shape_kind(value):
    """What a region's value is: "polygon", "brush", "bitmask", "ellipse", "rectangle", "point" or None."""
    if "points" in value:
        return "polygon"
    if "rle" in value:
        return "brush"
    if "imageDataURL" in value:
        return "bitmask"
    if "radiusX" in value:
        return "ellipse"
    if "x" in value and "y" in value:
        return "rectangle" if "height" in value else "point"
    return None


def read_shape(value, width, height):
    """A region's outline, mask or box.

    Args:
        value: the region's, a dict whose `shape_kind` isn't "point" or None.
        width, height: of the image, pixels.

    Returns:
        (list with a polygon [x, y, x, y, ...] or a run-length mask, box), one of which is empty or None: a rectangle is
        a box [x, y, width, height] unless it is turned.

    Raises:
        KeyError, TypeError, ValueError: it isn't a region of an image of that size. Also OSError and SyntaxError, for a
            picture that isn't one.
    """
    kind = shape_kind(value)
    if kind == "polygon":
        return [[number for x, y in value["points"] for number in to_pixels(x, y, width, height)]], None
    if kind == "brush":
        return [run_lengths.encode(_read_brush(value["rle"], width, height))], None
    if kind == "bitmask":
        return [run_lengths.encode(_read_bitmask(value["imageDataURL"], width, height))], None
    turn = math.radians(float(value.get("rotation") or 0))
    x, y = to_pixels(value["x"], value["y"], width, height)
    if kind == "ellipse":
        return [ellipse(x, y, *to_pixels(value["radiusX"], value["radiusY"], width, height), turn)], None
    across, down = to_pixels(value["width"], value["height"], width, height)
    if not turn:
        return [], [x, y, across, down]
    # It is turned clockwise around its first corner, in pixels: the percentages of the two sides differ.
    corners = np.array([[0, 0], [across, 0], [across, down], [0, down]])
    cosine, sine = math.cos(turn), math.sin(turn)
    return [(corners @ np.array([[cosine, sine], [-sine, cosine]]) + [x, y]).ravel().tolist()], None


def to_pixels(x, y, width, height):
    """(x, y) in pixels of percentages of an image's width and height; raises TypeError and ValueError."""
    return float(x) / 100 * width, float(y) / 100 * height


def _read_brush(rle, width, height):
    values = decode_brush(bytes(rle), CHANNELS * width * height)
    return values.reshape(height, width, CHANNELS)[..., -1] > 0


def _read_bitmask(url, width, height):
    with Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2], validate=True))) as image:
        mask = np.asarray(image.convert("RGBA"))[..., -1] > 0  # black pixels on transparent ones
    if mask.shape != (height, width):
        raise ValueError(f"a mask of {mask.shape[1]} x {mask.shape[0]} pixels for an image of {width} x {height}")
    return mask


def decode_brush(data, size):
    """Decodes the run lengths of Label Studio's brush, thi.ng's rle-pack.

    The bits of the bytes, the highest first, are: 32 for the number of values, 5 for the bits of a value less one, four
    times 4 for the bits of a length less one. Then come runs: 1 bit that is set if the run repeats one value and not
    set if it lists values, 2 bits that choose one of the four sizes of lengths, the length less one, and the value or
    values.

    Args:
        data: bytes.
        size: the number of values that there should be.

    Returns:
        uint8 [size].

    Raises:
        ValueError: it is of another number of values, they are of more than 8 bits, or it is cut off.
    """
    bits, last = np.unpackbits(np.frombuffer(data, np.uint8)), 8 * len(data)
    if last < HEADER_BITS or int.from_bytes(data[:4], "big") != size:
        count = int.from_bytes(data[:4], "big") if last >= HEADER_BITS else 0
        raise ValueError(f"its rle has {count} values in place of {size}, {CHANNELS} for each pixel")
    position, values, written = 32, np.empty(size, np.uint8), 0

    def read(count):
        nonlocal position
        first = position // 8
        window = int.from_bytes(data[first : first + WINDOW].ljust(WINDOW, b"\0"), "big")
        position += count
        return window >> (8 * (WINDOW + first) - position) & ((1 << count) - 1)

    value_bits = read(5) + 1
    length_bits = [read(4) + 1 for _ in range(LENGTH_SIZES)]
    if value_bits > 8:
        raise ValueError(f"its rle has values of {value_bits} bits in place of 8")
    weights = 1 << np.arange(value_bits)[::-1]
    while written < size:
        repeats = read(1)
        length = min(read(length_bits[read(2)]) + 1, size - written)
        if position + value_bits * (1 if repeats else length) > last:
            raise ValueError(f"its rle is cut off after {written} of {size} values")
        if repeats:
            values[written : written + length] = read(value_bits)
        else:
            listed = bits[position : position + value_bits * length].reshape(length, value_bits)
            values[written : written + length] = listed @ weights
            position += value_bits * length
        written += length
    return values
