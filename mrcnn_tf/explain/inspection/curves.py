"""Precision against recall, and both against the score threshold, for each class."""

import dataclasses

import numpy as np

from mrcnn_tf.explain.inspection.detection_matching import judge_detections, match_detections

RECALLS = np.linspace(0, 1, 101)  # where COCO reads precision off
IOUS = {"0.5": [0.5], "0.75": [0.75], "0.5:0.95": np.linspace(0.5, 0.95, 10).tolist()}
THRESHOLDS = np.linspace(0, 1, 101)  # scores


@dataclasses.dataclass
class ClassCurves:
    """The curves of one class, or of all of them."""

    id: int | None  # of the category; None for all classes
    name: str
    truths: int  # objects to be detected
    ap: dict[str, float | None]  # {a key of `IOUS`: the mean of `precision`, None without objects}
    # {a key of `IOUS`: [101] precision at `RECALLS`, the highest from there on, as in COCO's AP}; of all classes the
    # mean over those with objects. NaN without objects.
    precision: dict[str, np.ndarray]
    # Of the detections from each of `THRESHOLDS` on, [101] each: `precision`, the share that is right at IoU 0.5, NaN
    # where none is left; `recall`, the share of objects that they detect, NaN without objects; `f1`, the harmonic mean.
    # Of all classes they count everything together.
    against_threshold: dict[str, np.ndarray]
    # The score threshold with the highest F1, the middle one of several neighbours; None if nothing is detected at all.
    best_threshold: float | None
    best_f1: float | None

    def to_json(self):
        """All of it in plain json types, three decimals in the curves, None for NaN."""
        curves = {"precision": self.precision, "against_threshold": self.against_threshold}
        return vars(self) | {kind: {key: _round(line) for key, line in lines.items()} for kind, lines in curves.items()}


@dataclasses.dataclass
class Curves:
    """The `ClassCurves` of all classes together, and of each class."""

    all_classes: ClassCurves
    classes: list[ClassCurves]

    def to_json(self):
        """All of it in plain json types, with the values of the x axes."""
        return {
            "recalls": _round(RECALLS),
            "thresholds": _round(THRESHOLDS),
            "all_classes": self.all_classes.to_json(),
            "classes": [curves.to_json() for curves in self.classes],
        }


def _round(values):
    return [None if np.isnan(value) else round(value, 3) for value in values.tolist()]


def compute_curves(overlaps):
    """`Curves` of `Overlaps`, at the ten IoU thresholds of COCO's protocol."""
    order, truths = overlaps.order, overlaps.truth_counts()
    category, scores = overlaps.detection_category[order], overlaps.scores[order]
    verdicts = {}
    for iou in IOUS["0.5:0.95"]:
        matched = match_detections(overlaps, overlaps.reaching(iou) & overlaps.same_category())
        verdicts[iou] = judge_detections(overlaps, matched)[order]
    precision = {iou: interpolate_precision(values, category, truths) for iou, values in verdicts.items()}
    lines = {key: np.mean([precision[iou] for iou in ious], 0) for key, ious in IOUS.items()}
    classes = []
    for index, (category_id, name) in enumerate(zip(overlaps.category_ids, overlaps.names, strict=True)):
        mine = category == index
        own = {key: line[index] for key, line in lines.items()}
        against = _compute_against_threshold(verdicts[0.5][mine], scores[mine], truths[index])
        classes.append(ClassCurves(category_id, name, int(truths[index]), _average(own), own, *against))
    against = _compute_against_threshold(verdicts[0.5], scores, truths.sum())
    mean = {
        key: line[truths > 0].mean(0) if truths.any() else np.full(len(RECALLS), np.nan) for key, line in lines.items()
    }
    return Curves(ClassCurves(None, "all classes", int(truths.sum()), _average(mean), mean, *against), classes)


def interpolate_precision(verdicts, category, truths):
    """COCO's interpolated precision of each class: the highest at each of `RECALLS` or a higher recall.

    Args:
        verdicts: [n] as `judge_detections` gives them, best detection first.
        category: [n] int64, indices of categories.
        truths: [K] numbers of objects to be detected.

    Returns:
        [K, 101] float64, whose means over axis 1 are the average precisions; 0 at recalls that aren't reached, NaN
        without objects.
    """
    curves = np.full((len(truths), len(RECALLS)), np.nan)
    category, verdicts = category[verdicts != 0], verdicts[verdicts != 0]
    grouped = np.argsort(category, kind="stable")
    ends = np.searchsorted(category[grouped], np.arange(len(truths)), side="right")
    for index, mine in enumerate(np.split(verdicts[grouped], ends)[: len(truths)]):
        if truths[index]:
            true = np.cumsum(mine > 0)
            precision = np.maximum.accumulate((true / np.arange(1, len(mine) + 1))[::-1])[::-1]
            curves[index] = np.r_[precision, 0.0][np.searchsorted(true / truths[index], RECALLS)]
    return curves


def _compute_against_threshold(verdicts, scores, truths):
    """The last three fields of `ClassCurves`; detections come best first."""
    kept = np.searchsorted(-scores, -THRESHOLDS, side="right")
    true = np.r_[0, np.cumsum(verdicts > 0)][kept]
    counted = np.r_[0, np.cumsum(verdicts != 0)][kept]
    with np.errstate(invalid="ignore"):
        precision, recall = true / counted, true / np.float64(truths)
    f1 = 2 * true / np.maximum(counted + truths, 1)
    curves = {"precision": precision, "recall": recall, "f1": f1}
    if not true.any():
        return curves, None, None
    best = np.flatnonzero(f1 == f1.max())
    plateau = best[: np.flatnonzero(np.diff(best, append=len(THRESHOLDS) + 1) > 1)[0] + 1]
    middle = plateau[len(plateau) // 2]
    return curves, float(THRESHOLDS[middle].round(2)), float(f1[middle])


def _average(lines):
    return {key: None if np.isnan(line).any() else float(line.mean()) for key, line in lines.items()}
