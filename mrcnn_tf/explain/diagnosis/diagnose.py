"""Why an image has the detections that it has, or none: figures, sentences and a picture."""

import collections
import dataclasses
import html
import io

from rich.console import Console
from rich.table import Table

from mrcnn_tf.explain.diagnosis import checks
from mrcnn_tf.explain.diagnosis.annotated_objects import DETECTED, STATUSES, ObjectDiagnosis, diagnose_objects
from mrcnn_tf.explain.diagnosis.checks import BoxCounts, compute_class_scores, count_boxes, describe_counts
from mrcnn_tf.explain.diagnosis.stages import Stages, compute_stages

SHOWN = 0.5  # the least score that `mrcnn-tf predict` draws
ROWS = 15  # of a table of classes
SPELLED_OUT = 6  # objects that aren't found, each with a sentence of its own


@dataclasses.dataclass
class Diagnosis:
    """What became of one image's objects; in a notebook it shows its sentences and its table.

    Attributes:
        sentences: what was found out, the most important first; the last two say how many boxes each step left.
        stages: the `Stages` that it was read from.
        counts: the `Counts` of boxes.
        objects: an `ObjectFate` for each annotated object; empty without ground truth.
    """

    sentences: list[str]
    stages: Stages
    counts: BoxCounts
    objects: list[ObjectDiagnosis]

    def __str__(self):
        return "\n".join(self.sentences)

    def __repr__(self):
        return f"<Diagnosis: {self.sentences[0]}>"

    def table(self):
        """A rich table: with ground truth a row for each object, else one for each class."""
        return _object_table(self.objects) if self.stages.truth is not None else _class_table(self.stages)

    def to_json(self):
        """All figures as plain dictionaries and lists."""
        return {
            "sentences": self.sentences,
            "counts": dataclasses.asdict(self.counts),
            "classes": [dataclasses.asdict(row) for row in compute_class_scores(self.stages)],
            "objects": [dataclasses.asdict(one) for one in self.objects],
            "limits": dataclasses.asdict(self.stages.limits),
        }

    def draw(self, heat=True):
        """A PIL.Image: annotated objects coloured by their fate, and detections; where there are none, the best of
        what was rejected. With `heat`, beside it where the proposals lie."""
        from mrcnn_tf.explain.diagnosis.target_pictures import draw_diagnosis  # matplotlib takes a while to import

        return draw_diagnosis(self, heat)

    def _repr_html_(self):
        sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.sentences)
        console = Console(record=True, file=io.StringIO(), width=140)
        console.print(self.table())
        return f"<ul>{sentences}</ul>{console.export_html(inline_styles=True, code_format='<pre>{code}</pre>')}"


def diagnose(model, image, ground_truth=None):
    """Says why a model detects in an image what it does, or nothing.

    Args:
        model: a `MaskRCNN`.
        image: uint8 [H, W, 3] RGB.
        ground_truth: as for `look`; with it, the diagnosis says for each object where it was lost.

    Returns:
        `Diagnosis`.

    Raises:
        UserError: an image of another shape or type, a ground truth of another form, or a model without a box head.
    """
    stages = compute_stages(model, image, ground_truth)
    counts = count_boxes(stages)
    objects = diagnose_objects(stages) if stages.truth is not None else []
    broken = checks.check_finite(model, stages) or checks.check_training(model)
    steps = int(model.optimizer.iterations.numpy()) if getattr(model, "optimizer", None) else None
    sentences = [_verdict(stages, counts, objects), *broken, *checks.check_image(stages)]
    if not stages.not_finite:  # else there is nothing to say of scores
        sentences += checks.check_scores(stages, counts, steps)
    sentences += checks.check_sizes(stages) + _lost(objects, 2 if broken else SPELLED_OUT)
    sentences += _unmatched(stages, objects) + _faint(stages)
    if stages.truth is not None:
        sentences += [f"Not used as annotated: {note}" for note in stages.truth.notes]
    return Diagnosis(sentences + describe_counts(counts, stages.limits), stages, counts, objects)


def _verdict(stages, counts, objects):
    number = len(stages.detections)
    names = collections.Counter(stages.detections.category_names).most_common(3)
    found = "No detection" if not number else f"{number} detection{'s' * (number > 1)}"
    if number:
        more = ", ..." * (number > sum(many for _, many in names))
        found += f" ({', '.join(f'{many} {name}' for name, many in names)}{more})"
    if stages.truth is None:
        return f"{found}."
    if not objects:
        return f"{found}; the ground truth has no object here."
    tally = collections.Counter(one.fate for one in objects)
    lost = [f"{tally[fate]} {fate}" for fate in STATUSES if tally[fate] and fate != DETECTED]
    return f"{found}; of {len(objects)} annotated objects {tally[DETECTED]} found{''.join(f', {one}' for one in lost)}."


def _lost(objects, most):
    """A sentence for each of the first `most` objects that weren't found."""
    lost = [one for one in objects if one.fate != DETECTED]
    more = len(lost) - most
    rest = [f"The table has {more} more that {'was' if more == 1 else 'were'} lost."] if more > 0 else []
    return [one.sentence for one in lost[:most]] + rest


def _unmatched(stages, objects):
    """On detections that find no object."""
    if stages.truth is None or not len(stages.detections):
        return []
    found = {one.detection for one in objects if one.fate == DETECTED}
    wrong = [place for place in range(len(stages.detections)) if place not in found]
    if not wrong:
        return []
    best, names = wrong[0], stages.detections.category_names
    return [
        f"{len(wrong)} of {len(stages.detections)} detections find no object of their class, the best being detection "
        f"{best} ('{names[best]}', score {stages.detections.scores[best]:.2f})."
    ]


def _faint(stages):
    scores = stages.detections.scores
    if not len(scores) or scores.max() >= SHOWN:
        return []
    return [
        f"The best detection scores {scores.max():.2f}, and pictures of mrcnn-tf predict show {SHOWN:g} or more: lower "
        "--min-score to see it, or train longer."
    ]


def _object_table(objects):
    table = Table(title="Annotated objects and where they were lost", title_justify="left")
    columns = ("#", "category", "pixels", "anchor", "RPN", "RoI", "score", "fate", "by")
    for name in columns:
        table.add_column(name, justify="left" if name in ("category", "fate") else "right", no_wrap=name != "category")
    table.caption = (
        "IoU of the best anchor, the RPN's best box before NMS and the best RoI; the best score of the object's class; "
        "the detection that found it or is to blame"
    )
    table.caption_justify = "left"
    for one in objects:
        x1, y1, x2, y2 = one.box
        overlaps = (one.anchor_iou, one.candidate_iou, one.proposal_iou)
        table.add_row(
            str(one.number),
            one.category,
            f"{x2 - x1:.0f}x{y2 - y1:.0f}",
            *(f"{value:.2f}" for value in overlaps),
            "-" if one.score is None else f"{one.score:.3f}",
            one.fate,
            "" if one.detection is None else str(one.detection),
        )
    return table


def _class_table(stages):
    rows = compute_class_scores(stages)
    table = Table(title=f"Scores before the threshold of {stages.limits.score_threshold:g}", title_justify="left")
    for name in ("class", "best score", "above", "after NMS", "detections"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for row in rows[:ROWS]:
        best = "-" if row.best_score is None else f"{row.best_score:.3f}"
        table.add_row(row.category, best, str(row.above_threshold), str(row.class_survivors), str(row.detections))
    if len(rows) > ROWS:
        table.caption = f"the best {ROWS} of {len(rows)} classes"
    return table
