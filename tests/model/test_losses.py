"""Each loss against a float64 loop over its terms, its normaliser, and what its gradient reaches."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model import losses
from mrcnn_tf.model.heads.mask import MaskScores
from mrcnn_tf.model.rois import RoISample
from mrcnn_tf.model.rpn import AnchorSample


def smooth(difference, beta):
    difference = abs(float(difference))
    return 0.5 * difference**2 / beta if difference < beta else difference - 0.5 * beta


def cross_entropy(logit, label):
    probability = 1 / (1 + math.exp(-float(logit)))
    return -float(label) * math.log(probability) - (1 - float(label)) * math.log(1 - probability)


def gradient(function, values):
    values = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = function(values)
    return tape.gradient(loss, values).numpy()


@pytest.mark.parametrize(
    ("beta", "expected"), [(1.0, [0, 0.125, 0.5, 1.5]), (0.0, [0, 0.5, 1, 2]), (4.0, [0, 1 / 32, 1 / 8, 0.5])]
)
def test_smooth_l1_is_computed_by_hand(beta, expected):
    predictions = tf.constant([0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(losses.smooth_l1(predictions, tf.zeros(4), beta), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.smooth_l1(tf.zeros(4), predictions, beta), expected, rtol=1e-6)


def test_smooth_l1_has_a_slope_of_one_beyond_beta_and_joins_smoothly():
    slopes = gradient(
        lambda x: tf.reduce_sum(losses.smooth_l1(x, tf.zeros(5), 1 / 9)), [-2.0, -1 / 18, 0.0, 1 / 9, 3.0]
    )
    np.testing.assert_allclose(slopes, [-1, -0.5, 0, 1, 1], rtol=1e-6)


@pytest.fixture(scope="module")
def anchors():
    """Two images of six slots: two positives of five drawn, and none of two drawn."""
    random = np.random.default_rng(0)
    positive = np.array([[1, 1, 0, 0, 0, 0], [0] * 6], bool)
    drawn = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]], bool)
    logits, deltas, targets = (random.normal(size=(2, 6, *end)).astype(np.float32) for end in ((), (4,), (4,)))
    return AnchorSample(logits, deltas, targets, positive, drawn)


@pytest.mark.parametrize(("normalizer", "divisor"), [("sampled", 7), ("batch_size", 12)])
def test_rpn_objectness_loss(anchors, normalizer, divisor):
    total = sum(
        cross_entropy(anchors.logits[slot], anchors.positive[slot])
        for slot in zip(*np.nonzero(anchors.drawn), strict=True)
    )
    assert float(losses.rpn_objectness_loss(anchors, normalizer)) == pytest.approx(total / divisor, rel=1e-5)


@pytest.mark.parametrize(("normalizer", "divisor"), [("sampled", 7), ("batch_size", 12)])
@pytest.mark.parametrize("beta", [1 / 9, 1.0])
def test_rpn_box_loss(anchors, normalizer, divisor, beta):
    total = sum(smooth(x, beta) for slot in ((0, 0), (0, 1)) for x in anchors.deltas[slot] - anchors.targets[slot])
    assert float(losses.rpn_box_loss(anchors, normalizer, beta)) == pytest.approx(total / divisor, rel=1e-5)


def test_rpn_box_loss_of_beta_zero_is_the_absolute_difference(anchors):
    total = np.abs(anchors.deltas[0, :2] - anchors.targets[0, :2]).sum()
    assert float(losses.rpn_box_loss(anchors, "batch_size", 0.0)) == pytest.approx(total / 12, rel=1e-5)


def test_rpn_gradients_reach_only_sampled_anchors(anchors):
    slopes = gradient(lambda x: losses.rpn_objectness_loss(anchors._replace(logits=x), "sampled"), anchors.logits)
    np.testing.assert_array_equal(slopes != 0, anchors.drawn)
    # d/dlogit = (probability - label) / anchors drawn.
    expected = (1 / (1 + np.exp(-anchors.logits)) - anchors.positive) / 7
    np.testing.assert_allclose(slopes[anchors.drawn], expected[anchors.drawn], rtol=1e-5)
    slopes = gradient(lambda x: losses.rpn_box_loss(anchors._replace(deltas=x), "sampled", 1 / 9), anchors.deltas)
    np.testing.assert_array_equal((slopes != 0).all(axis=-1), anchors.positive)
    np.testing.assert_array_equal((slopes != 0).any(axis=-1), anchors.positive)


@pytest.fixture(scope="module")
def rois():
    """Two images of five slots, three classes: classes 1, 3 and background, a slot free; then background only."""
    random = np.random.default_rng(1)
    classes = np.int32([[1, 3, 0, 0, 0], [0] * 5])
    drawn = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], bool)
    boxes = random.normal(size=(2, 5, 4)).astype(np.float32)
    return RoISample(boxes, classes, np.zeros((2, 5), np.int32), classes > 0, drawn)


@pytest.fixture(scope="module")
def box_targets():
    return np.random.default_rng(4).normal(size=(2, 5, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def class_logits():
    return np.random.default_rng(2).normal(size=(2, 5, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def class_deltas():
    return np.random.default_rng(3).normal(size=(2, 5, 3, 4)).astype(np.float32)


def test_class_loss_is_the_mean_over_drawn_rois(rois, class_logits):
    total = 0.0
    for slot in zip(*np.nonzero(rois.drawn), strict=True):
        row = np.float64(class_logits[slot])
        total += math.log(np.exp(row).sum()) - row[rois.classes[slot]]
    assert float(losses.class_loss(class_logits, rois)) == pytest.approx(total / 6, rel=1e-5)
    slopes = gradient(lambda x: losses.class_loss(x, rois), class_logits)
    np.testing.assert_array_equal((slopes != 0).any(axis=-1), rois.drawn)


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_box_loss_takes_the_class_and_divides_by_all_rois(rois, class_deltas, box_targets, beta):
    total = 0.0
    for slot, own in (((0, 0), 0), ((0, 1), 2)):
        for x in class_deltas[slot][own] - box_targets[slot]:
            total += smooth(x, beta) if beta else abs(float(x))
    assert float(losses.box_loss(class_deltas, box_targets, rois, beta)) == pytest.approx(total / 6, rel=1e-5)
    slopes = gradient(lambda x: losses.box_loss(x, box_targets, rois, beta), class_deltas)
    reached = {tuple(int(i) for i in slot) for slot in np.argwhere((slopes != 0).any(axis=-1))}
    assert reached == {(0, 0, 0), (0, 1, 2)}


def mask_scores(logits):
    """`MaskScores` of independent masks."""
    return MaskScores(tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits))


def test_mask_loss_is_the_mean_over_the_positives_pixels():
    random = np.random.default_rng(4)
    logits, targets = (
        random.normal(size=(2, 3, 2, 2)).astype(np.float32),
        random.random((2, 3, 2, 2)).astype(np.float32),
    )
    positive = np.array([[1, 1, 0], [1, 0, 0]], bool)
    total = sum(cross_entropy(x, t) for x, t in zip(logits[positive].ravel(), targets[positive].ravel(), strict=True))
    assert float(losses.mask_loss(mask_scores(logits), targets, positive)) == pytest.approx(total / 12, rel=1e-5)
    slopes = gradient(lambda x: losses.mask_loss(mask_scores(x), targets, positive), logits)
    np.testing.assert_array_equal((slopes != 0).all(axis=(2, 3)), positive)
    np.testing.assert_array_equal((slopes != 0).any(axis=(2, 3)), positive)


def test_keypoint_loss_is_the_mean_cross_entropy_of_the_keypoints_that_count():
    random = np.random.default_rng(5)
    logits = random.normal(size=(2, 2, 3, 4, 4)).astype(np.float32)
    cells = random.integers(0, 16, (2, 2, 3)).astype(np.int32)
    visible = random.random((2, 2, 3)) < 0.5
    flat = np.float64(logits).reshape(2, 2, 3, 16)
    entropy = np.log(np.exp(flat).sum(axis=-1)) - np.take_along_axis(flat, cells[..., None], axis=-1)[..., 0]
    assert 1 < visible.sum() < 12
    found = losses.keypoint_loss(tf.constant(logits), tf.constant(cells), tf.constant(visible))
    assert float(found) == pytest.approx(entropy[visible].mean(), rel=1e-5)
    spoilt = np.where(visible[..., None, None], logits, np.nan).astype(np.float32)
    np.testing.assert_array_equal(losses.keypoint_loss(tf.constant(spoilt), cells, tf.constant(visible)), found)
    assert float(losses.keypoint_loss(tf.constant(logits), cells, tf.zeros([2, 2, 3], tf.bool))) == 0.0


@pytest.mark.parametrize("normalizer", ["sampled", "batch_size"])
def test_nothing_sampled_costs_nothing(anchors, rois, class_logits, class_deltas, box_targets, normalizer):
    none = np.zeros((2, 6), bool)
    empty = anchors._replace(positive=none, drawn=none)
    assert float(losses.rpn_objectness_loss(empty, normalizer)) == 0.0
    assert float(losses.rpn_box_loss(empty, normalizer, 1 / 9)) == 0.0
    empty = RoISample(rois.boxes, np.zeros((2, 5), np.int32), rois.truth, none[:, :5], none[:, :5])
    assert float(losses.class_loss(class_logits, empty)) == 0.0
    assert float(losses.box_loss(class_deltas, box_targets, empty, 1.0)) == 0.0
    assert (
        float(
            losses.mask_loss(
                mask_scores(np.ones((2, 3, 2, 2), np.float32)), np.ones((2, 3, 2, 2), np.float32), none[:, :3]
            )
        )
        == 0.0
    )


def test_losses_stay_finite_at_large_logits(anchors, rois):
    large = anchors._replace(logits=np.where(anchors.positive, -200, 200).astype(np.float32))
    assert float(losses.rpn_objectness_loss(large, "sampled")) == pytest.approx(200)
    logits = np.float32(np.arange(4) * 1000) + np.zeros((2, 5, 1), np.float32)
    # Class 1, class 3 and four of background: 2000, 0 and four times 3000 below the largest logit.
    assert float(losses.class_loss(logits, rois)) == pytest.approx((2000 + 0 + 4 * 3000) / 6)


BAD = [np.inf, -np.inf, np.nan]


def spoiled(values, keep, bad):
    """`values` with `bad` wherever `keep`, a mask of the leading axes, is False."""
    keep = keep.reshape(keep.shape + (1,) * (values.ndim - keep.ndim))
    return np.where(keep, values, np.float32(bad))


def loss_and_slope(function, values):
    values = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = function(values)
    return [loss.numpy(), tape.gradient(loss, values).numpy()]


@pytest.mark.parametrize("bad", BAD)
def test_padding_may_hold_anything(anchors, rois, class_logits, class_deltas, box_targets, bad):
    """Neither the loss nor a gradient changes when predictions and targets of slots that don't count are spoiled."""
    masks, positive = np.random.default_rng(5).random((2, 3, 2, 2)).astype(np.float32), rois.positive[:, :3]
    cases = {
        "objectness": (
            anchors.logits, anchors.drawn, anchors.logits,
            lambda x, _: losses.rpn_objectness_loss(anchors._replace(logits=x), "sampled"),
        ),
        "rpn box": (
            anchors.deltas, anchors.positive, anchors.targets,
            lambda x, t: losses.rpn_box_loss(anchors._replace(deltas=x, targets=t), "sampled", 1 / 9),
        ),
        "class": (class_logits, rois.drawn, class_logits, lambda x, _: losses.class_loss(x, rois)),
        "box": (
            class_deltas, rois.positive, box_targets,
            lambda x, t: losses.box_loss(x, t, rois, 1 / 9),
        ),
        "mask": (masks, positive, masks, lambda x, t: losses.mask_loss(MaskScores(x, 2 * x), t, positive)),
    }  # fmt: skip
    for name, (predictions, counts, targets, loss) in cases.items():
        clean = loss_and_slope(lambda x, t=targets, loss=loss: loss(x, t), predictions)
        dirty_targets = spoiled(targets, counts, bad)
        dirty = loss_and_slope(lambda x, t=dirty_targets, loss=loss: loss(x, t), spoiled(predictions, counts, bad))
        np.testing.assert_array_equal(dirty[0], clean[0], err_msg=f"value of {name}")
        np.testing.assert_array_equal(dirty[1], clean[1], err_msg=f"gradient of {name}")


def bilinear(cells, times):
    """[h, w, C] enlarged, half-pixel centres, in float64."""
    for axis in (0, 1):
        count = cells.shape[axis]
        places = np.clip((np.arange(count * times) + 0.5) / times - 0.5, 0, count - 1)
        low = np.minimum(places.astype(int), count - 2)
        share = np.expand_dims(places - low, (1, 2) if axis == 0 else (0, 2))
        cells = np.take(cells, low, axis) * (1 - share) + np.take(cells, low + 1, axis) * share
    return cells


def test_semantic_loss_is_the_mean_over_all_labelled_pixels():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (2, 4, 6, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (2, 16, 24)).astype(np.uint8)
    labels[0, :5], labels[1, :, 7:] = losses.IGNORED, losses.IGNORED
    terms = []
    for cells, classes in zip(logits.astype(np.float64), labels, strict=True):
        enlarged = bilinear(cells, 4)
        for row, column in np.argwhere(classes != losses.IGNORED):
            pixel = enlarged[row, column]
            terms.append(np.log(np.exp(pixel).sum()) - pixel[classes[row, column]])
    assert losses.semantic_loss(logits, labels).numpy() == pytest.approx(np.mean(terms), rel=1e-5)


def test_pixels_without_a_label_teach_nothing():
    logits = np.random.default_rng(6).normal(0, 2, (2, 4, 4, 3)).astype(np.float32)
    labels = np.full([2, 16, 16], losses.IGNORED, np.uint8)
    assert losses.semantic_loss(logits, labels).numpy() == 0
    assert not gradient(lambda values: losses.semantic_loss(values, labels), logits).any()
    labels[0, 2, 2] = 1
    reached = gradient(lambda values: losses.semantic_loss(values, labels), logits).any(axis=-1)
    assert reached[0, 0, 0] and not reached[0, 2:].any() and not reached[1].any()
