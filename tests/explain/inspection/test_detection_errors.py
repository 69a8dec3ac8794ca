"""Types, statuses and costs by hand, by loops, and by mending the detections for pycocotools; the worst images."""

import dataclasses
import json

import numpy as np
import pytest
from inspection_cases import CAT, COW, DOG, found, ground_truth, random_case, thing

from mrcnn_tf.evaluation.average_precision import evaluate_detections
from mrcnn_tf.explain.inspection.detection_errors import (
    DETECTION_TYPES,
    ERRORS,
    TRUTH_STATUSES,
    rank_worst_images,
    split_errors,
)
from mrcnn_tf.explain.inspection.detection_matching import compute_overlaps

A, B = [5, 5, 40, 40], [55, 55, 40, 40]
NEAR_A = [25, 5, 40, 40]  # IoU 20 / 60 with A
NOWHERE = [55, 5, 40, 20]


@pytest.fixture(params=["bbox", "segm"])
def split(request):
    """(annotations, detections, choices of split_errors) -> ErrorSplit, for boxes and for masks."""

    def make(annotations, detections, **choices):
        return split_errors(compute_overlaps(ground_truth(*annotations), detections, request.param), **choices)

    return make


def types(outcome):
    return [DETECTION_TYPES[kind] for kind in outcome.types]


def statuses(outcome):
    return [TRUTH_STATUSES[status] for status in outcome.statuses]


def costs(**costing):
    return pytest.approx(dict.fromkeys(ERRORS, 0.0) | costing)


def counts(**counted):
    return {name: counted.get(name, 0) for name in ("correct", *ERRORS)}


def test_a_correct_detection_costs_nothing(split):
    outcome = split([thing(A)], [found(A)])
    assert types(outcome) == ["correct"] and statuses(outcome) == ["detected"]
    assert (outcome.explained_by.tolist(), outcome.covered_by.tolist(), outcome.overlap.tolist()) == ([0], [0], [1.0])
    assert outcome.ap == 1 and outcome.costs == costs() and outcome.counts == counts(correct=1)


def test_the_second_detection_of_an_object_is_a_duplicate(split):
    # Precision is 1, 1/2, 2/3 at recalls 1/2, 1/2, 1: 2/3 at 50 of the 101 recalls, and 1 once the second is gone.
    outcome = split([thing(A), thing(B)], [found(A, 0.9), found(A, 0.8), found(B, 0.7)])
    assert types(outcome) == ["correct", "duplicate", "correct"] and outcome.explained_by.tolist() == [0, 0, 1]
    assert outcome.ap == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert outcome.costs == costs(duplicate=50 / 3 / 101)
    assert outcome.counts == counts(correct=2, duplicate=1)


def test_of_two_detections_alike_the_first_is_the_correct_one(split):
    assert types(split([thing(A)], [found(A), found(A)])) == ["correct", "duplicate"]


def test_another_class_in_the_right_place(split):
    outcome = split([thing(A)], [found(A, category=DOG)])
    assert types(outcome) == ["class"] and statuses(outcome) == ["class"]
    assert outcome.covered_by.tolist() == outcome.explained_by.tolist() == [0]
    assert outcome.ap == 0 and outcome.costs == costs(**{"class": 1.0}) and outcome.counts == counts(**{"class": 1})


def test_the_right_class_in_a_poor_place(split):
    outcome = split([thing(A)], [found(NEAR_A)])
    assert types(outcome) == ["localisation"] and statuses(outcome) == ["localisation"]
    assert outcome.overlap.tolist() == pytest.approx([1 / 3])
    assert outcome.ap == 0 and outcome.costs == costs(localisation=1.0)


def test_another_class_in_a_poor_place(split):
    # Dogs: the false one comes first, so that precision is 1/2; cats: none is found.
    outcome = split([thing(A), thing(B, DOG)], [found(NEAR_A, 0.9, DOG), found(B, 0.8, DOG)])
    assert types(outcome) == ["both", "correct"] and statuses(outcome) == ["missed", "detected"]
    assert outcome.explained_by.tolist() == [0, 1] and outcome.covered_by.tolist() == [-1, 1]
    assert outcome.ap == 0.25 and outcome.costs == costs(both=0.25, missed=0.5)
    assert outcome.counts == counts(correct=1, both=1, missed=1)


def test_a_detection_of_nothing(split):
    outcome = split([thing(A)], [found(NOWHERE, 0.9), found(A, 0.8)])
    assert types(outcome) == ["background", "correct"] and outcome.explained_by.tolist() == [-1, 0]
    assert outcome.ap == 0.5 and outcome.costs == costs(background=0.5)


def test_an_object_that_nothing_finds(split):
    outcome = split([thing(A), thing(B)], [found(A)])
    assert statuses(outcome) == ["detected", "missed"] and outcome.covered_by.tolist() == [0, -1]
    assert outcome.ap == pytest.approx(51 / 101) and outcome.costs == costs(missed=50 / 101)
    assert outcome.counts == counts(correct=1, missed=1)


def test_without_any_detection_all_is_missed(split):
    outcome = split([thing(A), thing(B, DOG)], [])
    assert statuses(outcome) == ["missed"] * 2 and types(outcome) == []
    assert outcome.ap == 0 and outcome.costs == costs(missed=1.0) and outcome.counts == counts(missed=2)


def test_without_ground_truth_there_is_no_ap(split):
    outcome = split([], [found(A)])
    assert types(outcome) == ["background"] and outcome.counts == counts(background=1)
    assert outcome.ap is None and outcome.costs == dict.fromkeys(ERRORS)
    assert split([], []).ap is None


def test_a_crowd_excuses_detections_of_its_class_alone(split):
    detections = [found(NOWHERE, 0.9), found([60, 8, 10, 10], 0.8), found([60, 8, 10, 10], 0.95, DOG), found(A, 0.5)]
    outcome = split([thing(NOWHERE, crowd=1), thing(A)], detections)
    assert types(outcome) == ["ignored", "ignored", "background", "correct"]
    assert statuses(outcome) == ["crowd", "detected"] and outcome.explained_by.tolist() == [0, 0, -1, 1]
    assert outcome.overlap.tolist() == pytest.approx([1, 1, 0, 1])
    assert outcome.ap == 1 and outcome.counts == counts(correct=1, background=1)


def test_a_mended_class_or_place_leaves_one_detection_of_an_object(split):
    # The cats are found as they should be; a second cat on the first one would bring precision down.
    outcome = split([thing(A), thing(B)], [found(A, 0.9, DOG), found(A, 0.8), found(NEAR_A, 0.75), found(B, 0.7)])
    assert types(outcome) == ["class", "correct", "localisation", "correct"]
    assert outcome.ap == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert outcome.costs == costs(localisation=50 / 3 / 101)
    assert statuses(outcome) == ["detected", "detected"] and outcome.covered_by.tolist() == [1, 3]


def test_a_mended_detection_of_a_found_object_takes_over_if_it_is_better(split):
    # Cats: right at 0.5, after a false one at 0.6. The dog on the cat at 0.9 would come before it.
    outcome = split([thing(A)], [found(NOWHERE, 0.6), found(A, 0.5), found(A, 0.9, DOG)])
    assert outcome.ap == 0.5 and outcome.costs == costs(background=0.5, **{"class": 0.5})


def test_the_best_of_several_mistakes_explains_a_status(split):
    detections = [found(A, 0.5, DOG), found(A, 0.9, COW), found(NEAR_A, 0.7)]
    outcome = split([thing(A)], detections)
    assert statuses(outcome) == ["class"] and outcome.covered_by.tolist() == [1]
    outcome = split([thing(A)], [detections[0], detections[2]])
    assert statuses(outcome) == ["localisation"] and outcome.covered_by.tolist() == [1]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([thing(A), thing(A, DOG)], "duplicate"),  # it would be a class error, too
        ([thing(NEAR_A), thing(A, DOG)], "class"),  # or a localisation
        ([thing([29, 5, 40, 40]), thing(NEAR_A, DOG)], "localisation"),  # or both
    ],
)
def test_the_first_type_that_applies_counts(split, there, expected):
    assert types(split(there, [found(there[0]["bbox"], 0.95), found(A, 0.9)]))[1] == expected


def test_thresholds_are_reached_by_equality(split):
    halved = [5, 5, 40, 20]  # IoU 1/2
    tenth = [5, 5, 40, 4]  # IoU 1/10
    assert types(split([thing(A)], [found(halved)])) == ["correct"]
    assert types(split([thing(A)], [found(halved)], iou=0.6)) == ["localisation"]
    assert types(split([thing(A)], [found(tenth)])) == ["localisation"]
    assert types(split([thing(A)], [found(tenth)], background=0.11)) == ["background"]
    assert types(split([thing(A)], [found(A)], iou=1.0)) == ["correct"]


def test_a_score_threshold_changes_counts_and_statuses_only(split):
    annotations = [thing(A), thing(B), thing(A, image=2), thing(A, image=3)]
    detections = [
        *(found(A, 0.3), found(B, 0.9), found(NOWHERE, 0.2)),
        *(found(A, 0.4, image=2), found(A, 0.8, DOG, image=2), found(A, 0.2, DOG, image=3)),
    ]
    low, high = split(annotations, detections), split(annotations, detections, min_score=0.5)
    assert statuses(low) == ["detected", "detected", "detected", "class"] and low.covered_by.tolist() == [0, 1, 3, 5]
    assert statuses(high) == ["low_score", "detected", "class", "missed"] and high.covered_by.tolist() == [0, 1, 4, -1]
    assert low.counts == counts(correct=3, background=1, **{"class": 2})
    assert high.counts == counts(correct=1, missed=2, **{"class": 1})
    assert types(low) == types(high) and (low.ap, low.costs) == (high.ap, high.costs)


def test_each_class_has_its_figures(split):
    outcome = split([thing(A), thing(B, DOG)], [found(NEAR_A, 0.9, DOG), found(B, 0.8, DOG)])
    written = json.loads(json.dumps(outcome.to_json()))
    assert [row["id"] for row in written["classes"]] == [CAT, DOG, COW]
    assert [row["ap"] for row in written["classes"]] == [0, 0.5, None]
    assert [row["costs"]["both"] for row in written["classes"]] == [0, 0.5, None]
    assert [row["costs"]["missed"] for row in written["classes"]] == [1, 0, None]
    assert [row["counts"]["both"] for row in written["classes"]] == [0, 1, 0]
    assert [row["counts"]["missed"] for row in written["classes"]] == [1, 0, 0]
    assert (written["ap"], written["counts"], written["iou"]) == (0.25, counts(correct=1, both=1, missed=1), 0.5)


def slow_types(truth, detections, pairs, outcome):
    """The types by the words of `split_errors`, given which detections are matched."""
    shares = dict(zip(zip(pairs.pair_detection, pairs.pair_truth, strict=True), pairs.pair_iou, strict=True))
    expected = []
    for d, detection in enumerate(detections):
        if outcome[d] >= 0:
            expected.append("ignored" if truth.annotations[outcome[d]]["iscrowd"] else "correct")
            continue
        best = {True: 0.0, False: 0.0}
        for t, annotation in enumerate(truth.annotations):
            same = annotation["category_id"] == detection["category_id"]
            best[same] = max(best[same], 0.0 if annotation["iscrowd"] else shares.get((d, t), 0.0))
        rules = {
            "duplicate": best[True] >= 0.5,
            "class": best[False] >= 0.5,
            "localisation": best[True] >= 0.1,
            "both": best[False] >= 0.1,
            "background": True,
        }
        expected.append(next(name for name, applies in rules.items() if applies))
    return expected


@pytest.mark.parametrize("seed", range(8))
def test_types_of_random_cases(seed):
    truth, detections = random_case(seed, images=12)
    pairs = compute_overlaps(truth, detections)
    outcome = split_errors(pairs)
    matched = np.where(
        np.isin(outcome.types, (DETECTION_TYPES.index("correct"), DETECTION_TYPES.index("ignored"))),
        outcome.explained_by,
        -1,
    )
    assert types(outcome) == slow_types(truth, detections, pairs, matched)
    assert len(set(types(outcome))) >= 6, "a case that shows little"


def mend(truth, detections, outcome, kind):
    """The data as they would be without the errors of a type, for pycocotools to judge."""
    if kind == "missed":
        seen = set(outcome.explained_by[np.isin(types(outcome), ("correct", "class", "localisation"))].tolist())
        kept = [a for t, a in enumerate(truth.annotations) if t in seen or a["iscrowd"]]
        return dataclasses.replace(truth, annotations=kept), detections
    if kind in ("both", "duplicate", "background"):
        return truth, [r for r, name in zip(detections, types(outcome), strict=True) if name != kind]
    best, others = {}, []
    for d in sorted(range(len(detections)), key=lambda d: (-detections[d]["score"], detections[d]["image_id"], d)):
        t = outcome.explained_by[d]
        if types(outcome)[d] in ("correct", kind):
            shape = {name: truth.annotations[t][name] for name in ("bbox", "segmentation", "category_id")}
            best.setdefault(t, (d, detections[d] | shape))
        else:
            others.append((d, detections[d]))
    return truth, [result for _, result in sorted([*best.values(), *others], key=lambda pair: pair[0])]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_costs_are_what_mending_gains_in_pycocotools(seed, kind):
    truth, detections = random_case(40 + seed, images=12)
    outcome = split_errors(compute_overlaps(truth, detections, kind))
    base = evaluate_detections(detections, truth)
    rows = {row["id"]: row[f"{kind}_AP50"] for row in base.per_class}
    assert outcome.ap == pytest.approx(getattr(base, kind)["AP50"], abs=1e-12)
    assert outcome.class_ap.tolist() == pytest.approx([rows[CAT], rows[DOG], rows[COW]], abs=1e-12)
    for name in ERRORS:
        mended, results = mend(truth, detections, outcome, name)
        after = evaluate_detections(results, mended).per_class
        # A class without objects left counts as 1.
        expected = [(1.0 if row[f"{kind}_AP50"] is None else row[f"{kind}_AP50"]) - rows[row["id"]] for row in after]
        assert outcome.class_costs[name].tolist() == pytest.approx(expected, abs=1e-12), name
        assert outcome.costs[name] == pytest.approx(np.mean(expected), abs=1e-12)
    assert sum(cost > 0 for cost in outcome.costs.values()) >= 5, "a case that shows little"


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
