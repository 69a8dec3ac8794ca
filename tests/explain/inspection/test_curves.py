"""Curves worked out by hand, against pycocotools' arrays, and against counting at each threshold."""

import json

import numpy as np
import pytest
from inspection_cases import CAT, COW, DOG, found, ground_truth, random_case, thing

from mrcnn_tf.evaluation.average_precision import run_protocol
from mrcnn_tf.explain.inspection.curves import IOUS, THRESHOLDS, compute_curves
from mrcnn_tf.explain.inspection.detection_matching import compute_overlaps

A, B = [5, 5, 40, 40], [55, 55, 40, 40]
NEAR_A = [5, 5, 40, 32]  # IoU 0.8
NOWHERE = [55, 5, 40, 20]


def drawn(annotations, detections, kind="bbox"):
    return compute_curves(compute_overlaps(ground_truth(*annotations), detections, kind))


def test_precision_against_recall():
    # The best is wrong, the next finds one of two.
    cats = drawn([thing(A), thing(B)], [found(NOWHERE, 0.9), found(NEAR_A, 0.8)]).classes[0]
    assert cats.precision["0.5"].tolist() == cats.precision["0.75"].tolist() == [0.5] * 51 + [0.0] * 50
    # 0.8 is reached by 0.5, 0.55, ... 0.8: 7 of the 10 thresholds
    assert cats.precision["0.5:0.95"].tolist() == pytest.approx([0.35] * 51 + [0.0] * 50)
    assert cats.ap == pytest.approx({"0.5": 51 / 202, "0.75": 51 / 202, "0.5:0.95": 0.7 * 51 / 202})
    assert (cats.id, cats.name, cats.truths) == (CAT, "class 3", 2)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_precision_is_that_of_pycocotools(seed, kind):
    truth, detections = random_case(80 + seed)
    evaluation = run_protocol(kind, truth, detections, [i["id"] for i in truth.images], [CAT, DOG, COW])
    expected = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoUs, recalls, categories]
    outcome = compute_curves(compute_overlaps(truth, detections, kind))
    thresholds = {"0.5": slice(0, 1), "0.75": slice(5, 6), "0.5:0.95": slice(None)}
    for key in IOUS:
        lines = expected[thresholds[key]].mean(0).T
        for one, line in zip(outcome.classes, lines, strict=True):
            np.testing.assert_allclose(one.precision[key], line, rtol=0, atol=1e-12)
            assert one.ap[key] == pytest.approx(line.mean(), abs=1e-12)
        np.testing.assert_allclose(outcome.all_classes.precision[key], lines.mean(0), rtol=0, atol=1e-12)
    assert [outcome.all_classes.ap[key] for key in ("0.5:0.95", "0.5", "0.75")] == pytest.approx(
        evaluation.stats[:3], abs=1e-12
    )


def test_against_the_score_threshold():
    detections = [found(A, 0.9), found(NOWHERE, 0.6), found(B, 0.3), found(A, 0.2, image=2)]
    cats = drawn([thing(A), thing(B), thing(A, crowd=1, image=2)], detections).classes[0]
    at = {round(threshold, 2): i for i, threshold in enumerate(THRESHOLDS.tolist())}
    for threshold, precision, recall, f1 in (
        (0.0, 2 / 3, 1, 0.8),
        (0.3, 2 / 3, 1, 0.8),
        (0.31, 1 / 2, 1 / 2, 1 / 2),
        (0.6, 1 / 2, 1 / 2, 1 / 2),
        (0.61, 1, 1 / 2, 2 / 3),
        (0.9, 1, 1 / 2, 2 / 3),
    ):
        values = [cats.against_threshold[name][at[threshold]] for name in ("precision", "recall", "f1")]
        assert values == pytest.approx([precision, recall, f1]), threshold
    assert (
        np.isnan(cats.against_threshold["precision"][at[0.91] :]).all()
        and not cats.against_threshold["recall"][at[0.91] :].any()
    )
    # From 0 to 0.3 it is the same: the middle.
    assert (cats.best_threshold, cats.best_f1) == (0.15, pytest.approx(0.8))


def test_the_best_threshold_is_the_middle_of_the_first_plateau():
    # F1 is 2/3 up to 0.2, where both are there, and from 0.61 to 0.9.
    detections = [found(A, 0.9), found(NOWHERE, 0.6), found([55, 30, 40, 20], 0.5), found(B, 0.2)]
    cats = drawn([thing(A), thing(B)], detections).classes[0]
    assert (cats.best_threshold, cats.best_f1) == (0.1, pytest.approx(2 / 3))
    only = drawn([thing(A)], [found(A, 0.99), found(NOWHERE, 0.01)]).classes[0]
    assert (only.best_threshold, only.best_f1) == (0.51, 1.0)  # of 0.02 to 0.99
    to_the_end = drawn([thing(A)], [found(A, 1.0), found(NOWHERE, 0.5)]).classes[0]
    assert to_the_end.best_threshold == 0.76  # of 0.51 to 1


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_of_all_classes_count_everything_together(seed):
    truth, detections = random_case(90 + seed)
    pairs = compute_overlaps(truth, detections)
    all_classes = compute_curves(pairs).all_classes
    assert (all_classes.id, all_classes.name) == (None, "all classes")
    assert all_classes.truths == pairs.truth_counts().sum()
    for position in (0, 20, 50, 80):
        # Anew, from the detections that are left.
        kept = [result for result in detections if result["score"] >= THRESHOLDS[position]]
        line = compute_curves(compute_overlaps(truth, kept)).all_classes
        for name, values in all_classes.against_threshold.items():
            assert values[position] == pytest.approx(line.against_threshold[name][0])
    assert all_classes.best_f1 == all_classes.against_threshold[
        "f1"
    ].max() and all_classes.best_threshold in THRESHOLDS.round(2)


def test_without_objects_or_detections():
    outcome = drawn([thing(A)], [found(A, category=DOG)])
    cats, dogs, cows = outcome.classes
    assert cats.ap == dict.fromkeys(IOUS, 0.0) and dogs.ap == cows.ap == dict.fromkeys(IOUS)
    assert (cats.best_threshold, dogs.best_threshold, cows.best_f1, outcome.all_classes.best_threshold) == (None,) * 4
    assert outcome.all_classes.ap == dict.fromkeys(IOUS, 0.0)
    assert np.isnan(dogs.against_threshold["recall"]).all() and dogs.against_threshold["precision"][0] == 0
    empty = drawn([], [])
    assert empty.all_classes.ap == dict.fromkeys(IOUS) and empty.all_classes.truths == 0
    written = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    assert (
        written["classes"][1]["precision"]["0.5"]
        == [None] * 101
        == written["classes"][1]["against_threshold"]["recall"]
    )
    against = written["all_classes"]["against_threshold"]
    assert [len(against[name]) for name in ("precision", "recall", "f1")] == [101] * 3
    json.dumps(empty.to_json(), allow_nan=False)
