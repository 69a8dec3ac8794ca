"""What the page of a report draws over each image: outlines, boxes, keypoints and names as plain json.

Lengths are drawing units, `DRAWING_SIDE` along the longer side of every image. A mask is never decoded whole: its run
lengths are looked up at the points of a grid over its own box, so a photo of 50 megapixels costs no more than a small
one.
"""

import itertools
import math

import contourpy
import numpy as np

from mrcnn_tf.common.categories import Category
from mrcnn_tf.datasets.map_files import count_values
from mrcnn_tf.datasets.run_lengths import box_of_runs, decode_strings
from mrcnn_tf.explain.inspection.detection_errors import DETECTION_TYPES
from mrcnn_tf.results.draw import scores_to_visibility
from mrcnn_tf.results.draw_panoptic import stuff_colour

DRAWING_SIDE = 2000
TOLERANCES = (2.5, 4.0, 7.0, 12.0, 25.0)  # units by which an outline may be simplified, the finest first
MAX_MASK_SAMPLES = 256  # along a side of one mask; a large object's outline has more points than a page can show
MAX_MAP_SAMPLES = 512  # along the longer side of a map of regions
NAME_ROWS = 80  # of the grid on which the place of a name is looked for ...
NAME_CELL_WIDTH = 2.5  # ... whose cells are so many times wider than high, as names are
ALL_THINGS_ID = 0  # by which `show_batch.draw_labels` colours all things


class ObjectRecords:
    """The drawable objects and detections of a dataset's images.

    Args:
        truth: the `InstanceGroundTruth`.
        findings: the `Findings` of a model's detections; None without a model.
    """

    def __init__(self, truth, findings=None):
        self._truth, self._findings = truth, findings
        ids = sorted(category["id"] for category in truth.categories)
        self._classes = {category_id: index for index, category_id in enumerate(ids)}
        self._truth_rows = _group_by_image(truth.annotations)
        self._detection_rows = _group_by_image(findings.detections) if findings else {}

    def of_image(self, image, tolerance):
        """The record of one image, without its picture.

        Args:
            image: of `truth.images`.
            tolerance: of the outlines.

        Returns:
            A dict with `id`, `file`, `width`, `height`, `view` (units) and the lists `truths` and, with a model,
            `detections`, best first. Each entry has `c`, the index of its class, `b`, its box, and where it has them
            `m`, rings of its mask, and `k`, keypoints (x, y, v); a ground truth `crowd` and `uncounted`; a detection
            `s`, its score, and `v`, one of `DETECTION_TYPES`, with `t`, the index of the ground truth that explains it,
            and `i`, the IoU with that.
        """
        scale = DRAWING_SIDE / max(image["height"], image["width"])
        rows = self._truth_rows.get(image["id"], [])
        annotations = [self._truth.annotations[row] for row in rows]
        truths = self._draw(annotations, scale, tolerance)
        for entry, annotation, row in zip(truths, annotations, rows, strict=True):
            if annotation["iscrowd"]:
                entry["crowd"] = True
            if self._findings and self._findings.overlaps.truth_category[row] < 0:
                entry["uncounted"] = True
        own_id = self._truth.image_names.get(image["id"], image["id"])
        page = {
            "id": own_id,
            "file": str(image.get("file_name", own_id)),
            "width": image["width"],
            "height": image["height"],
            "view": [max(1, round(image["width"] * scale)), max(1, round(image["height"] * scale))],
            "truths": truths,
        }
        if self._findings:
            page["detections"] = self._draw_detections(image["id"], scale, tolerance, rows)
        return page

    def _draw_detections(self, image_id, scale, tolerance, truth_rows):
        detections, errors = self._findings.detections, self._findings.errors
        counted = self._findings.overlaps.detection_image >= 0
        rows = [row for row in self._detection_rows.get(image_id, []) if counted[row]]
        rows.sort(key=lambda row: -detections[row]["score"])
        entries = self._draw([detections[row] for row in rows], scale, tolerance, detected=True)
        for row, entry in zip(rows, entries, strict=True):
            # Rounded down: a score is at least a threshold of two decimals before exactly if it is so afterwards.
            entry["s"] = math.floor(detections[row]["score"] * 10000 + 1e-9) / 10000
            entry["v"] = DETECTION_TYPES[errors.types[row]]
            if errors.explained_by[row] in truth_rows:
                entry["t"] = truth_rows.index(errors.explained_by[row])
                entry["i"] = round(float(errors.overlap[row]), 3)
        return entries

    def _draw(self, records, scale, tolerance, detected=False):
        """An entry with class, box, mask and keypoints for each annotation or detection."""
        entries = []
        masks = [record.get("segmentation") for record in records]
        for record, rings in zip(records, trace_masks(masks, scale, tolerance), strict=True):
            box = [round(side * scale) for side in record["bbox"]]
            entries.append({"c": self._classes[record["category_id"]], "b": box})
            if rings:
                entries[-1]["m"] = [ring.ravel().tolist() for ring in rings]
            keypoints = np.array(record.get("keypoints") or [], np.float64).reshape(-1, 3)
            keypoints = scores_to_visibility(keypoints) if detected else keypoints
            if keypoints[:, 2].any():
                keypoints[:, :2] = (keypoints[:, :2] + 0.5) * scale  # from the pixel to its middle
                entries[-1]["k"] = np.rint(keypoints).astype(np.int64).ravel().tolist()
        return entries


def _group_by_image(records):
    """{image id: the indices of its records in the list}."""
    rows = {}
    for row, record in enumerate(records):
        rows.setdefault(record["image_id"], []).append(row)
    return rows


class RegionRecords:
    """The drawable regions of a dataset's images, those of the ground truth and predicted ones.

    Args:
        truth: `PanopticRegions` or `SemanticRegions`.
        findings: `RegionFindings` with that truth; None without a model.
    """

    def __init__(self, truth, findings=None):
        self._truth, self._findings = truth, findings
        self._classes = {region_class.id: index for index, region_class in enumerate(truth.classes)}

    def classes(self):
        """A dict for each class: `name`, and the `colour` of one that isn't of things."""
        return [{"name": c.name, "colour": _class_colour(c)} for c in self._truth.classes]

    def of_image(self, image, tolerance):
        """What a page's record of an image has more where the image has a map: {} or its `regions`.

        Args:
            image: of `truth.images`.
            tolerance: of the outlines.

        Returns:
            `regions` has the list `truth` and, where a model was evaluated, `found` and `q`, the image's quality. Each
            entry has `c`, the index of its class, `m`, rings, `p`, the place for its name, `n`, its pixels; with a
            model `v`, one of `TRUTH_KINDS` or `PREDICTED_KINDS`, and where there is such a one `t`, the index of the
            other region that it is matched with or overlaps most, and `i`, the IoU with that.
        """
        if image["id"] not in self._truth:
            return {}
        matched = self._findings.images.get(image["id"]) if self._findings else None
        truth = self._draw(self._truth.regions(image["id"]), tolerance, matched and matched.truths)
        if not matched:
            return {"regions": {"truth": truth}}
        predicted = self._draw(self._findings.predicted.regions(image["id"]), tolerance, matched.predicted)
        quality = matched.quality if matched.quality is None else round(matched.quality, 4)
        return {"regions": {"truth": truth, "found": predicted, "q": quality}}

    def _draw(self, regions, tolerance, matches):
        scale = DRAWING_SIDE / max(regions.pixels.shape)
        ids = [segment["id"] for segment in regions.segments]
        areas = dict(zip(*(column.tolist() for column in count_values(regions.pixels)), strict=True))
        outlines, places = trace_regions(regions.pixels, ids, scale, tolerance), place_names(regions.pixels, ids, scale)
        entries = []
        for index, (segment, rings, place) in enumerate(zip(regions.segments, outlines, places, strict=True)):
            entry = {"c": self._classes[segment["category_id"]], "m": [ring.ravel().tolist() for ring in rings]}
            entry["n"] = areas[segment["id"]]
            if place:
                entry["p"] = place
            if segment["iscrowd"]:
                entry["crowd"] = True
            if matches:
                entry["v"] = matches[index].kind
                if matches[index].other is not None:
                    entry |= {"t": matches[index].other, "i": round(matches[index].iou, 3)}
            entries.append(entry)
        return entries


def _class_colour(region_class):
    """ "#rrggbb", the same as in `Panoptic.draw` and `draw_labels`; None for a class of things, which the page has a
    palette for."""
    if region_class.is_thing and region_class.id is not None:
        return None
    category_id = ALL_THINGS_ID if region_class.id is None else region_class.id
    red, green, blue = stuff_colour(Category(category_id, region_class.name))
    return f"#{red:02x}{green:02x}{blue:02x}"


def trace_masks(rles, scale, tolerance):
    """The outlines of the masks of one image, as polygons that an even-odd rule fills.

    Args:
        rles: list of N masks in COCO's compressed RLE of one size; None for a missing one.
        scale: units per pixel of the image.
        tolerance: units by which a simplified outline may lie beside the traced one.

    Returns:
        A list of N lists of rings, each int64 [V, 2] with (x, y) in units, V >= 3 and the first point not repeated.
        Holes are rings as well. A mask without pixels, or smaller than the tolerance, has none.
    """
    return _simplify_outlines([_trace_mask(rle, scale, tolerance) if rle else [] for rle in rles], tolerance)


def _trace_mask(rle, scale, tolerance):
    """Closed polylines [V, 2] in units around the mask's pixels."""
    height = int(rle["size"][0])
    counts = rle["counts"]
    runs = decode_strings([counts.encode() if isinstance(counts, str) else counts])[0]
    left, top, right, bottom = box_of_runs(runs, height)
    longest = max(right - left, bottom - top)
    if not longest:
        return []
    step = max(1.0, tolerance / scale, longest / MAX_MASK_SAMPLES)
    (x, columns), (y, rows) = _sample(left, right, step), _sample(top, bottom, step)
    # Runs are outside and inside by turns, so the number of those that end at or before a pixel says which it is.
    pixels = columns[None, :] * height + rows[:, None]
    inside = np.searchsorted(np.cumsum(runs), pixels, side="right") % 2 == 1
    return [line * scale for line in _trace(x, y, inside)]


def trace_regions(pixels, ids, scale, tolerance):
    """The outlines of an image's regions, which are all traced on one grid, so that neighbours fit together.

    Args:
        pixels: int [H, W], the id of each pixel's region.
        ids: of the N regions.
        scale, tolerance: as for `trace_masks`.

    Returns:
        A list of N lists of rings, as `trace_masks` gives them. A region that falls between the grid's points has none.
    """
    height, width = pixels.shape
    step = max(1.0, tolerance / scale, max(height, width) / MAX_MAP_SAMPLES)
    (x, columns), (y, rows) = _sample(0, width, step), _sample(0, height, step)
    sampled, corner = pixels[np.ix_(rows, columns)], np.array([width, height], np.float64) * scale
    outlines = [[np.minimum(line * scale, corner) for line in _trace(x, y, sampled == number)] for number in ids]
    return _simplify_outlines(outlines, tolerance)


def _sample(low, high, step):
    """Coordinates every `step` pixels from low to high, with one more at each end, and the pixels of those between."""
    points = low + (np.arange(np.ceil((high - low) / step)) + 0.5) * step
    pixels = np.minimum(points, high - 0.5).astype(np.int64)  # the last sample may lie beyond the end
    return np.r_[points[0] - step, points, points[-1] + step], pixels


def _trace(x, y, inside):
    """Closed polylines [V, 2] around what is inside, bool [R, C]; x [C + 2] and y [R + 2] go one sample beyond it."""
    return contourpy.contour_generator(x, y, np.pad(inside, 1).astype(np.float32)).lines(0.5)


def _simplify_outlines(outlines, tolerance):
    """Lists of closed polylines as lists of rings of whole numbers, see `trace_masks`."""
    simplified = iter(simplify_lines([line for lines in outlines for line in lines], tolerance))
    rings = [[_to_ring(line) for line in itertools.islice(simplified, len(lines))] for lines in outlines]
    return [[ring for ring in own if len(ring) >= 3] for own in rings]


def _to_ring(line):
    ring = np.rint(line[:-1]).astype(np.int64)
    return ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]


def simplify_lines(lines, tolerance):
    """Ramer's and Douglas and Peucker's simplification of polylines, all of them at once.

    Each pass splits every stretch between two kept points at the point that lies farthest from their chord, until none
    lies farther than the tolerance.

    Args:
        lines: list of float [V, 2]; a closed one repeats its first point at the end.
        tolerance: in the points' unit.

    Returns:
        The lines with the kept points only, first and last among them.
    """
    if not lines:
        return []
    points, ends = np.concatenate(lines), np.cumsum([len(line) for line in lines])
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


def _distance(points, first, last):
    """[N] distances of points from the segments between two others, all [N, 2]."""
    along = last - first
    length = (along**2).sum(axis=1)
    share = ((points - first) * along).sum(axis=1) / np.where(length, length, 1)
    return np.linalg.norm(points - first - np.clip(share, 0, 1)[:, None] * along, axis=1)


def place_names(pixels, ids, scale):
    """For each region the point, [x, y] in units, deepest inside it; None for one smaller than a cell of the grid.
    Arguments are as for `trace_regions`."""
    height, width = pixels.shape
    rows = min(height, NAME_ROWS)
    columns = min(width, max(1, round(rows * width / height / NAME_CELL_WIDTH)))
    y, x = (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns
    numbers = pixels[np.ix_(y.astype(np.int64), x.astype(np.int64))]
    depths, places = _count_rings(numbers), []
    for number in ids:
        own = depths * (numbers == number)
        cells = np.argwhere((own == own.max()) & (own > 0))
        if not len(cells):
            places.append(None)
            continue
        row, column = cells[np.abs(cells - cells.mean(axis=0)).sum(axis=1).argmin()]
        places.append([round(float(x[column]) * scale), round(float(y[row]) * scale)])
    return places


def _count_rings(numbers):
    """int [R, C]: how many rings of cells of its own number lie around each cell, and 1."""
    windows = np.lib.stride_tricks.sliding_window_view
    inside = (windows(np.pad(numbers, 1, constant_values=-1), (3, 3)) == numbers[:, :, None, None]).all(axis=(2, 3))
    depths = np.ones(numbers.shape, np.int64)
    while inside.any():
        depths += inside
        inside = windows(np.pad(inside, 1), (3, 3)).all(axis=(2, 3))
    return depths
