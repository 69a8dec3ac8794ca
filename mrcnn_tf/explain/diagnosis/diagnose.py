"""Why an image has the detections that it has, or none: figures, sentences and a picture."""

import collections
import dataclasses
import html
import io

from rich.console import Console
from rich.table import Table

from mrcnn_tf.explain.diagnosis import diagnosis_checks
from mrcnn_tf.explain.diagnosis.diagnosis_checks import BoxCounts
from mrcnn_tf.explain.diagnosis.lost_objects import DETECTED, STATUSES, ObjectDiagnosis, diagnose_objects
from mrcnn_tf.explain.diagnosis.stages import Stages, compute_stages

DRAWN_SCORE = 0.5  # the least score that `mrcnn-tf predict` draws
MAX_CLASS_ROWS = 15
MAX_SENTENCES = 6  # on objects that aren't detected; the table has the rest
MAX_SENTENCES_IF_BROKEN = 2  # where the model itself is at fault


@dataclasses.dataclass
class Diagnosis:
    """What became of one image's objects; in a notebook it shows its sentences and its table.

    Attributes:
        sentences: the most important first; the last two say how many boxes each step left.
        stages: the `Stages` that it was read from.
        counts: the `BoxCounts`.
        objects: an `ObjectDiagnosis` for each annotated object; empty without ground truth.
    """

    sentences: list[str]
    stages: Stages
    counts: BoxCounts
    objects: list[ObjectDiagnosis]

    @property
    def detections(self):
        """The `Detections`, as `model.detect` gives them."""
        return self.stages.detections

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
            "classes": [dataclasses.asdict(row) for row in diagnosis_checks.compute_class_scores(self.stages)],
            "objects": [dataclasses.asdict(row) for row in self.objects],
            "limits": dataclasses.asdict(self.stages.limits),
        }

    def draw(self, heat=True):
        """A PIL.Image: annotated objects coloured by their status, and detections; where there are none, the best of
        what was rejected. With `heat`, beside it where the proposals lie."""
        from mrcnn_tf.explain.diagnosis.diagnosis_picture import draw_diagnosis  # matplotlib takes a while to import

        return draw_diagnosis(self, heat)

    def _repr_html_(self):
        sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.sentences)
        console = Console(record=True, file=io.StringIO(), width=140)
        console.print(self.table())
        return f"<ul>{sentences}</ul>{console.export_html(inline_styles=True, code_format='<pre>{code}</pre>')}"


def diagnose(model, image, ground_truth=None):
    """Say why a model detects in an image what it does, or nothing.

    Args:
        model: a `MaskRCNN`.
        image: uint8 [H, W, 3] RGB.
        ground_truth: the annotated objects: a list of COCO annotations of this image, or a batch of `coco_dataset`
            whose first image this is; with it, the diagnosis says for each object where it was lost.

    Returns:
        `Diagnosis`.

    Raises:
        UserError: an image of another shape or type, a ground truth of another form, or a model without a box head.
    """
    stages = compute_stages(model, image, ground_truth)
    counts = diagnosis_checks.count_boxes(stages)
    objects = diagnose_objects(stages) if stages.truth is not None else []
    broken = diagnosis_checks.check_finite(model, stages) or diagnosis_checks.check_training(model)
    steps = int(model.optimizer.iterations.numpy()) if getattr(model, "optimizer", None) else None
    sentences = [_summarise(stages, objects), *broken, *diagnosis_checks.check_image(stages)]
    if not stages.non_finite:  # else there is nothing to say of scores
        sentences += diagnosis_checks.check_scores(stages, counts, steps)
    sentences += diagnosis_checks.check_sizes(stages)
    sentences += _list_lost(objects, MAX_SENTENCES_IF_BROKEN if broken else MAX_SENTENCES)
    sentences += _count_false_detections(stages, objects) + _note_low_scores(stages)
    if stages.truth is not None:
        sentences += [f"Not used as annotated: {note}" for note in stages.truth.notes]
    return Diagnosis(sentences + diagnosis_checks.describe_counts(counts, stages.limits), stages, counts, objects)


def _summarise(stages, objects):
    number = len(stages.detections)
    names = collections.Counter(stages.detections.category_names).most_common(3)
    text = "No detection" if not number else f"{number} detection{'s' * (number > 1)}"
    if number:
        more = ", ..." * (number > sum(count for _, count in names))
        text += f" ({', '.join(f'{count} {name}' for name, count in names)}{more})"
    if stages.truth is None:
        return f"{text}."
    if not objects:
        return f"{text}; the ground truth has no object here."
    tally = collections.Counter(obj.status for obj in objects)
    lost = "".join(f", {tally[status]} {status}" for status in STATUSES if tally[status] and status != DETECTED)
    return f"{text}; of {len(objects)} annotated objects {tally[DETECTED]} detected{lost}."


def _list_lost(objects, most):
    """A sentence for each of the first `most` objects that weren't detected."""
    lost = [obj for obj in objects if obj.status != DETECTED]
    more = len(lost) - most
    rest = [f"The table has {more} more that {'was' if more == 1 else 'were'} lost."] if more > 0 else []
    return [obj.sentence for obj in lost[:most]] + rest


def _count_false_detections(stages, objects):
    if stages.truth is None:
        return []
    true = {obj.detection for obj in objects if obj.status == DETECTED}
    false = [detection for detection in range(len(stages.detections)) if detection not in true]
    if not false:
        return []
    best, names = false[0], stages.detections.category_names
    return [
        f"{len(false)} of {len(stages.detections)} detections find no object of their class, the best being detection "
        f"{best} ('{names[best]}', score {stages.detections.scores[best]:.2f})."
    ]


def _note_low_scores(stages):
    scores = stages.detections.scores
    if not len(scores) or scores.max() >= DRAWN_SCORE:
        return []
    return [
        f"The best detection scores {scores.max():.2f}, and pictures of mrcnn-tf predict show {DRAWN_SCORE:g} or more: "
        "lower --min-score to see it, or train longer."
    ]


def _object_table(objects):
    table = Table(title="Annotated objects and where they were lost", title_justify="left")
    for name in ("#", "category", "pixels", "anchor", "RPN", "RoI", "score", "status", "by"):
        justify = "left" if name in ("category", "status") else "right"
        table.add_column(name, justify=justify, no_wrap=name != "category")
    table.caption = (
        "IoU of the best anchor, the RPN's best box before NMS and the best RoI; the best score of the object's class; "
        "the detection that found it or is to blame"
    )
    table.caption_justify = "left"
    for obj in objects:
        x1, y1, x2, y2 = obj.box
        table.add_row(
            str(obj.number),
            obj.category,
            f"{x2 - x1:.0f}x{y2 - y1:.0f}",
            *(f"{iou:.2f}" for iou in (obj.anchor_iou, obj.candidate_iou, obj.proposal_iou)),
            "-" if obj.score is None else f"{obj.score:.3f}",
            obj.status,
            "" if obj.detection is None else str(obj.detection),
        )
    return table


def _class_table(stages):
    rows = diagnosis_checks.compute_class_scores(stages)
    table = Table(title=f"Scores before the threshold of {stages.limits.score_threshold:g}", title_justify="left")
    for name in ("class", "best score", "above", "after NMS", "detections"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for row in rows[:MAX_CLASS_ROWS]:
        best = "-" if row.best_score is None else f"{row.best_score:.3f}"
        table.add_row(row.category, best, str(row.above_threshold), str(row.class_survivors), str(row.detections))
    if len(rows) > MAX_CLASS_ROWS:
        table.caption = f"the best {MAX_CLASS_ROWS} of {len(rows)} classes"
    return table
