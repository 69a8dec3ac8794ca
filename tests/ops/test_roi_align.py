"""RoIAlign against a float64 loop over bins and samples, value and gradient, and recorded numbers of torchvision.

Each test runs for every implementation, so CI needs a C++ compiler.
"""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops import roi_align_stock
from mrcnn_tf.ops.native.library import static_shapes
from mrcnn_tf.ops.roi_align import PyramidRoIs, implementations, pyramid_roi_align, roi_align

IMPLEMENTATIONS = ("custom", "gather", "static")


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    return request.param


def pool(features, boxes, batch, level, scales, padded_size, out, ratio, aligned, implementation):
    """`pyramid_roi_align` of tensors; the static form is for graphs, and slow without."""
    rois = PyramidRoIs(boxes, batch, level, scales, padded_size)
    if implementation == "static":
        graph = tf.function(lambda features: pyramid_roi_align(features, rois, out, ratio, aligned, implementation))
        return graph(features)
    return pyramid_roi_align(features, rois, out, ratio, aligned, implementation)


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
        nx, ny = (ratio or max(math.ceil(axis), 0) for axis in size)
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

    def ours(self, ratio, aligned, implementation, padded_size=None, function=pool):
        features = [tf.constant(values) for values in self.features]
        with tf.GradientTape() as tape:
            tape.watch(features)
            rois = (self.boxes, self.batch, self.level, self.scales, padded_size)
            pooled = function(features, *rois, self.out, ratio, aligned, implementation)
            total = tf.reduce_sum(pooled * self.upstream)
        return pooled.numpy(), [gradient.numpy() for gradient in tape.gradient(total, features)]

    def expected(self, ratio, aligned, sizes=None):
        sizes = sizes or [[values.shape[1:3]] * 2 for values in self.features]
        arguments = (self.boxes, self.batch, self.level, self.scales, self.out, ratio, aligned, sizes, self.upstream)
        return reference(self.features, *arguments)

    def check(self, ratio, aligned, implementation, padded_size=None, sizes=None):
        ours, expected = self.ours(ratio, aligned, implementation, padded_size), self.expected(ratio, aligned, sizes)
        np.testing.assert_allclose(ours[0], expected[0], atol=1e-5)
        for gradient, wanted in zip(ours[1], expected[1], strict=True):
            np.testing.assert_allclose(gradient, wanted, atol=1e-5)


def pool_one(features, box, out, ratio, aligned, implementation):
    """One box on a map [H, W]."""
    features = tf.constant(np.float32(features)[None, :, :, None])
    pooled = roi_align(features, np.float32([box]), np.int32([0]), 1.0, out, ratio, aligned, implementation)
    return pooled.numpy()[0, :, :, 0]


@pytest.mark.parametrize(("aligned", "starts"), [(False, [7.5, 10, 12.5, 15]), (True, [4.5, 7, 9.5, 12])])
def test_recorded_numbers(aligned, starts, implementation):
    expected = np.float32(starts)[:, None] + np.float32([0, 0.5, 1, 1.5])
    np.testing.assert_allclose(
        pool_one(np.arange(25).reshape(5, 5), [1, 1, 3, 3], 4, 0, aligned, implementation), expected, rtol=1e-6
    )


def test_an_aligned_box_of_whole_cells_gives_those_cells(implementation):
    cells = np.random.default_rng(0).normal(size=(6, 6))
    np.testing.assert_allclose(pool_one(cells, [1, 2, 4, 5], 3, 1, True, implementation), cells[2:5, 1:4], rtol=1e-6)


def test_an_unaligned_box_is_at_least_one_cell_wide(implementation):
    ramp = np.broadcast_to(np.arange(8.0), (8, 8))
    # From 2.0, one cell in two bins: one sample each at 2.25 and 2.75. Aligned, the box is 0.2 wide, from 1.5.
    np.testing.assert_allclose(
        pool_one(ramp, [2, 2, 2.2, 2.2], 2, 1, False, implementation)[0], [2.25, 2.75], rtol=1e-6
    )
    np.testing.assert_allclose(pool_one(ramp, [2, 2, 2.2, 2.2], 2, 1, True, implementation)[0], [1.55, 1.65], rtol=1e-6)


def test_samples_outside_are_clamped_up_to_one_cell_and_zero_beyond(implementation):
    ones = np.full((4, 4), 3.0)
    # One sample in the middle of each of four bins of one cell; unaligned positions are the box's.
    row = pool_one(ones, [-2.75, 1, 1.25, 5], 4, 1, False, implementation)[0]
    np.testing.assert_allclose(row, [0, 0, 3, 3])  # -2.25, -1.25, -0.25, 0.75
    row = pool_one(ones, [1.75, 1, 5.75, 5], 4, 1, False, implementation)[0]
    np.testing.assert_allclose(row, [3, 3, 0, 0])  # 2.25, 3.25, 4.25, 5.25
    # Exactly -1 and exactly H still count.
    np.testing.assert_allclose(pool_one(ones, [-1.5, 3.5, -0.5, 4.5], 1, 1, False, implementation), [[3]])


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("levels", [1, 3])
def test_value_and_gradient_equal_the_plain_loop(ratio, aligned, levels, implementation):
    Case(levels, seed=10 * ratio + levels).check(ratio, aligned, implementation)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("ratio", "step"), [(0, 2), (2, 2), (1, 3)])
def test_every_nth_bin_of_a_finer_grid(ratio, step, aligned, implementation):
    """Value and gradient of what a strided convolution reads."""
    case, fine = Case(levels=2, seed=ratio + step), Case(levels=2, seed=ratio + step, out=3 * step)
    fine.upstream[:] = 0
    fine.upstream[:, ::step, ::step] = case.upstream

    def stepped(features, boxes, batch, level, scales, padded_size, out, ratio, aligned, implementation):
        rois = PyramidRoIs(boxes, batch, level, scales, padded_size)
        return pyramid_roi_align(features, rois, out, ratio, aligned, implementation, bin_step=step)

    ours, expected = case.ours(ratio, aligned, implementation, function=stepped), fine.expected(ratio, aligned)
    np.testing.assert_allclose(ours[0], expected[0][:, ::step, ::step], atol=1e-5)
    for gradient, wanted in zip(ours[1], expected[1], strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([0, 1, 2]), st.booleans(), st.integers(1, 4), st.sampled_from([1, 16, 147])
)
def test_any_case_equals_the_plain_loop(seed, ratio, aligned, out, channels):
    for implementation in IMPLEMENTATIONS:
        Case(levels=2, rois=4, out=out, seed=seed, channels=channels).check(ratio, aligned, implementation)


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
def test_odd_boxes(ratio, aligned, implementation):
    case = Case(rois=len(BOXES))
    case.boxes = np.float32(list(BOXES.values()))
    case.check(ratio, aligned, implementation)
    pooled, _ = case.ours(ratio, aligned, implementation)
    assert not pooled[list(BOXES).index("wholly outside, left")].any()
    assert pooled[list(BOXES).index("tiny")].all()


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("graph", [False, True])
def test_no_boxes_give_no_rows_and_zero_gradients(ratio, graph, implementation):
    case = Case(levels=2, rois=0)
    pooled, gradients = case.ours(ratio, True, implementation, function=tf.function(pool) if graph else pool)
    assert pooled.shape == (0, 3, 3, 2)
    assert all(gradient.shape == values.shape and not gradient.any()
               for gradient, values in zip(gradients, case.features, strict=True))  # fmt: skip


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("rois", [0, 5])
def test_the_number_of_boxes_may_be_known_only_at_run_time(rois, ratio, implementation):
    case = Case(rois=rois)
    signature = [
        tf.TensorSpec([None, None, None, 2]),
        tf.TensorSpec([None, 4]),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, 3, 3, 2]),
    ]

    @tf.function(input_signature=signature)
    def pool_and_gradient(features, boxes, batch, upstream):
        pooled = roi_align(features, boxes, batch, 0.25, 3, ratio, True, implementation)
        return pooled, tf.gradients(tf.reduce_sum(pooled * upstream), features)[0]

    pooled, gradient = pool_and_gradient(case.features[0], case.boxes, case.batch, case.upstream)
    expected = case.expected(ratio, True)
    np.testing.assert_allclose(pooled, expected[0], atol=1e-5)
    np.testing.assert_allclose(gradient, expected[1][0], atol=1e-5)


@pytest.mark.parametrize("rois", [3, 4, 5, 8])
def test_chunks_change_nothing(monkeypatch, rois):
    monkeypatch.setattr(roi_align_stock, "CHUNK", 4)
    Case(levels=2, rois=rois).check(2, True, "gather")


@pytest.mark.parametrize("ratio", [0, 2])
def test_the_canvas_ends_the_map_as_if_it_were_smaller(ratio, implementation):
    """The boxes reach past the padded size of 40x72 pixels; what lies beyond is not even read."""
    case = Case(levels=3, rois=8, seed=3)
    sizes = [[(10, 18), (16, 24)], [(5, 9), (8, 12)], [(3, 5), (4, 6)]]
    padded = [values.copy() for values in case.features]
    for values, ((height, width), _) in zip(padded, sizes, strict=True):
        values[0, height:], values[0, :, width:] = 1e3, -1e3
    case.features = padded
    case.batch[:6] = 0
    case.check(ratio, True, implementation, padded_size=tf.constant([[40, 72], [64, 96]]), sizes=sizes)


@pytest.mark.parametrize("aligned", [False, True])
def test_the_same_image_in_a_larger_batch_gives_the_same_features(aligned, implementation):
    case = Case(levels=2, rois=8)
    case.batch[:] = 0
    alone, _ = case.ours(2, aligned, implementation)
    case.features = [np.pad(f, [(0, 0), (0, 8), (0, 4), (0, 0)], constant_values=9) for f in case.features]
    padded, gradients = case.ours(2, aligned, implementation, padded_size=tf.constant([[64, 96], [96, 112]]))
    # Graph optimisation folds other constants where there are padded sizes: the static form's products round otherwise.
    np.testing.assert_allclose(padded, alone, rtol=0, atol=1e-6 if implementation == "static" else 0)
    assert not gradients[0][0, 16:].any() and not gradients[0][0, :, 24:].any()


@pytest.mark.parametrize("ratio", [0, 2])
def test_bfloat16_stays_close(ratio, implementation):
    case = Case(levels=2, rois=5)
    expected = case.expected(ratio, True)
    features = [tf.constant(values, tf.bfloat16) for values in case.features]
    with tf.GradientTape() as tape:
        tape.watch(features)
        rois = (case.boxes, case.batch, case.level, case.scales, None)
        pooled = pool(features, *rois, case.out, ratio, True, implementation)
        total = tf.reduce_sum(tf.cast(pooled, tf.float32) * case.upstream)
    assert pooled.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(pooled, tf.float32), expected[0], atol=0.03)
    for gradient, wanted in zip(tape.gradient(total, features), expected[1], strict=True):
        assert gradient.dtype == tf.bfloat16
        np.testing.assert_allclose(tf.cast(gradient, tf.float32), wanted, atol=0.03)


def test_boxes_are_not_rounded_under_bfloat16(implementation):
    """Pixel 801.3 would become 800 in bfloat16, a hundredth of the ramp."""
    ramp = tf.constant(np.broadcast_to(np.linspace(0, 1, 101), (4, 101))[None, :, :, None], tf.bfloat16)
    box = np.float32([[801.3, 8, 817.3, 24]])
    # Centre (801.3 + 8) / 16 - 0.5 = 50.08 cells.
    value = roi_align(ramp, box, np.int32([0]), 1 / 16, 1, 1, True, implementation)
    np.testing.assert_allclose(tf.cast(value, tf.float32)[0, 0, 0, 0], 0.5008, atol=2e-3)


def test_no_gradient_flows_to_the_boxes(implementation):
    case = Case()
    boxes = tf.constant(case.boxes)
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        total = tf.reduce_sum(roi_align(case.features[0], boxes, case.batch, 0.25, 3, 2, True, implementation))
    assert tape.gradient(total, boxes) is None


def test_the_users_mistakes_are_named():
    features, boxes, batch = tf.zeros([1, 4, 4, 1]), tf.zeros([1, 4]), tf.zeros([1], tf.int32)
    with pytest.raises(UserError, match="'cuda'"):
        roi_align(features, boxes, batch, 1.0, 2, 2, True, implementation="cuda")
    for maps, scales in (([features], [1.0, 0.5]), ([], [])):
        with pytest.raises(UserError, match="one scale a map"):
            pyramid_roi_align(maps, PyramidRoIs(boxes, batch, batch, scales), 2, 2, True)
    with pytest.raises(UserError, match="float64"):
        roi_align(tf.cast(features, tf.float64), boxes, batch, 1.0, 2, 2, True, implementation="custom")


@pytest.mark.parametrize("ratio", [0, 2])
def test_the_static_form_compiles_by_xla(ratio):
    case = Case(levels=2, seed=ratio)
    compiled = tf.function(pool, jit_compile=True)

    def auto(*arguments):
        with static_shapes():
            return compiled(*arguments[:-1], "auto")

    ours, expected = case.ours(ratio, True, "auto", function=auto), case.expected(ratio, True)
    np.testing.assert_allclose(ours[0], expected[0], atol=1e-5)
    for gradient, wanted in zip(ours[1], expected[1], strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=1e-5)


def test_auto_takes_the_custom_op_where_it_is_there():
    assert implementations() == ("custom", "gather")
    assert implementations(tf.float64) == ("gather",)

    @tf.function
    def graph(features):
        return roi_align(features, tf.zeros([1, 4]), tf.zeros([1], tf.int32), 1.0, 2, 2, True)

    kinds = {
        dtype: {
            op.type for op in graph.get_concrete_function(tf.TensorSpec([1, 4, 4, 1], dtype)).graph.get_operations()
        }
        for dtype in (tf.float32, tf.float64)
    }
    assert "MrcnnTf>RoiAlign" in kinds[tf.float32] and "MrcnnTf>RoiAlign" not in kinds[tf.float64]


NOT_FINITE = {
    "nan": [np.nan, 4, 40, 40],
    "nan at the end": [4, 4, 40, np.nan],
    "infinite": [4, 4, np.inf, 40],
    "minus infinite": [-np.inf, 4, 20, 40],
}


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
def test_boxes_that_are_not_finite_pool_to_zeros_and_have_no_gradient(ratio, aligned, implementation):
    case = Case(rois=len(NOT_FINITE) + 1)
    case.boxes[1:] = np.float32(list(NOT_FINITE.values()))
    pooled, gradients = case.ours(ratio, aligned, implementation)
    assert pooled[0].any() and not pooled[1:].any()
    alone = Case(rois=len(NOT_FINITE) + 1)
    alone.boxes, alone.batch, alone.upstream = case.boxes[:1], alone.batch[:1], alone.upstream[:1]
    alone.level = alone.level[:1]
    np.testing.assert_allclose(gradients[0], alone.expected(ratio, aligned)[1][0], atol=1e-5)


def test_an_adaptive_box_without_area_pools_to_zeros(implementation):
    """It has no samples, and the mean of none is 0 in torchvision and detectron2."""
    for box in ([1, 1, 1, 3], [1, 1, 3, 1], [3, 3, 1, 1]):
        assert not pool_one(np.ones((4, 4)), box, 2, 0, True, implementation).any()
