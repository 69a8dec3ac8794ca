"""What kinds of mistakes a model makes, how much average precision each kind costs, and the images with the worst.

After TIDE (Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", section 2).
"""

import dataclasses

import numpy as np

from mrcnn_tf.explain.inspection.curves import interpolate_precision
from mrcnn_tf.explain.inspection.detection_matching import (
    NEARLY_ONE,
    group_by_image,
    judge_detections,
    match_detections,
)

# What a detection is. `ignored`: it lies in a crowd of its class, or isn't counted at all.
DETECTION_TYPES = ("correct", "class", "localisation", "both", "duplicate", "background", "ignored")
CORRECT, CLASS, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, IGNORED = range(len(DETECTION_TYPES))
# What became of a ground truth. `low_score`: detected below the score threshold alone; `class` and `localisation`: the
# best detection of it is a mistake of that type.
TRUTH_STATUSES = ("detected", "class", "localisation", "low_score", "missed", "crowd")
DETECTED, WRONG_CLASS, BADLY_PLACED, LOW_SCORE, MISSED, CROWD = range(len(TRUTH_STATUSES))
ERRORS = ("class", "localisation", "both", "duplicate", "background", "missed")  # what costs average precision


@dataclasses.dataclass
class ErrorSplit:
    """The type of each detection, the status of each ground truth, and what each type of error costs.

    N detections and M ground truths, in the order of the lists that they came from; K categories.

    Attributes:
        kind: "bbox" or "segm".
        iou: the least overlap of a match.
        background: below this overlap a detection has nothing to do with a ground truth.
        min_score: detections below it have a type, but aren't counted, and detect nothing.
        category_ids, names: [K] lists.
        types: [N] int8, indices of `DETECTION_TYPES`. They don't depend on `min_score`, since only better detections
            matter.
        explained_by: [N] int64, the ground truth that makes the detection what it is, or -1: its match, the one that it
            names wrongly or misplaces, or the one that was detected already.
        overlap: [N] float64, the IoU with it, or 0.
        statuses: [M] int8, indices of `TRUTH_STATUSES`; -1 for ground truths that aren't counted.
        covered_by: [M] int64, the detection that explains the status, or -1.
        ap: average precision at `iou` of all detections whatever their score, or None without ground truth.
        costs: {one of `ERRORS`: by how much `ap` would rise if that type alone were mended}. A wrong class or box is
            put right (and only the best detection of an object stays); wrong on both counts, duplicate and background
            are removed; missed objects are taken off the ground truth, and a class without any left counts as 1. The
            costs don't add up to 1 - `ap`.
        counts: {one of `ERRORS` or "correct": number of detections (of missed: ground truths that are `missed` or
            `low_score`) at `min_score`}.
        class_ap: [K] `ap` of each category, NaN without ground truth.
        class_costs: {one of `ERRORS`: [K] float64}, NaN without ground truth.
        class_counts: {as `counts`: [K] int64}; detections by their own category.
    """

    kind: str
    iou: float
    background: float
    min_score: float
    category_ids: list[int]
    names: list[str]
    types: np.ndarray
    explained_by: np.ndarray
    overlap: np.ndarray
    statuses: np.ndarray
    covered_by: np.ndarray
    ap: float | None
    costs: dict[str, float]
    counts: dict[str, int]
    class_ap: np.ndarray
    class_costs: dict[str, np.ndarray]
    class_counts: dict[str, np.ndarray]

    def to_json(self):
        """The figures, over all classes and for each, as plain json types; single detections are left out."""
        classes = [
            {
                "id": category_id,
                "name": name,
                "ap": _to_figure(self.class_ap[k]),
                "counts": {key: int(values[k]) for key, values in self.class_counts.items()},
                "costs": {key: _to_figure(values[k]) for key, values in self.class_costs.items()},
            }
            for k, (category_id, name) in enumerate(zip(self.category_ids, self.names, strict=True))
        ]
        names = ("kind", "iou", "background", "min_score", "ap", "counts", "costs")
        return {name: getattr(self, name) for name in names} | {"classes": classes}


def _to_figure(value):
    return None if np.isnan(value) else round(float(value), 6)


def split_errors(overlaps, iou=0.5, background=0.1, min_score=0.0):
    """Sort detections into types and ground truths into statuses, with what each type costs: the `ErrorSplit`.

    A detection without match is, by the first that applies: a `duplicate` if it overlaps a detected object of its class
    by `iou`, of the wrong `class` if it overlaps one of another class by `iou`, wrong in `localisation` if it overlaps
    one of its class by `background`, wrong in `both` if one of another class, and `background` otherwise.

    Args:
        overlaps: `Overlaps`, as `matching.compute_overlaps` gives them.
        iou: the least overlap of a match.
        background: the least overlap that relates a detection to a ground truth.
        min_score: counts and statuses are of detections from this score on; `ap` and the costs are of all.
    """
    types, explained_by = _sort_detections(overlaps, iou, background)
    overlap = np.zeros(len(types))
    explaining = explained_by[overlaps.pair_detection] == overlaps.pair_truth
    overlap[overlaps.pair_detection[explaining]] = overlaps.pair_iou[explaining]
    statuses, covered_by = _sort_truths(overlaps, types, explained_by, min_score)
    class_ap, class_costs = _compute_costs(overlaps, types, explained_by)
    class_counts = _count_errors(overlaps, types, statuses, min_score)
    known = ~np.isnan(class_ap)
    return ErrorSplit(
        kind=overlaps.kind,
        iou=iou,
        background=background,
        min_score=min_score,
        category_ids=overlaps.category_ids,
        names=overlaps.names,
        types=types,
        explained_by=explained_by,
        overlap=overlap,
        statuses=statuses,
        covered_by=covered_by,
        ap=float(class_ap[known].mean()) if known.any() else None,
        costs={name: float(values[known].mean()) if known.any() else None for name, values in class_costs.items()},
        counts={name: int(values.sum()) for name, values in class_counts.items()},
        class_ap=class_ap,
        class_costs=class_costs,
        class_counts=class_counts,
    )


def _sort_detections(overlaps, iou, background):
    """([N] int8 types, [N] int64 the ground truths that explain them)."""
    same_category = overlaps.same_category()
    matched = match_detections(overlaps, overlaps.reaching(iou) & same_category)
    own, own_iou = _find_most_overlapped(overlaps, same_category)
    other, other_iou = _find_most_overlapped(overlaps, ~same_category)
    iou = min(iou, NEARLY_ONE)
    verdicts = judge_detections(overlaps, matched)
    # The first that applies; an object of its class that a false detection overlaps by `iou` is another one's match.
    conditions, types, truths = zip(
        (verdicts == 1, CORRECT, matched),
        (verdicts == 0, IGNORED, matched),
        (own_iou >= iou, DUPLICATE, own),
        (other_iou >= iou, CLASS, other),
        (own_iou >= background, LOCALISATION, own),
        (other_iou >= background, BOTH, other),
        strict=True,
    )
    return np.select(conditions, types, BACKGROUND).astype(np.int8), np.select(conditions, truths, -1)


def _find_most_overlapped(overlaps, usable):
    """([N] the ground truth, no crowd, that each detection overlaps most, or -1; [N] that IoU, or 0)."""
    chosen = np.flatnonzero(usable & ~overlaps.crowd[overlaps.pair_truth])
    chosen = chosen[np.argsort(overlaps.pair_iou[chosen], kind="stable")]
    truth, iou = np.full(len(overlaps.scores), -1, np.int64), np.zeros(len(overlaps.scores))
    # Of several assignments to one detection the last remains, which is the largest.
    detection = overlaps.pair_detection[chosen]
    truth[detection], iou[detection] = overlaps.pair_truth[chosen], overlaps.pair_iou[chosen]
    return truth, iou


def _sort_truths(overlaps, types, explained_by, min_score):
    """([M] int8 statuses, [M] int64 the detections that explain them)."""
    statuses = np.full(len(overlaps.crowd), MISSED, np.int8)
    covered_by = np.full(len(overlaps.crowd), -1, np.int64)
    worst_first = overlaps.order[::-1]
    shown, types = overlaps.scores[worst_first] >= min_score, types[worst_first]
    status_of_type = np.full(len(DETECTION_TYPES), DETECTED, np.int8)
    status_of_type[[CLASS, LOCALISATION]] = WRONG_CLASS, BADLY_PLACED
    wrong = np.isin(types, (CLASS, LOCALISATION))
    # Each overwrites those before it.
    for chosen in ((types == CORRECT) & ~shown, wrong & shown, (types == CORRECT) & shown):
        detections = worst_first[chosen]
        truths = explained_by[detections]
        covered_by[truths] = detections
        statuses[truths] = np.where(shown[chosen], status_of_type[types[chosen]], LOW_SCORE)
    statuses[overlaps.crowd] = CROWD
    statuses[overlaps.truth_category < 0] = -1
    return statuses, covered_by


def _compute_costs(overlaps, types, explained_by):
    """([K] average precision of each class, {error: [K] by how much mending it raises that})."""
    truths, everything = overlaps.truth_counts(), np.ones(len(types), bool)
    base = _class_ap(overlaps, types, everything, overlaps.detection_category, truths)
    mended = {}
    for kind in (CLASS, LOCALISATION):
        right = np.isin(types, (CORRECT, kind))
        category = overlaps.detection_category.copy()
        category[right] = overlaps.truth_category[explained_by[right]]
        claims = overlaps.order[right[overlaps.order]]
        kept = ~right
        kept[claims[np.unique(explained_by[claims], return_index=True)[1]]] = True  # the best of each object
        mended[kind] = _class_ap(overlaps, np.where(right, CORRECT, types), kept, category, truths)
    for kind in (BOTH, DUPLICATE, BACKGROUND):
        mended[kind] = _class_ap(overlaps, types, types != kind, overlaps.detection_category, truths)
    costs = {DETECTION_TYPES[kind]: value - base for kind, value in mended.items()}
    covered = np.zeros(len(overlaps.crowd), bool)
    covered[explained_by[np.isin(types, (CORRECT, CLASS, LOCALISATION))]] = True
    left = np.bincount(overlaps.truth_category[covered], minlength=len(truths))
    ap = _class_ap(overlaps, types, everything, overlaps.detection_category, left)
    return base, costs | {"missed": np.where((left == 0) & (truths > 0), 1.0, ap) - base}


def _class_ap(overlaps, types, kept, category, truths):
    """[K] average precision of the `kept` detections as if they were of these categories; NaN without ground truth."""
    best_first = overlaps.order[kept[overlaps.order]]
    verdicts = np.select([types == CORRECT, types == IGNORED], [1, 0], -1)
    return interpolate_precision(verdicts[best_first], category[best_first], truths).mean(1)


def _count_errors(overlaps, types, statuses, min_score):
    """{one of `ERRORS` or "correct": [K] int64}."""
    shown, classes = (overlaps.detection_category >= 0) & (overlaps.scores >= min_score), len(overlaps.names)
    counts = {
        DETECTION_TYPES[kind]: np.bincount(overlaps.detection_category[shown & (types == kind)], minlength=classes)
        for kind in (CORRECT, CLASS, LOCALISATION, BOTH, DUPLICATE, BACKGROUND)
    }
    missed = np.isin(statuses, (MISSED, LOW_SCORE))
    return counts | {"missed": np.bincount(overlaps.truth_category[missed], minlength=classes)}


@dataclasses.dataclass
class RankedImage:
    """An image and what went right and wrong in it.

    Detections and ground truths are indices into the lists that were compared; each list is best score first, those of
    ground truths in the order of the json.
    """

    image_id: int
    # Scores of the false detections, and 1 for each object that wasn't detected, less the score of the detection that
    # detected it below the threshold.
    penalty: float
    correct: list[list[int]]  # [[detection, ground truth], ...]
    false: list[list]  # [[detection, its type, the ground truth that explains it or None], ...]
    lost: list[list]  # [[ground truth, its status, the detection that explains it or None], ...]
    ignored: list[int]  # detections in crowds, and forgiven ones


def rank_worst_images(overlaps, split, count=20):
    """The `RankedImage`s with the highest penalties, worst first; those without mistakes are left out.

    Args:
        overlaps: `Overlaps`.
        split: the `ErrorSplit` made of it, whose `min_score` says which detections count.
        count: how many images at most; None: all of them.
    """
    shown = overlaps.order[overlaps.scores[overlaps.order] >= split.min_score]
    false = shown[~np.isin(split.types[shown], (CORRECT, IGNORED))]
    lost = np.flatnonzero(np.isin(split.statuses, (WRONG_CLASS, BADLY_PLACED, LOW_SCORE, MISSED)))
    low = lost[split.statuses[lost] == LOW_SCORE]
    penalty = np.zeros(len(overlaps.image_ids))
    np.add.at(penalty, overlaps.detection_image[false], overlaps.scores[false])
    np.add.at(penalty, overlaps.truth_image[lost], 1.0)
    np.subtract.at(penalty, overlaps.truth_image[low], overlaps.scores[split.covered_by[low]])
    shown_in = group_by_image(overlaps.detection_image[shown], len(penalty))
    lost_in = group_by_image(overlaps.truth_image[lost], len(penalty))
    ranked = []
    for image in np.argsort(-penalty, kind="stable")[:count]:
        if penalty[image] <= 0:
            break
        entry = RankedImage(overlaps.image_ids[image], float(penalty[image]), [], [], [], [])
        for detection in shown[shown_in[image]].tolist():
            kind, truth = int(split.types[detection]), _index_or_none(split.explained_by[detection])
            if kind == CORRECT:
                entry.correct.append([detection, truth])
            elif kind == IGNORED:
                entry.ignored.append(detection)
            else:
                entry.false.append([detection, DETECTION_TYPES[kind], truth])
        for truth in lost[lost_in[image]].tolist():
            status = TRUTH_STATUSES[split.statuses[truth]]
            entry.lost.append([truth, status, _index_or_none(split.covered_by[truth])])
        ranked.append(entry)
    return ranked


def _index_or_none(index):
    return None if index < 0 else int(index)
