"""The RoIs that the heads learn from: shares, the ground truth among them, and what must never be drawn."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.config.settings import RoIConfig
from mrcnn_tf.model.rois import GroundTruth, Regions, RoISampler

CONFIG = RoIConfig(batch_per_image=8, positive_fraction=0.25, foreground_iou=0.5)
FIELDS = ("boxes", "classes", "truth", "positive", "drawn")


def proposals(rows, valid=None):
    boxes = tf.constant(rows, tf.float32)
    valid = tf.ones(boxes.shape[:2], tf.bool) if valid is None else tf.constant(valid)
    return Regions(boxes, tf.zeros(boxes.shape[:2]), tf.zeros(boxes.shape[:2], tf.int32), valid)


def objects(boxes, classes, crowd=None):
    """A `GroundTruth`."""
    classes = np.int32(classes)
    crowd = np.zeros(classes.shape, bool) if crowd is None else np.array(crowd)
    return GroundTruth({"boxes": tf.constant(boxes, tf.float32), "classes": classes, "crowd": crowd})


def run(rows, boxes, classes, crowd=None, valid=None, config=CONFIG, seed=0):
    """A `RoISample` of numpy arrays, `positives` included."""
    truth = objects(boxes, classes, crowd)
    sample = RoISampler(config).draw(proposals(rows, valid), truth, seeds(len(classes), seed))
    for part in {sample, sample.positives}:
        for name in FIELDS:
            setattr(part, name, getattr(part, name).numpy())
    return sample


def seeds(images, first=0):
    return tf.constant(range(first, first + images), tf.uint32)


def row(count, x=100.0):
    """Boxes apart from each other and from the ground truth below."""
    return [[x + 30 * i, 100.0, x + 30 * i + 20, 120.0] for i in range(count)]


TRUTH, OTHER, NOTHING = [10.0, 10, 30, 30], [50.0, 10, 70, 30], [0.0, 0, 0, 0]


def test_at_most_a_quarter_is_positive_and_positives_come_first():
    near = [[10.0 + 0.1 * i, 10, 30, 30] for i in range(6)]
    sample = run([near + row(10)], [[TRUTH, NOTHING]], [[4, 0]])
    np.testing.assert_array_equal(sample.positive, [[1, 1, 0, 0, 0, 0, 0, 0]])
    assert sample.drawn.all()
    np.testing.assert_array_equal(sample.classes, [[4, 4, 0, 0, 0, 0, 0, 0]])
    assert (sample.boxes[0, 2:, 0] >= 100).all()
    first = sample.positives
    assert first.boxes.shape == (1, 2, 4) and first.positive.all()
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(first, name), getattr(sample, name)[:, :2])
    assert first.whole is sample.whole is sample


def test_the_ground_truth_itself_is_a_candidate():
    sample = run([row(10)], [[TRUTH, OTHER]], [[4, 9]])
    assert sample.positive.sum() == 2
    found = {
        tuple(box): (label, truth)
        for box, label, truth in zip(sample.boxes[0, :2], sample.classes[0], sample.truth[0], strict=False)
    }
    assert found == {tuple(TRUTH): (4, 0), tuple(OTHER): (9, 1)}


def test_half_overlap_is_positive_and_less_is_background():
    half, less = [10.0, 10, 30, 20], [10.0, 10, 30, 19.9]
    everything = dataclasses.replace(CONFIG, batch_per_image=4, positive_fraction=1.0)
    sample = run([[half, less]], [[TRUTH]], [[1]], config=everything)
    positive = {tuple(np.round(box, 3)) for box in sample.boxes[0][sample.positive[0]].astype(float)}
    assert positive == {tuple(half), tuple(TRUTH)}
    assert sample.drawn.sum() == 3


def test_too_few_candidates_leave_slots_free():
    sample = run([row(2)], [[TRUTH, NOTHING]], [[3, 0]])
    np.testing.assert_array_equal(sample.drawn, [[1, 1, 1, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(sample.classes, [[3, 0, 0, 0, 0, 0, 0, 0]])


def test_padding_is_never_drawn():
    rows, valid = [row(3) + [NOTHING, TRUTH]], [[True, True, True, False, False]]
    sample = run(rows, [[OTHER, NOTHING, [200.0, 0, 220, 20]]], [[5, 0, 0]], valid=valid)
    drawn = {tuple(box) for box in sample.boxes[0][sample.drawn[0]]}
    assert drawn == {tuple(box) for box in row(3)} | {tuple(OTHER)}


def test_a_crowd_is_neither_candidate_nor_match_nor_background():
    crowd = [0.0, 0, 90, 90]
    sample = run([[[20.0, 40, 40, 60], [1.0, 1, 89, 89]] + row(3)], [[crowd, OTHER]], [[5, 6]], [[True, False]])
    drawn = {tuple(box) for box in sample.boxes[0][sample.drawn[0]]}
    assert drawn == {tuple(box) for box in row(3)} | {tuple(OTHER)}
    assert sample.classes[0].tolist() == [6] + [0] * 7


def test_an_image_without_objects_gives_background_only():
    sample = run([row(10), row(10)], [[NOTHING], [TRUTH]], [[0], [2]])
    assert not sample.positive[0].any() and sample.drawn[0].all() and not sample.classes[0].any()
    assert sample.positive[1].sum() == 1


def test_each_image_learns_its_own_ground_truth():
    sample = run([row(9)] * 2, [[TRUTH], [OTHER]], [[1], [2]])
    np.testing.assert_array_equal(sample.boxes[:, 0], [TRUTH, OTHER])
    np.testing.assert_array_equal(sample.classes[:, 0], [1, 2])


def test_each_seed_draws_anew_and_the_same_one_the_same():
    arguments = proposals([row(40)]), objects([[TRUTH]], [[1]])
    draws = [RoISampler(CONFIG).draw(*arguments, seeds(1, first)).boxes.numpy() for first in (5, 6, 5)]
    assert (draws[0] != draws[1]).any()
    np.testing.assert_array_equal(draws[2], draws[0])


@pytest.mark.parametrize("graph", [False, True])
def test_no_gradient_flows_through_the_boxes(graph):
    sampler = RoISampler(CONFIG)

    def total(boxes):
        regions = Regions(boxes, tf.zeros([1, 10]), tf.zeros([1, 10], tf.int32), tf.ones([1, 10], tf.bool))
        sample = sampler.draw(regions, *truth)
        return tf.reduce_sum(sample.boxes)

    truth = objects([[TRUTH]], [[1]]), seeds(1)
    boxes = tf.constant([row(10)])
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        value = (tf.function(total) if graph else total)(boxes)
    slope = tape.gradient(value, boxes)
    assert slope is None or not slope.numpy().any()


def test_boxes_stay_float32_under_bfloat16():
    sampler = RoISampler(CONFIG, dtype="mixed_bfloat16")
    fine = [[801.3, 100.0, 821.7, 120.0]] * 10
    sample = sampler.draw(proposals([fine]), objects([[TRUTH]], [[1]]), seeds(1))
    assert sample.boxes.dtype == tf.float32
    np.testing.assert_array_equal(sample.boxes[0, 1], np.float32(fine[0]))
