"""What became of each weight when a checkpoint was loaded."""

import collections
import dataclasses

from rich.table import Table

NAMED = 4  # names given in a row; the rest are counted


@dataclasses.dataclass
class LoadReport:
    """The outcome of `load_pretrained`.

    Attributes:
        source: the file, preset or model that was read.
        format: "torchvision", "detectron2", "caffe2", "matterport", "keras.applications" or "mrcnn_tf".
        loaded: weight path -> what was done beside a plain transpose, or "".
        skipped: name in the file -> why it wasn't loaded.
        left: weight path -> why it keeps, or gets anew, an untrained value.
        notes: sentences on conventions in which model and weights differ.
    """

    source: str
    format: str
    loaded: dict[str, str]
    skipped: dict[str, str]
    left: dict[str, str]
    notes: list[str]

    def to_json(self):
        """The report as plain dictionaries."""
        return dataclasses.asdict(self)

    def table(self):
        """A rich table: each part of the model, what was loaded, transformed and left, then what was skipped."""
        table = Table(title=f"{self.source} ({self.format})", title_justify="left", show_lines=False)
        for name in ("part", "weights", "what"):
            table.add_column(name, justify="right" if name == "weights" else "left", overflow="fold")
        for part, weights in _by_part(self.loaded).items():
            table.add_row(part, str(len(weights)), "loaded")
            for change, paths in _by_reason(weights).items():
                if change:
                    table.add_row("", str(len(paths)), f"of them {change}: {_some(paths)}")
        for what, names in (("left", self.left), ("skipped", self.skipped)):
            for reason, paths in _by_reason(names).items():
                table.add_row(what, str(len(paths)), f"{reason}: {_some(paths)}")
        for note in self.notes:
            table.add_row("note", "", note)
        return table


def _by_part(loaded):
    parts = collections.defaultdict(dict)
    for path, change in loaded.items():
        parts[path.split("/")[0]][path] = change
    return parts


def _by_reason(names):
    reasons = collections.defaultdict(list)
    for name, reason in names.items():
        reasons[reason].append(name)
    return reasons


def _some(names):
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
