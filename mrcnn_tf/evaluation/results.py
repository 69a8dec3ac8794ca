"""The figures of one evaluation as a table and as json."""

import dataclasses

from rich.console import Group
from rich.table import Table
from rich.text import Text

# The panoptic figures of one evaluation as a table and as json.
#

PANOPTIC_METRICS = ("PQ", "SQ", "RQ")  # panoptic quality, and the qualities of segmentation and of recognition it consists of


@dataclasses.dataclass
class PanopticResults:
    """Panoptic quality; None stands for "neither ground truth nor a prediction of that kind".

    Attributes:
        images: how many images were evaluated.
        all: a dict of `FIGURES`, 0..1, each the mean over the categories, and `n`, the number of these: those with
            ground truth or a prediction. Of such means PQ isn't the product of the other two.
        things, stuff: the same over one kind of categories.
        per_class: a dict for each category, things first: `id`, `name`, `isthing`, `FIGURES`, and the segments counted
            over all images: `tp` matched ones, `fp` predicted ones without a match, `fn` missed ones.
        left_out: a sentence for each image that could not be evaluated.
    """

    images: int
    all: dict[str, float | int | None]
    things: dict[str, float | int | None]
    stuff: dict[str, float | int | None]
    per_class: list[dict]
    left_out: list[str] = dataclasses.field(default_factory=list)

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        return dataclasses.asdict(self)

    def table(self):
        """The figures as a rich renderable: over all categories, things and stuff, per class, and what was left out."""
        return Group(self._whole(), self._classes(), *left_out_lines(self.left_out))

    def _whole(self):
        table = _figure_table(f"{self.images} images, panoptic", "", "categories")
        for title, figures in (("All", self.all), ("Things", self.things), ("Stuff", self.stuff)):
            table.add_row(title, *_texts(figures), str(figures["n"]))
        return table

    def _classes(self):
        table = _figure_table("Per class, panoptic", "class", "matched", "wrong", "missed")
        for row in self.per_class:
            name = row["name"] if row["isthing"] else f"{row['name']} (stuff)"
            table.add_row(Text(name), *_texts(row), *(str(row[count]) for count in ("tp", "fp", "fn")))
        return table


def _figure_table(title, first, *last):
    table = Table(title=title)
    table.add_column(first)
    for heading in (*PANOPTIC_METRICS, *last):
        table.add_column(heading, justify="right")
    return table


def _texts(figures):
    return ["–" if figures[name] is None else f"{figures[name]:.3f}" for name in PANOPTIC_METRICS]


@dataclasses.dataclass
class SemanticResults:
    """How well each pixel was classified; None stands for "no ground truth of that kind".

    Attributes:
        images: how many images were evaluated.
        mIoU: 0..1, the mean over the classes with ground truth.
        pixel_accuracy: 0..1, the share of the labelled pixels whose class was found.
        per_class: a dict for each class, all things first: `id` (None of these), `name`, `IoU`, `accuracy` (the share
            of its pixels that were found) and `pixels` of the ground truth.
        left_out: a sentence for each image that could not be evaluated.
    """

    images: int
    mIoU: float | None
    pixel_accuracy: float | None
    per_class: list[dict]
    left_out: list[str] = dataclasses.field(default_factory=list)

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        return dataclasses.asdict(self)

    def table(self):
        """The figures as a rich renderable: over all classes, per class, and what was left out."""
        table = Table(title=f"{self.images} images, classes of pixels")
        for heading, justify in (("class", "left"), ("IoU", "right"), ("accuracy", "right")):
            table.add_column(heading, justify=justify)
        table.add_row("mean IoU, all pixels' accuracy", _text(self.mIoU), _text(self.pixel_accuracy), end_section=True)
        for row in self.per_class:
            table.add_row(Text(row["name"]), _text(row["IoU"]), _text(row["accuracy"]))
        return Group(table, *left_out_lines(self.left_out))


SHOWN = 10


def left_out_lines(sentences):
    """The first of the sentences, and how many more there are, as rich texts."""
    lines = [Text(sentence) for sentence in sentences[:SHOWN]]
    if len(sentences) > SHOWN:
        lines.append(Text(f"... and {len(sentences) - SHOWN} more, all of them in the json."))
    return lines


HEADINGS = {"bbox": "box", "segm": "mask", "keypoints": "keypoints"}
# Keypoints have no figures of small ones and count AR with up to 20 detections only; boxes and masks have no AR50.
ROWS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "AR", "AR50", "AR75", "ARs", "ARm", "ARl")


@dataclasses.dataclass
class CocoResults:
    """The figures of one evaluation; None stands for "no ground truth of that kind".

    Attributes:
        images: how many images were evaluated.
        bbox: the 12 `protocol.FIGURES` for boxes, 0..1; None if the model or the ground truth has no instances.
        segm: the same for masks; None if the detections or the ground truth have no masks.
        keypoints: the 10 `protocol.KEYPOINT_FIGURES`; None if the detections or the ground truth have no keypoints.
        per_class: a dict for each category: `id`, `name`, `bbox_AP`, `bbox_AP50` and the same with `segm` and
            `keypoints`.
        left_out: a sentence for each image, annotation, mask or set of keypoints that could not be evaluated.
        notes: sentences about what the figures rest on, such as sigmas that nobody measured.
        panoptic: the `PanopticResults` of a model with a semantic head; None without one, or without segments in the
            ground truth.
        semantic: its `SemanticResults`; None without one, or without classes of pixels in the ground truth.
    """

    images: int
    bbox: dict[str, float | None] | None
    segm: dict[str, float | None] | None
    keypoints: dict[str, float | None] | None
    per_class: list[dict]
    left_out: list[str]
    notes: list[str] = dataclasses.field(default_factory=list)
    panoptic: PanopticResults | None = None
    semantic: SemanticResults | None = None

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        return dataclasses.asdict(self)

    def table(self):
        """The figures as a rich renderable: over all classes, per class, notes, and what was left out."""
        kinds = ["bbox", "segm"] + ["keypoints"] * (self.keypoints is not None)
        tables = [self._whole(kinds), self._classes(kinds)] if self.bbox else []
        tables += [one.table() for one in (self.panoptic, self.semantic) if one]
        notes = [*map(Text, self.notes), *left_out_lines(self.left_out)]
        return Group(*tables, *notes)

    def _whole(self, kinds):
        table = Table(title=f"{self.images} images")
        table.add_column("")
        for kind in kinds:
            table.add_column(HEADINGS[kind], justify="right")
        columns = [getattr(self, kind) or dict.fromkeys(self.bbox) for kind in kinds]
        for name in ROWS:
            if any(name in column for column in columns):
                table.add_row(name, *(_text(column[name]) if name in column else "" for column in columns))
        return table

    def _classes(self, kinds):
        table = Table(title="Per class")
        table.add_column("class")
        for kind in kinds:
            for figure in ("AP", "AP50"):
                table.add_column(f"{HEADINGS[kind]} {figure}", justify="right")
        for row in self.per_class:
            figures = (_text(row[f"{kind}_{figure}"]) for kind in kinds for figure in ("AP", "AP50"))
            table.add_row(Text(row["name"]), *figures)
        return table


def _text(value):
    return "–" if value is None else f"{value:.3f}"
