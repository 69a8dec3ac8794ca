"""The objects and detections of each image as the vector data that a page draws."""

import math

import numpy as np

from mrcnn_tf.common.categories import Category
from mrcnn_tf.datasets.label_maps import values_of
from mrcnn_tf.explain.inspection.errors import TYPES
from mrcnn_tf.explain.inspection.outlines import mask_outlines, name_places, region_outlines
from mrcnn_tf.results.draw import with_visibility
from mrcnn_tf.results.draw_panoptic import stuff_colour

SIDE = 2000  # drawing units along the longer side of every image
TOLERANCES = (2.5, 4.0, 7.0, 12.0, 25.0)  # drawing units by which an outline may be simplified, the finest first


class PageObjects:
    """The drawable records of a dataset's images.

    Args:
        truth: the `GroundTruth`.
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
            entry["v"] = TYPES[self._split.types[row]]
            if int(self._split.explained_by[row]) in places:
                entry["t"] = places[int(self._split.explained_by[row])]
                entry["i"] = round(float(self._split.overlap[row]), 3)
            entries.append(entry)
        return entries

    def _outlined(self, records, scale, tolerance):
        """Pairs of a record and its rings."""
        masks = [record.get("segmentation") for record in records]
        return zip(records, mask_outlines(masks, scale, tolerance), strict=True)

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


class PageRegions:
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
        areas = dict(zip(*(column.tolist() for column in values_of(regions.pixels)), strict=True))
        rings, places = region_outlines(regions.pixels, ids, scale, tolerance), name_places(regions.pixels, ids, scale)
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
