"""Segmentations in every form that COCO, its tools and the programs around them write: polygons and run lengths."""

import array
import ast
import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.common.json_values import parse_integer, parse_numbers, unquote
from mrcnn_tf.datasets import kwcoco
from mrcnn_tf.datasets.run_lengths import decode_strings

FEWEST_NUMBERS = 6  # of a polygon: three points
RLES_AT_ONCE = 4096  # decoded together
FARTHEST = 1 << 18  # pixels, that a polygon may reach: drawing it takes memory in proportion to its outline
_REMEDY = "give it polygons as lists [x1, y1, x2, y2, ...] of at least 3 points or an RLE"


class Fault(NamedTuple):
    """What is wrong with a part of a record."""

    kind: str  # to count by, one of the doctor's problem_kinds.yaml
    what: str  # goes on after the record's name: "has ..."
    remedy: str


class Rle(NamedTuple):
    """Run lengths."""

    size: tuple[int, int]  # (height, width)
    counts: Any  # COCO's compressed bytes, or an array of int64 runs


@dataclasses.dataclass(slots=True)
class Segmentation:
    """An object's polygons or run lengths; neither where there is a `fault`."""

    rings: list = dataclasses.field(default_factory=list)  # arrays of doubles [x, y, x, y, ...], three points or more
    rle: Rle | None = None
    fault: Fault | None = None
    left_out: list[Fault] = dataclasses.field(default_factory=list)  # of polygons beside others
    is_loose: bool = False  # it stands there in another form than COCO's


def parse_segmentation(value):
    """The Segmentation that a value of "segmentation" means."""
    segmentation = _parse_any(value)
    for ring in segmentation.rings:
        if not sum(map(abs, ring)) <= FARTHEST and (fault := _find_far_point(ring)):
            return Segmentation(fault=fault)
    return segmentation


def _find_far_point(ring):
    """The Fault of a polygon that nobody could draw; None of others."""
    if not all(map(math.isfinite, ring)):
        return Fault("nan_coordinate", "has a polygon with NaN or infinity", "give finite pixels")
    far = max(map(abs, ring))
    if far <= FARTHEST:
        return None
    return Fault("nan_coordinate", f"has a polygon that reaches {far:.3g} pixels", "give pixels of the image")


def _parse_any(value):
    if type(value) is list and value and all(map(_is_plain_polygon, value)):
        try:
            return Segmentation([array.array("d", polygon) for polygon in value])
        except (TypeError, OverflowError):
            pass
    value = unquote(value)
    if isinstance(value, dict) and "exterior" in value:
        value = [value]
    if isinstance(value, list) and not (value and all(map(_is_rle, value))):
        return _parse_polygons(value)
    if not value:
        return Segmentation(fault=Fault("empty_segmentation", "has no segmentation", _REMEDY))
    rles = [_parse_rle(part) for part in (value if isinstance(value, list) else [value])]
    rle = rles[0] if len(rles) == 1 else _join_rles(rles)
    if rle is None:
        return Segmentation(fault=Fault("bad_rle", "has an RLE without size [height, width] and counts", _REMEDY))
    is_plain = isinstance(value, dict) and (isinstance(value["counts"], str) or type(value["counts"][0]) is int)
    return Segmentation(rle=rle, is_loose=not is_plain)


def as_coco_rle(rle):
    """An Rle as pycocotools' compressed {"size", "counts"}."""
    size = list(rle.size)
    if isinstance(rle.counts, bytes):
        return {"size": size, "counts": rle.counts}
    return coco_mask.frPyObjects({"size": size, "counts": rle.counts.tolist()}, *size)


def count_rle_pixels(rles):
    """For each Rle of a list the pixels that it says there are, or -1 where it is broken or None.

    pycocotools mustn't be given one that says another number than its size has, which brings it down.
    """
    for start in range(0, len(rles), RLES_AT_ONCE):
        counts = [rle.counts if rle else b"" for rle in rles[start : start + RLES_AT_ONCE]]
        runs, sizes = decode_strings([own if isinstance(own, bytes) else b"" for own in counts])
        last = np.cumsum(sizes)
        total = np.r_[0, np.cumsum(runs)]
        negative = np.r_[0, np.cumsum(runs < 0)]
        broken = (sizes == 0) | (negative[last] > negative[last - sizes])
        pixels = np.where(broken, -1, total[last] - total[last - sizes]).tolist()
        for own, number in zip(counts, pixels, strict=True):
            yield number if isinstance(own, bytes) else sum(own) if min(own, default=-1) >= 0 else -1


def _is_plain_polygon(value):
    """Whether a value looks like COCO's [x, y, x, y, ...], as nearly all do."""
    is_list = type(value) is list and len(value) >= FEWEST_NUMBERS and len(value) % 2 == 0
    return is_list and type(value[0]) in (float, int)


def _is_rle(value):
    return isinstance(value, dict) and "counts" in value


def _parse_rle(value):
    """The Rle of {"size", "counts"}: compressed text or bytes, or a list of runs, maybe as floats; None for no RLE."""
    try:
        counts = value["counts"]
        height, width = (parse_integer(side) for side in value["size"])
        if None in (height, width) or min(height, width) < 0 or max(height, width) >= 1 << 31:
            return None
        if isinstance(counts, str) and counts.startswith(("b'", 'b"')):  # str() was taken of bytes
            counts = ast.literal_eval(counts)
        if isinstance(counts, str):
            counts = counts.encode("latin-1")
        if not isinstance(counts, bytes):
            runs = parse_numbers(counts)
            counts = array.array("q", map(int, runs)) if all(run == int(run) for run in runs) else None
    except (TypeError, KeyError, ValueError, OverflowError, SyntaxError):
        return None
    return Rle((height, width), counts) if counts else None


def _join_rles(rles):
    """One Rle of several of one size; None if they aren't, or one is broken."""
    for rle, pixels in zip(rles, count_rle_pixels(rles), strict=True):
        if rle is None or pixels != math.prod(rle.size):
            return None
    try:
        return Rle(rles[0].size, coco_mask.merge([as_coco_rle(rle) for rle in rles])["counts"])
    except ValueError:
        return None


def _parse_polygons(polygons):
    """[[x, y, x, y, ...], ...]; also a single bare polygon, points as [x, y], and kwcoco's polygons with holes."""
    segmentation = Segmentation()
    if polygons and not isinstance(polygons[0], list | str | dict) or _are_points(polygons):
        polygons, segmentation.is_loose = [polygons], True
    for polygon in polygons:
        if not isinstance(polygon, list) or polygon and type(polygon[0]) not in (int, float):
            segmentation.is_loose = True
        ring = _parse_polygon(polygon)
        if ring is None:
            return Segmentation(fault=Fault("bad_polygon", "has a polygon that isn't a list of numbers", _REMEDY))
        if len(ring) % 2 or len(ring) < FEWEST_NUMBERS:
            what = f"has a polygon of {len(ring)} numbers, which was left out"
            segmentation.left_out.append(Fault("bad_polygon", what, "give at least 3 points as [x1, y1, x2, y2, ...]"))
        else:
            segmentation.rings.append(ring)
    if not segmentation.rings:
        what = "has no polygon of 3 points or more" if polygons else "has no segmentation"
        segmentation.fault = Fault("empty_segmentation", what, _REMEDY)
    return segmentation


def _parse_polygon(polygon):
    """An array of doubles x, y by turns; None if there is none."""
    if isinstance(polygon, dict) and "exterior" in polygon:
        try:
            polygon = kwcoco.flatten_polygon(polygon)
        except (TypeError, ValueError):
            return None
    elif _are_points(polygon):
        polygon = [number for point in polygon for number in point]
    return parse_numbers(polygon)


def _are_points(values):
    """Whether a list holds at least three points [x, y]."""
    return (
        isinstance(values, list)
        and len(values) >= FEWEST_NUMBERS // 2
        and all(isinstance(point, list) and len(point) == 2 for point in values)
        and not any(isinstance(number, list | dict) for point in values for number in point)
    )
