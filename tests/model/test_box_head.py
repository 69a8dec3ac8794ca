"""The box head's layers, targets and detections against plain numpy."""

import math

import numpy as np
import pytest
import tensorflow as tf
from averages import Averages

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import BoxHeadConfig, Conventions, DetectionConfig
from mrcnn_tf.model.heads.box import BoxHead
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.model.necks import FeatureMaps
from mrcnn_tf.model.roi_features import RoILayer
from mrcnn_tf.model.rois import GroundTruth, Regions, RoISample
from mrcnn_tf.model.rpn import RPN

CLASSES, ROIS = 3, 8


def make(rules=None, detections=None, settings=None, **arguments):
    settings = {"channels": 12, "pool_size": 3} | (settings or {})
    detections = {"max_per_image": 5} | (detections or {})
    all_settings = BoxHeadConfig(**settings), DetectionConfig(**detections), Conventions(**(rules or {}))
    head = BoxHead(CLASSES, RoILayer(3), *all_settings, **arguments)
    head.build((None, None, 3, 3, 5))
    return head


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).normal(size=(2, ROIS, 3, 3, 5)).astype(np.float32)


def rois(seed=1):
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 50, (2, ROIS, 2))
    return np.float32(np.concatenate([corner, corner + random.uniform(5, 40, (2, ROIS, 2))], axis=2))


@pytest.mark.parametrize("weights", [[10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0]])
def test_targets_lead_from_the_roi_to_its_object(weights):
    """One RoI is 2 pixels to the right and 20 x 16 instead of 20 x 20, one is the object, one is padding."""
    head = make(settings={"delta_weights": weights})
    truth = GroundTruth(
        {
            "boxes": np.float32([[[0, 0, 0, 0], [10, 10, 30, 30]]]),
            "classes": np.int32([[0, 1]]),
            "crowd": np.zeros((1, 2), bool),
        }
    )
    sample = RoISample(
        boxes=np.float32([[[12, 12, 32, 28], [10, 10, 30, 30], [40, 40, 50, 60]]]),
        classes=np.int32([[1, 1, 0]]),
        truth=np.int32([[1, 1, 0]]),
        positive=np.array([[True, True, False]]),
        drawn=np.ones((1, 3), bool),
    )
    targets = head.targets(sample, truth).numpy()
    expected = [-2 / 20 * weights[0], 0, 0, math.log(20 / 16) * weights[3]]
    np.testing.assert_allclose(targets[0, :2], [expected, [0] * 4], atol=1e-5)
    assert np.isfinite(targets).all()


def test_the_layers_are_two_hidden_and_two_siblings(features):
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
            if valid[roi] and score > config.score_threshold and (box[2:] - box[:2]).min() >= min_side:
                boxes.append(box)
                scores.append(score)
                classes.append(k + 1)
    kept = nms(boxes, scores, classes, config.nms_iou, config.max_per_image)
    return np.array(boxes)[kept], np.array(scores)[kept], np.array(classes)[kept]


def detect(head, logits, deltas, boxes, valid, sizes):
    """The `Regions` that the head makes of class logits and deltas of RoIs."""
    boxes = tf.constant(boxes)
    proposals = Regions(boxes, tf.zeros(boxes.shape[:2]), tf.zeros(boxes.shape[:2], tf.int32), tf.constant(valid))
    return head.select(
        head.decode_boxes(tf.constant(logits), tf.constant(deltas), proposals, tf.constant(sizes, tf.int32))
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("most", "threshold", "min_side"), [(5, 0.05, 1e-2), (40, 0.3, 1e-2), (40, 0.05, 15.0)])
def test_detections_equal_the_plain_computation(greedy_nms, seed, most, threshold, min_side):
    head = make({"min_detection_size": min_side}, {"max_per_image": most, "score_threshold": threshold})
    random = np.random.default_rng(seed)
    logits = random.normal(size=(2, ROIS, CLASSES + 1)).astype(np.float32) * 1.5
    deltas = random.normal(size=(2, ROIS, CLASSES, 4)).astype(np.float32) * 1.5
    boxes, valid, sizes = rois(seed), np.arange(ROIS) < np.array([[8], [5]]), [(60, 96), (64, 50)]
    detected = detect(head, logits, deltas, boxes, valid, sizes)
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


def test_outputs_are_the_detections_that_the_head_made_of_its_features():
    head, random = make(), np.random.default_rng(5)
    maps = FeatureMaps(
        {"P2": random.normal(size=(2, 16, 24, 5)).astype(np.float32)}, {"P2": 4}, np.int32([[60, 96]] * 2)
    )
    proposals = Regions(
        tf.constant(rois()), tf.zeros([2, ROIS]), tf.zeros([2, ROIS], tf.int32), tf.ones([2, ROIS], bool)
    )
    refined = head.refine(maps, proposals)
    logits, deltas = head(head.pooling(proposals.boxes, features=maps))
    expected = detect(head, logits, deltas, rois(), np.ones((2, ROIS), bool), [(60, 96)] * 2)
    for found, wanted in zip(refined, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    outputs = head.detect(maps, refined)
    assert set(outputs) == {spec.name for spec in head.outputs}
    for name in ("boxes", "scores", "classes"):
        np.testing.assert_array_equal(outputs[name], getattr(expected, name))
    np.testing.assert_array_equal(outputs["num_detections"], expected.valid.numpy().sum(axis=1))


def detect_one(head, logits, box, deltas=(0.0, 0.0, 0.0, 0.0)):
    """Classes and scores found in one RoI, repeated to fill the slots, of which only the first is valid."""
    deltas = tf.broadcast_to(tf.constant(deltas), [1, ROIS, CLASSES, 4])
    valid = [[True] + [False] * (ROIS - 1)]
    found = detect(head, [[logits] * ROIS], deltas, [[box] * ROIS], valid, [[64, 96]])
    return found.classes[0][found.valid[0]].numpy().tolist(), found.scores[0][found.valid[0]].numpy().tolist()


def test_classes_of_one_roi_dont_suppress_each_other_and_background_is_no_detection():
    head = make()
    classes, scores = detect_one(head, np.float32(np.log([0.5, 0.1, 0.3, 0.1 - 1e-6])), [10.0, 10, 40, 40])
    assert classes == [2, 1, 3]
    np.testing.assert_allclose(scores, [0.3, 0.1, 0.1], atol=1e-5)
    assert detect_one(head, np.float32(np.log([0.9, 0.04, 0.03, 0.03])), [10.0, 10, 40, 40]) == ([], [])


def test_a_score_of_exactly_the_threshold_is_no_detection():
    assert detect_one(make(detections={"score_threshold": 0.25}), [0.0] * 4, [10.0, 10, 40, 40])[0] == []
    assert len(detect_one(make(detections={"score_threshold": 0.2499}), [0.0] * 4, [10.0, 10, 40, 40])[0]) == 3


def test_a_box_moved_out_of_the_image_is_no_detection():
    box = [10.0, 10, 40, 40]  # dx of 20 / 10 moves it by two widths, from 70 to 100; of 30 / 10 from 100 to 130
    assert detect_one(make(), [0.0] * 4, box, (20.0, 0.0, 0.0, 0.0))[0] == [1, 2, 3]
    assert detect_one(make(), [0.0] * 4, box, (30.0, 0.0, 0.0, 0.0))[0] == []


def test_without_hidden_layers_the_siblings_read_the_average_over_the_cells(features):
    """As after res5 (Figure 3 of the paper, left)."""
    head = make(settings={"fcs": 0})
    mean = np.float64(features).mean(axis=(2, 3))
    logits, deltas = head(features)
    np.testing.assert_allclose(logits, mean @ head.class_logits.kernel.numpy(), rtol=1e-4, atol=1e-5)
    expected = (mean @ head.box_deltas.kernel.numpy()).reshape(2, ROIS, CLASSES, 4)
    np.testing.assert_allclose(deltas, expected, rtol=1e-4, atol=1e-5)


def test_outputs_are_float32_under_bfloat16(features):
    head = make(dtype="mixed_bfloat16")
    assert head.fcs[0].compute_dtype == "bfloat16"
    logits, deltas = head(tf.cast(features, tf.bfloat16))
    detected = detect(head, logits, deltas, rois(), np.ones((2, ROIS), bool), [[64, 96]] * 2)
    assert {values.dtype for values in (logits, deltas, detected.boxes, detected.scores)} == {tf.float32}


def test_class_agnostic_boxes_are_those_of_a_head_whose_classes_all_have_the_same(features):
    """One box for all classes: its weights repeated for each class of another head give the same outputs."""
    shared, own = make(settings={"class_agnostic": True}), make()
    assert shared.box_deltas.kernel.shape == (12, 4) and own.box_deltas.kernel.shape == (12, 4 * CLASSES)
    shared.box_deltas.bias.assign([0.3, -0.2, 0.5, -0.4])
    weights = shared.get_weights()
    *others, kernel, bias = weights
    own.set_weights([*others, np.tile(kernel, (1, CLASSES)), np.tile(bias, CLASSES)])
    (logits, deltas), (own_logits, own_deltas) = shared(features), own(features)
    assert deltas.shape == (2, ROIS, 1, 4)
    np.testing.assert_array_equal(logits, own_logits)
    np.testing.assert_allclose(np.repeat(deltas, CLASSES, axis=2), own_deltas, atol=1e-6)
    arguments = rois(), np.arange(ROIS) < np.array([[8], [5]]), [(60, 96), (64, 50)]
    found, expected = (detect(head, logits, each, *arguments) for head, each in ((shared, deltas), (own, own_deltas)))
    assert found.valid.numpy().any(axis=1).all()
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
    for name in ("scores", "classes", "valid"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_class_agnostic_box_is_decoded_by_hand():
    """dx = 1 / 10 of 30 pixels to the right, twice as high: the two classes above the threshold have the same box."""
    head, logits = make(settings={"class_agnostic": True}), np.float32(np.log([0.4, 0.35, 0.01, 0.24]))
    deltas = tf.broadcast_to(tf.constant([1.0, 0.0, 0.0, 5 * math.log(2.0)]), [1, 1, 1, 4])
    found = detect(head, [[logits]], deltas, [[[10.0, 10, 40, 40]]], [[True]], [[64, 96]])
    np.testing.assert_array_equal(found.classes[0][:3], [1, 3, 0])
    np.testing.assert_allclose(found.boxes[0][:2], [[13, 0, 43, 55]] * 2, atol=1e-4)
    np.testing.assert_allclose(found.scores[0][:2], [0.35, 0.24], atol=1e-6)


def test_the_losses_of_a_class_agnostic_head_are_computed_by_hand():
    head = make({"box_beta": 1.0}, settings={"class_agnostic": True})
    head.set_weights([np.zeros(weight.shape) for weight in head.get_weights()])
    head.class_logits.bias.assign([0.0, 1.0, 2.0, 0.0])
    head.box_deltas.bias.assign([0.5, 0.0, -3.0, 0.0])
    boxes = np.float32([[[10, 10, 30, 30], [40, 40, 60, 60], [0, 0, 20, 20]]])
    truth = GroundTruth(
        {"boxes": tf.constant(boxes[:, :2]), "classes": np.int32([[2, 3]]), "crowd": np.zeros((1, 2), bool)}
    )
    # An RoI of class 2 and one of class 3 that are their objects, so that all targets are 0, and one of background.
    sample = RoISample(
        tf.constant(boxes),
        np.int32([[2, 3, 0]]),
        np.int32([[0, 1, 0]]),
        np.array([[True, True, False]]),
        np.ones((1, 3), bool),
    )
    maps = FeatureMaps({"P2": tf.ones([1, 16, 16, 5])}, {"P2": 4}, np.int32([[64, 64]]))
    found = {name: float(value) for name, value in head.compute_losses(maps, sample, truth).items()}
    total = math.log(2 + math.e + math.e**2)
    assert found == pytest.approx(
        # Smooth L1 with a beta of 1 of 0.5 and 3 is 0.125 and 2.5, of two RoIs of three.
        {"loss_class": ((total - 2) + total + total) / 3, "loss_box": 2 * (0.125 + 2.5) / 3},
        rel=1e-5,
    )


def test_no_weight_of_a_class_agnostic_box_depends_on_the_classes():
    def dependent(**settings):
        return [each.variable.path.partition("/")[2] for each in make(settings=settings).class_variables()]

    classifier = ["class_logits/kernel", "class_logits/bias"]
    assert dependent() == [*classifier, "box_deltas/kernel", "box_deltas/bias"]
    assert dependent(class_agnostic=True) == classifier


MAPS = Averages({"C4": 16})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"categories": ["a", "b"], "rpn": RPN()}, "box head has 3 classes and the model 2 categories: give MaskRCNN"),
        ({"categories": ["a", "b", "c"]}, "A box head makes detections of proposals: give MaskRCNN an RPN"),
    ],
)
def test_a_model_that_the_head_doesnt_fit_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        MaskRCNN(MAPS, heads=[BoxHead(CLASSES, RoILayer(7))], **arguments)
