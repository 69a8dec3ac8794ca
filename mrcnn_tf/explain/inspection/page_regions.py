"""The regions of each image, those of the ground truth and those found, as the vector data that a page draws."""

from mrcnn_tf.common.categories import Category
from mrcnn_tf.datasets.map_files import values_of
from mrcnn_tf.explain.inspection.objects import SIDE
from mrcnn_tf.explain.inspection.region_outlines import name_places, region_outlines
from mrcnn_tf.results.visualize_panoptic import stuff_colour

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
