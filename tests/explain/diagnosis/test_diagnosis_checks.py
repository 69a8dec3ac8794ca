"""Boxes are counted at every step; suspicious states are named, and only they."""

import numpy as np
import pytest
from diagnosis_stub import stages

from mrcnn_tf.explain.diagnosis.diagnosis_checks import (
    check_image,
    check_scores,
    check_sizes,
    compute_class_scores,
    count_boxes,
    describe_counts,
)

BOX, NEAR, FAR = [10, 10, 50, 50], [10, 12, 50, 52], [60, 60, 90, 90]
ROIS = [(BOX, [0.1, 0.8, 0.1]), (NEAR, [0.2, 0.7, 0.1]), (FAR, [0.97, 0.01, 0.02])]
LOOKS_FINE = np.random.default_rng(0).integers(0, 255, (100, 100, 3)).astype(np.uint8)


def test_every_step_is_counted():
    counts = count_boxes(stages([], ROIS, max_detections=1))
    assert (counts.anchors, counts.candidates, counts.rpn_survivors, counts.proposals) == (2, 3, 2, 3)
    # 0.8 and 0.7 as a cat, 0.1 twice as a dog; NEAR goes in both.
    assert (counts.scores, counts.above_threshold, counts.class_survivors, counts.detections) == (6, 4, 2, 1)
    assert (round(counts.best_score, 6), counts.best_category) == (0.8, "cat")


def test_each_class():
    cat, dog = compute_class_scores(stages([], ROIS, max_detections=1))
    assert (cat.category, cat.above_threshold, cat.class_survivors, cat.detections) == ("cat", 2, 1, 1)
    assert (dog.category, dog.above_threshold, dog.class_survivors, dog.detections) == ("dog", 2, 1, 0)
    assert (round(cat.best_score, 6), round(dog.best_score, 6)) == (0.8, 0.1)


def test_the_best_class_comes_first():
    assert [row.category for row in compute_class_scores(stages([], [(BOX, [0.1, 0.2, 0.7])]))] == ["dog", "cat"]


def test_nothing_at_all():
    case = stages([])
    counts = count_boxes(case)
    assert (counts.proposals, counts.best_score, counts.best_category, counts.background) == (0, None, None, None)
    assert [row.best_score for row in compute_class_scores(case)] == [None, None]
    assert len(describe_counts(counts, case.limits)) == 1


def scores(case, steps=None):
    return " ".join(check_scores(case, count_boxes(case), steps))


def test_a_sound_image_and_sound_scores_give_no_sentence():
    case = stages([(BOX, 1)], [(BOX, [0.1, 0.8, 0.1])], image=LOOKS_FINE)
    assert check_image(case) + check_sizes(case) + check_scores(case, count_boxes(case)) == []


def test_the_best_score_is_below_the_threshold():
    case = stages([(BOX, 1)], [(BOX, [0.66, 0.31, 0.03]), (FAR, [0.9, 0.05, 0.05])])
    case.limits.score_threshold = 0.5
    case.classification.usable[:] = False
    text = scores(case)
    assert "0.310 of 'cat'" in text and "threshold of 0.5" in text and "to 0.2," in text


@pytest.mark.parametrize("best, advised", [(0.3, "to 0.2,"), (0.35, "to 0.3,"), (0.1, "to 0.09,")])
def test_the_advised_threshold_is_below_the_score(best, advised):
    case = stages([], [(BOX, [1 - best, best, 0])])
    case.truth = None
    case.limits.score_threshold = 0.5
    case.classification.usable[:] = False
    assert advised in scores(case)


def test_a_hopeless_score_gets_no_advice_to_lower_the_threshold():
    text = scores(stages([(BOX, 1)], [(BOX, [0.98, 0.01, 0.01])]))
    assert "mean nothing" in text and "lower model." not in text


def test_all_background():
    text = scores(stages([(BOX, 1)], [(BOX, [0.98, 0.01, 0.01]), (FAR, [0.96, 0.02, 0.02])]), 300)
    assert "for background (probability 0.97" in text and "300 steps" in text


def test_an_untrained_classifier():
    case = stages([(BOX, 1)], [(BOX, [0.33, 0.34, 0.33]), (FAR, [0.34, 0.33, 0.33])])
    assert "about 0.33, one in 3" in scores(case)


def test_an_rpn_that_sees_nothing():
    case = stages([(BOX, 1)], [(BOX, [0.1, 0.8, 0.1])])
    case.proposals.objectness[:] = 0.04
    assert "best objectness 0.04" in scores(case)


def test_no_proposal():
    assert "no proposal at all" in scores(stages([(BOX, 1)]))


def test_an_image_without_objects_needs_no_scores():
    assert scores(stages([], [(BOX, [0.98, 0.01, 0.01])])) == ""


@pytest.mark.parametrize(
    "image, word",
    [
        (np.full((100, 100, 3), 7, np.uint8), "one colour"),
        (LOOKS_FINE // 16, "very dark"),
        (np.tile(LOOKS_FINE, (5, 6, 1)), "600 x 500 pixels is shrunk"),
        (LOOKS_FINE[:20, :30], "30 x 20 pixels is enlarged 5.0 times"),
    ],
)
def test_images_that_no_model_sees_much_in(image, word):
    found = check_image(stages([], image=image))
    assert len(found) == 1 and word in found[0]


def test_objects_and_anchors_of_other_sizes():
    small, large = [10, 10, 20, 20], [0, 0, 90, 90]  # anchors have 32 pixels
    few = check_sizes(stages([(small, 1), (large, 1), (BOX, 1)]))
    assert len(few) == 2
    assert "1 of 3 objects are smaller than half the smallest anchor (32 pixels" in few[0]
    assert "1 of 3 objects are larger than twice the largest" in few[1]
