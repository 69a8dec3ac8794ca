"""Which class is taken for which, by hand: rows are the truth, columns the detection, the last of both is nothing."""

import json

import pytest
from inspection_cases import CAT, COW, DOG, found, ground_truth, random_case, thing

from mrcnn_tf.explain.inspection.matching import compute_overlaps, count_confusion, match_detections

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
