"""The worst images, and what is told of each."""

import dataclasses
import json

import pytest
from inspection_cases import DOG, found, ground_truth, random_case, thing

from mrcnn_tf.explain.inspection.errors import rank_worst_images, split_errors
from mrcnn_tf.explain.inspection.matching import compute_overlaps

A, B = [5, 5, 40, 40], [55, 55, 40, 40]
NEAR_A = [25, 5, 40, 40]  # IoU 20 / 60 with A
NOWHERE = [55, 5, 40, 20]


def ranked(truth, detections, count=20, **choices):
    pairs = compute_overlaps(truth, detections)
    return rank_worst_images(pairs, split_errors(pairs, **choices), count)


@pytest.fixture
def case():
    annotations = [thing(A), thing(B), thing(A, image=3), thing(B, image=3), thing(A, image=8, crowd=1)]
    detections = [
        *(found(A, 0.9, image=3), found(NOWHERE, 0.25, image=3), found(A, 0.5, image=3), found(B, 0.125, image=3)),
        *(found(A, 0.75, DOG), found(B, 0.9), found(A, 0.7, image=8)),
    ]
    return ground_truth(*annotations, images=(1, 3, 5, 8)), detections


def test_the_worst_come_first_and_those_without_mistakes_not_at_all(case):
    worst, second = ranked(*case)
    # A dog in a cat's place, and the cat: 0.75 + 1.
    assert (worst.image_id, worst.penalty) == (1, pytest.approx(1.75))
    assert worst.correct == [[5, 1]] and worst.false == [[4, "class", 0]] and worst.lost == [[0, "class", 4]]
    # A detection of nothing and a duplicate: 0.25 + 0.5.
    assert (second.image_id, second.penalty) == (3, pytest.approx(0.75))
    assert second.correct == [[0, 2], [3, 3]] and second.lost == []
    assert second.false == [[2, "duplicate", 2], [1, "background", None]]
    assert [image.image_id for image in ranked(*case, count=1)] == [1]
    assert len(ranked(*case, count=None)) == 2


def test_below_the_threshold_a_detection_makes_the_loss_less_grave(case):
    worst, second = ranked(*case, min_score=0.3)
    assert (second.image_id, second.penalty) == (3, pytest.approx(0.5 + 1 - 0.125))
    assert second.correct == [[0, 2]] and second.lost == [[3, "low_score", 3]]
    assert second.false == [[2, "duplicate", 2]]
    assert worst.penalty == pytest.approx(1.75)


def test_detections_in_a_crowd_are_told_apart():
    truth = ground_truth(thing(A, crowd=1), thing(B))
    (image,) = ranked(truth, [found(A, 0.9), found([10, 10, 8, 8], 0.8)])
    assert image.ignored == [0, 1] and image.lost == [[1, "missed", None]] and image.penalty == 1


def test_nothing_is_ranked_where_nothing_is():
    assert ranked(ground_truth(), []) == []
    assert [image.penalty for image in ranked(ground_truth(thing(A), thing(NEAR_A, DOG)), [])] == [2]


@pytest.mark.parametrize("seed", range(3))
def test_every_shown_detection_and_every_object_is_told_once(seed):
    truth, detections = random_case(110 + seed)
    images = ranked(truth, detections, min_score=0.3)
    for image in images:
        told = [d for d, _ in image.correct] + [d for d, _, _ in image.false] + image.ignored
        mine = [d for d, r in enumerate(detections) if r["image_id"] == image.image_id and r["score"] >= 0.3]
        assert sorted(told) == mine
        there = [t for _, t in image.correct] + [t for t, _, _ in image.lost]
        objects = [t for t, a in enumerate(truth.annotations) if a["image_id"] == image.image_id and not a["iscrowd"]]
        assert sorted(there) == objects
        scores = [detections[d]["score"] for d, _, _ in image.false]
        assert scores == sorted(scores, reverse=True)
        gone = sum(1 - (detections[d]["score"] if status == "low_score" else 0) for _, status, d in image.lost)
        assert image.penalty == pytest.approx(sum(scores) + gone)
    assert [image.penalty for image in images] == sorted((image.penalty for image in images), reverse=True)
    assert json.loads(json.dumps([dataclasses.asdict(image) for image in images]))[0]["image_id"] == images[0].image_id
