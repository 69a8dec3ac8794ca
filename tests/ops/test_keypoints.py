"""Keypoints to heatmap cells and back, against float64 numpy and recorded outputs of torchvision and detectron2."""

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.keypoints import decode_keypoints, keypoint_targets, upsample_heatmaps

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/keypoints.npz")
WITHOUT_AREA = 6  # of the recorded boxes


def targets(keypoints, boxes, side):
    cells, valid = keypoint_targets(tf.constant(keypoints, tf.float32), tf.constant(boxes, tf.float32), side)
    assert cells.dtype == tf.int32 and valid.dtype == tf.bool
    return cells.numpy(), valid.numpy()


def cubic(distance):
    """Keys' kernel with a = -0.75, as the sum of its two pieces."""
    distance = np.abs(np.float64(distance))
    near = 1.25 * distance**3 - 2.25 * distance**2 + 1
    far = -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def resized(heatmap, height, width):
    """Each pixel the sum of 16 cells, those outside being the border's."""
    side = len(heatmap)
    y = (np.arange(height) + 0.5) * side / height - 0.5
    x = (np.arange(width) + 0.5) * side / width - 0.5
    total = np.zeros((height, width))
    for row in range(-3, side + 3):
        for column in range(-3, side + 3):
            value = np.float64(heatmap[min(max(row, 0), side - 1), min(max(column, 0), side - 1)])
            total += value * np.outer(cubic(y - row), cubic(x - column))
    return total


def highest(heatmap, box):
    """(x, y, logit) of the maximum, and by how much it leads."""
    sides = [max(box[axis + 2] - box[axis], 1.0) for axis in (0, 1)]
    width, height = map(math.ceil, sides)
    pixels = resized(heatmap, height, width)
    y, x = np.unravel_index(pixels.argmax(), pixels.shape)
    order = np.sort(pixels, axis=None)
    place = (x + 0.5) * sides[0] / width + box[0], (y + 0.5) * sides[1] / height + box[1]
    return (*place, pixels.max()), (order[-1] - order[-2] if pixels.size > 1 else np.inf)


@pytest.fixture
def heatmaps():
    return np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)


BOXES = np.float32([[3, 5, 11, 13], [10.25, 4.5, 31, 40.75], [0, 0, 5.5, 2.2], [2, 2, 2.4, 19.3], [7, 9, 107.6, 44]])


@pytest.mark.parametrize("prefix", ["", "detectron2_"])
def test_targets_equal_the_recorded_ones(prefix):
    cells, valid = targets(GOLDEN["keypoints"], GOLDEN["boxes"], 14)
    expected = GOLDEN[f"{prefix}valid"].copy()
    assert expected[WITHOUT_AREA].any()  # the only difference: there a keypoint on the border has no cell of ours
    expected[WITHOUT_AREA] = False
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(cells[valid], GOLDEN[f"{prefix}targets"][valid])
    assert not cells[~valid].any()


def test_the_borders_belong_to_the_roi():
    box = [[10, 20, 50, 100]]
    points = [[10, 20, 2], [50, 20, 1], [10, 100, 2], [50, 100, 2], [29.9, 60, 2], [9.99, 60, 2], [30, 100.01, 2]]
    cells, valid = targets([points], box, 4)
    assert cells.tolist() == [[0, 3, 12, 15, 9, 0, 0]]
    assert valid.tolist() == [[True] * 5 + [False] * 2]


def test_only_labelled_keypoints_count():
    cells, valid = targets([[[30, 30, 0], [30, 30, 1], [30, 30, 2]]], [[0, 0, 40, 40]], 4)
    assert valid.tolist() == [[False, True, True]] and cells.tolist() == [[0, 15, 15]]


@pytest.mark.parametrize(
    "box", [[5, 5, 5, 9], [5, 5, 9, 5], [9, 9, 5, 5], [5, 5, 5, 5], [np.nan] * 4, [0, 0, np.inf, 9]]
)
def test_an_roi_without_area_has_no_targets(box):
    cells, valid = targets([[[5, 5, 2], [7, 7, 2], [9, 9, 2]]], [box], 56)
    assert not valid.any() and not cells.any()


def test_a_keypoint_that_is_not_finite_has_no_target():
    cells, valid = targets([[[np.nan, 5, 2], [5, np.inf, 2]]], [[0, 0, 9, 9]], 56)
    assert not valid.any() and not cells.any()


@pytest.mark.parametrize(
    ("rule", "places", "scores"),
    [("logit", "places", "logits"), ("probability", "detectron2_places", "detectron2_probabilities")],
)
def test_decoding_equals_the_recorded_one(rule, places, scores):
    found = decode_keypoints(GOLDEN["maps"], GOLDEN["boxes"], rule).numpy()
    np.testing.assert_array_equal(found[..., :2], GOLDEN[places])
    np.testing.assert_allclose(found[..., 2], GOLDEN[scores], rtol=1e-5)


def test_decoding_equals_the_plain_sum_of_sixteen_cells(heatmaps):
    found = decode_keypoints(heatmaps, BOXES, "logit").numpy()
    for roi, box in enumerate(BOXES):
        for point, heatmap in enumerate(heatmaps[roi]):
            expected, lead = highest(heatmap, box)
            assert lead > 1e-5
            np.testing.assert_allclose(found[roi, point], expected, rtol=1e-5)


def test_the_probability_compares_the_maximum_with_the_whole_heatmap(heatmaps):
    logits = decode_keypoints(heatmaps, BOXES, "logit").numpy()
    shares = decode_keypoints(heatmaps, BOXES, "probability").numpy()
    np.testing.assert_array_equal(shares[..., :2], logits[..., :2])
    expected = np.exp(np.float64(logits[..., 2])) / np.exp(np.float64(heatmaps)).sum(axis=(2, 3))
    np.testing.assert_allclose(shares[..., 2], expected, rtol=1e-5)


def test_large_logits_overflow_nothing(heatmaps):
    shares = decode_keypoints(heatmaps * 1e3, BOXES, "probability").numpy()
    assert np.isfinite(shares).all() and shares[..., 2].max() > 0


def test_keypoints_come_back_to_the_cell_they_were_encoded_in():
    boxes = np.float32([[12.5, 3, 98.5, 141], [4, 4, 60, 32]])
    places = np.random.default_rng(1).uniform(0, 1, (2, 6, 2)) * (boxes[:, None, 2:] - boxes[:, None, :2])
    points = np.concatenate([places + boxes[:, None, :2], np.full((2, 6, 1), 2.0)], axis=2)
    cells, _ = targets(points, boxes, 28)
    found = decode_keypoints(np.eye(28 * 28, dtype=np.float32)[cells].reshape(2, 6, 28, 28), boxes, "logit").numpy()
    cell = np.float32(boxes[:, 2:] - boxes[:, :2])[:, None] / 28
    assert (np.abs(found[..., :2] - points[..., :2]) <= cell + 1e-3).all()


@pytest.mark.parametrize("rois", [0, 3])
def test_the_number_of_rois_may_be_known_only_at_run_time(heatmaps, rois):
    @tf.function(input_signature=[tf.TensorSpec([None, 3, 8, 8]), tf.TensorSpec([None, 4])])
    def decode(heatmaps, boxes):
        return decode_keypoints(heatmaps, boxes, "probability")

    found = decode(heatmaps[:rois], BOXES[:rois])
    assert found.shape == (rois, 3, 3)
    np.testing.assert_array_equal(found, decode_keypoints(heatmaps[:rois], BOXES[:rois], "probability"))


def test_odd_boxes_spoil_no_other(heatmaps):
    odd = np.float32([[np.nan] * 4, BOXES[1], [0, 0, np.inf, 3], [4, 4, 4, 4], [9, 9, 2, 2]])
    found = decode_keypoints(heatmaps, odd, "logit").numpy()
    assert not found[[0, 2]].any() and np.isfinite(found).all()
    np.testing.assert_array_equal(found[1], decode_keypoints(heatmaps[1:2], BOXES[1:2], "logit")[0])
    np.testing.assert_array_equal(found[3, :, :2], np.full((3, 2), 4.5))  # the middle of its one pixel


def test_heatmaps_that_are_not_numbers_give_places_inside_the_box(heatmaps):
    found = decode_keypoints(np.full_like(heatmaps, np.nan), BOXES, "logit").numpy()
    assert (found[..., :2] >= BOXES[:, None, :2]).all()
    assert (found[..., :2] <= np.maximum(BOXES[:, 2:], BOXES[:, :2] + 1)[:, None]).all()


def test_half_precision_heatmaps_are_decoded_in_float32(heatmaps):
    rounded = tf.cast(heatmaps, tf.bfloat16)
    found = decode_keypoints(rounded, BOXES, "logit")
    np.testing.assert_array_equal(found, decode_keypoints(tf.cast(rounded, tf.float32), BOXES, "logit"))


def test_an_unknown_score_is_named(heatmaps):
    with pytest.raises(UserError, match="'sigmoid'"):
        decode_keypoints(heatmaps, BOXES, "sigmoid")


def test_upsampling_equals_the_recorded_one():
    first = tf.transpose(GOLDEN["maps"][:1], [0, 2, 3, 1])
    np.testing.assert_allclose(upsample_heatmaps(first), GOLDEN["upsampled"].transpose(0, 2, 3, 1), atol=1e-5)


def test_upsampling_takes_three_quarters_of_the_nearer_cell():
    ramp = tf.constant([[[[0.0], [4.0]], [[8.0], [12.0]]]])
    expected = np.add.outer([0, 2, 6, 8], [0, 1, 3, 4])
    np.testing.assert_allclose(upsample_heatmaps(ramp)[0, :, :, 0], expected)


@pytest.mark.parametrize("rule", ["logit", "probability"])
def test_a_static_box_size_changes_nothing(heatmaps, rule):
    boxes = np.concatenate([BOXES[:4], [[np.nan] * 4]])
    cases = [(heatmaps, boxes, (37, 21)), (heatmaps, BOXES, (40, 104)), (GOLDEN["maps"], GOLDEN["boxes"], (420, 420))]
    for maps, boxes, max_box_size in cases:
        sides = np.ceil(boxes[:, 2:] - boxes[:, :2])
        assert np.nanmax(sides[:, 1]) <= max_box_size[0] and np.nanmax(sides[:, 0]) <= max_box_size[1]
        found = decode_keypoints(maps, boxes, rule, max_box_size)
        np.testing.assert_allclose(found, decode_keypoints(maps, boxes, rule), rtol=1e-5)
