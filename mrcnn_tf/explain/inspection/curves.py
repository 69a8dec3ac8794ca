"""Precision against recall, and both against the score threshold, for each class."""

import dataclasses

import numpy as np

from mrcnn_tf.explain.inspection.matching import judge_detections, match_detections

RECALLS = np.linspace(0, 1, 101)  # where COCO reads precision off
IOUS = {"0.5": [0.5], "0.75": [0.75], "0.5:0.95": np.linspace(0.5, 0.95, 10).tolist()}
THRESHOLDS = np.linspace(0, 1, 101)  # scores


@dataclasses.dataclass
class ClassCurves:
    """The curves of one class, or of all of them.

    Attributes:
        category_id: None for all classes.
        name: "all classes" for these.
        truths: how many objects there are to be found.
        precision: {a key of `IOUS`: [101] precision at `RECALLS`, the highest from there on, as in COCO's AP}; of all
            classes the mean over those with objects. NaN without objects.
        ap: {a key of `IOUS`: mean of that curve, None without objects}.
        threshold_precision: [101] the share of detections from each of `THRESHOLDS` on that are right at IoU 0.5; NaN
            where none is left.
        threshold_recall: [101] the share of objects that these find; NaN without objects.
        threshold_f1: [101] harmonic mean of the two. Of all classes these three count everything together.
        best_threshold: the score threshold with the highest F1, the middle one of several neighbours; None if nothing
            is found at all.
        best_f1: that F1.
    """

    category_id: int | None
    name: str
    truths: int
    precision: dict[str, np.ndarray]
    ap: dict[str, float | None]
    threshold_precision: np.ndarray
    threshold_recall: np.ndarray
    threshold_f1: np.ndarray
    best_threshold: float | None
    best_f1: float | None


@dataclasses.dataclass
class Curves:
    """`whole`: the `ClassCurves` of all classes together; `classes`: of each."""

    whole: ClassCurves
    classes: list[ClassCurves]

    def to_json(self):
        """All of it in plain json types, three decimals in the curves, None for NaN."""
        return {
            "recalls": _rounded(RECALLS),
            "thresholds": _rounded(THRESHOLDS),
            "whole": _class_json(self.whole),
            "classes": [_class_json(one) for one in self.classes],
        }


def compute_curves(pairs):
    """`Curves` of `Overlaps`, at the ten IoU thresholds of COCO's protocol."""
    order, truths = pairs.order, pairs.truth_counts()
    category, scores = pairs.detection_category[order], pairs.scores[order]
    results = {
        iou: judge_detections(pairs, match_detections(pairs, pairs.reaching(iou) & pairs.same_category()))[order]
        for iou in IOUS["0.5:0.95"]
    }
    precision = {iou: interpolate_precision(result, category, truths) for iou, result in results.items()}
    lines = {key: np.mean([precision[iou] for iou in ious], 0) for key, ious in IOUS.items()}
    classes = []
    for position, (category_id, name) in enumerate(zip(pairs.category_ids, pairs.names, strict=True)):
        mine = category == position
        against = _against_threshold(results[0.5][mine], scores[mine], truths[position])
        own = {key: line[position] for key, line in lines.items()}
        classes.append(ClassCurves(category_id, name, int(truths[position]), own, _means(own), *against))
    against = _against_threshold(results[0.5], scores, truths.sum())
    there = {key: line[truths > 0] if truths.any() else line[:1] * np.nan for key, line in lines.items()}
    mean = {key: line.mean(0) for key, line in there.items()}
    return Curves(ClassCurves(None, "all classes", int(truths.sum()), mean, _means(mean), *against), classes)


def interpolate_precision(results, category, truths):
    """COCO's interpolated precision of each class: the highest at each of `RECALLS` or a higher recall.

    Args:
        results: [n] as `matching.outcomes` gives them, best detection first.
        category: [n] int64, positions of categories.
        truths: [K] numbers of objects to be found.

    Returns:
        [K, 101] float64, whose means over axis 1 are the average precisions; 0 at recalls that aren't reached, NaN
        without objects.
    """
    found = np.full((len(truths), len(RECALLS)), np.nan)
    category, results = category[results != 0], results[results != 0]
    grouped = np.argsort(category, kind="stable")
    ends = np.searchsorted(category[grouped], np.arange(len(truths)), side="right")
    for position, mine in enumerate(np.split(results[grouped], ends)[: len(truths)]):
        if truths[position]:
            right = np.cumsum(mine > 0)
            precision = np.maximum.accumulate((right / np.arange(1, len(mine) + 1))[::-1])[::-1]
            found[position] = np.r_[precision, 0.0][np.searchsorted(right / truths[position], RECALLS)]
    return found


def _against_threshold(results, scores, truths):
    """The last five fields of `ClassCurves`; detections come best first."""
    kept = np.searchsorted(-scores, -THRESHOLDS, side="right")
    right = np.r_[0, np.cumsum(results > 0)][kept]
    answers = np.r_[0, np.cumsum(results != 0)][kept]
    with np.errstate(invalid="ignore"):
        precision, recall = right / answers, right / np.float64(truths)
    f1 = 2 * right / np.maximum(answers + truths, 1)
    if not right.any():
        return precision, recall, f1, None, None
    best = np.flatnonzero(f1 == f1.max())
    plateau = best[: np.flatnonzero(np.diff(best, append=len(THRESHOLDS) + 1) > 1)[0] + 1]
    middle = plateau[len(plateau) // 2]
    return precision, recall, f1, float(THRESHOLDS[middle].round(2)), float(f1[middle])


def _means(lines):
    return {key: None if np.isnan(line).any() else float(line.mean()) for key, line in lines.items()}


def _class_json(one):
    arrays = {name: _rounded(getattr(one, f"threshold_{name}")) for name in ("precision", "recall", "f1")}
    return {
        "id": one.category_id,
        "name": one.name,
        "truths": one.truths,
        "ap": one.ap,
        "precision": {key: _rounded(line) for key, line in one.precision.items()},
        "against_threshold": arrays,
        "best_threshold": one.best_threshold,
        "best_f1": one.best_f1,
    }


def _rounded(values):
    return [None if np.isnan(value) else round(value, 3) for value in values.tolist()]
