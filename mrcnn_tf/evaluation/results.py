"""The figures of one evaluation as a table and as json."""

import dataclasses

from rich.console import Group
from rich.table import Table
from rich.text import Text

from mrcnn_tf.evaluation.left_out import left_out_lines
from mrcnn_tf.evaluation.panoptic_results import PanopticResults
from mrcnn_tf.evaluation.semantic_iou import SemanticResults

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
