"""Matching and sampling by hand, against a plain numpy loop, and by counting draws."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_tf.ops.matching import BACKGROUND, IGNORED, match, sample

FAR = [500.0, 500, 510, 510]


def matches_of(candidates, boxes, valid=None, crowd=None, foreground=0.7, background=0.3, promote=False):
    """`match` of one image given as lists."""
    boxes = np.float32(boxes).reshape(1, -1, 4)
    valid = np.ones(boxes.shape[:2], bool) if valid is None else np.array([valid])
    crowd = np.zeros(boxes.shape[:2], bool) if crowd is None else np.array([crowd])
    result = match(np.float32([candidates]), boxes, valid, crowd, foreground, background, promote)
    assert result.dtype == tf.int32
    return result.numpy()[0].tolist()


def part(tenths, x=0.0):
    """A box inside [x, 0, x + 10, 10] with IoU `tenths` / 10."""
    return [x, 0.0, x + tenths, 10.0]


def test_thresholds_are_at_least_foreground_and_below_background():
    candidates = [part(7), part(6.99), part(3), part(2.99), part(10), FAR]
    expected = [0, IGNORED, IGNORED, BACKGROUND, 0, BACKGROUND]
    assert matches_of(candidates, [part(10)]) == expected


def test_one_threshold_leaves_nothing_ignored():
    candidates = [part(5), part(4.99), FAR]
    assert matches_of(candidates, [part(10)], foreground=0.5, background=0.5) == [0, BACKGROUND, BACKGROUND]


def test_the_best_ground_truth_wins_and_the_first_of_equals():
    boxes = [part(8), part(10), part(10)]
    assert matches_of([part(10), part(8)], boxes) == [1, 0]


def test_without_promotion_a_weak_overlap_is_background():
    assert matches_of([part(2), part(1)], [part(10)]) == [BACKGROUND, BACKGROUND]


def test_promotion_takes_the_best_candidate_of_a_ground_truth_with_all_ties():
    mirrored = [8.0, 0, 10, 10]  # as much of the box as part(2)
    assert matches_of([part(1), part(2), mirrored, FAR], [part(10)], promote=True) == [BACKGROUND, 0, 0, BACKGROUND]


def test_promotion_lifts_an_ignored_candidate_too():
    assert matches_of([part(5), part(4)], [part(10)], promote=True) == [0, IGNORED]


def test_a_promoted_candidate_keeps_its_own_best_ground_truth():
    first, second = [0.0, 0, 10, 10], [6.0, 0, 16, 10]
    # [2, 0, 12, 10] has IoU 80 / 120 with `first` and 60 / 140 with `second`, of which it is the best candidate.
    candidates = [[0.0, 0, 10, 9], [2.0, 0, 12, 10]]
    assert matches_of(candidates, [first, second], promote=False) == [0, IGNORED]
    assert matches_of(candidates, [first, second], promote=True) == [0, 0]


def test_a_ground_truth_that_nothing_overlaps_promotes_nothing():
    assert matches_of([part(10), part(10, 30)], [FAR], promote=True) == [BACKGROUND] * 2


def test_a_candidate_in_a_crowd_is_ignored_but_not_matched():
    # Shares 70% and 69% of their own areas with the crowd; the third lies in it whole.
    candidates = [[93.0, 0, 103, 10], [93.1, 0, 103.1, 10], [50.0, 0, 52, 2], FAR]
    boxes, crowd = [[0.0, 0, 100, 100]], [True]
    expected = [IGNORED, BACKGROUND, IGNORED, BACKGROUND]
    assert matches_of(candidates, boxes, crowd=crowd) == expected
    assert matches_of(candidates, boxes, crowd=crowd, promote=True) == expected


def test_a_crowd_hides_no_object():
    boxes = [[0.0, 0, 100, 100], part(10)]
    assert matches_of([part(10), part(5), [0.0, 0, 100, 100]], boxes, crowd=[True, False]) == [1, IGNORED, IGNORED]


@pytest.mark.parametrize("padding", [[0.0, 0, 0, 0], part(10, 30), [np.nan] * 4, [0.0, 0, np.inf, np.inf]])
@pytest.mark.parametrize("promote", [False, True])
def test_padding_has_no_influence(padding, promote):
    candidates, boxes = [part(8), part(4), part(10, 30), FAR], [part(10)]
    alone = matches_of(candidates, boxes, promote=promote)
    assert matches_of(candidates, [*boxes, padding], [True, False], promote=promote) == alone
    assert matches_of(candidates, [*boxes, padding], [True, False], [False, True], promote=promote) == alone
    # Beside an image with more objects the loop runs over the padding too.
    pair = match(
        np.float32([candidates]),
        np.float32([[*boxes, padding], [part(10, 30), part(10)]]),
        np.array([[True, False], [True, True]]),
        np.zeros((2, 2), bool),
        0.7,
        0.3,
        promote,
    )
    assert pair.numpy()[0].tolist() == alone


def test_an_image_without_objects_is_all_background():
    assert matches_of([part(10), FAR], [part(10)], valid=[False], promote=True) == [BACKGROUND] * 2
    assert matches_of([part(10), FAR], [], promote=True) == [BACKGROUND] * 2


def test_padded_candidates_match_nothing():
    assert matches_of([[0.0, 0, 0, 0], part(10)], [part(10)], promote=True) == [BACKGROUND, 0]


def reference_match(candidates, boxes, valid, crowd, foreground, background, promote):
    """One image, from the whole matrix of IoUs; whole pixels, so that float32 quotients are those of TensorFlow."""
    low = np.maximum(candidates[:, None, :2], boxes[None, :, :2])
    high = np.minimum(candidates[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = np.prod(candidates[:, 2:] - candidates[:, :2], axis=1)
    union = areas[:, None] + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - shared
    iou = np.where(valid & ~crowd, np.float32(shared) / np.float32(union), np.float32(0))
    result = np.full(len(candidates), IGNORED)
    result[iou.max(1) < np.float32(background)] = BACKGROUND
    result[((shared >= 0.7 * areas[:, None]) & valid & crowd).any(1)] = IGNORED
    matched = iou.max(1) >= np.float32(foreground)
    if promote:
        matched |= ((iou == iou.max(0)) & (iou > 0)).any(1)
    return np.where(matched, iou.argmax(1), result)


def whole_boxes(random, *shape):
    corner = random.integers(0, 12, (*shape, 2))
    return np.concatenate([corner, corner + random.integers(1, 9, (*shape, 2))], axis=-1).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_a_batch_matches_as_the_plain_computation_does_image_by_image(seed, promote, shared):
    random = np.random.default_rng(seed)
    candidates, boxes = whole_boxes(random, 1 if shared else 3, 40), whole_boxes(random, 3, 4)
    valid = np.arange(4) < random.integers(0, 5, (3, 1))
    crowd = random.random((3, 4)) < 0.3
    result = match(candidates, boxes, valid, crowd, 0.5, 0.3, promote).numpy()
    for image in range(3):
        own = candidates[0 if shared else image]
        expected = reference_match(own, boxes[image], valid[image], crowd[image], 0.5, 0.3, promote)
        np.testing.assert_array_equal(result[image], expected)


def test_matching_runs_in_a_graph_with_open_shapes():
    boxes = tf.TensorSpec([None, None, 4])
    flags = tf.TensorSpec([None, None], tf.bool)
    graph = tf.function(
        lambda a, b, v, c: match(a, b, v, c, 0.7, 0.3, True), input_signature=[boxes, boxes, flags, flags]
    )
    result = graph([[part(8), FAR]], [[part(10)], [FAR]], [[True]] * 2, [[False]] * 2)
    np.testing.assert_array_equal(result, [[0, BACKGROUND], [BACKGROUND, 0]])


# Sampling. 4 positives, 5 background, 1 ignored.
MATCHES = np.int32([[0, BACKGROUND, 2, BACKGROUND, IGNORED, BACKGROUND, 1, BACKGROUND, 0, BACKGROUND]])
ALL = np.ones((1, 10), bool)


def draw(count, positive_count, matches=MATCHES, usable=ALL, seed=0, noise=None):
    if noise is None:
        noise = np.random.default_rng(seed).random(np.broadcast_shapes(matches.shape, usable.shape))
    noise = np.float32(noise)
    indices, positive, drawn = sample(tf.constant(matches), tf.constant(usable), count, positive_count, noise)
    assert indices.dtype == tf.int32 and indices.shape[1:] == positive.shape[1:] == drawn.shape[1:] == (count,)
    return indices.numpy(), positive.numpy(), drawn.numpy()


def check_draw(indices, positive, drawn, matches, usable):
    """The rules that hold for every draw of one image."""
    assert len(set(indices[drawn])) == drawn.sum()  # none twice
    assert (positive <= drawn).all() and (indices[~drawn] == 0).all()
    assert (matches[indices[positive]] >= 0).all()
    assert (matches[indices[drawn & ~positive]] == BACKGROUND).all()
    assert usable[indices[drawn]].all()
    assert sorted(positive, reverse=True) == positive.tolist()  # positives first
    assert sorted(drawn, reverse=True) == drawn.tolist()


@pytest.mark.parametrize(
    ("count", "most", "positives", "drawn"),
    [
        (6, 2, 2, 6),  # more positives than the share
        (8, 4, 4, 8),
        (8, 8, 4, 8),  # fewer positives than the share: background fills up
        (8, 2, 2, 7),  # too little background: unused positives don't fill up
        (20, 10, 4, 9),  # more slots than candidates
        (2, 2, 2, 2),  # positives only
        (4, 0, 0, 4),  # no positives wanted
    ],
)
def test_counts(count, most, positives, drawn):
    indices, positive, found = draw(count, most)
    assert positive.sum() == positives and found.sum() == drawn
    check_draw(indices[0], positive[0], found[0], MATCHES[0], ALL[0])


def test_the_order_of_the_noise_decides():
    noise = [[0.9, 0.1, 0.2, 0.5, 0.99, 0.4, 0.8, 0.7, 0.3, 0.0]]
    indices, positive, drawn = draw(5, 2, noise=noise)
    np.testing.assert_array_equal(indices, [[0, 6, 7, 3, 5]])
    np.testing.assert_array_equal(positive, [[1, 1, 0, 0, 0]])
    assert drawn.all()


def test_a_noise_of_zero_can_be_drawn():
    assert draw(9, 4, noise=np.zeros((1, 10)))[2].all()


def test_unusable_candidates_are_never_drawn():
    usable = np.array([[True, False, False, True, True, True, False, True, True, False]])
    indices, positive, drawn = draw(8, 3, usable=usable)
    assert (positive.sum(), drawn.sum()) == (2, 5)
    check_draw(indices[0], positive[0], drawn[0], MATCHES[0], usable[0])


def test_nothing_to_draw():
    for matches in (np.full((2, 4), IGNORED, np.int32), np.zeros((2, 0), np.int32)):
        indices, positive, drawn = draw(3, 1, matches, np.ones(matches.shape, bool))
        assert indices.shape == (2, 3)
        assert not indices.any() and not positive.any() and not drawn.any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12))
def test_every_image_of_a_batch_keeps_the_rules(seed, count, most):
    random = np.random.default_rng(seed)
    most = min(count, most)
    matches = random.integers(IGNORED, 3, (3, 9)).astype(np.int32)
    usable = random.random((3, 9)) < 0.7
    results = draw(count, most, matches, usable, seed)
    for image in range(3):
        indices, positive, drawn = (values[image] for values in results)
        check_draw(indices, positive, drawn, matches[image], usable[image])
        positives = min(most, ((matches[image] >= 0) & usable[image]).sum())
        negatives = ((matches[image] == BACKGROUND) & usable[image]).sum()
        assert positive.sum() == positives
        assert drawn.sum() == min(count, positives + negatives)


def test_usable_may_be_shared_by_all_images():
    usable = np.array([[True] * 5 + [False] * 5])
    indices, _, drawn = draw(
        4, 2, np.repeat(MATCHES, 3, axis=0), usable, noise=np.random.default_rng(1).random((3, 10))
    )
    assert drawn.all() and (indices < 5).all()


def test_each_candidate_is_as_likely_as_its_equals():
    images = 4000
    indices, positive, drawn = draw(4, 2, np.repeat(MATCHES, images, axis=0), np.repeat(ALL, images, axis=0), seed=7)
    assert drawn.all()
    counts = np.bincount(indices.ravel(), minlength=10)
    # 2 of 4 positives and 2 of 5 background: binomial, standard deviations 31.6 and 31.0. Four of them, seed fixed.
    np.testing.assert_allclose(counts[MATCHES[0] >= 0], images / 2, atol=127)
    np.testing.assert_allclose(counts[MATCHES[0] == BACKGROUND], images * 0.4, atol=124)
    assert counts[MATCHES[0] == IGNORED].sum() == 0
