"""What an ablation found, beside the paper's figures: means, spreads, and whether differences have the same sign."""

import dataclasses
import math
import statistics

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from mrcnn_tf.ablation.tables import Table

NOISE = 2.0  # standard errors
RULE = (
    f"A difference is within noise if it is less than {NOISE:g} standard errors, s sqrt(1/n + 1/m) for n and m seeds, "
    "where s is the spread of seeds about their row's mean, taken over all rows."
)
KINDS = {"segm": "mask", "bbox": "box", "keypoints": "keypoint"}


@dataclasses.dataclass
class Outcome:
    """A run that ended well: its row's label, its seed and the content of its `result.json`."""

    label: str
    seed: int
    result: dict

    def figure(self, name):
        """A figure such as "segm.AP50" in points; None where it wasn't evaluated."""
        kind, _, key = name.partition(".")
        value = (self.result["figures"].get(kind) or {}).get(key)
        return None if value is None else 100 * value


@dataclasses.dataclass(frozen=True)
class Line:
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
    paper_difference: float | None
    difference: float | None
    verdict: str


@dataclasses.dataclass
class Ablation:
    """A table's rows as they came out here."""

    name: str
    table: Table
    budget: dict
    overrides: list[str]
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)

    def values(self, label, figure):
        """Points of a row's figure, one for each seed."""
        found = (outcome.figure(figure) for outcome in self.outcomes if outcome.label == label)
        return [value for value in found if value is not None]

    def spread(self, figure):
        """Standard deviation in points over seeds about their row's mean, of all rows together; None for one seed."""
        groups = [group for row in self.table.rows if len(group := self.values(row.label, figure)) > 1]
        if not groups:
            return None
        return math.sqrt(sum((len(g) - 1) * statistics.variance(g) for g in groups) / sum(len(g) - 1 for g in groups))

    def lines(self):
        """A `Line` for each figure of each row, by row."""
        return [
            self._line(row, position, figure)
            for row in self.table.rows
            for position, figure in enumerate(self.table.figures)
        ]

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        rows = [dataclasses.asdict(line) for line in self.lines()]
        spreads = {figure: self.spread(figure) for figure in self.table.figures}
        return {
            "table": self.name,
            "title": self.table.title,
            "budget": self.budget,
            "overrides": self.overrides,
            "lines": rows,
            "spreads": spreads,
            "rule": RULE,
            "runs": [dataclasses.asdict(outcome) for outcome in self.outcomes],
            "failed": self.failed,
        }

    def _line(self, row, position, figure):
        first = self.table.rows[0]
        values, reference = self.values(row.label, figure), self.values(first.label, figure)
        here = there = None
        verdict = ""
        if row is not first:
            if values and reference:
                here = statistics.mean(values) - statistics.mean(reference)
            if None not in (row.paper[position], first.paper[position]):
                there = round(row.paper[position] - first.paper[position], 1)
            if None not in (here, there):
                error = self.spread(figure)
                noise = None if error is None else NOISE * error * math.sqrt(1 / len(values) + 1 / len(reference))
                verdict = _verdict(here, there, noise)
        return Line(row.label, figure, row.paper[position], values, there, here, verdict)


def ablation_table(ablation):
    """An `Ablation` as one rich renderable."""
    table = RichTable(title=ablation.table.title, title_justify="left")
    for heading in ("", "", "paper", "here", "±", "paper", "here", ""):
        table.add_column(heading, justify="right" if heading else "left")
    table.columns[5].header = "paper - first"
    table.columns[6].header = "here - first"
    label = None
    for line in ablation.lines():
        if label not in (None, line.label):
            table.add_section()
        table.add_row(
            line.label if line.label != label else "",
            _name(line.figure),
            _points(line.paper),
            _points(statistics.mean(line.values) if line.values else None),
            f"{statistics.stdev(line.values):.1f}" if len(line.values) > 1 else "",
            _points(line.paper_difference, "+"),
            _points(line.difference, "+"),
            line.verdict,
        )
        label = line.label
    budget = ablation.budget
    notes = [
        f"Points. Each row: {budget['steps']} steps, {budget['images']} training images of {budget['size']} pixels, "
        f"{budget['val_images']} to evaluate on, {budget['seeds']} seeds; ± is the standard deviation over them.",
        RULE,
        ablation.table.note,
    ]
    if seconds := [outcome.result["seconds"] for outcome in ablation.outcomes]:
        notes.append(f"Training a run took {min(seconds):.0f} to {max(seconds):.0f} s.")
    failed = [Text(f"FAILED: {sentence}", style="bold red") for sentence in ablation.failed]
    return Group(table, *(Text(note) for note in notes if note), *failed)


def _verdict(here, there, noise):
    if noise is None:
        return "one seed"
    if abs(here) < noise:
        return "within noise"
    if there == 0:
        return "no difference in the paper"
    return "same sign" if (here > 0) == (there > 0) else "opposite sign"


def _name(figure):
    kind, _, key = figure.partition(".")
    return f"{KINDS[kind]} {key}"


def _points(value, sign=""):
    return "" if value is None else f"{value:{sign}.1f}"
