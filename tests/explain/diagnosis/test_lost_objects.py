"""Each status of an object on hand-made boxes and scores for which it is known."""

import pytest
from diagnosis_stub import stages

from mrcnn_tf.explain.diagnosis.lost_objects import diagnose_objects

BOX = [10, 10, 50, 50]
FAR = [60, 60, 90, 90]
SURE_CAT, SURE_DOG, NOTHING = [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.98, 0.01, 0.01]


def diagnose(case, number=0):
    return {row.number: row for row in diagnose_objects(case)}[number]


def test_an_object_with_a_detection_of_its_class_is_detected():
    diagnosis = diagnose(stages([(BOX, 1)], [(FAR, [0.05, 0.9, 0.05]), ([10, 10, 50, 54], SURE_CAT)]))
    assert (diagnosis.status, diagnosis.detection, diagnosis.category) == ("detected", 1, "cat")
    assert diagnosis.detection_iou == pytest.approx(40 / 44)
    assert diagnosis.score == pytest.approx(0.8)


def test_a_detection_finds_one_object_only():
    other = [10, 14, 50, 54]
    diagnosis = diagnose(stages([(BOX, 1), (other, 1)], [(BOX, SURE_CAT)]), 1)
    assert (diagnosis.status, diagnosis.detection) == ("merged", 0)
    assert "object 0" in diagnosis.sentence


def test_the_better_detection_comes_first():
    case = stages(
        [(BOX, 1)], [(BOX, [0.4, 0.6, 0]), ([10, 30, 50, 70], [0.1, 0.9, 0]), ([10, 16, 50, 50], [0.3, 0.7, 0])]
    )
    # Scores 0.9 (IoU 1/3) and 0.7 (IoU 0.85); the third overlaps that by more than 0.5.
    assert diagnose(case).detection == 1


def test_an_object_behind_the_best_detections_is_cut_off():
    diagnosis = diagnose(stages([(BOX, 1)], [(FAR, [0.05, 0.9, 0.05]), (BOX, SURE_CAT)], max_detections=1))
    assert (diagnosis.status, diagnosis.detection) == ("cut off", None)
    assert "max_per_image" in diagnosis.sentence


def test_a_neighbour_suppresses():
    neighbour = [10, 20, 50, 60]  # IoU 0.6 with BOX
    case = stages([(BOX, 1), (neighbour, 1)], [(neighbour, [0.1, 0.9, 0]), (BOX, SURE_CAT)])
    # The neighbour's detection overlaps the object by 0.6, too, but has an object of its own.
    assert diagnose(case, 1).status == "detected"
    assert diagnose(case).status == "merged"
    shifted = [10, 24, 50, 60]  # IoU 26 / 50 with BOX's box below, under one half with BOX itself
    box = [10, 14, 50, 50]
    case = stages([([10, 0, 50, 44], 1), (shifted, 1)], [(shifted, [0.1, 0.9, 0]), (box, SURE_CAT)])
    diagnosis = diagnose(case)
    assert (diagnosis.status, diagnosis.detection) == ("suppressed", 0)
    assert "finds object 1" in diagnosis.sentence and "0.57" in diagnosis.sentence


def test_a_poor_box_suppresses_a_good_one():
    poor, good = [10, 10, 50, 95], [10, 10, 50, 60]
    diagnosis = diagnose(stages([(BOX, 1)], [(poor, [0.1, 0.9, 0]), (good, SURE_CAT)]))
    assert (diagnosis.status, diagnosis.detection) == ("suppressed", 0)
    assert "by 0.47 only" in diagnosis.sentence


def test_another_class_is_named():
    diagnosis = diagnose(stages([(BOX, 1)], [(BOX, [0.1, 0.03, 0.87])]))
    assert (diagnosis.status, diagnosis.detection) == ("misclassified", 0)
    assert "'dog'" in diagnosis.sentence and "0.87" in diagnosis.sentence and "0.03" in diagnosis.sentence


def test_a_detection_that_finds_another_object_misclassifies_none():
    case = stages([(BOX, 1), (BOX, 2)], [(BOX, SURE_DOG, FAR, BOX)])
    assert diagnose(case, 1).status == "detected"
    assert diagnose(case).status == "misplaced"


def test_a_score_below_the_threshold():
    diagnosis = diagnose(stages([(BOX, 2)], [(BOX, [0.95, 0.01, 0.04])]))
    assert (diagnosis.status, diagnosis.detection) == ("below threshold", None)
    assert diagnosis.score == pytest.approx(0.04)
    assert "0.040" in diagnosis.sentence and "0.05" in diagnosis.sentence


def test_a_box_moved_away():
    diagnosis = diagnose(stages([(BOX, 1)], [(BOX, NOTHING, FAR, FAR)]))
    assert (diagnosis.status, diagnosis.detection, diagnosis.score) == ("misplaced", None, None)
    assert diagnosis.proposal_iou == 1


def test_a_detection_of_a_part():
    part = [10, 10, 50, 26]
    diagnosis = diagnose(stages([(BOX, 1)], [(part, SURE_CAT)]))
    assert (diagnosis.status, diagnosis.detection) == ("misplaced", 0)
    assert diagnosis.detection_iou == pytest.approx(0.4)


def test_no_proposal_since_the_rpn_suppressed_it():
    good, better = [10, 10, 50, 60], [10, 10, 50, 76]  # IoU 0.8 and 0.61 with the object, 0.76 with each other
    near = [10, 10, 50, 95]
    case = stages([(BOX, 1)], [(FAR, NOTHING)], [(better, 0.9), (good, 0.8)])
    assert diagnose(case).survivor_iou == pytest.approx(40 / 66)
    case = stages([(BOX, 1)], [(FAR, NOTHING)], [(near, 0.9), ([10, 10, 50, 72], 0.8)])
    diagnosis = diagnose(case)
    assert diagnosis.status == "no proposal" and "suppressed" in diagnosis.sentence
    assert (diagnosis.candidate_iou, diagnosis.survivor_iou) == (pytest.approx(40 / 62), pytest.approx(40 / 85))


def test_no_proposal_since_it_ranks_too_low():
    case = stages([(BOX, 1)], [(FAR, NOTHING)], [(FAR, 0.9), (BOX, 0.1)], max_proposals=1)
    diagnosis = diagnose(case)
    assert diagnosis.status == "no proposal" and "post_nms_test" in diagnosis.sentence
    assert (diagnosis.survivor_iou, diagnosis.proposal_iou) == (1, 0)


def test_no_proposal_since_the_rpn_sees_nothing():
    diagnosis = diagnose(stages([(BOX, 1)], [(FAR, NOTHING)]))
    assert diagnosis.status == "no proposal"
    assert "0.20" in diagnosis.sentence  # the objectness of the anchor that learns it


def test_no_anchor():
    diagnosis = diagnose(stages([(BOX, 1)], [(FAR, NOTHING)], anchor_iou=0.2))
    assert diagnosis.status == "no anchor"
    assert "40 pixels" in diagnosis.sentence and "0.20" in diagnosis.sentence


def test_without_any_proposal():
    assert diagnose(stages([(BOX, 1)])).status == "no proposal"


def test_crowd_regions_are_not_diagnosed():
    case = stages([(BOX, 1), (FAR, 1)], [(BOX, SURE_CAT)], crowd=[0])
    assert [(row.number, row.status) for row in diagnose_objects(case)] == [(1, "no proposal")]
