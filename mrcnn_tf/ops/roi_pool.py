"""The RoI layers that Table 2c and 2d of the paper compare with RoIAlign: RoIPool, RoIWarp's boxes, maximum RoIAlign.

RoIPool (Fast R-CNN) rounds a box to whole cells, divides these into bins whose borders are rounded outwards, and takes
each bin's maximum. A cell that is read twice changes no maximum, so every bin of a chunk of RoIs is gathered with as
many cells as the largest of them has: its own, and its last one again and again.
"""

import collections

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.gradients import with_gradient
from mrcnn_tf.ops.roi_align import check_maps, pyramid_roi_align
from mrcnn_tf.ops.roi_align_stock import cell_table, locate_maps

CHUNK = 32 * 2**20  # bytes of gathered cells at a time; a single RoI may need more


def roi_pool(features, rois, output_size):
    """RoIPool over several feature maps at once, each RoI on its own level, as torchvision computes it.

    Args:
        features: list of L maps [B, H_l, W_l, C].
        rois: a `PyramidRoIs`.
        output_size: bins per side.

    Returns:
        [R, output_size, output_size, C] in the features' dtype. Bins without a cell on the map are 0, and so is all of
        a box with a coordinate that isn't finite. The gradient flows to `features` only: to the first cell, row by
        row, that has the bin's maximum.

    Raises:
        UserError: another number of maps than of scales.
    """
    features = check_maps("RoIPool", features, rois)
    bins = _make_bins(*_quantised(rois), locate_maps(features, rois), output_size)
    return _pool(cell_table(features), *bins)


def quantised_boxes(rois):
    """The boxes that RoIWarp (MNC) samples: those of `rois` (a `PyramidRoIs`), rounded to whole cells as in RoIPool.

    float32 [R, 4] = (x1, y1, x2, y2) in image pixels, at least one cell wide and high. Aligned RoIAlign of them is
    RoIWarp as section 4.4 of the paper describes it. A box with a coordinate that isn't finite has one here too.
    """
    first, size = _quantised(rois)
    scale = tf.gather(tf.constant(rois.scales, tf.float32), rois.level)[:, None]
    return tf.concat([first, first + size], axis=1) / scale


def max_roi_align(features, rois, output_size, sampling_ratio, aligned, implementation="auto"):
    """RoIAlign that takes the maximum of each bin's samples instead of their mean (Table 2c).

    The samples are pooled one by one first, so for a moment the result is there sampling_ratio^2 times. Takes, returns
    and raises what `pyramid_roi_align` does; a sample more than a cell outside the map counts as 0, and a sampling
    ratio of 0 (adaptive) is a UserError.
    """
    if sampling_ratio < 1:
        raise UserError("RoIAlign by maximum has no adaptive number of samples: set sampling_ratio to 1 or more.")
    samples = pyramid_roi_align(features, rois, output_size * sampling_ratio, 1, aligned, implementation)
    shape = [-1, output_size, sampling_ratio, output_size, sampling_ratio, samples.shape[-1]]
    return tf.reduce_max(tf.reshape(samples, shape), axis=[2, 4])


def _quantised(rois):
    """First cell [R, 2] = (x, y) of each RoI and its size [R, 2] in cells: whole numbers in float32."""
    scale = tf.gather(tf.constant(rois.scales, tf.float32), rois.level)[:, None]
    position = tf.stop_gradient(tf.cast(rois.boxes, tf.float32)) * scale
    # Halves go away from zero, as C's round() has them; tf.round takes the even neighbour.
    distance = tf.abs(position)
    whole = tf.floor(distance)
    cells = tf.sign(position) * (whole + tf.cast(distance - whole >= 0.5, tf.float32))
    return cells[:, :2], tf.maximum(cells[:, 2:] - cells[:, :2] + 1.0, 1.0)


class _Bins(collections.namedtuple("_Bins", "start pitch low high cells order")):
    """First and last cell of each bin of each RoI, and the order in which RoIs are pooled, large bins first.

    Attributes:
        start, pitch: int32 [R], where each RoI's map lies in the table of cells, see `RoIMaps`.
        low, high: int32 [R, 2, out], a bin's first cell along x and y, and the first cell after it.
        cells: int32 [R, 2], width and height of an RoI's largest bin.
        order: int32 [R], the RoIs by falling size.
    """

    @property
    def out(self):
        """Bins per side."""
        return self.low.shape[2]

    @property
    def count(self):
        """R."""
        return tf.shape(self.order)[0]

    def chunk(self, done, row_bytes):
        """The next RoIs [r] after the first `done` in order; none has larger bins than the first of them."""
        largest = tf.reduce_max(self.cells[self.order[done]])
        step = CHUNK // (tf.cast(self.out * largest, tf.int64) ** 2 * row_bytes)
        step = tf.cast(tf.clip_by_value(step, 1, tf.cast(self.count - done, tf.int64)), tf.int32)
        return self.order[done : done + step]

    def patch(self, roi):
        """The cells in each bin of the RoIs `roi`, by (RoI, row, column): rows of the table int32 [bins, n], and
        whether a bin has any, bool [bins, 1]."""
        start, pitch, low, high = (tf.gather(values, roi) for values in (self.start, self.pitch, self.low, self.high))
        width, height = tf.unstack(tf.reduce_max(tf.gather(self.cells, roi), axis=0))
        columns, rows = (
            tf.maximum(tf.minimum(low[:, axis, :, None] + tf.range(length), high[:, axis, :, None] - 1), 0)
            for axis, length in ((0, width), (1, height))
        )
        rows = start[:, None, None] + rows * pitch[:, None, None]
        index = rows[:, :, None, :, None] + columns[:, None, :, None, :]  # [r, out, out, height, width]
        filled = high > low
        filled = filled[:, 1, :, None] & filled[:, 0, None, :]
        return tf.reshape(index, [-1, width * height]), tf.reshape(filled, [-1, 1])


def _make_bins(first, size, maps, out):
    """The `_Bins` of RoIs float32 [R, 2] = (x, y): first cells and sizes; `out` bins per side."""
    finite = tf.reduce_all(tf.math.is_finite(first) & tf.math.is_finite(size), axis=1)
    first, size = tf.where(finite[:, None], first, 0.0), tf.where(finite[:, None], size, 0.0)
    # In float32 some products miss a whole number, and the bin takes in a further cell. To have the same as the
    # reference, the quotient must be the nearest float32. In a graph TensorFlow multiplies with the reciprocal
    # instead of dividing by a constant; in float64 that is near enough to be rounded alike.
    edge = tf.range(out, dtype=tf.float32)
    side = tf.cast(tf.cast(size, tf.float64) / out, tf.float32)[..., None]
    low = tf.floor(edge * side) + first[..., None]
    high = tf.math.ceil((edge + 1.0) * side) + first[..., None]
    limit = tf.cast(tf.stack([maps.width, maps.height], axis=1), tf.float32)[..., None]
    low, high = (tf.cast(tf.clip_by_value(values, 0.0, limit), tf.int32) for values in (low, high))
    cells = tf.maximum(tf.reduce_max(high - low, axis=2), 1)
    order = tf.argsort(tf.reduce_max(cells, axis=1), direction="DESCENDING")
    return _Bins(maps.start, maps.pitch, low, high, cells, order)


def _unpool(upstream, table, *values):
    """The gradient of `_pool` with respect to the table, accumulated in float32; the cells are gathered again."""
    bins, channels = _Bins(*values), table.shape[-1]

    def add(done, gradient):
        roi = bins.chunk(done, channels * table.dtype.size)
        index, filled = bins.patch(roi)
        largest = tf.argmax(tf.gather(table, index), axis=1, output_type=tf.int32)  # [bins, C]
        cell = tf.cast(tf.gather(index, largest, batch_dims=1), tf.int64)
        share = tf.reshape(tf.cast(tf.gather(upstream, roi), tf.float32), [-1, channels])
        share = tf.where(filled, share, 0.0)
        element = cell * channels + tf.range(channels, dtype=tf.int64)
        gradient = tf.tensor_scatter_nd_add(gradient, tf.reshape(element, [-1, 1]), tf.reshape(share, [-1]))
        return done + tf.shape(roi)[0], gradient

    start = (tf.constant(0), tf.zeros(tf.size(table)))
    _, gradient = tf.while_loop(lambda done, _: done < bins.count, add, start, parallel_iterations=1)
    return tf.cast(tf.reshape(gradient, tf.shape(table)), table.dtype)


@with_gradient("MrcnnTf>RoIPool", _unpool)
def _pool(table, *values):
    bins = _Bins(*values)
    out, channels = bins.out, table.shape[-1]

    def add(done, pooled):
        roi = bins.chunk(done, channels * table.dtype.size)
        index, filled = bins.patch(roi)
        maximum = tf.reduce_max(tf.gather(table, index), axis=1)
        maximum = tf.where(filled, maximum, tf.zeros([], table.dtype))
        length = tf.shape(roi)[0]
        return done + length, pooled.write(pooled.size(), tf.reshape(maximum, [length, out, out, channels]))

    shape = [None, out, out, channels]
    pooled = tf.TensorArray(table.dtype, 1, dynamic_size=True, infer_shape=False, element_shape=shape)
    pooled = pooled.write(0, tf.zeros([0, *shape[1:]], table.dtype))  # of no chunks there would be no concatenation
    _, pooled = tf.while_loop(lambda done, _: done < bins.count, add, (0, pooled), parallel_iterations=1)
    return tf.gather(pooled.concat(), tf.argsort(bins.order))
