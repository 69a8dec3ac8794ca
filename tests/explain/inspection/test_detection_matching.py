"""Overlaps and COCO's matching, against loops over masks and pycocotools; which class is taken for which, by hand."""

import itertools
import json

import numpy as np
import pytest
from inspection_cases import CAT, COW, DOG, SIZE, found, ground_truth, random_case, thing

from mrcnn_tf.common.categories import Category
from mrcnn_tf.evaluation.average_precision import run_protocol
from mrcnn_tf.explain.inspection.detection_matching import (
    compute_overlaps,
    count_confusion,
    judge_detections,
    match_detections,
)


def pixels(record):
    mask = np.zeros((SIZE, SIZE), bool)
    x, y, width, height = record["bbox"]
    mask[y : y + height, x : x + width] = True
    return mask


def overlap(detection, annotation):
    """IoU by counting pixels; of a crowd the share of the detection."""
    one, other = pixels(detection), pixels(annotation)
    return (one & other).sum() / (one.sum() if annotation["iscrowd"] else (one | other).sum())


def slow_match(truth, detections, iou):
    """{detection: ground truth} by the words of COCO's protocol, one image and class at a time."""
    matched = {}
    for image, category in itertools.product([i["id"] for i in truth.images], [c["id"] for c in truth.categories]):
        there, mine = (
            [i for i, r in enumerate(records) if (r["image_id"], r["category_id"]) == (image, category)]
            for records in (truth.annotations, detections)
        )
        free = set(there)
        for d in sorted(mine, key=lambda i: -detections[i]["score"]):
            shares = {t: overlap(detections[d], truth.annotations[t]) for t in there}
            for crowd in (0, 1):
                candidates = [
                    t for t in there if truth.annotations[t]["iscrowd"] == crowd and shares[t] >= min(iou, 1 - 1e-10)
                ]
                candidates = [t for t in candidates if crowd or t in free]
                if candidates and d not in matched:
                    matched[d] = max(candidates, key=lambda t: (shares[t], t))
                    free.discard(matched[d])
    return matched


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(5))
def test_matches_are_those_of_the_protocol(seed, kind):
    truth, detections = random_case(seed)
    pairs = compute_overlaps(truth, detections, kind)
    for iou in (0.5, 0.8, 1.0):
        matched = match_detections(pairs, pairs.reaching(iou) & pairs.same_category())
        assert {d: t for d, t in enumerate(matched.tolist()) if t >= 0} == slow_match(truth, detections, iou)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_pycocotools_matches_the_same(seed, kind):
    truth, detections = random_case(10 + seed)
    evaluation = run_protocol(kind, truth, detections, [i["id"] for i in truth.images], [CAT, DOG, COW])
    pairs = compute_overlaps(truth, detections, kind)
    for position, iou in enumerate(evaluation.params.iouThrs):
        matched = match_detections(pairs, pairs.reaching(iou) & pairs.same_category())
        expected = {
            int(d) - 1: int(t) - 1
            for image in evaluation.evalImgs
            if image and image["aRng"] == [0, 1e10]
            for d, t in zip(image["dtIds"], image["dtMatches"][position], strict=True)
            if t
        }
        assert {d: t for d, t in enumerate(matched.tolist()) if t >= 0} == expected


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_pairs_are_all_that_overlap_within_an_image(kind):
    truth, detections = random_case(20)
    pairs = compute_overlaps(truth, detections, kind)
    expected = {
        (d, t): overlap(detection, annotation)
        for d, detection in enumerate(detections)
        for t, annotation in enumerate(truth.annotations)
        if detection["image_id"] == annotation["image_id"] and overlap(detection, annotation)
    }
    seen = dict(
        zip(zip(pairs.pair_detection.tolist(), pairs.pair_truth.tolist(), strict=True), pairs.pair_iou, strict=True)
    )
    assert seen == pytest.approx(expected, abs=1e-12) and len(pairs.pair_iou) == len(expected) > 50


def test_other_images_and_categories_do_not_count():
    truth = ground_truth(thing([0, 0, 10, 10]), thing([0, 0, 10, 10], DOG), thing([0, 0, 10, 10], image=2))
    detections = [found([0, 0, 10, 10]), found([0, 0, 10, 10], category=DOG), found([0, 0, 10, 10], image=2)]
    pairs = compute_overlaps(truth, detections, "bbox", image_ids=[1], categories=[Category(CAT, "Katze")])
    assert (pairs.image_ids, pairs.category_ids, pairs.names) == ([1], [CAT], ["Katze"])
    assert pairs.order.tolist() == [0] and pairs.truth_counts().tolist() == [1]
    assert pairs.detection_image.tolist() == pairs.truth_image.tolist() == [0, -1, -1]
    assert judge_detections(pairs, match_detections(pairs, pairs.reaching(0.5))).tolist() == [1, 0, 0]


def test_only_the_best_hundred_of_an_image_and_class_count():
    detections = [found([0, 0, 10, 10], score=0.5 + number / 1000) for number in range(103)]
    detections += [found([0, 0, 10, 10], score=0.1, category=DOG), found([0, 0, 10, 10], score=0.1, image=2)]
    pairs = compute_overlaps(ground_truth(thing([0, 0, 10, 10])), detections, "bbox")
    assert pairs.order.tolist() == [*range(102, 2, -1), 103, 104]
    assert (pairs.detection_image < 0).nonzero()[0].tolist() == [0, 1, 2]


def test_equal_scores_are_taken_by_image_and_then_as_they_come():
    detections = [
        found([0, 0, 9, 9], image=2),
        found([0, 0, 9, 9]),
        found([1, 0, 9, 9]),
        found([0, 0, 9, 9], 0.95, image=3),
    ]
    assert compute_overlaps(ground_truth(), detections, "bbox").order.tolist() == [3, 1, 2, 0]


def test_annotations_without_mask_are_no_truth_for_masks():
    truth = ground_truth(thing([0, 0, 10, 10]) | {"segmentation": None}, thing([20, 20, 10, 10]))
    detections = [found([0, 0, 10, 10]), found([20, 20, 10, 10])]
    for kind, counts in (("segm", 1), ("bbox", 2)):
        pairs = compute_overlaps(truth, detections, kind)
        assert pairs.truth_counts().sum() == len(pairs.pair_iou) == counts


@pytest.mark.parametrize(
    ("annotations", "detections"), [([], []), ([thing([0, 0, 9, 9])], []), ([], [found([0, 0, 9, 9])])]
)
def test_nothing_to_match(annotations, detections):
    pairs = compute_overlaps(ground_truth(*annotations), detections)
    assert match_detections(pairs, pairs.reaching(0.5)).tolist() == [-1] * len(detections)
    assert judge_detections(pairs, match_detections(pairs, pairs.reaching(0.5))).tolist() == [-1] * len(detections)


def test_by_lvis_lists_only_what_was_looked_for_counts():
    truth = ground_truth(thing([0, 0, 10, 10]), thing([0, 0, 10, 10], DOG))
    for image in truth.images:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    truth.images[0] |= {"neg_category_ids": [COW], "not_exhaustive_category_ids": [DOG]}
    elsewhere = [50, 50, 10, 10]
    detections = [found(elsewhere, category=category) for category in (CAT, DOG, COW)]
    detections += [found([0, 0, 10, 10], category=DOG), found(elsewhere, category=CAT, image=2)]
    pairs = compute_overlaps(truth, detections, "bbox")
    matched = match_detections(pairs, pairs.reaching(0.5) & pairs.same_category())
    assert judge_detections(pairs, matched).tolist() == [-1, 0, -1, 1, 0]
    counts = count_confusion(pairs, min_score=0).counts
    names = pairs.category_ids
    assert counts[-1].tolist() == [int(category in (CAT, COW)) for category in names] + [0]


A, B = [5, 5, 40, 40], [55, 55, 40, 40]
NOWHERE = [55, 5, 40, 20]


@pytest.fixture(params=["bbox", "segm"])
def count(request):
    def counts(annotations, detections, **choices):
        outcome = count_confusion(compute_overlaps(ground_truth(*annotations), detections, request.param), **choices)
        assert outcome.category_ids == [CAT, DOG, COW] and outcome.names == ["class 3", "class 18", "class 90"]
        return outcome.counts.tolist()

    return counts


def test_right_wrong_missed_and_made_up(count):
    annotations = [thing(A), thing(B, DOG), thing(A, COW, image=2), thing(B, COW, image=2)]
    detections = [found(A), found(B, category=COW), found(A, category=COW, image=2), found(NOWHERE, category=DOG)]
    assert count(annotations, detections) == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0]]


def test_its_own_class_comes_before_a_better_score(count):
    detections = [found(A, 0.9, DOG), found(A, 0.6)]
    assert count([thing(A)], detections) == [[1, 0, 0, 0], [0] * 4, [0] * 4, [0, 1, 0, 0]]


def test_of_two_wrong_classes_the_better_score_takes_the_object(count):
    detections = [found(A, 0.6, COW), found(A, 0.9, DOG)]
    assert count([thing(A)], detections) == [[0, 1, 0, 0], [0] * 4, [0] * 4, [0, 0, 1, 0]]


def test_thresholds_of_score_and_overlap(count):
    near = [5, 5, 40, 24]  # IoU 0.6
    nothing, missed = [[0] * 4] * 3, [[0, 0, 0, 1], [0] * 4, [0] * 4]
    assert count([thing(A)], [found(near, 0.5)])[0] == [1, 0, 0, 0]
    assert count([thing(A)], [found(near, 0.49)]) == [*missed, [0] * 4]
    assert count([thing(A)], [found(near, 0.49)], min_score=0.4)[0] == [1, 0, 0, 0]
    assert count([thing(A)], [found(near)], iou=0.7) == [*missed, [1, 0, 0, 0]]
    assert count([], []) == [*nothing, [0] * 4]
    assert count([], [found(A)]) == [*nothing, [1, 0, 0, 0]]


def test_a_crowd_is_neither_found_nor_missed_nor_mistaken(count):
    annotations = [thing(A, crowd=1)]
    assert count(annotations, [found(A), found([10, 10, 9, 9])]) == [[0] * 4] * 4
    assert count(annotations, [found(A, category=DOG)]) == [[0] * 4] * 3 + [[0, 1, 0, 0]]


@pytest.mark.parametrize("seed", range(4))
def test_every_object_and_every_detection_is_counted_once(seed):
    truth, detections = random_case(60 + seed, images=20)
    pairs = compute_overlaps(truth, detections)
    outcome = count_confusion(pairs, min_score=0.4)
    shown = [d for d, result in enumerate(detections) if result["score"] >= 0.4]
    usable = pairs.reaching(0.5) & pairs.same_category()
    in_crowd = pairs.crowd[match_detections(pairs, usable)[shown]] & (match_detections(pairs, usable)[shown] >= 0)
    assert outcome.counts[:-1].sum(1).tolist() == pairs.truth_counts().tolist()
    assert outcome.counts[:, :-1].sum() == len(shown) - in_crowd.sum()
    assert outcome.counts[:3, :3].sum() > outcome.counts[:3, :3].trace() > 0
    assert json.loads(json.dumps(outcome.to_json()))["counts"] == outcome.counts.tolist()
