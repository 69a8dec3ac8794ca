"""Which detections overlap which ground truth, COCO's matching of the two, and which class is taken for which.

The overlaps are computed once per dataset; matching at a threshold is then a pass over the pairs that reach it.
"""

import dataclasses

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.evaluation import lvis

MAX_DETECTIONS = 100  # of one image and category, as in COCO's protocol
NEARLY_ONE = 1 - 1e-10  # COCO's greatest IoU threshold, so that an overlap of 1 isn't lost in rounding


@dataclasses.dataclass
class Overlaps:
    """Ground truth, detections and every pair of them that shares some area, as flat arrays.

    Detections and ground truths are known by their index in the lists that they came from, so that an index also finds
    the mask and the box. N detections, M ground truths, K categories, I images, P pairs; a pair is of one image but of
    any two categories.
    """

    kind: str  # "bbox" or "segm"
    image_ids: list[int]  # I, ascending
    category_ids: list[int]  # K, ascending
    names: list[str]  # of the categories
    # [N] int64, index into `image_ids` and `category_ids`; -1 for detections that don't count: of another image or
    # category, beyond the 100 best of their image and category, or by LVIS's lists of one that nobody looked for there.
    detection_image: np.ndarray
    detection_category: np.ndarray
    scores: np.ndarray  # [N] float64
    # [N] bool, those that don't count without a match: of a category that LVIS's image isn't completely annotated for.
    forgiven: np.ndarray
    order: np.ndarray  # the detections that count, best first; those of equal score in COCO's order
    truth_image: np.ndarray  # [M] int64, likewise; -1 for those without a mask if `kind` is "segm"
    truth_category: np.ndarray
    crowd: np.ndarray  # [M] bool
    pair_detection: np.ndarray  # [P] int64
    pair_truth: np.ndarray  # [P] int64
    pair_iou: np.ndarray  # [P] float64 above 0; with a crowd the share of the detection that lies in it

    def reaching(self, iou):
        """[P] bool: pairs that overlap by an IoU threshold as COCO applies it."""
        return self.pair_iou >= min(iou, NEARLY_ONE)

    def same_category(self):
        """[P] bool: pairs whose detection and ground truth are of one category."""
        return self.detection_category[self.pair_detection] == self.truth_category[self.pair_truth]

    def truth_counts(self):
        """[K] int64: ground truths of each category that have to be detected, which crowds needn't."""
        return np.bincount(self.truth_category[(self.truth_category >= 0) & ~self.crowd], minlength=len(self.names))


def compute_overlaps(truth, detections, kind="segm", image_ids=None, categories=None):
    """The `Overlaps` of a dataset and a model's detections, from which errors, confusion and curves are computed.

    Args:
        truth: the `InstanceGroundTruth` of `read_instance_ground_truth`.
        detections: list of dicts in COCO's result format, as an evaluation returns them.
        kind: "segm" to compare masks, which every detection must then have, or "bbox".
        image_ids: the images to count; None: all of `truth`.
        categories: the `Category`s to count; None: all of `truth`.
    """
    names = {c["id"]: str(c.get("name", c["id"])) for c in truth.categories}
    if categories is not None:
        names = {category.id: category.name for category in categories}
    category_ids = sorted(names)
    image_ids = sorted({image["id"] for image in truth.images} if image_ids is None else set(image_ids))
    detection_keys = _index_keys(detections, image_ids, category_ids)
    truth_keys = _index_keys(truth.annotations, image_ids, category_ids)
    if kind == "segm":
        truth_keys[:, [not a["segmentation"] for a in truth.annotations]] = -1
    scores, forgiven = np.array([d["score"] for d in detections], np.float64), np.zeros(len(detections), bool)
    if image_lists := lvis.read_image_lists(truth.images, truth.source):
        searched = lvis.searched_pairs(truth.annotations, image_lists)
        detection_keys[:, [(d["image_id"], d["category_id"]) not in searched for d in detections]] = -1
        forgiven[:] = [d["category_id"] in image_lists.get(d["image_id"], ((), ()))[1] for d in detections]
    order = _coco_order(detection_keys, scores)
    detection_keys[:, np.setdiff1d(np.arange(len(detections)), order)] = -1
    crowd = np.array([bool(a["iscrowd"]) for a in truth.annotations], bool)
    pairs = _find_pairs(truth.annotations, detections, kind, truth_keys[0], detection_keys[0], crowd, len(image_ids))
    labels = [names[category_id] for category_id in category_ids]
    return Overlaps(
        kind, image_ids, category_ids, labels, *detection_keys, scores, forgiven, order, *truth_keys, crowd, *pairs
    )


def match_detections(overlaps, usable):
    """COCO's greedy matching: the best detection first, each to the free ground truth that it overlaps most.

    Args:
        overlaps: `Overlaps`.
        usable: [P] bool, the pairs that may become matches.

    Returns:
        [N] int64: the ground truth of each detection, or -1. A crowd takes any number of detections, but only such as
        have no match besides.
    """
    columns = overlaps.pair_detection, overlaps.pair_truth, overlaps.pair_iou
    detection, truth, iou = (column[usable] for column in columns)
    crowd = overlaps.crowd[truth]
    rank = np.empty(len(overlaps.scores), np.int64)
    rank[overlaps.order] = np.arange(len(overlaps.order))
    # Of equal overlaps COCO takes the later ground truth.
    sequence = np.lexsort((-truth, -iou, crowd, rank[detection]))
    matched, free = [-1] * len(overlaps.scores), [True] * len(overlaps.crowd)
    columns = (column[sequence].tolist() for column in (detection, truth, crowd))
    for d, t, is_crowd in zip(*columns, strict=True):
        if matched[d] < 0 and (free[t] or is_crowd):
            matched[d], free[t] = t, False
    return np.array(matched, np.int64)


def judge_detections(overlaps, matched):
    """[N] int8, what each detection is in COCO's precision: 1 true positive, -1 false positive, 0 in a crowd,
    forgiven or not counted. `matched` [N] is as `match_detections` gives it."""
    verdicts = np.where(matched < 0, -1, 1).astype(np.int8)
    verdicts[np.isin(matched, np.flatnonzero(overlaps.crowd)) | ((matched < 0) & overlaps.forgiven)] = 0
    verdicts[overlaps.detection_category < 0] = 0
    return verdicts


def _index_keys(records, image_ids, category_ids):
    """[2, N] int64: the index of each record's image and category; both -1 where one of them isn't counted."""
    keys = []
    for name, ids in (("image_id", image_ids), ("category_id", category_ids)):
        index = {number: position for position, number in enumerate(ids)}
        keys.append([index.get(record[name], -1) for record in records])
    keys = np.array(keys, np.int64)
    keys[:, (keys < 0).any(0)] = -1
    return keys


def _coco_order(keys, scores):
    """The detections that count, best first; of equal scores the earlier image's, then the earlier in the list."""
    image, category = keys
    order = np.lexsort((image, -scores))
    order = order[image[order] >= 0]
    groups = np.lexsort((category[order], image[order]))  # stable: the best of each group first
    keys = keys[:, order[groups]]
    starts = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(0)]) if len(groups) else groups
    rank = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return order[np.sort(groups[rank < MAX_DETECTIONS])]


def _find_pairs(annotations, detections, kind, truth_image, detection_image, crowd, images):
    """([P] detections, [P] ground truths, [P] IoUs) of those that overlap; only one image's are held as a matrix."""
    shape = "segmentation" if kind == "segm" else "bbox"
    columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for d, t in zip(group_by_image(detection_image, images), group_by_image(truth_image, images), strict=True):
        if not len(d) or not len(t):
            continue
        shapes = [detections[i][shape] for i in d], [annotations[i][shape] for i in t]
        if kind == "bbox":
            shapes = [np.array(boxes, np.float64) for boxes in shapes]
        matrix = coco_mask.iou(*shapes, crowd[t].astype(np.uint8).tolist())
        rows, places = np.nonzero(matrix)
        for column, values in zip(columns, (d[rows], t[places], matrix[rows, places]), strict=True):
            column.append(values)
    return [np.concatenate(column) for column in columns]


def group_by_image(image, images):
    """For each image the indices of its records, in the order of the list."""
    order = np.argsort(image, kind="stable")
    return np.split(order, np.searchsorted(image[order], np.arange(images + 1)))[1:-1]


@dataclasses.dataclass
class Confusion:
    """Objects by what they are and what they were detected as."""

    names: list[str]  # of the K categories
    category_ids: list[int]
    # [K + 1, K + 1] int64, rows are the truth and columns the detection. The last row holds detections where there is
    # no object left, the last column objects that nothing was left for.
    counts: np.ndarray
    iou: float  # the least overlap that counted
    min_score: float  # the least score

    def to_json(self):
        """All of it in plain json types."""
        return dataclasses.asdict(self) | {"counts": self.counts.tolist()}


def count_confusion(overlaps, iou=0.5, min_score=0.5):
    """Count which class is taken for which: the `Confusion`.

    Detections are first matched within their class as in COCO's protocol; those left over, best first, with the objects
    left over, whatever their class. Detections in a crowd of their class are not counted.

    Args:
        overlaps: `Overlaps`.
        iou: the least overlap of a match.
        min_score: of the detections that take part.
    """
    shown = (overlaps.detection_category >= 0) & (overlaps.scores >= min_score)
    is_object = (overlaps.truth_category >= 0) & ~overlaps.crowd
    objects = np.arange(len(is_object))
    usable = overlaps.reaching(iou) & shown[overlaps.pair_detection]
    matched = match_detections(overlaps, usable & overlaps.same_category())
    left = is_object & ~np.isin(objects, matched)
    free_pairs = (matched < 0)[overlaps.pair_detection] & left[overlaps.pair_truth]
    matched = np.maximum(matched, match_detections(overlaps, usable & free_pairs))
    true = np.isin(matched, np.flatnonzero(is_object))
    none = len(overlaps.names)
    counts = np.zeros((none + 1, none + 1), np.int64)
    np.add.at(counts, (overlaps.truth_category[matched[true]], overlaps.detection_category[true]), 1)
    np.add.at(counts, (none, overlaps.detection_category[shown & (matched < 0) & ~overlaps.forgiven]), 1)
    np.add.at(counts, (overlaps.truth_category[is_object & ~np.isin(objects, matched)], none), 1)
    return Confusion(overlaps.names, overlaps.category_ids, counts, iou, min_score)
