"""The figures of a diagnosis against hand-made stages."""

from diagnosis_stub import stages

from mrcnn_tf.explain.diagnosis.checks import compute_class_scores, count_boxes, describe_counts

BOX, NEAR, FAR = [10, 10, 50, 50], [10, 12, 50, 52], [60, 60, 90, 90]
ROIS = [(BOX, [0.1, 0.8, 0.1]), (NEAR, [0.2, 0.7, 0.1]), (FAR, [0.97, 0.01, 0.02])]


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
