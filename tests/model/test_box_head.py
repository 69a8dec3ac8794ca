"""The box head's layers, targets and detections against plain numpy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.heads.box import BoxHead
from mrcnn_tf.model.rois import RoISample
from mrcnn_tf.model.rpn import Proposals

CLASSES, ROIS = 3, 8


@pytest.fixture(scope="module")
def make(tiny_tree, conventions):
    def build(rules=None, detections=None, **settings):
        head = BoxHead(
            CLASSES,
            tiny_tree["box_head"],
            tiny_tree["detections"] | (detections or {}),
            conventions(**(rules or {})),
            **settings,
        )
        head.build((None, None, 3, 3, 5))
        return head

    return build


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).normal(size=(2, ROIS, 3, 3, 5)).astype(np.float32)


def rois(seed=1):
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 50, (2, ROIS, 2))
    return np.float32(np.concatenate([corner, corner + random.uniform(5, 40, (2, ROIS, 2))], axis=2))


@pytest.mark.parametrize("weights", [[10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0]])
def test_targets_lead_from_the_roi_to_its_object(tiny_tree, conventions, weights):
    """One RoI is 2 pixels to the right and 20 x 16 instead of 20 x 20, one is the object, one is padding."""
    head = BoxHead(CLASSES, tiny_tree["box_head"] | {"delta_weights": weights}, tiny_tree["detections"], conventions())
    boxes = np.float32([[[0, 0, 0, 0], [10, 10, 30, 30]]])
    sample = RoISample(
        boxes=np.float32([[[12, 12, 32, 28], [10, 10, 30, 30], [40, 40, 50, 60]]]),
        classes=np.int32([[1, 1, 0]]),
        truth=np.int32([[1, 1, 0]]),
        positive=np.array([[True, True, False]]),
        drawn=np.ones((1, 3), bool),
    )
    targets = head.targets(boxes, sample).numpy()
    expected = [-2 / 20 * weights[0], 0, 0, math.log(20 / 16) * weights[3]]
    np.testing.assert_allclose(targets[0, :2], [expected, [0] * 4], atol=1e-5)
    assert np.isfinite(targets).all()


def test_the_layers_are_two_hidden_and_two_siblings(make, features):
    head, random = make(), np.random.default_rng(2)
    head.set_weights([random.normal(size=weight.shape) * 0.3 for weight in head.get_weights()])
    fc1, fc2, classes, boxes = (
        [weight.numpy() for weight in layer.weights] for layer in (*head.fcs, head.class_logits, head.box_deltas)
    )
    hidden = np.maximum(features.reshape(2 * ROIS, 3 * 3 * 5) @ fc1[0] + fc1[1], 0)
    hidden = np.maximum(hidden @ fc2[0] + fc2[1], 0)
    logits, deltas = head(features)
    np.testing.assert_allclose(
        logits, (hidden @ classes[0] + classes[1]).reshape(2, ROIS, CLASSES + 1), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        deltas, (hidden @ boxes[0] + boxes[1]).reshape(2, ROIS, CLASSES, 4), rtol=1e-4, atol=1e-4
    )


def plain_detections(logits, deltas, proposals, valid, size, config, min_side, nms):
    """One image: (box, score, class) by falling score."""
    height, width = size
    boxes, scores, classes = [], [], []
    for roi in range(ROIS):
        exponentials = np.exp(np.float64(logits[roi]))
        for k in range(CLASSES):
            score = exponentials[k + 1] / exponentials.sum()
            delta = np.float64(deltas[roi, k]) / [10, 10, 5, 5]
            side = np.float64(proposals[roi, 2:]) - proposals[roi, :2]
            centre = (np.float64(proposals[roi, 2:]) + proposals[roi, :2]) / 2 + delta[:2] * side
            side = side * np.exp(np.minimum(delta[2:], np.log(1000 / 16)))
            box = np.concatenate([centre - side / 2, centre + side / 2]).clip(0, [width, height, width, height])
            if valid[roi] and score > config["score_threshold"] and (box[2:] - box[:2]).min() >= min_side:
                boxes.append(box)
                scores.append(score)
                classes.append(k + 1)
    kept = nms(boxes, scores, classes, config["nms_iou"], config["max_per_image"])
    return np.array(boxes)[kept], np.array(scores)[kept], np.array(classes)[kept]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("most", "threshold", "min_side"), [(5, 0.05, 1e-2), (40, 0.3, 1e-2), (40, 0.05, 15.0)])
def test_detections_equal_the_plain_computation(make, greedy_nms, seed, most, threshold, min_side):
    head = make({"min_detection_size": min_side}, {"max_per_image": most, "score_threshold": threshold})
    random = np.random.default_rng(seed)
    logits = random.normal(size=(2, ROIS, CLASSES + 1)).astype(np.float32) * 1.5
    deltas = random.normal(size=(2, ROIS, CLASSES, 4)).astype(np.float32) * 1.5
    boxes, valid, sizes = rois(seed), np.arange(ROIS) < np.array([[8], [5]]), [(60, 96), (64, 50)]
    proposals = Proposals(tf.constant(boxes), tf.zeros([2, ROIS]), tf.constant(valid))
    detected = head.detect(tf.constant(logits), tf.constant(deltas), proposals, tf.constant(sizes))
    assert detected.boxes.shape == (2, most, 4) and detected.classes.dtype == tf.int32
    for image in range(2):
        inputs = (logits[image], deltas[image], boxes[image], valid[image], sizes[image])
        expected = plain_detections(*inputs, head.detections, min_side, greedy_nms)
        found = detected.valid[image].numpy()
        assert found.sum() == len(expected[0]) > 0
        np.testing.assert_allclose(detected.boxes[image][found], expected[0], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(detected.scores[image][found], expected[1], rtol=1e-5)
        np.testing.assert_array_equal(detected.classes[image][found], expected[2])
        for values in detected[:3]:
            assert not values[image].numpy()[~found].any()


def detect_one(head, logits, box, deltas=(0.0, 0.0, 0.0, 0.0)):
    """Classes and scores found in one RoI, repeated to fill the slots, of which only the first is valid."""
    proposals = Proposals(
        tf.constant([[box] * ROIS]), tf.zeros([1, ROIS]), tf.constant([[True] + [False] * (ROIS - 1)])
    )
    deltas = tf.broadcast_to(tf.constant(deltas), [1, ROIS, CLASSES, 4])
    found = head.detect(tf.constant([[logits] * ROIS]), deltas, proposals, tf.constant([[64, 96]]))
    return found.classes[0][found.valid[0]].numpy().tolist(), found.scores[0][found.valid[0]].numpy().tolist()


def test_classes_of_one_roi_dont_suppress_each_other_and_background_is_no_detection(make):
    head = make()
    classes, scores = detect_one(head, np.float32(np.log([0.5, 0.1, 0.3, 0.1 - 1e-6])), [10.0, 10, 40, 40])
    assert classes == [2, 1, 3]
    np.testing.assert_allclose(scores, [0.3, 0.1, 0.1], atol=1e-5)
    assert detect_one(head, np.float32(np.log([0.9, 0.04, 0.03, 0.03])), [10.0, 10, 40, 40]) == ([], [])


def test_a_score_of_exactly_the_threshold_is_no_detection(make):
    assert detect_one(make(detections={"score_threshold": 0.25}), [0.0] * 4, [10.0, 10, 40, 40])[0] == []
    assert len(detect_one(make(detections={"score_threshold": 0.2499}), [0.0] * 4, [10.0, 10, 40, 40])[0]) == 3


def test_a_box_moved_out_of_the_image_is_no_detection(make):
    box = [10.0, 10, 40, 40]  # dx of 20 / 10 moves it by two widths, from 70 to 100; of 30 / 10 from 100 to 130
    assert detect_one(make(), [0.0] * 4, box, (20.0, 0.0, 0.0, 0.0))[0] == [1, 2, 3]
    assert detect_one(make(), [0.0] * 4, box, (30.0, 0.0, 0.0, 0.0))[0] == []


def test_without_hidden_layers_the_siblings_read_the_average_over_the_cells(tiny_tree, features, conventions):
    """As after res5 (Figure 3 of the paper, left)."""
    head = BoxHead(CLASSES, tiny_tree["box_head"] | {"fcs": 0}, tiny_tree["detections"], conventions())
    head.build((None, None, 3, 3, 5))
    mean = np.float64(features).mean(axis=(2, 3))
    logits, deltas = head(features)
    np.testing.assert_allclose(logits, mean @ head.class_logits.kernel.numpy(), rtol=1e-4, atol=1e-5)
    expected = (mean @ head.box_deltas.kernel.numpy()).reshape(2, ROIS, CLASSES, 4)
    np.testing.assert_allclose(deltas, expected, rtol=1e-4, atol=1e-5)


def test_outputs_are_float32_under_bfloat16(make, features):
    head = make(dtype="mixed_bfloat16")
    assert head.fcs[0].compute_dtype == "bfloat16"
    logits, deltas = head(tf.cast(features, tf.bfloat16))
    proposals = Proposals(tf.constant(rois()), tf.zeros([2, ROIS]), tf.ones([2, ROIS], tf.bool))
    detected = head.detect(logits, deltas, proposals, tf.constant([[64, 96]] * 2))
    assert {values.dtype for values in (logits, deltas, detected.boxes, detected.scores)} == {tf.float32}
