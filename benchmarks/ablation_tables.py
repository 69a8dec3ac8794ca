"""The paper's ablation tables as data, and how the trainings of their rows came out beside the paper's figures.

He, Gkioxari, Dollar and Girshick, "Mask R-CNN" (2017), https://arxiv.org/abs/1703.06870. Figures are in points.
"""

import dataclasses
import math
import statistics

from rich.console import Group
from rich.table import Table
from rich.text import Text

from mrcnn_tf.datasets.shapes import Look

NOISE = 2.0  # standard errors
RULE = (
    f"A difference is within noise if it is less than {NOISE:g} standard errors, s sqrt(1/n + 1/m) for n and m seeds, "
    "where s is the spread of seeds about their row's mean, taken over all rows."
)
BRANCHES = {"segm": "mask", "bbox": "box", "keypoints": "keypoint"}
MASK = ("segm.AP", "segm.AP50", "segm.AP75")
BOX = ("bbox.AP", "bbox.AP50", "bbox.AP75")
# As in Figure 3, left: res5 on each RoI, then the mask's deconvolution.
C4 = (
    "model.features=C4",
    "model.box_head.pool_size=7",
    "model.box_head.fcs=0",
    "model.mask_head.pool_size=7",
    "model.mask_head.convs=0",
)
FEW_ROIS = ("model.rois={batch_per_image: 8, positive_fraction: 0.5}",)  # res5 on each makes them dear
C5 = ("model.features=C5",)
FPN = ("model.features=FPN",)
KEYPOINTS = ("model.keypoint_head={convs: 4, channels: 128}",)
NO_MASKS = ("model.mask_head=null",)
# Large and thick enough for a few hundred steps to learn. Where classes aren't the point, there is one.
ALL_CLASSES = Look(shapes=(1, 3), lengths=(0.35, 0.7), strokes=(0.2, 0.3))
ONE_CLASS = dataclasses.replace(ALL_CLASSES, kinds=("arrow",))


@dataclasses.dataclass(frozen=True)
class Row:
    """A row: its label, the paper's figures in points in the table's order (None: not given) and its own settings."""

    label: str
    paper: tuple[float | None, ...]
    settings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        title: number and subject.
        figures: names of what its columns hold, "segm.AP50" for the mask AP at an IoU of 0.5.
        settings: of all rows, `key.path=value`.
        rows: the first is what the others are compared with.
        size: side in pixels of the generated images; large strides need larger shapes.
        look: of the pictures.
        note: where this differs from the paper beyond the scale.
    """

    title: str
    figures: tuple[str, ...]
    settings: tuple[str, ...]
    rows: tuple[Row, ...]
    size: int
    look: Look
    note: str = ""


TABLES = {
    "2a": PaperTable(
        "Table 2a: backbones",
        MASK,
        FEW_ROIS,
        (
            Row("ResNet-18-C4", (30.3, 51.2, 31.5), C4),
            Row("ResNet-34-C4", (32.7, 54.2, 34.3), ("model.backbone.depth=34", *C4)),
            Row("ResNet-18-FPN", (33.6, 55.2, 35.3), FPN),
            Row("ResNet-34-FPN", (35.4, 57.3, 37.5), ("model.backbone.depth=34", *FPN)),
        ),
        128,
        ALL_CLASSES,
        "ResNet-18 and 34 stand in the places of the paper's 50 and 101.",
    ),
    "2b": PaperTable(
        "Table 2b: multinomial and independent masks, C4",
        MASK,
        (*C4, *FEW_ROIS),
        (
            Row("softmax", (24.8, 44.1, 25.1), ("model.mask_head.activation=softmax",)),
            Row("sigmoid", (30.3, 51.2, 31.5), ("model.mask_head.activation=sigmoid",)),
        ),
        128,
        ALL_CLASSES,
    ),
    "agnostic": PaperTable(
        "Section 4.2: class-specific and class-agnostic masks, C4",
        MASK[:1],
        (*C4, *FEW_ROIS),
        (
            Row("class-agnostic", (29.7,), ("model.mask_head.class_agnostic=true",)),
            Row("class-specific", (30.3,), ("model.mask_head.class_agnostic=false",)),
        ),
        128,
        ALL_CLASSES,
    ),
    "2c": PaperTable(
        "Table 2c: RoI layers, C4",
        MASK,
        (*C4, *FEW_ROIS),
        (
            Row("RoIPool max", (26.9, 48.8, 26.4), ("model.roi_layer={kind: pool, aggregate: max}",)),
            Row("RoIWarp max", (27.2, 49.2, 27.1), ("model.roi_layer={kind: warp, aggregate: max}",)),
            Row("RoIWarp ave", (27.1, 48.9, 27.1), ("model.roi_layer={kind: warp, aggregate: average}",)),
            Row("RoIAlign max", (30.2, 51.0, 31.8), ("model.roi_layer={kind: align, aggregate: max}",)),
            Row("RoIAlign ave", (30.3, 51.2, 31.5), ("model.roi_layer={kind: align, aggregate: average}",)),
        ),
        128,
        ONE_CLASS,
    ),
    "2d": PaperTable(
        "Table 2d: RoI layers, C5 with stride 32",
        MASK + BOX,
        C5,
        (
            Row("RoIPool", (23.6, 46.5, 21.6, 28.2, 52.7, 26.9), ("model.roi_layer={kind: pool, aggregate: max}",)),
            Row("RoIAlign", (30.9, 51.8, 32.1, 34.0, 55.3, 36.4), ("model.roi_layer.kind=align",)),
        ),
        128,
        ONE_CLASS,
    ),
    "2e": PaperTable(
        "Table 2e: mask branches, FPN",
        MASK,
        FPN,
        (
            Row("MLP 2 fc", (31.5, 53.7, 32.8), ("model.mask_head={fcs: 2, channels: 1024}",)),
            Row("MLP 3 fc", (31.5, 54.0, 32.6), ("model.mask_head={fcs: 3, channels: 1024}",)),
            Row("FCN", (33.6, 55.2, 35.3)),
        ),
        128,
        ONE_CLASS,
    ),
    "5": PaperTable(
        "Table 5: box, mask and keypoints",
        ("bbox.AP", "segm.AP", "keypoints.AP"),
        FPN,
        (
            Row("Faster R-CNN", (52.5, None, None), NO_MASKS),
            Row("mask-only", (53.6, 45.8, None)),
            Row("keypoint-only", (50.7, None, 64.2), (*NO_MASKS, *KEYPOINTS)),
            Row("keypoint & mask", (52.0, 45.1, 64.7), KEYPOINTS),
        ),
        128,
        ALL_CLASSES,
        "The paper's figures are of persons; here they are of all shapes, and one class has no keypoints.",
    ),
    "6": PaperTable(
        "Table 6: RoI layers for keypoints, FPN",
        ("keypoints.AP", "keypoints.AP50", "keypoints.AP75"),
        (*FPN, *NO_MASKS, *KEYPOINTS),
        (
            Row("RoIPool", (59.8, 86.2, 66.7), ("model.roi_layer={kind: pool, aggregate: max}",)),
            Row("RoIAlign", (64.2, 86.6, 69.7), ("model.roi_layer.kind=align",)),
        ),
        128,
        ONE_CLASS,
        "The paper's figures are of persons.",
    ),
}


@dataclasses.dataclass
class FinishedRun:
    """A run that ended well: its row's label, its seed and the content of its `result.json`."""

    label: str
    seed: int
    result: dict

    def figure(self, name):
        """A figure such as "segm.AP50" in points; None where it wasn't evaluated."""
        branch, _, metric = name.partition(".")
        value = (self.result["figures"].get(branch) or {}).get(metric)
        return None if value is None else 100 * value


@dataclasses.dataclass
class RowFigure:
    """A figure of a row.

    Attributes:
        label, figure: which.
        paper: points; None where the paper doesn't give it.
        values: points, one for each seed that was evaluated.
        paper_difference, difference: to the first row, points; None for that row itself and where one is missing.
        verdict: "same sign", "opposite sign", "within noise", "no difference in the paper", "one seed" or "".
    """

    label: str
    figure: str
    paper: float | None
    values: list[float]
    paper_difference: float | None = None
    difference: float | None = None
    verdict: str = ""


@dataclasses.dataclass
class Ablation:
    """A table's rows as they came out here."""

    name: str
    table: PaperTable
    budget: dict
    overrides: list[str]
    runs: list[FinishedRun] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)

    def values(self, label, figure):
        """Points of a row's figure, one for each seed."""
        points = (run.figure(figure) for run in self.runs if run.label == label)
        return [value for value in points if value is not None]

    def spread(self, figure):
        """Standard deviation in points over seeds about their row's mean, of all rows together; None for one seed."""
        groups = [group for row in self.table.rows if len(group := self.values(row.label, figure)) > 1]
        if not groups:
            return None
        return math.sqrt(sum((len(g) - 1) * statistics.variance(g) for g in groups) / sum(len(g) - 1 for g in groups))

    def row_figures(self):
        """A `RowFigure` for each figure of each row, by row."""
        return [
            self._row_figure(row, position, figure)
            for row in self.table.rows
            for position, figure in enumerate(self.table.figures)
        ]

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        spreads = {figure: self.spread(figure) for figure in self.table.figures}
        return {
            "table": self.name,
            "title": self.table.title,
            "budget": self.budget,
            "overrides": self.overrides,
            "row_figures": [dataclasses.asdict(figure) for figure in self.row_figures()],
            "spreads": spreads,
            "rule": RULE,
            "runs": [dataclasses.asdict(run) for run in self.runs],
            "failed": self.failed,
        }

    def _row_figure(self, row, position, name):
        first = self.table.rows[0]
        values, reference = self.values(row.label, name), self.values(first.label, name)
        figure = RowFigure(row.label, name, row.paper[position], values)
        if row is not first:
            if values and reference:
                figure.difference = statistics.mean(values) - statistics.mean(reference)
            if None not in (row.paper[position], first.paper[position]):
                figure.paper_difference = round(row.paper[position] - first.paper[position], 1)
            if None not in (figure.difference, figure.paper_difference):
                spread = self.spread(name)
                noise = None if spread is None else NOISE * spread * math.sqrt(1 / len(values) + 1 / len(reference))
                figure.verdict = _verdict(figure.difference, figure.paper_difference, noise)
        return figure


def ablation_table(ablation):
    """An `Ablation` as one rich renderable."""
    table = Table(title=ablation.table.title, title_justify="left")
    for heading in ("", "", "paper", "here", "±", "paper - first", "here - first", ""):
        table.add_column(heading, justify="right" if heading else "left")
    label = None
    for row in ablation.row_figures():
        if label not in (None, row.label):
            table.add_section()
        branch, _, metric = row.figure.partition(".")
        table.add_row(
            row.label if row.label != label else "",
            f"{BRANCHES[branch]} {metric}",
            _format_points(row.paper),
            _format_points(statistics.mean(row.values) if row.values else None),
            f"{statistics.stdev(row.values):.1f}" if len(row.values) > 1 else "",
            _format_points(row.paper_difference, "+"),
            _format_points(row.difference, "+"),
            row.verdict,
        )
        label = row.label
    budget = ablation.budget
    notes = [
        f"Points. Each row: {budget['steps']} steps, {budget['images']} training images of {budget['size']} pixels, "
        f"{budget['val_images']} to evaluate on, {budget['seeds']} seeds; ± is the standard deviation over them.",
        RULE,
        ablation.table.note,
    ]
    if seconds := [run.result["seconds"] for run in ablation.runs]:
        notes.append(f"Training a run took {min(seconds):.0f} to {max(seconds):.0f} s.")
    failed = [Text(f"FAILED: {sentence}", style="bold red") for sentence in ablation.failed]
    return Group(table, *(Text(note) for note in notes if note), *failed)


def _verdict(difference, paper_difference, noise):
    if noise is None:
        return "one seed"
    if abs(difference) < noise:
        return "within noise"
    if paper_difference == 0:
        return "no difference in the paper"
    return "same sign" if (difference > 0) == (paper_difference > 0) else "opposite sign"


def _format_points(value, sign=""):
    return "" if value is None else f"{value:{sign}.1f}"
