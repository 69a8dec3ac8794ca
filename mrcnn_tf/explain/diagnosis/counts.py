"""How many boxes each step leaves, and the best scores before the threshold."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Counts:
    """How many boxes each step leaves of one image.

    Attributes:
        anchors: of all levels.
        candidates: the best of each level that are usable.
        rpn_survivors: what the RPN's suppression leaves of them.
        proposals: the best of these, the RoIs of the box head.
        best_objectness: of a proposal, 0..1; None without any.
        scores: one for each proposal and class.
        above_threshold: of these, with a box that is large enough.
        class_survivors: what suppression within each class leaves of them.
        detections: the best of these.
        best_score: of all scores; None without any.
        best_category: its class.
        background: the mean probability of background over the proposals; None without any.
    """

    anchors: int
    candidates: int
    rpn_survivors: int
    proposals: int
    best_objectness: float | None
    scores: int
    above_threshold: int
    class_survivors: int
    detections: int
    best_score: float | None
    best_category: str | None
    background: float | None


@dataclasses.dataclass
class ClassScores:
    """Of one class: the best score before the threshold (None without proposals), and the boxes each step leaves."""

    category: str
    best_score: float | None
    above_threshold: int
    class_survivors: int
    detections: int


def count(stages):
    """The `Counts` of `Stages`."""
    found, probabilities = stages.classification, stages.classification.probabilities
    objects = np.nan_to_num(probabilities[:, 1:])
    best = np.unravel_index(objects.argmax(), objects.shape) if objects.size else None
    return Counts(
        anchors=sum(len(level.anchors) for level in stages.levels),
        candidates=int(stages.candidates.usable.sum()),
        rpn_survivors=len(stages.candidates.kept),
        proposals=len(stages.proposals.boxes),
        best_objectness=float(stages.proposals.objectness.max()) if len(stages.proposals.boxes) else None,
        scores=objects.size,
        above_threshold=int(found.usable.sum()),
        class_survivors=len(found.kept),
        detections=len(stages.detections),
        best_score=float(objects[best]) if best else None,
        best_category=stages.categories[best[1]].name if best else None,
        background=float(np.nan_to_num(probabilities[:, 0]).mean()) if objects.size else None,
    )


def class_scores(stages):
    """A `ClassScores` for each class, best score first."""
    found, classes = stages.classification, len(stages.categories)
    left = np.bincount(found.kept % classes, minlength=classes)
    detected = np.bincount(stages.detections.classes - 1, minlength=classes)
    rows = []
    for place, category in enumerate(stages.categories):
        scores = np.nan_to_num(found.probabilities[:, place + 1])
        best = float(scores.max()) if len(scores) else None
        above = int(found.usable[:, place].sum())
        rows.append(ClassScores(category.name, best, above, int(left[place]), int(detected[place])))
    return sorted(rows, key=lambda row: -(row.best_score or 0))


def funnel(counts, limits):
    """Two sentences: from anchors to proposals, and from scores to detections."""
    best = "" if counts.best_objectness is None else f" (best objectness {counts.best_objectness:.2f})"
    first = (
        f"RPN: {counts.anchors:,} anchors, of which the best {counts.candidates:,} are candidates; suppression leaves "
        f"{counts.rpn_survivors:,}, and the best {counts.proposals:,} are proposals{best}."
    )
    if not counts.scores:
        return [first]
    second = (
        f"Box head: {counts.scores:,} scores, {counts.above_threshold:,} above the threshold of "
        f"{limits.score_threshold:g}; suppression leaves {counts.class_survivors:,}, and the best "
        f"{counts.detections:,} are detections."
    )
    return [first, second]
