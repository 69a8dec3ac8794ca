"""Suppression against a plain greedy loop."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_tf.ops.boxes import DROPPED, nms

A, HALF_OF_A, FAR = [0.0, 0, 10, 10], [0.0, 0, 10, 5], [50.0, 50, 60, 60]


def kept(boxes, scores, threshold=0.5, count=3, groups=None):
    """Indices that survive in one image given as lists, after a check of the padding."""
    groups = [[0] * len(boxes)] if groups is None else [groups]
    indices, valid = nms(tf.constant([boxes]), tf.constant([scores]), tf.constant(groups), threshold, count)
    assert indices.shape == valid.shape == (1, count) and indices.dtype == tf.int32
    indices, valid = indices.numpy()[0], valid.numpy()[0]
    assert sorted(valid, reverse=True) == valid.tolist() and not indices[~valid].any()
    return indices[valid].tolist()


def test_the_better_of_two_overlapping_boxes_survives():
    shifted = [1.0, 0, 11, 10]  # IoU 90 / 110
    assert kept([shifted, A, FAR], [0.8, 0.9, 0.1]) == [1, 2]


def test_an_overlap_of_exactly_the_threshold_is_kept():
    assert kept([A, HALF_OF_A], [0.9, 0.8], 0.5) == [0, 1]
    assert kept([A, [0.0, 0, 10, 5.001]], [0.9, 0.8], 0.5) == [0]
    assert kept([A, [0.0, 0, 10, 7]], [0.9, 0.8], 0.7) == [0, 1]
    assert kept([A, [0.0, 0, 10, 7.001]], [0.9, 0.8], 0.7) == [0]


def test_a_suppressed_box_suppresses_nothing():
    chain = [[0.0, 0, 10, 10], [4.0, 0, 14, 10], [8.0, 0, 18, 10]]  # neighbours: IoU 60 / 140; ends: 20 / 180
    assert kept(chain, [0.9, 0.8, 0.7], 0.4) == [0, 2]


def test_groups_never_suppress_each_other():
    assert kept([A, A, A], [0.7, 0.9, 0.8], groups=[0, 1, 1]) == [1, 0]
    assert kept([A, A, A], [0.7, 0.9, 0.8], groups=[4, 80, 3]) == [1, 2, 0]


def test_the_best_count_survive():
    row = [[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(5)]
    assert kept(row, [0.1, 0.5, 0.3, 0.4, 0.2], count=2) == [1, 3]


def test_fewer_boxes_than_count():
    assert kept([FAR], [0.3], count=4) == [0]
    indices, valid = nms(tf.zeros([2, 0, 4]), tf.zeros([2, 0]), tf.zeros([1, 0], tf.int32), 0.5, 3)
    assert indices.shape == (2, 3) and not valid.numpy().any()


def test_dropped_boxes_neither_survive_nor_suppress():
    assert kept([A, A, FAR], [DROPPED, -30.0, DROPPED]) == [1]
    assert kept([A, FAR], [DROPPED, DROPPED]) == []


def test_negative_scores_are_scores():
    """The RPN ranks by logits."""
    assert kept([FAR, A], [-12.0, -700.0]) == [0, 1]


def test_empty_boxes_suppress_nothing():
    assert kept([[5.0, 5, 5, 5], [5.0, 5, 5, 5]], [0.9, 0.8]) == [0, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.7]), st.integers(1, 14))
def test_a_batch_is_suppressed_as_by_the_plain_loop(greedy_nms, seed, threshold, count):
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 30, (3, 12, 2))
    boxes = np.float32(np.concatenate([corner, corner + random.uniform(4, 25, (3, 12, 2))], axis=2))
    scores = np.float32(random.permuted(np.arange(36.0)).reshape(3, 12) - 10)
    groups = random.integers(0, 3, (3, 12)).astype(np.int32)
    indices, valid = nms(boxes, scores, groups, threshold, count)
    for image in range(3):
        expected = greedy_nms(boxes[image], scores[image], groups[image], threshold, count)
        assert indices[image][valid[image]].numpy().tolist() == expected


def test_an_image_doesnt_depend_on_its_neighbours_in_the_batch():
    """The boxes of another image must not decide how finely this image's overlaps are computed."""
    random = np.random.default_rng(0)
    first = np.float32([100.3, 100.7, 100.3, 100.7]) + np.float32([0, 0, 7.7, 7.7])
    others = first + np.float32(np.outer(random.uniform(2.5, 2.6, 400), [1, 0, 1, 0]))  # IoU around one half
    groups = tf.constant([[60] * 2])
    boxes = np.stack([np.broadcast_to(first, others.shape), others], axis=1)

    def survivors(neighbour):
        batch = np.concatenate([boxes, np.broadcast_to(np.float32(neighbour), (1, 2, 4))])
        return nms(batch, np.float32([[0.9, 0.8]] * len(batch)), groups, 0.5, 2)[1].numpy()[:-1]

    np.testing.assert_array_equal(survivors([0, 0, 50, 50]), survivors([0, 0, 1333, 1333]))


@pytest.mark.parametrize("boxes", [2, 5])
def test_suppression_runs_in_a_graph_with_open_shapes(boxes):
    signature = [tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None]), tf.TensorSpec([None, None], tf.int32)]
    graph = tf.function(lambda b, s, g: nms(b, s, g, 0.5, 3), input_signature=signature)
    scores = np.float32([np.arange(boxes)])
    indices, valid = graph(np.float32([[A] * boxes]), scores, np.int32([np.arange(boxes)]))
    assert indices[0].numpy().tolist() == [*range(boxes - 1, -1, -1), 0, 0][:3]
    assert valid[0].numpy().sum() == min(boxes, 3)


@pytest.mark.parametrize("count", [3, 12, 20])
def test_one_image_known_beforehand_needs_no_loop_and_gives_the_same(count):
    def graph(batch):
        shapes = ([batch, 12, 4], tf.float32), ([batch, 12], tf.float32), ([batch, 12], tf.int32)
        signature = [tf.TensorSpec(*shape) for shape in shapes]
        return tf.function(lambda *values: nms(*values, 0.3, count), input_signature=signature)

    alone, looped = graph(1), graph(None)
    assert not [op.type for op in alone.get_concrete_function().graph.get_operations() if "TensorList" in op.type]
    random = np.random.default_rng(0)
    for _ in range(5):
        corner = random.uniform(0, 30, (1, 12, 2))
        boxes = np.float32(np.concatenate([corner, corner + random.uniform(4, 25, (1, 12, 2))], axis=2))
        scores = np.float32(np.where(random.uniform(size=(1, 12)) < 0.2, DROPPED, random.normal(size=(1, 12))))
        groups = random.integers(0, 2, (1, 12)).astype(np.int32)
        for found, expected in zip(alone(boxes, scores, groups), looped(boxes, scores, groups), strict=True):
            assert found.shape == (1, count)
            np.testing.assert_array_equal(found, expected)
