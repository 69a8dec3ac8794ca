"""Proposals against decode, top-k, clip, filter and suppression in plain numpy, and the anchors that are sampled."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.fpn import STRIDES
from mrcnn_tf.model.rpn import RPN
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.padding import round_up

CHANNELS = 4
SIZES = [8.0, 16.0, 32.0, 64.0, 128.0]


@pytest.fixture(scope="module")
def make(tiny_tree, conventions):
    """A function that makes an RPN with large random weights, so that deltas are far from zero."""

    def build(config=None, rules=None, **settings):
        config = tiny_tree["rpn"] | {"anchor_sizes": SIZES} | (config or {})
        layer = RPN(config, conventions(**(rules or {})), STRIDES, CHANNELS, **settings)
        layer.build([(None, None, None, CHANNELS)] * 5)
        random = np.random.default_rng(0)
        layer.set_weights(
            [random.normal(size=w.shape) * 0.4 for w in layer.get_weights()[:6]] + layer.get_weights()[6:]
        )
        return layer

    return build


def pyramid(height, width, batch=2, seed=1):
    random = np.random.default_rng(seed)
    shapes = [(batch, -(-height // stride), -(-width // stride), CHANNELS) for stride in STRIDES]
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def padded(features, extra):
    """The same maps in a batch `extra` = (height, width) pixels larger."""
    return [
        np.pad(level, [(0, 0), (0, -(-extra[0] // stride)), (0, -(-extra[1] // stride)), (0, 0)])
        for level, stride in zip(features, STRIDES, strict=True)
    ]


def plain_anchors(height, width):
    """Per level [n, 4] in float64: rounded cells of height / width 0.5, 1, 2 at multiples of the stride."""
    levels = []
    for size, stride in zip(SIZES, STRIDES, strict=True):
        rows = []
        for y, x in np.ndindex(-(-height // stride), -(-width // stride)):
            for ratio in (0.5, 1.0, 2.0):
                half = np.round(np.array([size / ratio**0.5, size * ratio**0.5]) / 2)
                rows.append([*(np.array([x, y]) * stride - half), *(np.array([x, y]) * stride + half)])
        levels.append(np.array(rows))
    return levels


def plain_proposals(layer, features, image_size, before, after, min_side, nms):
    """One image's boxes and logits, best first."""
    logits, deltas = layer.head(features)
    height, width = image_size
    boxes, scores, groups = [], [], []
    for level, anchors in enumerate(plain_anchors(4 * features[0].shape[1], 4 * features[0].shape[2])):
        order = np.argsort(-logits[level][0].numpy(), kind="stable")[:before]
        for anchor, delta, score in zip(
            anchors[order], np.float64(deltas[level][0])[order], logits[level][0].numpy()[order], strict=True
        ):
            side = anchor[2:] - anchor[:2]
            centre = (anchor[2:] + anchor[:2]) / 2 + delta[:2] * side
            side = side * np.exp(np.minimum(delta[2:], np.log(1000 / 16)))
            box = np.concatenate([centre - side / 2, centre + side / 2]).clip(0, [width, height, width, height])
            if (box[2:] - box[:2]).min() >= min_side and (box[2:] - box[:2]).min() > 0:
                boxes.append(box)
                scores.append(score)
                groups.append(level)
    kept = nms(boxes, scores, groups, 0.7, after)
    return np.array(boxes)[kept], np.array(scores)[kept]


@pytest.mark.parametrize(("training", "before", "after"), [(False, 20, 10), (True, 30, 15)])
@pytest.mark.parametrize("min_side", [1e-3, 12.0])
def test_proposals_equal_the_plain_computation(make, greedy_nms, training, before, after, min_side):
    layer, features = make(rules={"min_proposal_size": min_side}), pyramid(64, 96)
    sizes = [(60, 90), (33, 96)]
    proposals = layer(features, tf.constant(sizes), training=training)
    assert proposals.boxes.shape == (2, after, 4)
    for image, size in enumerate(sizes):
        own = [level[image : image + 1] for level in features]
        boxes, scores = plain_proposals(layer, own, size, before, after, min_side, greedy_nms)
        found = proposals.valid[image].numpy()
        assert found.sum() == len(boxes) > 4
        np.testing.assert_allclose(proposals.boxes[image][found], boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(proposals.scores[image][found], scores, rtol=1e-5)


def test_padding_of_the_output_is_zero_and_not_valid(make):
    layer = make({"pre_nms_test": 3, "post_nms_test": 40})
    proposals = layer(pyramid(64, 96), tf.constant([[64, 96]] * 2))
    found = proposals.valid.numpy()
    assert 0 < found.sum(axis=1).max() <= 15
    assert not proposals.boxes.numpy()[~found].any()


def test_broken_numbers_are_dropped(make):
    layer, features = make(), pyramid(64, 96)
    features[0][0, 3, 4], features[2][1, 1, 1] = np.nan, np.inf
    proposals = layer(features, tf.constant([[64, 96]] * 2))
    assert np.isfinite(proposals.boxes).all() and np.isfinite(proposals.scores.numpy()[proposals.valid]).all()
    assert proposals.valid.numpy().any(axis=1).all()


def test_no_gradient_flows_through_proposals(make):
    layer, features = make(), [tf.constant(level) for level in pyramid(32, 32)]
    with tf.GradientTape() as tape:
        tape.watch(features)
        proposals = layer(features, tf.constant([[32, 32]] * 2), training=True)
        total = tf.reduce_sum(proposals.boxes) + tf.reduce_sum(proposals.scores)
    assert all(slope is None for slope in tape.gradient(total, [*features, *layer.trainable_weights])[:5])


@pytest.mark.parametrize("extra", [(32, 0), (0, 64), (96, 160)])
def test_proposals_dont_depend_on_the_padding(make, extra):
    layer, features = make(), pyramid(64, 96)
    sizes = tf.constant([[60, 90], [64, 96]])
    alone = layer(features, sizes)
    together = layer(padded(features, extra), sizes, round_up(sizes))
    np.testing.assert_array_equal(together.valid, alone.valid)
    np.testing.assert_allclose(together.boxes, alone.boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(together.scores, alone.scores, rtol=1e-4, atol=1e-5)


# Ground truth of two images: a square that one anchor covers exactly, a tall one, then padding; a crowd and padding.
BOXES = np.float32([[[32, 16, 48, 32], [70, 5, 81, 28], [0, 0, 0, 0]], [[0, 0, 64, 64], [0, 0, 0, 0], [0, 0, 0, 0]]])
VALID = np.array([[True, True, False], [True, False, False]])
CROWD = np.array([[False] * 3, [True, False, False]])


SEEDS = tf.constant([3, 4], tf.uint32)


def test_the_sampled_anchors_keep_the_shares_and_carry_their_numbers(make):
    layer, features = make(), pyramid(64, 96)
    sampled = layer.sample_anchors(features, BOXES, VALID, CROWD, SEEDS)
    assert sampled.logits.shape == sampled.positive.shape == (2, 16) and sampled.deltas.shape == (2, 16, 4)
    positive, drawn = sampled.positive.numpy(), sampled.drawn.numpy()
    assert drawn.all()
    assert 0 < positive[0].sum() <= 8 and not positive[1].any()
    # The targets lead from an anchor to a ground truth.
    anchors = np.concatenate(plain_anchors(64, 96))
    for target in sampled.targets[0].numpy()[positive[0]]:
        reached = box_ops.decode(tf.constant(target), np.float32(anchors), (1, 1, 1, 1)).numpy()
        errors = np.abs(reached[:, None] - BOXES[0, None, :2]).max(axis=2)
        assert errors.min() < 1e-3


def test_each_seed_draws_anew_and_the_same_one_the_same(make):
    layer, features = make(), pyramid(64, 96)
    seeds = (SEEDS, SEEDS + 1, SEEDS)
    draws = [layer.sample_anchors(features, BOXES, VALID, CROWD, each).logits.numpy() for each in seeds]
    assert (draws[0] != draws[1]).any(axis=1).all()
    np.testing.assert_array_equal(draws[2], draws[0])


def test_padding_changes_nothing_about_the_draw(make):
    """So that images draw the same anchors whichever others share their batch."""
    layer, features = make(), pyramid(64, 96)
    alone = layer.sample_anchors(features, BOXES, VALID, CROWD, SEEDS)
    padded_size = round_up(tf.constant([[64, 96]] * 2))
    together = layer.sample_anchors(padded(features, (32, 64)), BOXES, VALID, CROWD, SEEDS, padded_size)
    np.testing.assert_array_equal(together.positive, alone.positive)
    np.testing.assert_allclose(together.targets, alone.targets, atol=1e-5)
    np.testing.assert_allclose(together.logits, alone.logits, rtol=1e-4, atol=1e-5)


def all_of_an_image(layer, features, boxes, padded_size=None):
    """Sorted (positive, logit) of every anchor that may be drawn for one ground truth."""
    sampled = layer.sample_anchors(
        features, np.float32([[boxes]] * 2), np.ones((2, 1), bool), np.zeros((2, 1), bool), SEEDS, padded_size
    )
    drawn = sampled.drawn.numpy()[0]
    rows = np.stack([sampled.positive.numpy()[0], sampled.logits.numpy()[0]], axis=1)[drawn]
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("box", [[30.0, 20, 50, 45], [93.0, 20, 96, 31.3]])
def test_the_anchors_to_learn_from_dont_depend_on_the_padding(make, box):
    """Also where an anchor in the padding would fit best: the best of the image's own must still be promoted."""
    layer = make({"batch_per_image": 3000, "positive_fraction": 0.5})
    features, sizes = pyramid(64, 96), tf.constant([[64, 96]] * 2)
    alone = all_of_an_image(layer, features, box)
    together = all_of_an_image(layer, padded(features, (32, 64)), box, round_up(sizes))
    assert len(alone) == len(together) > 1000
    assert together[:, 0].sum() == alone[:, 0].sum() > 0
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_boxes_are_float32_under_bfloat16(make):
    layer, features = make(dtype="mixed_bfloat16"), [tf.cast(level, tf.bfloat16) for level in pyramid(64, 96)]
    assert layer.head.compute_dtype == "bfloat16"
    proposals = layer(features, tf.constant([[64, 96]] * 2))
    sampled = layer.sample_anchors(features, BOXES, VALID, CROWD, SEEDS)
    floats = [proposals.boxes, proposals.scores, sampled.logits, sampled.deltas, sampled.targets]
    assert {values.dtype for values in floats} == {tf.float32}
