"""The objects and detections of each image as the vector data that a page draws."""

import math

import contourpy
import numpy as np

from mrcnn_tf.common.categories import Category
from mrcnn_tf.datasets.map_files import count_values
from mrcnn_tf.datasets.run_lengths import box_of_runs, decode_strings
from mrcnn_tf.explain.inspection.errors import DETECTION_TYPES
from mrcnn_tf.results.draw import with_visibility
from mrcnn_tf.results.draw_panoptic import stuff_colour

# Masks as the closed polygons that a page draws: sampled from their run lengths, traced and simplified.
#

MOST_SAMPLES = 256  # along a side of one mask; a large object's outline has more points than a page can show


def trace_masks(rles, scale, tolerance):
    """The outlines of the masks of one image, as polygons that an even-odd rule fills.

    A mask is never decoded whole: its run lengths are looked up at the points of a grid over its own box, so a photo of
    50 megapixels costs no more than a small one.

    Args:
        rles: list of N masks in COCO's compressed RLE of one size; None for a missing one.
        scale: drawing units per pixel of the image.
        tolerance: drawing units by which a simplified outline may lie beside the traced one.

    Returns:
        A list of N lists of rings, each int64 [V, 2] with (x, y) in drawing units, V >= 3 and the first point not
        repeated. Holes are rings as well. A mask without pixels, or smaller than the tolerance, has none.
    """
    rings, owners = [], []
    for owner, rle in enumerate(rles):
        traced = [] if rle is None else _trace(rle, scale, tolerance)
        rings += traced
        owners += [owner] * len(traced)
    return simple_rings(rings, owners, len(rles), tolerance)


def simple_rings(lines, owners, count, tolerance):
    """Traced outlines as polygons of whole numbers, by whom they belong to.

    Args:
        lines: list of float [V, 2], closed.
        owners: for each its owner, 0 to count - 1.
        tolerance: as for `mask_outlines`.

    Returns:
        A list of `count` lists of rings, int64 [V, 2], as `mask_outlines` gives them.
    """
    found = [[] for _ in range(count)]
    for owner, ring in zip(owners, simplify_lines(lines, tolerance), strict=True):
        ring = np.rint(ring[:-1]).astype(np.int64)
        ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
        if len(ring) >= 3:
            found[owner].append(ring)
    return found


def simplify_lines(rings, tolerance):
    """Ramer's and Douglas and Peucker's simplification of polylines, all of them at once.

    Each pass splits every stretch between two kept points at the point that lies farthest from their chord, until none
    lies farther than the tolerance.

    Args:
        rings: list of float [V, 2]; a closed one repeats its first point at the end.
        tolerance: in the points' unit.

    Returns:
        The rings with the kept points only, first and last among them.
    """
    if not rings:
        return []
    points, ends = np.concatenate(rings), np.cumsum([len(ring) for ring in rings])
    keep = np.zeros(len(points), bool)
    keep[ends - 1] = keep[np.r_[0, ends[:-1]]] = True
    while True:
        kept = np.flatnonzero(keep)
        stretch = np.cumsum(keep) - 1
        first, last = points[kept[stretch]], points[kept[np.minimum(stretch + 1, len(kept) - 1)]]
        distance = np.where(keep, 0.0, _distance(points, first, last))
        farthest = np.maximum.reduceat(distance, kept)
        split = np.flatnonzero((distance > tolerance) & (distance == farthest[stretch]))
        if not split.size:
            break
        keep[split[np.unique(stretch[split], return_index=True)[1]]] = True
    return [points[start:end][keep[start:end]] for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True)]


def _trace(rle, scale, tolerance):
    """Closed polylines [V, 2] in drawing units around the mask's pixels."""
    height = int(rle["size"][0])
    counts = rle["counts"]
    runs = decode_strings([counts.encode() if isinstance(counts, str) else counts])[0]
    left, top, right, bottom = box_of_runs(runs, height)
    longest = max(right - left, bottom - top)
    if not longest:
        return []
    step = max(1.0, tolerance / scale, longest / MOST_SAMPLES)  # pixels between samples
    x, y = (
        low + (np.arange(np.ceil((high - low) / step)) + 0.5) * step for low, high in ((left, right), (top, bottom))
    )
    # The last sample of a row or column may lie beyond the box, which holds nothing there.
    columns, rows = np.minimum(x, right - 0.5).astype(np.int64), np.minimum(y, bottom - 0.5).astype(np.int64)
    # Runs are outside and inside by turns, so the number of those that end at or before a pixel says which it is.
    inside = np.searchsorted(np.cumsum(runs), columns[:, None] * height + rows[None, :], side="right") % 2 == 1
    grid = np.zeros((len(rows) + 2, len(columns) + 2), np.float32)
    grid[1:-1, 1:-1] = inside.T
    x, y = (np.r_[values[0] - step, values, values[-1] + step] for values in (x, y))
    return [line * scale for line in contourpy.contour_generator(x, y, grid).lines(0.5)]


def _distance(points, first, last):
    """[N] distances of points from the segments between two others, all [N, 2]."""
    along = last - first
    length = (along**2).sum(axis=1)
    share = ((points - first) * along).sum(axis=1) / np.where(length, length, 1)
    return np.linalg.norm(points - first - np.clip(share, 0, 1)[:, None] * along, axis=1)


# The regions of a map as closed polygons, and where in each of them its name has the most room.
#

MOST_MAP_SAMPLES = 512  # along the longer side of a map
NAME_ROWS = 80  # of the cells among which places for names are looked for ...
NAME_CELL = 2.5  # ... whose width is this many times their height: so is a name's


def trace_regions(pixels, ids, scale, tolerance):
    """The outlines of an image's regions, which are all traced on one grid, so that neighbours fit together.

    Args:
        pixels: int [H, W], the id of each pixel's region.
        ids: of the N regions.
        scale: drawing units per pixel.
        tolerance: drawing units by which a simplified outline may lie beside the traced one.

    Returns:
        A list of N lists of rings, int64 [V, 2] with (x, y) in drawing units, as `mask_outlines` gives them. One that
        falls between the grid's points has none.
    """
    height, width = pixels.shape
    step = max(1.0, tolerance / scale, max(height, width) / MOST_MAP_SAMPLES)  # pixels between samples
    y, x = ((np.arange(np.ceil(side / step)) + 0.5) * step for side in (height, width))
    rows, columns = (np.minimum(at, side - 0.5).astype(np.int64) for at, side in ((y, height), (x, width)))
    numbers = np.zeros((len(rows) + 2, len(columns) + 2), pixels.dtype)
    inner = numbers[1:-1, 1:-1]
    inner[:] = pixels[np.ix_(rows, columns)]
    x, y = (np.r_[at[0] - step, at, at[-1] + step] for at in (x, y))
    limits = np.array([width, height], np.float64) * scale
    lines, owners = [], []
    for owner, number in enumerate(ids):
        inside = (numbers == number).astype(np.float32)
        traced = contourpy.contour_generator(x, y, inside).lines(0.5)
        lines += [np.minimum(line * scale, limits) for line in traced]  # the last sample may lie beyond the image
        owners += [owner] * len(traced)
    return simple_rings(lines, owners, len(ids), tolerance)


def place_names(pixels, ids, scale):
    """For each region the point, [x, y] in drawing units, deepest inside it; None for one smaller than a cell.

    Args:
        pixels, ids, scale: as for `region_outlines`.
    """
    height, width = pixels.shape
    rows = min(height, NAME_ROWS)
    columns = min(width, max(1, round(rows * width / height / NAME_CELL)))
    y, x = (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns
    numbers = pixels[np.ix_(y.astype(np.int64), x.astype(np.int64))]
    depths, places = _depths(numbers), []
    for number in ids:
        own = depths * (numbers == number)
        cells = np.argwhere((own == own.max()) & (own > 0))
        if not len(cells):
            places.append(None)
            continue
        row, column = cells[np.abs(cells - cells.mean(axis=0)).sum(axis=1).argmin()]
        places.append([round(float(x[column]) * scale), round(float(y[row]) * scale)])
    return places


def _depths(numbers):
    """int [R, C]: how many rings of cells of its own number lie around each cell, and 1."""
    padded = np.pad(numbers, 1, constant_values=-1)
    inside = np.ones(numbers.shape, bool)
    for row in range(3):
        for column in range(3):
            inside &= padded[row : row + numbers.shape[0], column : column + numbers.shape[1]] == numbers
    depths = np.ones(numbers.shape, np.int64)
    while inside.any():
        depths += inside
        around = np.pad(inside, 1)
        inside = np.logical_and.reduce(
            [around[r : r + inside.shape[0], c : c + inside.shape[1]] for r in range(3) for c in range(3)]
        )
    return depths


SIDE = 2000  # drawing units along the longer side of every image
TOLERANCES = (2.5, 4.0, 7.0, 12.0, 25.0)  # drawing units by which an outline may be simplified, the finest first


class ObjectRecords:
    """The drawable records of a dataset's images.

    Args:
        truth: the `InstanceGroundTruth`.
        detections: list of dicts in COCO's result format, or None without a model.
        pairs, split: the `Overlaps` and the `ErrorSplit` of the two, or None.
    """

    def __init__(self, truth, detections=None, pairs=None, split=None):
        self._truth, self._detections, self._pairs, self._split = truth, detections, pairs, split
        ids = sorted(category["id"] for category in truth.categories)
        self._classes = {category_id: place for place, category_id in enumerate(ids)}
        self._truth_rows = _rows(truth.annotations)
        self._detection_rows = None if detections is None else _rows(detections)

    def of_image(self, image, tolerance):
        """The record of one image, without its picture.

        Args:
            image: of `truth.images`.
            tolerance: of the outlines, drawing units.

        Returns:
            A dict with `id`, `file`, `width`, `height`, `view` (drawing units) and the lists `truths` and, with a
            model, `detections`, best first. Each entry has `c`, the place of its class, `b`, its box, and where it has
            them `m`, rings of its mask, and `k`, keypoints (x, y, v); a ground truth `crowd` and `uncounted`; a
            detection `s`, its score, and `v`, one of `errors.TYPES`, with `t`, the place of the ground truth that
            explains it, and `i`, the IoU with that.
        """
        scale = SIDE / max(image["height"], image["width"])
        rows = self._truth_rows.get(image["id"], [])
        records = [self._truth.annotations[row] for row in rows]
        truths = [self._drawn(*pair, scale) for pair in self._outlined(records, scale, tolerance)]
        for entry, record, row in zip(truths, records, rows, strict=True):
            if record["iscrowd"]:
                entry["crowd"] = True
            if self._pairs is not None and self._pairs.truth_category[row] < 0:
                entry["uncounted"] = True
        page = {
            "id": image["id"],
            "file": str(image.get("file_name", image["id"])),
            "width": image["width"],
            "height": image["height"],
            "view": [max(1, round(image["width"] * scale)), max(1, round(image["height"] * scale))],
            "truths": truths,
        }
        if self._detections is not None:
            places = {row: place for place, row in enumerate(rows)}
            page["detections"] = self._judged(image["id"], scale, tolerance, places)
        return page

    def _judged(self, image_id, scale, tolerance, places):
        rows = [r for r in self._detection_rows.get(image_id, []) if self._pairs.detection_image[r] >= 0]
        rows.sort(key=lambda row: -self._detections[row]["score"])
        records = [self._detections[row] for row in rows]
        entries = []
        for row, pair in zip(rows, self._outlined(records, scale, tolerance), strict=True):
            entry = self._drawn(*pair, scale, detected=True)
            # Rounded down: a score is at least a threshold of two decimals before exactly if it is so afterwards.
            entry["s"] = math.floor(pair[0]["score"] * 10000 + 1e-9) / 10000
            entry["v"] = DETECTION_TYPES[self._split.types[row]]
            if int(self._split.explained_by[row]) in places:
                entry["t"] = places[int(self._split.explained_by[row])]
                entry["i"] = round(float(self._split.overlap[row]), 3)
            entries.append(entry)
        return entries

    def _outlined(self, records, scale, tolerance):
        """Pairs of a record and its rings."""
        masks = [record.get("segmentation") for record in records]
        return zip(records, trace_masks(masks, scale, tolerance), strict=True)

    def _drawn(self, record, rings, scale, detected=False):
        entry = {"c": self._classes[record["category_id"]], "b": [round(side * scale) for side in record["bbox"]]}
        if rings:
            entry["m"] = [ring.ravel().tolist() for ring in rings]
        if record.get("keypoints"):
            points = np.array(record["keypoints"], np.float64).reshape(-1, 3)
            points = with_visibility(points) if detected else points
            if points[:, 2].any():
                # Keypoints name a pixel, whose middle lies half a pixel further.
                points[:, :2] = (points[:, :2] + 0.5) * scale
                entry["k"] = np.rint(points).astype(np.int64).ravel().tolist()
        return entry


def _rows(records):
    """{image id: the places of its records in the list}."""
    rows = {}
    for row, record in enumerate(records):
        rows.setdefault(record["image_id"], []).append(row)
    return rows


# The regions of each image, those of the ground truth and those found, as the vector data that a page draws.
#

NO_THING = 0  # the id by which `visualize_samples.draw_labels` colours all things


class RegionRecords:
    """The drawable regions of a dataset's images.

    Args:
        truth: a `SegmentTruth` or a `LabelTruth`.
        findings: `PixelFindings` with that truth; None without a model.
    """

    def __init__(self, truth, findings=None):
        self._truth, self._findings = truth, findings
        self._classes = {one.id: place for place, one in enumerate(truth.classes)}

    def classes(self):
        """A dict for each class: `name`, and the `colour` of one that isn't of things."""
        return [{"name": one.name, "colour": _colour(one)} for one in self._truth.classes]

    def of_image(self, image, tolerance):
        """What a page's record of an image has more where the image has a map: {} or its `regions`.

        Args:
            image: of `truth.images`.
            tolerance: of the outlines, drawing units.

        Returns:
            `regions` has the list `truth` and, where something was found, `found` and `q`, the image's quality. Each
            entry has `c`, the place of its class, `m`, rings, `p`, the place for its name, `n`, its pixels; with a
            model `v`, one of `region_matching.TRUTHS` or `FOUND`, and where there is such a one `t`, the place of the
            other region that it is matched with or overlaps most, and `i`, the IoU with that.
        """
        if image["id"] not in self._truth:
            return {}
        matched = self._findings.images.get(image["id"]) if self._findings else None
        truth = self._drawn(self._truth.regions(image["id"]), tolerance, matched and matched.truths)
        if not matched:
            return {"regions": {"truth": truth}}
        found = self._drawn(self._findings.found.regions(image["id"]), tolerance, matched.found)
        quality = matched.quality if matched.quality is None else round(matched.quality, 4)
        return {"regions": {"truth": truth, "found": found, "q": quality}}

    def _drawn(self, regions, tolerance, outcomes):
        scale = SIDE / max(regions.pixels.shape)
        ids = [segment["id"] for segment in regions.segments]
        areas = dict(zip(*(column.tolist() for column in count_values(regions.pixels)), strict=True))
        rings, places = trace_regions(regions.pixels, ids, scale, tolerance), place_names(regions.pixels, ids, scale)
        entries = []
        for row, segment in enumerate(regions.segments):
            entry = {"c": self._classes[segment["category_id"]], "m": [ring.ravel().tolist() for ring in rings[row]]}
            entry["n"] = areas[segment["id"]]
            if places[row]:
                entry["p"] = places[row]
            if segment["iscrowd"]:
                entry["crowd"] = True
            if outcomes:
                entry["v"] = outcomes[row].kind
                if outcomes[row].other is not None:
                    entry |= {"t": outcomes[row].other, "i": round(outcomes[row].iou, 3)}
            entries.append(entry)
        return entries


def _colour(one):
    """ "#rrggbb", the same as in `Panoptic.draw` and `draw_labels`; None for a class of things, which the page has a
    palette for."""
    if one.is_thing and one.id is not None:
        return None
    red, green, blue = stuff_colour(Category(NO_THING if one.id is None else one.id, one.name))
    return f"#{red:02x}{green:02x}{blue:02x}"
