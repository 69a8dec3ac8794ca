"""The metrics of one evaluation, of instances, segments and classes of pixels, as tables and as json."""

import dataclasses

from rich.console import Group
from rich.table import Table
from rich.text import Text

PANOPTIC_METRICS = ("PQ", "SQ", "RQ")  # panoptic quality = segmentation x recognition quality
KIND_HEADINGS = {"bbox": "box", "segm": "mask", "keypoints": "keypoints"}
# Keypoints have no metrics of small ones and count AR with up to 20 detections only; boxes and masks have no AR50.
# LVIS alone has those of rare, common and frequent categories and AR300.
TABLE_ROWS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"),
    *("AR1", "AR10", "AR100", "AR300", "AR", "AR50", "AR75", "ARs", "ARm", "ARl"),
)
SHOWN_SENTENCES = 10  # about what was skipped, below a table


class _Results:
    """Metrics as a dataclass with `skipped` among its fields."""

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        return dataclasses.asdict(self)

    def _skipped_lines(self):
        """The first sentences of `skipped`, and how many more there are, as rich texts."""
        lines = [Text(sentence) for sentence in self.skipped[:SHOWN_SENTENCES]]
        if len(self.skipped) > SHOWN_SENTENCES:
            lines.append(Text(f"... and {len(self.skipped) - SHOWN_SENTENCES} more, all of them in the json."))
        return lines


@dataclasses.dataclass
class PanopticResults(_Results):
    """Panoptic quality; None stands for "neither ground truth nor a prediction of that kind"."""

    images: int  # how many were evaluated
    # `PANOPTIC_METRICS`, 0..1, each the mean over the categories, and `n`, the number of these: those with ground truth
    # or a prediction. Of such means PQ isn't the product of the other two.
    all: dict[str, float | int | None]
    things: dict[str, float | int | None]  # the same over one kind of categories
    stuff: dict[str, float | int | None]
    # For each category, things first: `id`, `name`, `isthing`, `PANOPTIC_METRICS`, and the segments counted over all
    # images: `tp` matched ones, `fp` predicted ones without a match, `fn` missed ones.
    per_class: list[dict]
    skipped: list[str] = dataclasses.field(default_factory=list)  # a sentence for each image not evaluated

    def table(self):
        """The metrics as a rich renderable: over all categories, things and stuff, per class, and what was skipped."""
        means = _table(f"{self.images} images, panoptic", "", *PANOPTIC_METRICS, "categories")
        for title, metrics in (("All", self.all), ("Things", self.things), ("Stuff", self.stuff)):
            means.add_row(title, *(_text(metrics[name]) for name in PANOPTIC_METRICS), str(metrics["n"]))
        classes = _table("Per class, panoptic", "class", *PANOPTIC_METRICS, "matched", "wrong", "missed")
        for row in self.per_class:
            name = row["name"] if row["isthing"] else f"{row['name']} (stuff)"
            counts = (str(row[count]) for count in ("tp", "fp", "fn"))
            classes.add_row(Text(name), *(_text(row[metric]) for metric in PANOPTIC_METRICS), *counts)
        return Group(means, classes, *self._skipped_lines())


@dataclasses.dataclass
class SemanticResults(_Results):
    """How well each pixel was classified; None stands for "no ground truth of that kind"."""

    images: int  # how many were evaluated
    mIoU: float | None  # 0..1, the mean over the classes with ground truth
    pixel_accuracy: float | None  # 0..1, the share of the labelled pixels whose class was predicted
    # For each class, all things first: `id` (None of these), `name`, `IoU`, `accuracy` (the share of its pixels that
    # were predicted as such) and `pixels` of the ground truth.
    per_class: list[dict]
    skipped: list[str] = dataclasses.field(default_factory=list)  # a sentence for each image not evaluated

    def table(self):
        """The metrics as a rich renderable: over all classes, per class, and what was skipped."""
        table = _table(f"{self.images} images, classes of pixels", "class", "IoU", "accuracy")
        table.add_row("mean IoU, all pixels' accuracy", _text(self.mIoU), _text(self.pixel_accuracy), end_section=True)
        for row in self.per_class:
            table.add_row(Text(row["name"]), _text(row["IoU"]), _text(row["accuracy"]))
        return Group(table, *self._skipped_lines())


@dataclasses.dataclass
class CocoResults(_Results):
    """The metrics of one evaluation, 0..1; None stands for "no ground truth of that kind", or a model without it."""

    images: int  # how many were evaluated
    bbox: dict[str, float | None] | None  # for boxes the 12 `average_precision.METRICS`, or the 13 `lvis.METRICS`
    segm: dict[str, float | None] | None  # the same for masks
    keypoints: dict[str, float | None] | None  # the 10 `KEYPOINT_METRICS`
    # For each category `id`, `name`, `bbox_AP`, `bbox_AP50` and the same with `segm` and `keypoints`.
    per_class: list[dict]
    skipped: list[str]  # a sentence for each image, annotation, mask or set of keypoints that could not be evaluated
    # Sentences about what the metrics rest on, such as sigmas that nobody measured.
    notes: list[str] = dataclasses.field(default_factory=list)
    panoptic: PanopticResults | None = None  # of a model with a semantic head, where the ground truth has segments
    semantic: SemanticResults | None = None  # the same where it has classes of pixels

    def table(self):
        """The metrics as a rich renderable: over all classes, per class, notes, and what was skipped."""
        kinds = ["bbox", "segm"] + ["keypoints"] * (self.keypoints is not None)
        tables = [self._mean_table(kinds), self._class_table(kinds)] if self.bbox else []
        tables += [results.table() for results in (self.panoptic, self.semantic) if results]
        return Group(*tables, *map(Text, self.notes), *self._skipped_lines())

    def _mean_table(self, kinds):
        table = _table(f"{self.images} images", "", *(KIND_HEADINGS[kind] for kind in kinds))
        columns = [getattr(self, kind) or dict.fromkeys(self.bbox) for kind in kinds]
        for name in TABLE_ROWS:
            if any(name in column for column in columns):
                table.add_row(name, *(_text(column[name]) if name in column else "" for column in columns))
        return table

    def _class_table(self, kinds):
        columns = [(kind, metric) for kind in kinds for metric in ("AP", "AP50")]
        table = _table("Per class", "class", *(f"{KIND_HEADINGS[kind]} {metric}" for kind, metric in columns))
        for row in self.per_class:
            table.add_row(Text(row["name"]), *(_text(row[f"{kind}_{metric}"]) for kind, metric in columns))
        return table


def _table(title, first_heading, *headings):
    """A table whose first column holds names, and the others numbers."""
    table = Table(title=title)
    table.add_column(first_heading)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _text(value):
    return "–" if value is None else f"{value:.3f}"
