"""Outlines in the xml of an object, which VOC itself doesn't have: of supervision and Roboflow, and of LabelMe's xml.

supervision and Roboflow write <polygon><x1/><y1/><x2/>...: the pixels, counted from 1 as in the boxes, that an outline
goes through, and which belong to it. LabelMe's tool, CVAT's "LabelMe" and Datumaro write <polygon><pt><x/><y/></pt>...
in pixels from the image's corner, or <segm><mask>FILE</mask> with a picture in the folder Masks.
"""

import dataclasses
import math
import re

import numpy as np

from mrcnn_tf.common.errors import BrokenFile
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.map_files import read_brightness

_NUMBERED = re.compile(r"([xy])(\d+)")
_POINTS = ("pt", "point")
# What may hold an outline or a mask in a form that isn't read.
_OUTLINE_TAGS = {"polygon", "segmentation", "segm", "mask", "rle", "contour", "outline", "points", "polyline"}


@dataclasses.dataclass
class Outline:
    """What an <object> says about its pixels beside a box.

    Attributes:
        parts: list of polygons [x, y, x, y, ...] in pixels from the corner, and run-length masks.
        box: [x1, y1, x2, y2] of a rectangle that LabelMe has as a polygon; None otherwise.
        unread: what isn't read and why, "what why" as a sentence goes on after its object; "" if nothing is.
    """

    parts: list = dataclasses.field(default_factory=list)
    box: list[float] | None = None
    unread: str = ""


def read_outline(element, image, folders, zero_based):
    """The Outline of an <object>.

    Args:
        element: of ElementTree.
        image: DatasetImage.
        folders: where a picture of its mask may be.
        zero_based: numbered points are in pixels from the image's corner, too, as some tools have it.
    """
    outline = Outline()
    for child in element:
        if child.tag not in _OUTLINE_TAGS:
            continue
        try:
            numbered, points = _numbered_points(child), _plain_points(child)
            if numbered and zero_based:
                outline.parts.append([value for point in numbered for value in point])
            elif numbered:
                pixels = np.round(np.array(numbered) - 1).astype(np.int64)  # half goes to even, as supervision has it
                outline.parts.append(fill_pixels(pixels, image.height, image.width))
            elif points and (element.findtext("type") or "").strip() == "bounding_box":
                xs, ys = zip(*points, strict=True)
                outline.box = [min(xs), min(ys), max(xs), max(ys)]
            elif points:
                outline.parts.append([value for point in points for value in point])
            elif child.tag == "segm" and (child.findtext("mask") or "").strip():
                outline.parts.append(_read_mask(child.findtext("mask").strip(), image, folders))
            else:
                outline.unread = f"has <{child.tag}> in a form that isn't read: write <polygon> with <x1>, <y1>, ..."
        except BrokenFile as error:
            outline.unread = f"has a mask that can't be used: {str(error).removesuffix('.')}"
        except ValueError as error:
            outline.unread = f"has a <{child.tag}> with {error}, which was left out: correct it"
    return outline


def _numbered_points(element):
    """list of (x, y) of <x1>, <y1>, <x2> ... in the order of numbers; raises ValueError if one lacks its other half."""
    values = {"x": {}, "y": {}}
    for child in element.iter():
        if match := _NUMBERED.fullmatch(child.tag):
            values[match[1]][int(match[2])] = _finite(child.text)
    if values["x"].keys() != values["y"].keys():
        raise ValueError("an x without its y")
    return [(values["x"][number], values["y"][number]) for number in sorted(values["x"])]


def _plain_points(element):
    """list of (x, y) of <pt><x/><y/></pt>; raises ValueError."""
    points = [child for child in element.iter() if child.tag in _POINTS]
    return [(_finite(point.findtext("x")), _finite(point.findtext("y"))) for point in points]


def _finite(text):
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"the coordinate {text!r}")
    return value


def fill_pixels(points, height, width):
    """The run-length mask of a polygon whose points are pixels, and to which the pixels that it goes through belong.

    The result is that of OpenCV's fillPoly, which supervision draws and reads them with: the even-odd rule inside, and
    Bresenham's lines, from their left end, along the outline.

    Args:
        points: int64 [P, 2], x and y of pixels from 0.
    """
    mask = np.zeros([height, width], bool)
    if len(points) >= 3:
        inside = [(points + 0.5).ravel().tolist()]
        mask |= run_lengths.as_pixels(inside, height, width)
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        first, last = sorted((start.tolist(), end.tolist()), key=lambda point: point[0])
        steps = max(abs(last[0] - first[0]), abs(last[1] - first[1]))
        ways = np.subtract(last, first)
        # A line that is between two pixels stays at the one nearer to its start.
        moves = np.ceil(np.arange(steps + 1)[:, None] * np.abs(ways) / max(steps, 1) - 0.5).astype(np.int64)
        x, y = (first + np.sign(ways) * moves).T
        is_visible = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        mask[y[is_visible], x[is_visible]] = True
    return run_lengths.encode(mask)


def _read_mask(name, image, folders):
    """The run-length mask of a picture in which the object isn't black; raises BrokenFile."""
    paths = [folder / name.replace("\\", "/").rsplit("/", 1)[-1] for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise BrokenFile(f"{name} isn't in {folders[0]}: put it there.")
    mask = read_brightness(path) > 0
    if mask.shape != (image.height, image.width):
        size = f"{mask.shape[1]} x {mask.shape[0]}, its image {image.width} x {image.height}"
        raise BrokenFile(f"{path} is {size}: save it at the image's size.")
    return run_lengths.encode(mask)
