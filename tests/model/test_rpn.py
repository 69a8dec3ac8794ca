"""Proposals against decode, top-k, clip, filter and suppression in plain numpy, and the anchors that are sampled."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import Conventions, RPNConfig
from mrcnn_tf.model.necks import FeatureMaps
from mrcnn_tf.model.rois import GroundTruth
from mrcnn_tf.model.rpn import RPN
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.padding import round_up

STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32, "P6": 64}
CHANNELS = 4
SIZES = [8.0, 16.0, 32.0, 64.0, 128.0]


@pytest.fixture(scope="module")
def make(tiny_config):
    """A function that makes an RPN with large random weights, so that deltas are far from zero."""

    def build(config=None, rules=None, **settings):
        config = dataclasses.replace(tiny_config.rpn, anchor_sizes=SIZES, **(config or {}))
        layer = RPN(config, Conventions(**(rules or {})), **settings)
        layer.build(dict.fromkeys(STRIDES, (None, None, None, CHANNELS)))
        random = np.random.default_rng(0)
        layer.set_weights(
            [random.normal(size=w.shape) * 0.4 for w in layer.get_weights()[:6]] + layer.get_weights()[6:]
        )
        return layer

    return build


def pyramid(height, width, batch=2, seed=1):
    random = np.random.default_rng(seed)
    shapes = {name: (batch, -(-height // stride), -(-width // stride), CHANNELS) for name, stride in STRIDES.items()}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def padded(maps, extra):
    """The same maps in a batch `extra` = (height, width) pixels larger."""
    rows, columns = ({name: (0, -(-side // stride)) for name, stride in STRIDES.items()} for side in extra)
    return {name: np.pad(level, [(0, 0), rows[name], columns[name], (0, 0)]) for name, level in maps.items()}


def features(maps, sizes=((64, 96), (64, 96)), padded_size=None):
    return FeatureMaps(maps, STRIDES, tf.constant(sizes), padded_size)


def propose(layer, maps, sizes=((64, 96), (64, 96)), padded_size=None, training=False):
    """What the RPN proposes for maps [B, H, W, C] by name of images of `sizes`."""
    own = features(maps, sizes, padded_size)
    return layer.propose(own, layer.scores(own), training)


def plain_anchors(height, width):
    """Per level [n, 4] in float64: rounded cells of height / width 0.5, 1, 2 at multiples of the stride."""
    levels = []
    for size, stride in zip(SIZES, STRIDES.values(), strict=True):
        rows = []
        for y, x in np.ndindex(-(-height // stride), -(-width // stride)):
            for ratio in (0.5, 1.0, 2.0):
                half = np.round(np.array([size / ratio**0.5, size * ratio**0.5]) / 2)
                rows.append([*(np.array([x, y]) * stride - half), *(np.array([x, y]) * stride + half)])
        levels.append(np.array(rows))
    return levels


def plain_proposals(layer, maps, image_size, before, after, min_side, nms):
    """One image's boxes and logits, best first."""
    logits, deltas = layer.head(list(maps.values()))
    height, width = image_size
    boxes, scores, groups = [], [], []
    for level, anchors in enumerate(plain_anchors(4 * maps["P2"].shape[1], 4 * maps["P2"].shape[2])):
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
    layer, maps = make(rules={"min_proposal_size": min_side}), pyramid(64, 96)
    sizes = [(60, 90), (33, 96)]
    proposals = propose(layer, maps, sizes, training=training)
    assert proposals.boxes.shape == (2, after, 4)
    for image, size in enumerate(sizes):
        own = {name: level[image : image + 1] for name, level in maps.items()}
        boxes, scores = plain_proposals(layer, own, size, before, after, min_side, greedy_nms)
        found = proposals.valid[image].numpy()
        assert found.sum() == len(boxes) > 4
        np.testing.assert_allclose(proposals.boxes[image][found], boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(proposals.scores[image][found], scores, rtol=1e-5)


def test_padding_of_the_output_is_zero_and_not_valid(make):
    layer = make({"pre_nms_test": 3, "post_nms_test": 40})
    proposals = propose(layer, pyramid(64, 96))
    found = proposals.valid.numpy()
    assert 0 < found.sum(axis=1).max() <= 15
    assert not proposals.boxes.numpy()[~found].any()


def test_broken_numbers_are_dropped(make):
    layer, maps = make(), pyramid(64, 96)
    maps["P2"][0, 3, 4], maps["P4"][1, 1, 1] = np.nan, np.inf
    proposals = propose(layer, maps)
    assert np.isfinite(proposals.boxes).all() and np.isfinite(proposals.scores.numpy()[proposals.valid]).all()
    assert proposals.valid.numpy().any(axis=1).all()


def test_no_gradient_flows_through_proposals(make):
    layer, maps = make(), {name: tf.constant(level) for name, level in pyramid(32, 32).items()}
    with tf.GradientTape() as tape:
        tape.watch(maps)
        proposals = propose(layer, maps, [[32, 32]] * 2, training=True)
        total = tf.reduce_sum(proposals.boxes) + tf.reduce_sum(proposals.scores)
    assert all(slope is None for slope in tape.gradient(total, [*maps.values(), *layer.trainable_weights])[:5])


@pytest.mark.parametrize("extra", [(32, 0), (0, 64), (96, 160)])
def test_proposals_dont_depend_on_the_padding(make, extra):
    layer, maps = make(), pyramid(64, 96)
    sizes = tf.constant([[60, 90], [64, 96]])
    alone = propose(layer, maps, sizes)
    together = propose(layer, padded(maps, extra), sizes, round_up(sizes))
    np.testing.assert_array_equal(together.valid, alone.valid)
    np.testing.assert_allclose(together.boxes, alone.boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(together.scores, alone.scores, rtol=1e-4, atol=1e-5)


# Ground truth of two images: a square that one anchor covers exactly, a tall one, then padding; a crowd and padding.
BOXES = np.float32([[[32, 16, 48, 32], [70, 5, 81, 28], [0, 0, 0, 0]], [[0, 0, 64, 64], [0, 0, 0, 0], [0, 0, 0, 0]]])
VALID = np.array([[True, True, False], [True, False, False]])
CROWD = np.array([[False] * 3, [True, False, False]])
SEEDS = tf.constant([3, 4], tf.uint32)


def objects(boxes=BOXES, valid=VALID, crowd=CROWD):
    """A `GroundTruth` of class 1."""
    return GroundTruth({"boxes": tf.constant(boxes), "classes": np.int32(valid), "crowd": crowd})


def sample(layer, maps, truth=None, seeds=SEEDS, padded_size=None):
    return layer.sample_anchors(features(maps, padded_size=padded_size), truth or objects(), seeds)


def test_the_sampled_anchors_keep_the_shares_and_carry_their_numbers(make):
    sampled = sample(make(), pyramid(64, 96))
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
    layer, maps = make(), pyramid(64, 96)
    draws = [sample(layer, maps, seeds=each).logits.numpy() for each in (SEEDS, SEEDS + 1, SEEDS)]
    assert (draws[0] != draws[1]).any(axis=1).all()
    np.testing.assert_array_equal(draws[2], draws[0])


def test_padding_changes_nothing_about_the_draw(make):
    """So that images draw the same anchors whichever others share their batch."""
    layer, maps = make(), pyramid(64, 96)
    alone = sample(layer, maps)
    together = sample(layer, padded(maps, (32, 64)), padded_size=round_up(tf.constant([[64, 96]] * 2)))
    np.testing.assert_array_equal(together.positive, alone.positive)
    np.testing.assert_allclose(together.targets, alone.targets, atol=1e-5)
    np.testing.assert_allclose(together.logits, alone.logits, rtol=1e-4, atol=1e-5)


def all_of_an_image(layer, maps, box, padded_size=None):
    """Sorted (positive, logit) of every anchor that may be drawn for one ground truth."""
    truth = objects(np.float32([[box]] * 2), np.ones((2, 1), bool), np.zeros((2, 1), bool))
    sampled = sample(layer, maps, truth, padded_size=padded_size)
    drawn = sampled.drawn.numpy()[0]
    rows = np.stack([sampled.positive.numpy()[0], sampled.logits.numpy()[0]], axis=1)[drawn]
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("box", [[30.0, 20, 50, 45], [93.0, 20, 96, 31.3]])
def test_the_anchors_to_learn_from_dont_depend_on_the_padding(make, box):
    """Also where an anchor in the padding would fit best: the best of the image's own must still be promoted."""
    layer = make({"batch_per_image": 3000, "positive_fraction": 0.5})
    maps, sizes = pyramid(64, 96), tf.constant([[64, 96]] * 2)
    alone = all_of_an_image(layer, maps, box)
    together = all_of_an_image(layer, padded(maps, (32, 64)), box, round_up(sizes))
    assert len(alone) == len(together) > 1000
    assert together[:, 0].sum() == alone[:, 0].sum() > 0
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_boxes_are_float32_under_bfloat16(make):
    layer = make(dtype="mixed_bfloat16")
    maps = {name: tf.cast(level, tf.bfloat16) for name, level in pyramid(64, 96).items()}
    assert layer.head.compute_dtype == "bfloat16"
    proposals, sampled = propose(layer, maps), sample(layer, maps)
    floats = [proposals.boxes, proposals.scores, sampled.logits, sampled.deltas, sampled.targets]
    assert {values.dtype for values in floats} == {tf.float32}


def without_weights(*arguments, maps, **settings):
    """An RPN whose logits and deltas are all zero, so that it proposes its anchors in their order."""
    layer = RPN(
        RPNConfig(*arguments, pre_nms_test=1000), Conventions(anchor_rounding=False, anchor_stride="fixed"), **settings
    )
    layer.build({name: level.shape for name, level in maps.items()})
    layer.set_weights([np.zeros(weight.shape) for weight in layer.get_weights()])
    own = features(maps)
    return layer, layer.decode_best(own, layer.scores(own))


def test_several_sizes_a_map_are_several_anchors_a_cell():
    maps = {"P2": tf.ones([2, 16, 24, 3]), "P3": tf.ones([2, 8, 12, 3])}
    layer, best = without_weights([[8.0, 12.0], [32.0, 48.0]], [1.0], maps=maps)
    assert layer.head.objectness.filters == 2 and layer.head.deltas.filters == 8
    assert best.boxes.shape == (2, 2 * (16 * 24 + 8 * 12), 4)
    assert tf.math.bincount(best.level).numpy().tolist() == [768, 192]
    # The first cell's and the one to its right, clipped at the image's borders.
    np.testing.assert_allclose(best.boxes[0, :4], [[0, 0, 4, 4], [0, 0, 6, 6], [0, 0, 8, 4], [0, 0, 10, 6]], atol=1e-5)
    np.testing.assert_allclose(best.boxes[0, 768:771], [[0, 0, 16, 16], [0, 0, 24, 24], [0, 0, 24, 16]], atol=1e-5)


def test_anchors_of_another_layer_take_their_place():
    class Corner(keras.layers.Layer):
        """One box for each map, wherever the cell is."""

        def per_cell(self, map_count):
            return 1

        def make(self, features):
            return [
                tf.tile([[1.0, 2, 3, 4]], [tf.reduce_prod(tf.shape(level)[1:3]), 1]) for level in features.maps.values()
            ]

    maps = {"P2": tf.ones([2, 2, 3, 3])}
    _, best = without_weights(maps=maps, anchors=Corner())
    np.testing.assert_array_equal(best.boxes, [[[1, 2, 3, 4]] * 6] * 2)


def test_sizes_for_other_maps_are_refused():
    with pytest.raises(UserError, match="sizes for 5 maps .* and the RPN reads 2: give a size"):
        RPN().build({"P2": (None, None, None, 4), "P3": (None, None, None, 4)})
