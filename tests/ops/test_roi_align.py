"""RoIAlign against a float64 loop over bins and samples, value and gradient, and recorded numbers of torchvision."""

import itertools
import math
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import mrcnn_tf.ops.roi_align  # noqa: F401  (its name in the package is the function's)
from mrcnn_tf.errors import UserError
from mrcnn_tf.ops.roi_align import pyramid_roi_align, roi_align

MODULE = sys.modules["mrcnn_tf.ops.roi_align"]


def bilinear(position, length):
    """(cell, weight) pairs of a sample along one axis; none more than a cell outside."""
    if position < -1 or position > length:
        return []
    position = min(max(position, 0.0), length - 1.0)
    low = math.floor(position)
    return [(low, 1 - (position - low)), (min(low + 1, length - 1), position - low)]


def reference(features, boxes, batch, level, scales, out, ratio, aligned, sizes, upstream):
    """Pooled values and the gradients of sum(values * upstream), sample by sample as section 3 of the paper has it.

    `sizes` [L][B] = (height, width) cells of the part of each map that counts.
    """
    features = [np.float64(values) for values in features]
    gradients = [np.zeros_like(values) for values in features]
    pooled = np.zeros((len(boxes), out, out, features[0].shape[-1]))
    for r, (box, b, index) in enumerate(zip(np.float64(boxes), batch, level, strict=True)):
        start = box[:2] * scales[index] - (0.5 if aligned else 0.0)
        side = (box[2:] - box[:2]) * scales[index]
        size = (side if aligned else np.maximum(side, 1.0)) / out
        nx, ny = (ratio or max(math.ceil(axis), 1) for axis in size)
        height, width = sizes[index][b]
        for i, j, sy, sx in itertools.product(range(out), range(out), range(ny), range(nx)):
            rows = bilinear(start[1] + (i + (sy + 0.5) / ny) * size[1], height)
            columns = bilinear(start[0] + (j + (sx + 0.5) / nx) * size[0], width)
            for (y, wy), (x, wx) in itertools.product(rows, columns):
                weight = wy * wx / (ny * nx)
                pooled[r, i, j] += weight * features[index][b, y, x]
                gradients[index][b, y, x] += weight * upstream[r, i, j]
    return pooled, gradients


class Case:
    """Random maps of two images on `levels` levels, boxes on and off them, and an upstream gradient."""

    def __init__(self, levels=1, rois=6, out=3, seed=0, channels=2):
        random = np.random.default_rng(seed)
        self.out, self.scales = out, [1 / 4, 1 / 8, 1 / 16][:levels]
        maps = [(2, 16 // 2**i, 24 // 2**i, channels) for i in range(levels)]
        self.features = [random.normal(size=shape).astype(np.float32) for shape in maps]
        corner = random.uniform(-20, 80, (rois, 2))
        self.boxes = np.float32(np.concatenate([corner, corner + random.uniform(1, 60, (rois, 2))], axis=1))
        self.batch = random.integers(0, 2, rois).astype(np.int32)
        self.level = random.integers(0, levels, rois).astype(np.int32)
        self.upstream = random.normal(size=(rois, out, out, channels)).astype(np.float32)

    def ours(self, ratio, aligned, canvas=None, function=pyramid_roi_align):
        features = [tf.constant(values) for values in self.features]
        with tf.GradientTape() as tape:
            tape.watch(features)
            arguments = (self.boxes, self.batch, self.level, self.scales, self.out, ratio, aligned, canvas)
            pooled = function(features, *arguments)
            total = tf.reduce_sum(pooled * self.upstream)
        return pooled.numpy(), [gradient.numpy() for gradient in tape.gradient(total, features)]

    def expected(self, ratio, aligned, sizes=None):
        sizes = sizes or [[values.shape[1:3]] * 2 for values in self.features]
        arguments = (self.boxes, self.batch, self.level, self.scales, self.out, ratio, aligned, sizes, self.upstream)
        return reference(self.features, *arguments)

    def check(self, ratio, aligned, canvas=None, sizes=None):
        ours, expected = self.ours(ratio, aligned, canvas), self.expected(ratio, aligned, sizes)
        np.testing.assert_allclose(ours[0], expected[0], atol=1e-5)
        for gradient, wanted in zip(ours[1], expected[1], strict=True):
            np.testing.assert_allclose(gradient, wanted, atol=1e-5)


def pool_one(features, box, out, ratio, aligned, scale=1.0):
    """One box on a map [H, W]."""
    features = tf.constant(np.float32(features)[None, :, :, None])
    return roi_align(features, np.float32([box]), np.int32([0]), scale, out, ratio, aligned).numpy()[0, :, :, 0]


@pytest.mark.parametrize(("aligned", "starts"), [(False, [7.5, 10, 12.5, 15]), (True, [4.5, 7, 9.5, 12])])
def test_recorded_numbers(aligned, starts):
    expected = np.float32(starts)[:, None] + np.float32([0, 0.5, 1, 1.5])
    np.testing.assert_allclose(pool_one(np.arange(25).reshape(5, 5), [1, 1, 3, 3], 4, 0, aligned), expected, rtol=1e-6)


def test_an_aligned_box_of_whole_cells_gives_those_cells():
    cells = np.random.default_rng(0).normal(size=(6, 6))
    np.testing.assert_allclose(pool_one(cells, [1, 2, 4, 5], 3, 1, True), cells[2:5, 1:4], rtol=1e-6)


def test_an_unaligned_box_is_at_least_one_cell_wide():
    ramp = np.broadcast_to(np.arange(8.0), (8, 8))
    # From 2.0, one cell in two bins: one sample each at 2.25 and 2.75. Aligned, the box is 0.2 wide, from 1.5.
    np.testing.assert_allclose(pool_one(ramp, [2, 2, 2.2, 2.2], 2, 1, False)[0], [2.25, 2.75], rtol=1e-6)
    np.testing.assert_allclose(pool_one(ramp, [2, 2, 2.2, 2.2], 2, 1, True)[0], [1.55, 1.65], rtol=1e-6)


def test_samples_outside_are_clamped_up_to_one_cell_and_zero_beyond():
    ones = np.full((4, 4), 3.0)
    # One sample in the middle of each of four bins of one cell; unaligned positions are the box's.
    row = pool_one(ones, [-2.75, 1, 1.25, 5], 4, 1, False)[0]
    np.testing.assert_allclose(row, [0, 0, 3, 3])  # -2.25, -1.25, -0.25, 0.75
    row = pool_one(ones, [1.75, 1, 5.75, 5], 4, 1, False)[0]
    np.testing.assert_allclose(row, [3, 3, 0, 0])  # 2.25, 3.25, 4.25, 5.25
    # Exactly -1 and exactly H still count.
    np.testing.assert_allclose(pool_one(ones, [-1.5, 3.5, -0.5, 4.5], 1, 1, False), [[3]])


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("levels", [1, 3])
def test_value_and_gradient_equal_the_plain_loop(ratio, aligned, levels):
    Case(levels, seed=10 * ratio + levels).check(ratio, aligned)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 2]), st.booleans(), st.integers(1, 4))
def test_any_case_equals_the_plain_loop(seed, ratio, aligned, out):
    Case(levels=2, rois=4, out=out, seed=seed).check(ratio, aligned)


BOXES = {
    "wholly outside, left": [-90, 10, -30, 40],
    "wholly outside, below": [10, 100, 30, 300],
    "around the map": [-30, -30, 150, 120],
    "over the corner": [70, 40, 120, 90],
    "tiny": [33.3, 21.7, 33.30001, 21.70002],
    "tiny and outside": [-3.9, -3.9, -3.8, -3.8],
    "a line": [10, 10, 70, 10.5],
}


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
def test_odd_boxes(ratio, aligned):
    case = Case(rois=len(BOXES))
    case.boxes = np.float32(list(BOXES.values()))
    case.check(ratio, aligned)
    pooled, _ = case.ours(ratio, aligned)
    assert not pooled[list(BOXES).index("wholly outside, left")].any()
    assert pooled[list(BOXES).index("tiny")].all()


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("graph", [False, True])
def test_no_boxes_give_no_rows_and_zero_gradients(ratio, graph):
    case = Case(levels=2, rois=0)
    function = tf.function(pyramid_roi_align) if graph else pyramid_roi_align
    pooled, gradients = case.ours(ratio, True, function=function)
    assert pooled.shape == (0, 3, 3, 2)
    assert all(gradient.shape == values.shape and not gradient.any()
               for gradient, values in zip(gradients, case.features, strict=True))  # fmt: skip


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("rois", [0, 5])
def test_the_number_of_boxes_may_be_known_only_at_run_time(rois, ratio):
    case = Case(rois=rois)
    signature = [
        tf.TensorSpec([None, None, None, 2]),
        tf.TensorSpec([None, 4]),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, 3, 3, 2]),
    ]

    @tf.function(input_signature=signature)
    def pool(features, boxes, batch, upstream):
        pooled = roi_align(features, boxes, batch, 0.25, 3, ratio, True)
        return pooled, tf.gradients(tf.reduce_sum(pooled * upstream), features)[0]

    pooled, gradient = pool(case.features[0], case.boxes, case.batch, case.upstream)
    expected = case.expected(ratio, True)
    np.testing.assert_allclose(pooled, expected[0], atol=1e-5)
    np.testing.assert_allclose(gradient, expected[1][0], atol=1e-5)


@pytest.mark.parametrize("rois", [3, 4, 5, 8])
def test_chunks_change_nothing(monkeypatch, rois):
    monkeypatch.setattr(MODULE, "CHUNK", 4)
    Case(levels=2, rois=rois).check(2, True)


@pytest.mark.parametrize("ratio", [0, 2])
def test_the_canvas_ends_the_map_as_if_it_were_smaller(ratio):
    """The boxes reach past the canvas of 40x72 pixels; what lies beyond is not even read."""
    case = Case(levels=3, rois=8, seed=3)
    sizes = [[(10, 18), (16, 24)], [(5, 9), (8, 12)], [(3, 5), (4, 6)]]
    padded = [values.copy() for values in case.features]
    for values, ((height, width), _) in zip(padded, sizes, strict=True):
        values[0, height:], values[0, :, width:] = 1e3, -1e3
    case.features = padded
    case.batch[:6] = 0
    case.check(ratio, True, canvas=tf.constant([[40, 72], [64, 96]]), sizes=sizes)


@pytest.mark.parametrize("aligned", [False, True])
def test_the_same_image_in_a_larger_batch_gives_the_same_features(aligned):
    case = Case(levels=2, rois=8)
    case.batch[:] = 0
    alone, _ = case.ours(2, aligned)
    case.features = [np.pad(f, [(0, 0), (0, 8), (0, 4), (0, 0)], constant_values=9) for f in case.features]
    padded, gradients = case.ours(2, aligned, canvas=tf.constant([[64, 96], [96, 112]]))
    np.testing.assert_array_equal(padded, alone)
    assert not gradients[0][0, 16:].any() and not gradients[0][0, :, 24:].any()


@pytest.mark.parametrize("ratio", [0, 2])
def test_bfloat16_stays_close(ratio):
    case = Case(levels=2, rois=5)
    expected = case.expected(ratio, True)
    features = [tf.constant(values, tf.bfloat16) for values in case.features]
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = pyramid_roi_align(features, case.boxes, case.batch, case.level, case.scales, case.out, ratio, True)
        total = tf.reduce_sum(tf.cast(pooled, tf.float32) * case.upstream)
    assert pooled.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(pooled, tf.float32), expected[0], atol=0.03)
    for gradient, wanted in zip(tape.gradient(total, features), expected[1], strict=True):
        assert gradient.dtype == tf.bfloat16
        np.testing.assert_allclose(tf.cast(gradient, tf.float32), wanted, atol=0.03)


def test_boxes_are_not_rounded_under_bfloat16():
    """Pixel 801.3 would become 800 in bfloat16, a hundredth of the ramp."""
    ramp = tf.constant(np.broadcast_to(np.linspace(0, 1, 101), (4, 101))[None, :, :, None], tf.bfloat16)
    box = np.float32([[801.3, 8, 817.3, 24]])
    # Centre (801.3 + 8) / 16 - 0.5 = 50.08 cells.
    value = roi_align(ramp, box, np.int32([0]), 1 / 16, 1, 1, True)
    np.testing.assert_allclose(tf.cast(value, tf.float32)[0, 0, 0, 0], 0.5008, atol=2e-3)


def test_no_gradient_flows_to_the_boxes():
    case = Case()
    boxes = tf.constant(case.boxes)
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        total = tf.reduce_sum(roi_align(case.features[0], boxes, case.batch, 0.25, 3, 2, True))
    assert tape.gradient(total, boxes) is None


def test_the_users_mistakes_are_named():
    features, boxes, batch = tf.zeros([1, 4, 4, 1]), tf.zeros([1, 4]), tf.zeros([1], tf.int32)
    with pytest.raises(UserError, match="'cuda'"):
        roi_align(features, boxes, batch, 1.0, 2, 2, True, implementation="cuda")
    for maps, scales in (([features], [1.0, 0.5]), ([], [])):
        with pytest.raises(UserError, match="one scale a map"):
            pyramid_roi_align(maps, boxes, batch, batch, scales, 2, 2, True)
