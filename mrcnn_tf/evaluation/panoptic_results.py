"""The panoptic figures of one evaluation as a table and as json."""

import dataclasses

from rich.console import Group
from rich.table import Table
from rich.text import Text

from mrcnn_tf.evaluation.left_out import left_out_lines

FIGURES = ("PQ", "SQ", "RQ")  # panoptic quality, and the qualities of segmentation and of recognition it consists of


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
    for heading in (*FIGURES, *last):
        table.add_column(heading, justify="right")
    return table


def _texts(figures):
    return ["–" if figures[name] is None else f"{figures[name]:.3f}" for name in FIGURES]
