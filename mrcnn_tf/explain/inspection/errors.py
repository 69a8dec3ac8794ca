"""What kinds of mistakes a model makes and how much average precision each kind costs.

After TIDE (Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", section 2).
"""

import dataclasses

import numpy as np

from mrcnn_tf.explain.inspection.curves import interpolate_precision
from mrcnn_tf.explain.inspection.matching import NEARLY_ONE, judge_detections, match_detections

# What a detection is. `ignored`: it lies in a crowd of its class, or isn't counted at all.
DETECTION_TYPES = ("correct", "class", "localisation", "both", "duplicate", "background", "ignored")
# What became of a ground truth. `low_score`: found by a detection below the threshold alone; `class` and
# `localisation`: the best that was there is a mistake of that type.
TRUTH_STATUSES = ("found", "class", "localisation", "low_score", "missed", "crowd")
ERRORS = ("class", "localisation", "both", "duplicate", "background", "missed")  # what costs average precision
CORRECT, CLASS, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, IGNORED = range(len(DETECTION_TYPES))


@dataclasses.dataclass
class ErrorSplit:
    """The type of each detection, the fate of each ground truth, and what each type of error costs.

    N detections and M ground truths, in the order of the lists that they came from; K categories.

    Attributes:
        kind: "bbox" or "segm".
        iou: the least overlap of a match.
        background: below this overlap a detection has nothing to do with a ground truth.
        min_score: detections below it have a type, but aren't counted, and find nothing.
        category_ids, names: [K] lists.
        types: [N] int8, positions in `TYPES`. They don't depend on `min_score`, since only better detections matter.
        explained_by: [N] int64, the ground truth that makes the detection what it is, or -1: its match, the one that it
            names wrongly or misplaces, or the one that was found already.
        overlap: [N] float64, the IoU with it, or 0.
        fates: [M] int8, positions in `FATES`; -1 for ground truths that aren't counted.
        covered_by: [M] int64, the detection that explains the fate, or -1.
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
    fates: np.ndarray
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
                "ap": _figure(self.class_ap[k]),
                "counts": {key: int(values[k]) for key, values in self.class_counts.items()},
                "costs": {key: _figure(values[k]) for key, values in self.class_costs.items()},
            }
            for k, (category_id, name) in enumerate(zip(self.category_ids, self.names, strict=True))
        ]
        names = ("kind", "iou", "background", "min_score", "ap", "counts", "costs")
        return {name: getattr(self, name) for name in names} | {"classes": classes}


def split_errors(pairs, iou=0.5, background=0.1, min_score=0.0):
    """Sorts detections into types, ground truths into fates, and says what each type of error costs.

    A detection without match is, by the first that applies: a `duplicate` if it overlaps a found object of its class by
    `iou`, of the wrong `class` if it overlaps one of another class by `iou`, wrong in `localisation` if it overlaps one
    of its class by `background`, wrong in `both` if one of another class, and `background` otherwise.

    Args:
        pairs: `Overlaps`, as `matching.overlaps` gives them.
        iou: the least overlap of a match.
        background: the least overlap that relates a detection to a ground truth.
        min_score: counts and fates are of detections from this score on; `ap` and the costs are of all.

    Returns:
        `ErrorSplit`.
    """
    matched = match_detections(pairs, pairs.reaching(iou) & pairs.same_category())
    types, explained_by = _types(pairs, matched, iou, background)
    overlap = np.zeros(len(types))
    explaining = explained_by[pairs.pair_detection] == pairs.pair_truth
    overlap[pairs.pair_detection[explaining]] = pairs.pair_iou[explaining]
    fates, covered_by = _fates(pairs, types, explained_by, min_score)
    class_ap, class_costs = _costs(pairs, types, explained_by)
    counts = _class_counts(pairs, types, fates, min_score)
    known = ~np.isnan(class_ap)
    return ErrorSplit(
        kind=pairs.kind,
        iou=iou,
        background=background,
        min_score=min_score,
        category_ids=pairs.category_ids,
        names=pairs.names,
        types=types,
        explained_by=explained_by,
        overlap=overlap,
        fates=fates,
        covered_by=covered_by,
        ap=float(class_ap[known].mean()) if known.any() else None,
        costs={name: float(values[known].mean()) if known.any() else None for name, values in class_costs.items()},
        counts={name: int(values.sum()) for name, values in counts.items()},
        class_ap=class_ap,
        class_costs=class_costs,
        class_counts=counts,
    )


def _types(pairs, matched, iou, background):
    """([N] int8 types, [N] int64 the ground truths that explain them)."""
    same_category = pairs.same_category()
    own, own_iou = _most_overlapped(pairs, same_category)
    other, other_iou = _most_overlapped(pairs, ~same_category)
    iou = min(iou, NEARLY_ONE)
    result = judge_detections(pairs, matched)
    # The first that applies; an object of its class that a false detection overlaps by `iou` is another one's match.
    cases = [
        (result == 1, CORRECT, matched),
        (result == 0, IGNORED, matched),
        (own_iou >= iou, DUPLICATE, own),
        (other_iou >= iou, CLASS, other),
        (own_iou >= background, LOCALISATION, own),
        (other_iou >= background, BOTH, other),
    ]
    conditions = [condition for condition, _, _ in cases]
    types = np.select(conditions, [kind for _, kind, _ in cases], BACKGROUND).astype(np.int8)
    return types, np.select(conditions, [truth for _, _, truth in cases], -1)


def _most_overlapped(pairs, usable):
    """([N] the ground truth, no crowd, that each detection overlaps most, or -1; [N] that IoU, or 0)."""
    chosen = np.flatnonzero(usable & ~pairs.crowd[pairs.pair_truth])
    chosen = chosen[np.argsort(pairs.pair_iou[chosen], kind="stable")]
    truth, iou = np.full(len(pairs.scores), -1, np.int64), np.zeros(len(pairs.scores))
    # Of several assignments to one place the last remains, which is the largest.
    truth[pairs.pair_detection[chosen]], iou[pairs.pair_detection[chosen]] = (
        pairs.pair_truth[chosen],
        pairs.pair_iou[chosen],
    )
    return truth, iou


def _fates(pairs, types, explained_by, min_score):
    """([M] int8 fates, [M] int64 the detections that explain them)."""
    fates = np.full(len(pairs.crowd), TRUTH_STATUSES.index("missed"), np.int8)
    covered_by = np.full(len(pairs.crowd), -1, np.int64)
    worst_first = pairs.order[::-1]
    shown = pairs.scores[worst_first] >= min_score
    wrong = np.isin(types[worst_first], (CLASS, LOCALISATION))
    correct = types[worst_first] == CORRECT
    # Each overwrites those before it.
    for chosen, fate in ((correct & ~shown, "low_score"), (wrong & shown, None), (correct & shown, "found")):
        detections = worst_first[chosen]
        truths = explained_by[detections]
        covered_by[truths] = detections
        names = {CLASS: TRUTH_STATUSES.index("class"), LOCALISATION: TRUTH_STATUSES.index("localisation")}
        fates[truths] = TRUTH_STATUSES.index(fate) if fate else [names[kind] for kind in types[detections].tolist()]
    fates[pairs.crowd] = TRUTH_STATUSES.index("crowd")
    fates[pairs.truth_category < 0] = -1
    return fates, covered_by


def _costs(pairs, types, explained_by):
    """([K] average precision of each class, {error: [K] by how much mending it raises that})."""
    truths, everything = pairs.truth_counts(), np.ones(len(types), bool)
    base = _class_ap(pairs, types, everything, pairs.detection_category, truths)
    mended = {}
    for kind in (CLASS, LOCALISATION):
        right = np.isin(types, (CORRECT, kind))
        category = pairs.detection_category.copy()
        category[right] = pairs.truth_category[explained_by[right]]
        claims = pairs.order[right[pairs.order]]
        kept = ~right
        kept[claims[np.unique(explained_by[claims], return_index=True)[1]]] = True  # the best of each object
        mended[kind] = _class_ap(pairs, np.where(right, CORRECT, types), kept, category, truths)
    for kind in (BOTH, DUPLICATE, BACKGROUND):
        mended[kind] = _class_ap(pairs, types, types != kind, pairs.detection_category, truths)
    costs = {DETECTION_TYPES[kind]: value - base for kind, value in mended.items()}
    seen = np.zeros(len(pairs.crowd), bool)
    seen[explained_by[np.isin(types, (CORRECT, CLASS, LOCALISATION))]] = True
    left = np.bincount(pairs.truth_category[seen], minlength=len(truths))
    ap = _class_ap(pairs, types, everything, pairs.detection_category, left)
    return base, costs | {"missed": np.where((left == 0) & (truths > 0), 1.0, ap) - base}


def _class_ap(pairs, types, kept, category, truths):
    """[K] average precision of the `kept` detections as if they were of these categories; NaN without ground truth."""
    best_first = pairs.order[kept[pairs.order]]
    results = np.select([types == CORRECT, types == IGNORED], [1, 0], -1)
    return interpolate_precision(results[best_first], category[best_first], truths).mean(1)


def _class_counts(pairs, types, fates, min_score):
    shown = (pairs.detection_category >= 0) & (pairs.scores >= min_score)
    counts = {
        DETECTION_TYPES[kind]: np.bincount(pairs.detection_category[shown & (types == kind)], minlength=len(pairs.names))
        for kind in (CORRECT, CLASS, LOCALISATION, BOTH, DUPLICATE, BACKGROUND)
    }
    missed = np.isin(fates, (TRUTH_STATUSES.index("missed"), TRUTH_STATUSES.index("low_score")))
    return counts | {"missed": np.bincount(pairs.truth_category[missed], minlength=len(pairs.names))}


def _figure(value):
    return None if np.isnan(value) else round(float(value), 6)


# The images with the gravest mistakes.
#

@dataclasses.dataclass
class RankedImage:
    """An image and what went right and wrong in it.

    Detections and ground truths are indices into the lists that were compared; each list is best score first, those of
    ground truths in the order of the json.

    Attributes:
        image_id: of the json.
        penalty: scores of the false detections, and 1 for each object that wasn't found, less the score of the
            detection that found it below the threshold.
        found: [[detection, ground truth], ...].
        false: [[detection, its type's name, the ground truth that explains it or None], ...].
        lost: [[ground truth, its fate's name, the detection that explains it or None], ...].
        ignored: detections in crowds.
    """

    image_id: int
    penalty: float
    found: list[list[int]]
    false: list[list]
    lost: list[list]
    ignored: list[int]

    def to_json(self):
        """All of it as a plain dict."""
        return dataclasses.asdict(self)


def rank_worst_images(pairs, split, count=20):
    """The images with the highest penalties, worst first; those without mistakes are left out.

    Args:
        pairs: `Overlaps`.
        split: the `ErrorSplit` made of it, whose `min_score` says which detections count.
        count: how many images at most; None: all of them.

    Returns:
        List of `RankedImage`.
    """
    shown = pairs.order[pairs.scores[pairs.order] >= split.min_score]
    false = shown[~np.isin(split.types[shown], (CORRECT, IGNORED))]
    lost = np.flatnonzero((split.fates >= 0) & ~np.isin(split.fates, (TRUTH_STATUSES.index("found"), TRUTH_STATUSES.index("crowd"))))
    low = split.fates[lost] == TRUTH_STATUSES.index("low_score")
    penalty = np.zeros(len(pairs.image_ids))
    np.add.at(penalty, pairs.detection_image[false], pairs.scores[false])
    np.add.at(penalty, pairs.truth_image[lost], 1.0)
    np.subtract.at(penalty, pairs.truth_image[lost[low]], pairs.scores[split.covered_by[lost[low]]])
    worst = np.argsort(-penalty, kind="stable")[:count]
    worst = worst[penalty[worst] > 0].tolist()
    ranked = {image: RankedImage(pairs.image_ids[image], float(penalty[image]), [], [], [], []) for image in worst}
    for detection in shown.tolist():
        image = ranked.get(int(pairs.detection_image[detection]))
        if image is None:
            continue
        kind, truth = int(split.types[detection]), int(split.explained_by[detection])
        if kind == CORRECT:
            image.found.append([detection, truth])
        elif kind == IGNORED:
            image.ignored.append(detection)
        else:
            image.false.append([detection, DETECTION_TYPES[kind], None if truth < 0 else truth])
    for truth in lost.tolist():
        image = ranked.get(int(pairs.truth_image[truth]))
        if image is not None:
            detection = int(split.covered_by[truth])
            image.lost.append([truth, TRUTH_STATUSES[split.fates[truth]], None if detection < 0 else detection])
    return list(ranked.values())
