"""Masks into RoIs and out of boxes, against hand-computed cases, plain numpy loops and a recorded torch result."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_tf.ops.masks import BLOCK_SAMPLES, mask_targets, paste_masks, paste_window

LEFT_HALF = np.array([[1, 1, 0, 0]] * 4, np.float32)


def targets_of(mask, box, roi, size, binary=False):
    return mask_targets(mask[None], np.float32([box]), np.float32([roi]), size, binary).numpy()[0]


def reference_target(mask, box, roi, size):
    """Area of the instance in each cell over the cell's area, summed cell by cell in float64."""
    side = len(mask)
    box, roi = np.float64(box), np.float64(roi)
    cell = (roi[2:] - roi[:2]) / size
    crop = (box[2:] - box[:2]) / side
    target = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        for k, m in np.ndindex(side, side):
            lengths = [
                min(roi[a] + (t + 1) * cell[a], box[a] + (c + 1) * crop[a])
                - max(roi[a] + t * cell[a], box[a] + c * crop[a])
                for a, t, c in ((0, j, m), (1, i, k))
            ]
            target[i, j] += mask[k, m] * max(lengths[0], 0) * max(lengths[1], 0) / (cell[0] * cell[1])
    return target


def test_target_of_the_box_itself_is_the_mask():
    np.testing.assert_allclose(targets_of(LEFT_HALF, [10, 20, 18, 30], [10, 20, 18, 30], 4), LEFT_HALF, atol=1e-6)


def test_target_of_a_shifted_roi_is_computed_by_hand():
    # The instance covers x 0..4 and y 0..8. Cells of the RoI are 3 wide: x 2..5 (2/3 covered) and 5..8 (none);
    # in y -4..2 (1/3 of the length covered) and 2..8 (all).
    target = targets_of(LEFT_HALF, [0, 0, 8, 8], [2, -4, 8, 8], 2)
    np.testing.assert_allclose(target, [[2 / 9, 0], [2 / 3, 0]], atol=1e-6)


def test_binary_target_is_cut_at_one_half_inclusive():
    # Cells of the RoI are covered by 1, 1/2 and 0.
    soft = targets_of(LEFT_HALF, [0, 0, 8, 8], [1, 0, 7, 8], 3)
    binary = targets_of(LEFT_HALF, [0, 0, 8, 8], [1, 0, 7, 8], 3, binary=True)
    np.testing.assert_allclose(soft[0], [1, 0.5, 0], atol=1e-6)
    np.testing.assert_array_equal(binary, [[1, 1, 0]] * 3)


@pytest.mark.parametrize(
    ("box", "roi"),
    [
        ([0, 0, 8, 8], [20, 20, 30, 30]),
        ([0, 0, 8, 8], [2, 2, 2, 6]),
        ([0, 0, 8, 8], [6, 6, 2, 2]),
        ([4, 4, 4, 4], [0, 0, 8, 8]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
    ],
    ids=["apart", "roi without width", "roi inside out", "box without area", "padding"],
)
def test_target_without_common_area_is_zero(box, roi):
    np.testing.assert_array_equal(targets_of(np.ones((4, 4), np.float32), box, roi, 3), np.zeros((3, 3)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_targets_agree_with_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((5, 5)).astype(np.float32)
    low = rng.uniform(0, 900, (2, 1))
    corners = np.sort(low + rng.uniform(0, 60, (2, 2, 2)), axis=1)
    box, roi = corners.reshape(2, 4)
    box, roi = box + [0, 0, 1, 1], roi + [0, 0, 1, 1]
    np.testing.assert_allclose(
        targets_of(mask, box, roi, 4), reference_target(mask, np.float32(box), np.float32(roi), 4), atol=1e-4
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_targets_do_not_depend_on_the_scale_of_the_image(seed, scale):
    rng = np.random.default_rng(seed)
    mask = (rng.random((6, 6)) > 0.5).astype(np.float32)
    box = np.float32([3, 4, 3 + rng.integers(2, 30), 4 + rng.integers(2, 30)])
    roi = box + rng.uniform(-1, 1, 4).astype(np.float32)
    np.testing.assert_allclose(targets_of(mask, box, roi, 7), targets_of(mask, box * scale, roi * scale, 7), atol=1e-4)


def test_targets_in_a_graph_with_any_number_of_uint8_masks():
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 4, 4], tf.uint8),
            tf.TensorSpec([None, 4], tf.float32),
            tf.TensorSpec([None, 4], tf.float32),
        ]
    )
    def in_graph(masks, boxes, rois):
        return mask_targets(masks, boxes, rois, 4)

    box = np.float32([[0, 0, 8, 8]])
    for count in (0, 1, 3):
        masks = np.repeat(LEFT_HALF[None], count, axis=0)
        boxes = np.repeat(box, count, axis=0)
        np.testing.assert_allclose(in_graph((255 * masks).astype(np.uint8), boxes, boxes), masks, atol=1e-6)


def test_a_full_mask_fills_its_exact_box():
    pasted = paste_masks(np.ones((1, 4, 4)), [[2, 1, 6, 4]], 6, 8, "detectron2")[0]
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(pasted, expected)


def test_half_a_mask_fills_half_of_its_exact_box():
    pasted = paste_masks(LEFT_HALF[None], [[0, 0, 8, 8]], 8, 8, "detectron2")[0]
    np.testing.assert_array_equal(pasted, np.arange(8)[None] < np.full((8, 1), 4))


# Recorded with torch 2.13 (CPU) by the steps of torchvision 0.29: pad by 1, expand the box, `interpolate`, > 0.5.
TORCH_MASK = [[0.9, 0.8, 0.1], [0.7, 0.6, 0.2], [0.1, 0.9, 0.9]]
TORCH_BOX = [1.6, 0.7, 8.2, 7.9]
TORCH_PASTED = """
............
............
..####......
..####......
...###......
...####.....
....####....
....#####...
............
............
"""


def test_torchvision_rule_agrees_with_torch():
    pasted = paste_masks([TORCH_MASK], [TORCH_BOX], 10, 12, "torchvision")[0]
    rows = ["".join(".#"[int(pixel)] for pixel in row) for row in pasted]
    assert rows == TORCH_PASTED.split()


def reference_paste(mask, box, height, width, rule):
    """Probability of every pixel in float64: each cell's value times a hat function around it, along both axes."""
    mask, box = np.float64(mask), np.float64(box)
    if rule == "torchvision":
        mask, centre, half = np.pad(mask, 1), (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        half = half * len(mask) / (len(mask) - 2)
        low, high = np.trunc(centre - half), np.trunc(centre + half) + 1
    else:
        low, high = box[:2], box[2:]
    hats = []
    for axis, count in ((1, height), (0, width)):
        pixels = np.arange(count)
        positions = (pixels + 0.5 - low[axis]) / (high[axis] - low[axis]) * len(mask) - 0.5
        inside = np.ones(count, bool)
        if rule == "torchvision":
            positions = np.clip(positions, 0, len(mask) - 1)
            inside = (low[axis] <= pixels) & (pixels < high[axis])
        hats.append(np.maximum(1 - np.abs(positions[:, None] - np.arange(len(mask))), 0) * inside[:, None])
    return hats[0] @ mask @ hats[1].T


@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.sampled_from([0.1, 0.5]))
def test_pasted_masks_agree_with_sums_of_hat_functions(rule, seed, threshold):
    rng = np.random.default_rng(seed)
    mask = rng.random((4, 4)).astype(np.float32)
    low = rng.uniform(-6, 12, 2)
    box = np.float32(np.concatenate([low, low + rng.uniform(1, 14, 2)]))
    probabilities = reference_paste(mask, box, 11, 13, rule)
    pasted = paste_masks(mask[None], box[None], 11, 13, rule, threshold)[0]
    clear = np.abs(probabilities - threshold) > 1e-4
    np.testing.assert_array_equal(pasted[clear], (probabilities > threshold)[clear])


@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
def test_a_window_of_several_blocks_agrees_with_sums_of_hat_functions(rule):
    mask = np.random.default_rng(0).random((28, 28)).astype(np.float32)
    box = np.float32([20.3, -30.6, 431.2, 380.9])
    assert paste_window(mask, box, 350, 450, rule).pixels.size > 2 * BLOCK_SAMPLES
    probabilities = reference_paste(mask, box, 350, 450, rule)
    clear = np.abs(probabilities - 0.5) > 1e-4
    pasted = paste_masks(mask[None], box[None], 350, 450, rule)[0]
    np.testing.assert_array_equal(pasted[clear], (probabilities > 0.5)[clear])


@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
@pytest.mark.parametrize("box", [[-30, -30, -20, -20], [50, 2, 60, 8], [3, 90, 9, 99]])
def test_a_box_outside_the_image_pastes_nothing(rule, box):
    assert not paste_masks(np.ones((1, 4, 4)), [box], 12, 16, rule).any()
    window = paste_window(np.ones((4, 4)), box, 12, 16, rule)
    assert window.pixels.size == 0
    assert 0 <= window.top <= 12 and 0 <= window.left <= 16


def test_exact_box_without_area_pastes_nothing():
    assert not paste_masks(np.ones((1, 4, 4)), [[3, 3, 3, 9]], 12, 12, "detectron2").any()


def test_no_masks_paste_to_an_empty_stack():
    assert paste_masks(np.zeros((0, 28, 28)), np.zeros((0, 4)), 5, 7).shape == (0, 5, 7)


def test_threshold_is_strict_in_torchvision_and_inclusive_in_detectron2():
    even = np.full((1, 2, 2), 0.5)
    assert not paste_masks(even, [[2, 2, 6, 6]], 8, 8, "torchvision").any()
    pasted = paste_masks(even, [[2, 2, 6, 6]], 8, 8, "detectron2")[0]
    # The outer pixels of the box lie half way to the zeros around it.
    assert pasted.sum() == 4 and pasted[3:5, 3:5].all()


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="not 'cv2'"):
        paste_window(np.ones((2, 2)), [0, 0, 2, 2], 4, 4, "cv2")
