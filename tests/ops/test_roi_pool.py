"""RoIPool against a loop over bins and recorded outputs of torchvision; RoIWarp's boxes; RoIAlign by maximum."""

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops import roi_pool as module
from mrcnn_tf.ops.roi_align import PyramidRoIs, pyramid_roi_align
from mrcnn_tf.ops.roi_pool import max_roi_align, quantised_boxes, roi_pool

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/roi_pool.npz")


def rounded(value):
    """To the nearest whole number, halves away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def reference(features, boxes, batch, level, scales, out, sizes, upstream):
    """Values and gradients bin by bin; `sizes` [L][B] = (height, width) cells of the part of each map that counts.

    Sides of bins are exact fractions here, so boxes must not be so many cells wide that float32 misses one.
    """
    gradients = [np.zeros_like(values) for values in features]
    pooled = np.zeros((len(boxes), out, out, features[0].shape[-1]), np.float32)
    for r, (box, b, index) in enumerate(zip(np.float64(boxes), batch, level, strict=True)):
        x1, y1, x2, y2 = (rounded(value * scales[index]) for value in box)
        height, width = sizes[index][b]
        rows = spans(y1, max(y2 - y1 + 1, 1), out, height)
        columns = spans(x1, max(x2 - x1 + 1, 1), out, width)
        for i, (top, bottom) in enumerate(rows):
            for j, (left, right) in enumerate(columns):
                if bottom <= top or right <= left:
                    continue
                cells = features[index][b, top:bottom, left:right].reshape(-1, features[index].shape[-1])
                pooled[r, i, j] = cells.max(axis=0)
                for channel, first in enumerate(cells.argmax(axis=0)):
                    y, x = divmod(first, right - left)
                    gradients[index][b, top + y, left + x, channel] += upstream[r, i, j, channel]
    return pooled, gradients


def spans(start, cells, out, limit):
    """(first, one after the last) of each bin of `cells` cells from `start`."""
    edges = [(start + i * cells // out, start - (-(i + 1) * cells // out)) for i in range(out)]
    return [tuple(min(max(edge, 0), limit) for edge in pair) for pair in edges]


class Case:
    """Random maps of two images on `levels` levels, no two cells of a map alike, and boxes on and off them."""

    def __init__(self, levels=2, rois=9, out=3, seed=0, channels=2):
        random = np.random.default_rng(seed)
        self.out, self.scales = out, [1 / 4, 1 / 8, 1 / 16][:levels]
        shapes = [(2, 16 // 2**i, 24 // 2**i, channels) for i in range(levels)]
        self.features = [np.float32(random.permutation(np.prod(shape)).reshape(shape) - 400) for shape in shapes]
        corner = random.uniform(-20, 80, (rois, 2))
        self.boxes = np.float32(np.concatenate([corner, corner + random.uniform(1, 60, (rois, 2))], axis=1))
        self.batch = random.integers(0, 2, rois).astype(np.int32)
        self.level = random.integers(0, levels, rois).astype(np.int32)
        self.upstream = np.float32(random.integers(-8, 9, (rois, out, out, channels)))

    def rois(self, padded_size=None):
        return PyramidRoIs(tf.constant(self.boxes), self.batch, self.level, self.scales, padded_size)

    def ours(self, padded_size=None):
        features = [tf.constant(values) for values in self.features]
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = roi_pool(features, self.rois(padded_size), self.out)
            total = tf.reduce_sum(pooled * self.upstream)
        return pooled.numpy(), [gradient.numpy() for gradient in tape.gradient(total, features)]

    def expected(self, sizes=None):
        sizes = sizes or [[values.shape[1:3]] * 2 for values in self.features]
        maps = (self.features, self.boxes, self.batch, self.level, self.scales)
        return reference(*maps, self.out, sizes, self.upstream)

    def check(self, padded_size=None, sizes=None):
        ours, expected = self.ours(padded_size), self.expected(sizes)
        np.testing.assert_array_equal(ours[0], expected[0])
        for gradient, wanted in zip(ours[1], expected[1], strict=True):
            np.testing.assert_array_equal(gradient, wanted)


def test_values_and_gradients_equal_the_recorded_ones():
    recorded = {key: [GOLDEN[f"{key}{level}"] for level in (0, 1)] for key in ("map", "rois", "upstream", "pooled")}
    rois = np.concatenate(recorded["rois"])
    levels = np.repeat(np.int32([0, 1]), [len(rows) for rows in recorded["rois"]])
    features = [tf.constant(values.transpose(0, 2, 3, 1)) for values in recorded["map"]]
    with tf.GradientTape() as tape:
        tape.watch(features)
        where = PyramidRoIs(rois[:, 1:], rois[:, 0].astype(np.int32), levels, [1 / 4, 1 / 8])
        pooled = roi_pool(features, where, 3)
        total = tf.reduce_sum(pooled * np.concatenate(recorded["upstream"]).transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(pooled, np.concatenate(recorded["pooled"]).transpose(0, 2, 3, 1))
    for level, gradient in enumerate(tape.gradient(total, features)):
        np.testing.assert_allclose(gradient, GOLDEN[f"gradient{level}"].transpose(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize("out", [1, 2, 4])
@pytest.mark.parametrize("levels", [1, 3])
def test_value_and_gradient_equal_the_plain_loop(levels, out):
    Case(levels, out=out, seed=levels + out).check()


@pytest.mark.parametrize("chunk", [1, 400, 1500])
def test_chunks_change_nothing(monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    Case(rois=13, seed=4).check()


@pytest.mark.parametrize("graph", [False, True])
def test_bins_take_in_a_further_cell_where_float32_does(graph):
    """And only there, also in a graph, whose optimizer turns divisions by constants into products."""

    def pool(boxes):
        row = tf.reshape(tf.range(60.0), [1, 1, 60, 1])
        return roi_pool([row], PyramidRoIs(boxes, [0, 0], [0, 0], [1.0]), 7)[..., 0]

    pool = tf.function(pool, input_signature=[tf.TensorSpec([None, 4])]) if graph else pool
    assert GOLDEN["wide"].max() == 57  # of the cells 0 to 56
    pooled = pool(tf.constant([[0.0, 0, 56, 0], [0.0, 0, 2, 0]]))
    np.testing.assert_array_equal(pooled, [GOLDEN["wide"], GOLDEN["narrow"]])


def test_halves_are_rounded_away_from_zero():
    case = Case(levels=1, out=1)
    # Cells 2.5 to 3.5 and -1.5 to 0.5, 1.5: 3 to 4 and the first two rows and columns (-2 to 1, -2 to 2).
    case.boxes, case.batch, case.level = np.float32([[10, 10, 14, 14], [-6, -6, 2, 6]]), [0, 1], [0, 0]
    pooled = roi_pool(case.features, case.rois(), 1)[:, 0, 0]
    np.testing.assert_array_equal(pooled[0], case.features[0][0, 3:5, 3:5].max(axis=(0, 1)))
    np.testing.assert_array_equal(pooled[1], case.features[0][1, :3, :2].max(axis=(0, 1)))


def test_of_equal_cells_the_first_gets_the_gradient():
    features = tf.ones([1, 4, 4, 1])
    with tf.GradientTape() as tape:
        tape.watch(features)
        total = tf.reduce_sum(roi_pool([features], PyramidRoIs([[0.0, 0, 3, 3]], [0], [0], [1.0]), 2))
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(tape.gradient(total, features)[0, :, :, 0], expected)


def test_bins_outside_the_map_are_zero_even_where_all_cells_are_negative():
    pooled = roi_pool([tf.fill([1, 4, 4, 1], -5.0)], PyramidRoIs([[-4.0, 0, 3, 3]], [0], [0], [1.0]), 2)
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[0, -5], [0, -5]])


@pytest.mark.parametrize("box", [[np.nan, 4, 40, 40], [4, 4, np.inf, 40], [-np.inf, 4, 20, 40]])
def test_boxes_that_are_not_finite_pool_to_zeros_and_have_no_gradient(box):
    case = Case(rois=4)
    case.boxes[2] = box
    pooled, gradients = case.ours()
    assert not pooled[2].any()
    case.boxes[2] = [-90, -90, -80, -80]
    for gradient, wanted in zip(gradients, case.expected()[1], strict=True):
        np.testing.assert_array_equal(gradient, wanted)


def test_boxes_far_away_pool_to_zeros():
    case = Case(rois=3)
    case.boxes[:] = [[1e12, 0, 2e12, 9], [-3e38, 0, -2e38, 9], [1000, 1000, 1100, 1100]]
    assert not case.ours()[0].any()


@pytest.mark.parametrize("rois", [0, 9])
def test_shapes_may_be_known_only_at_run_time(rois):
    case = Case(levels=1, rois=rois)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 2]),
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, 3, 3, 2]),
        ]
    )
    def pool_and_gradient(features, boxes, batch, upstream):
        pooled = roi_pool([features], PyramidRoIs(boxes, batch, tf.zeros_like(batch), case.scales), 3)
        return pooled, tf.gradients(tf.reduce_sum(pooled * upstream), features)[0]

    pooled, gradient = pool_and_gradient(case.features[0], case.boxes, case.batch, case.upstream)
    expected = case.expected()
    assert pooled.shape == (rois, 3, 3, 2)
    np.testing.assert_array_equal(pooled, expected[0])
    np.testing.assert_array_equal(gradient, expected[1][0])


def test_no_boxes_give_no_rows_and_zero_gradients():
    pooled, gradients = Case(rois=0).ours()
    assert pooled.shape == (0, 3, 3, 2) and not any(gradient.any() for gradient in gradients)


def test_the_canvas_ends_the_map_as_if_it_were_smaller():
    case = Case(levels=3, rois=12, seed=3)
    sizes = [[(10, 18), (16, 24)], [(5, 9), (8, 12)], [(3, 5), (4, 6)]]
    for values, ((height, width), _) in zip(case.features, sizes, strict=True):
        values[0, height:], values[0, :, width:] = 1e4, 1e4
    case.batch[:6] = 0
    case.check(tf.constant([[40, 72], [64, 96]]), sizes)


def test_bfloat16_features_stay_bfloat16():
    case = Case(levels=1, rois=5)
    features = [tf.constant(values, tf.bfloat16) for values in case.features]
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = roi_pool(features, case.rois(), case.out)
        total = tf.reduce_sum(pooled)
    case.features = [tf.cast(values, tf.float32).numpy() for values in features]
    assert pooled.dtype == tf.bfloat16 and tape.gradient(total, features)[0].dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(pooled, tf.float32), case.expected()[0])


def test_no_gradient_flows_to_the_boxes():
    case = Case()
    boxes = tf.constant(case.boxes)
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        total = tf.reduce_sum(roi_pool(case.features, PyramidRoIs(boxes, case.batch, case.level, case.scales), 2))
    assert tape.gradient(total, boxes) is None


def test_every_map_needs_a_scale():
    with pytest.raises(UserError, match="one scale a map"):
        roi_pool([tf.zeros([1, 4, 4, 1])], PyramidRoIs(tf.zeros([1, 4]), [0], [0], [1.0, 0.5]), 2)


def test_quantised_boxes_hold_the_cells_that_roi_pool_reads():
    boxes = np.float32([[10, 6, 31, 50], [-10, -6, 13, 21], [20, 20, 20, 20], [40, 30, 24, 10], [10, 6, 31, 50]])
    found = quantised_boxes(PyramidRoIs(boxes, np.zeros(5, np.int32), np.int32([0, 0, 0, 0, 1]), [1 / 4, 1 / 8]))
    expected = [[3, 2, 9, 14], [-3, -2, 4, 6], [5, 5, 6, 6], [10, 8, 11, 9]]
    np.testing.assert_array_equal(found[:4], np.multiply(expected, 4))
    np.testing.assert_array_equal(found[4], [8, 8, 40, 56])  # cells 1.25, 0.75, 3.875, 6.25 of 8 pixels


def test_aligned_roi_align_of_quantised_boxes_samples_whole_cells():
    """With a bin for each cell and one sample in it, the result is the cells themselves, as RoIPool's then is."""
    case = Case(levels=1, rois=1)
    case.boxes[:], case.out = [[9, 13, 31, 35]], 7  # cells 2 to 8 and 3 to 9
    quantised = PyramidRoIs(quantised_boxes(case.rois()), case.batch, case.level, case.scales)
    warped = pyramid_roi_align(case.features, quantised, 7, 1, True, "gather")
    np.testing.assert_allclose(warped, roi_pool(case.features, case.rois(), 7))
    np.testing.assert_allclose(warped[0], case.features[0][case.batch[0], 3:10, 2:9])


def test_quantised_boxes_keep_what_is_not_finite():
    found = quantised_boxes(PyramidRoIs(np.float32([[np.nan, 1, 2, 3], [0, 0, np.inf, 3]]), [0, 0], [0, 0], [0.5]))
    assert not np.isfinite(found).all(axis=1).any()


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_the_maximum_of_a_bins_samples(ratio, aligned):
    """Each sample is a bin of a finer RoIAlign with one sample; a box below one cell included."""
    case = Case()
    case.boxes[0, 2:] = case.boxes[0, :2] + 0.5
    found = max_roi_align(case.features, case.rois(), 3, ratio, aligned, "gather").numpy()
    fine = pyramid_roi_align(case.features, case.rois(), 3 * ratio, 1, aligned, "gather").numpy()
    for i in range(3):
        for j in range(3):
            samples = fine[:, i * ratio : (i + 1) * ratio, j * ratio : (j + 1) * ratio]
            np.testing.assert_array_equal(found[:, i, j], samples.max(axis=(1, 2)))
    assert found.shape == (9, 3, 3, 2)


def test_the_maximum_of_four_samples_on_a_ramp():
    ramp = tf.constant(np.broadcast_to(np.arange(8.0), (8, 8))[None, :, :, None], tf.float32)
    found = max_roi_align([ramp], PyramidRoIs([[1.0, 1, 5, 5]], [0], [0], [1.0]), 2, 2, False)
    # Bins of two cells from 1 and 3, samples at a quarter and three quarters of them.
    np.testing.assert_allclose(found[0, 0, :, 0], [2.5, 4.5])


def test_the_gradient_of_the_maximum_goes_to_the_largest_sample():
    features = tf.constant(np.arange(16.0).reshape(1, 4, 4, 1), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(features)
        total = tf.reduce_sum(max_roi_align([features], PyramidRoIs([[0.0, 0, 4, 4]], [0], [0], [1.0]), 2, 2, True))
    expected = np.zeros((4, 4))
    expected[1::2, 1::2] = 1
    np.testing.assert_array_equal(tape.gradient(total, features)[0, :, :, 0], expected)


@pytest.mark.parametrize("graph", [False, True])
def test_the_maximum_of_no_boxes(graph):
    case = Case(rois=0)

    def pool(boxes):
        rois = PyramidRoIs(boxes, tf.zeros_like(boxes[:, 0], tf.int32), tf.zeros_like(boxes[:, 0], tf.int32), [0.25])
        return max_roi_align(case.features[:1], rois, 3, 2, True)

    pool = tf.function(pool, input_signature=[tf.TensorSpec([None, 4])]) if graph else pool
    assert pool(case.boxes).shape == (0, 3, 3, 2)


def test_the_adaptive_ratio_has_no_maximum():
    with pytest.raises(UserError, match="sampling_ratio"):
        max_roi_align(Case().features, Case().rois(), 3, 0, True)
