"""Which detections overlap which ground truth, and COCO's matching of the two, for all that an inspection counts.

The overlaps are computed once per dataset; matching at a threshold is then a pass over the pairs that reach it.
"""

import dataclasses

import numpy as np
from pycocotools import mask as coco_mask

MAX_DETECTIONS = 100  # of one image and category, as in COCO's protocol
NEARLY_ONE = 1 - 1e-10  # COCO's greatest IoU threshold, so that an overlap of 1 isn't lost in rounding


@dataclasses.dataclass
class Overlaps:
    """Ground truth, detections and every pair of them that shares some area, as flat arrays.

    Detections and ground truths are known by their index in the lists that they came from, so that an index also finds
    the mask and the box. N detections, M ground truths, K categories, I images, P pairs; a pair is of one image but of
    any two categories.

    Attributes:
        kind: "bbox" or "segm".
        image_ids: [I] list of int, ascending.
        category_ids, names: [K] lists, ascending by id.
        detection_image, detection_category: [N] int64, positions in `image_ids` and `category_ids`; -1 for detections
            that don't count: of another image or category, or beyond the 100 best of their image and category.
        scores: [N] float64.
        order: the detections that count, best first; those of equal score in COCO's order.
        truth_image, truth_category: [M] int64, likewise; -1 for those without a mask if `kind` is "segm".
        crowd: [M] bool.
        pair_detection, pair_truth: [P] int64.
        pair_iou: [P] float64 above 0; with a crowd the share of the detection that lies in it.
    """

    kind: str
    image_ids: list[int]
    category_ids: list[int]
    names: list[str]
    detection_image: np.ndarray
    detection_category: np.ndarray
    scores: np.ndarray
    order: np.ndarray
    truth_image: np.ndarray
    truth_category: np.ndarray
    crowd: np.ndarray
    pair_detection: np.ndarray
    pair_truth: np.ndarray
    pair_iou: np.ndarray

    def reaching(self, iou):
        """[P] bool: pairs that overlap by an IoU threshold as COCO applies it."""
        return self.pair_iou >= min(iou, NEARLY_ONE)

    def same_category(self):
        """[P] bool: pairs whose detection and ground truth are of one category."""
        return self.detection_category[self.pair_detection] == self.truth_category[self.pair_truth]

    def truth_counts(self):
        """[K] int64: ground truths of each category that have to be found, which crowds needn't."""
        return np.bincount(self.truth_category[(self.truth_category >= 0) & ~self.crowd], minlength=len(self.names))


def compute_overlaps(truth, detections, kind="segm", image_ids=None, categories=None):
    """Everything that `split_errors`, `confusion`, `curves` and `worst_images` need of a dataset and a model's answers.

    Args:
        truth: the `InstanceGroundTruth` of `evaluation.instance_ground_truth.read_instance_ground_truth`.
        detections: list of dicts in COCO's result format, as `evaluation.evaluate_model.evaluate` returns them.
        kind: "segm" to compare masks, which every detection must then have, or "bbox".
        image_ids: the images to count; None: all of `truth`.
        categories: the `Category`s to count; None: all of `truth`.

    Returns:
        `Overlaps`.
    """
    names = {c["id"]: str(c.get("name", c["id"])) for c in truth.categories}
    if categories is not None:
        names = {category.id: category.name for category in categories}
    category_ids = sorted(names)
    image_ids = sorted({image["id"] for image in truth.images} if image_ids is None else set(image_ids))
    found = _positions(detections, image_ids, category_ids)
    there = _positions(truth.annotations, image_ids, category_ids)
    if kind == "segm":
        there[:, [not a["segmentation"] for a in truth.annotations]] = -1
    scores = np.array([d["score"] for d in detections], np.float64)
    order = _coco_order(found, scores)
    found[:, np.setdiff1d(np.arange(len(detections)), order)] = -1
    crowd = np.array([bool(a["iscrowd"]) for a in truth.annotations], bool)
    pairs = _pairs(truth.annotations, detections, kind, there[0], found[0], crowd, len(image_ids))
    labels = [names[category_id] for category_id in category_ids]
    return Overlaps(kind, image_ids, category_ids, labels, *found, scores, order, *there, crowd, *pairs)


def match_detections(pairs, usable):
    """COCO's greedy matching: the best detection first, each to the free ground truth that it overlaps most.

    Args:
        pairs: `Overlaps`.
        usable: [P] bool, the pairs that may become matches.

    Returns:
        [N] int64: the ground truth of each detection, or -1. A crowd takes any number of detections, but only such as
        have no match besides.
    """
    detection, truth, overlap = (a[usable] for a in (pairs.pair_detection, pairs.pair_truth, pairs.pair_iou))
    crowd = pairs.crowd[truth]
    rank = np.empty(len(pairs.scores), np.int64)
    rank[pairs.order] = np.arange(len(pairs.order))
    # Of equal overlaps COCO takes the later ground truth.
    sequence = np.lexsort((-truth, -overlap, crowd, rank[detection]))
    matched, free = [-1] * len(pairs.scores), [True] * len(pairs.crowd)
    columns = (a[sequence].tolist() for a in (detection, truth, crowd))
    for d, t, is_crowd in zip(*columns, strict=True):
        if matched[d] < 0 and (free[t] or is_crowd):
            matched[d], free[t] = t, False
    return np.array(matched, np.int64)


def judge_detections(pairs, matched):
    """What each detection counts as in COCO's precision: 1 right, -1 false, 0 in a crowd or not counted.

    Args:
        pairs: `Overlaps`.
        matched: [N], as `match` gives it.

    Returns:
        [N] int8.
    """
    result = np.where(matched < 0, -1, 1).astype(np.int8)
    result[np.isin(matched, np.flatnonzero(pairs.crowd))] = 0
    result[pairs.detection_category < 0] = 0
    return result


def _positions(records, image_ids, category_ids):
    """[2, N] int64: positions of the records' images and categories; both -1 where one of them isn't counted."""
    images = {image_id: position for position, image_id in enumerate(image_ids)}
    categories = {category_id: position for position, category_id in enumerate(category_ids)}
    found = np.array(
        [[images.get(r["image_id"], -1) for r in records], [categories.get(r["category_id"], -1) for r in records]],
        np.int64,
    )
    found[:, (found < 0).any(0)] = -1
    return found


def _coco_order(positions, scores):
    """The detections that count, best first; of equal scores the earlier image's, then the earlier in the list."""
    image, category = positions
    order = np.lexsort((image, -scores))
    order = order[image[order] >= 0]
    groups = np.lexsort((category[order], image[order]))  # stable: the best of each group first
    keys = positions[:, order[groups]]
    starts = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(0)]) if len(groups) else groups
    rank = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return order[np.sort(groups[rank < MAX_DETECTIONS])]


def _pairs(annotations, detections, kind, truth_image, detection_image, crowd, images):
    """([P] detections, [P] ground truths, [P] IoUs) of those that overlap; only one image's are held as a matrix."""
    shape = "segmentation" if kind == "segm" else "bbox"
    found, there = _by_image(detection_image, images), _by_image(truth_image, images)
    columns = [], [], []
    for mine, theirs in zip(found, there, strict=True):
        if not len(mine) or not len(theirs):
            continue
        shapes = [detections[i][shape] for i in mine], [annotations[i][shape] for i in theirs]
        if kind == "bbox":
            shapes = [np.array(boxes, np.float64) for boxes in shapes]
        matrix = coco_mask.iou(*shapes, crowd[theirs].astype(np.uint8).tolist())
        rows, places = np.nonzero(matrix)
        for column, part in zip(columns, (mine[rows], theirs[places], matrix[rows, places]), strict=True):
            column.append(part)
    kinds = (np.int64, np.int64, np.float64)
    return [np.concatenate(c) if c else np.zeros(0, dtype) for c, dtype in zip(columns, kinds, strict=True)]


def _by_image(image, images):
    """For each image the indices of its records, in the order of the list."""
    order = np.argsort(image, kind="stable")
    return np.split(order, np.searchsorted(image[order], np.arange(images + 1)))[1:-1]


# Which class is taken for which.
#

@dataclasses.dataclass
class Confusion:
    """Objects by what they are and what they were detected as.

    Attributes:
        names: [K] of the categories.
        category_ids: [K].
        counts: [K + 1, K + 1] int64, rows are the truth and columns the detection. The last row holds detections where
            there is no object left, the last column objects that nothing was left for.
        iou, min_score: the least overlap and score that counted.
    """

    names: list[str]
    category_ids: list[int]
    counts: np.ndarray
    iou: float
    min_score: float

    def to_json(self):
        """All of it in plain json types."""
        return dataclasses.asdict(self) | {"counts": self.counts.tolist()}


def count_confusion(pairs, iou=0.5, min_score=0.5):
    """Counts which class is taken for which.

    Detections are first matched within their class as in COCO's protocol; those left over, best first, with the objects
    left over, whatever their class. Detections in a crowd of their class are not counted.

    Args:
        pairs: `Overlaps`.
        iou: the least overlap of a match.
        min_score: of the detections that take part.

    Returns:
        `Confusion`.
    """
    shown = (pairs.detection_category >= 0) & (pairs.scores >= min_score)
    there = (pairs.truth_category >= 0) & ~pairs.crowd
    usable = pairs.reaching(iou) & shown[pairs.pair_detection]
    matched = match_detections(pairs, usable & pairs.same_category())
    found = np.isin(np.arange(len(there)), matched)
    left = (matched < 0)[pairs.pair_detection] & (there & ~found)[pairs.pair_truth]
    matched = np.maximum(matched, match_detections(pairs, usable & left))
    found = np.isin(np.arange(len(there)), matched)
    taken = np.isin(matched, np.flatnonzero(there))
    nothing = len(pairs.names)
    counts = np.zeros((nothing + 1, nothing + 1), np.int64)
    np.add.at(counts, (pairs.truth_category[matched[taken]], pairs.detection_category[taken]), 1)
    np.add.at(counts, (nothing, pairs.detection_category[shown & (matched < 0)]), 1)
    np.add.at(counts, (pairs.truth_category[there & ~found], nothing), 1)
    return Confusion(pairs.names, pairs.category_ids, counts, iou, min_score)
