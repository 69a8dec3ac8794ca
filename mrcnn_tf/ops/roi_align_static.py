"""RoIAlign from stock operations whose shapes don't depend on values, for compilers: XLA and TFLite.

How many cells an RoI covers is known at run time only, how many a sample touches always: four. So the first sample of
every bin is pooled, then the second, and so on: a compiler makes one kernel of the four lookups, and with the adaptive
ratio it is the number of turns that depends on the boxes.
"""

import tensorflow as tf

from mrcnn_tf.ops.roi_maps import RoIMaps, cell_table
from mrcnn_tf.ops.sample_grid import SampleGrid, neighbours


def static_roi_align(features, rois, output_size, sampling_ratio, aligned, bin_step=1):
    """Pools `rois` (a `PyramidRoIs`) from maps [B, H_l, W_l, C]: [R, output_size, output_size, C] in their dtype."""
    maps = RoIMaps(features, rois)
    grid = SampleGrid(rois.boxes * maps.scale[:, None], output_size, sampling_ratio, aligned, bin_step)
    samples = _Samples(maps, grid)

    @tf.custom_gradient
    def pool(table):
        def backward(upstream):
            return tf.cast(_scatter(tf.cast(upstream, tf.float32), tf.shape(table), samples), table.dtype)

        return tf.cast(_gather(table, samples), table.dtype), backward

    return pool(cell_table(features))


class _Samples:
    """The samples of all RoIs, in turns of one for each bin."""

    def __init__(self, maps, grid):
        self.maps, self.grid = maps, grid
        self.roi = tf.range(tf.shape(maps.start)[0])
        self.counts = [grid.counts(self.roi, axis) for axis in (0, 1)]
        total = self.counts[0] * self.counts[1]
        self.turns = grid.ratio**2 or tf.maximum(tf.reduce_max(total), 0)  # of no RoIs the maximum is the smallest int

    def corners(self, turn):
        """The four cells around a turn's samples: table rows [R, out, out] and their weights, four times."""
        columns, x_weights = self._along(0, turn % self.counts[0], self.maps.width)
        rows, y_weights = self._along(1, turn // self.counts[0], self.maps.height)
        start, pitch = self.maps.start[:, None, None], self.maps.pitch[:, None, None]
        for y in (0, 1):
            for x in (0, 1):
                index = start + rows[:, :, None, y] * pitch + columns[:, None, :, x]
                yield index, y_weights[:, :, None, y] * x_weights[:, None, :, x]

    def _along(self, axis, sample, length):
        """Cells int32 [R, out, 2] beside the samples `sample` [R] of each bin, and their weights."""
        sample, count = (tf.cast(values, tf.float32)[:, None, None] for values in (sample, self.counts[axis]))
        position, share = self.grid.positions(self.roi, axis, sample, count, length)
        cells, weights = neighbours(position, length)
        return tf.cast(cells[:, :, 0], tf.int32), (weights * share[..., None])[:, :, 0]


def _gather(table, samples):
    def add(turn, pooled):
        for index, weight in samples.corners(turn):
            pooled += tf.cast(tf.gather(table, index), tf.float32) * weight[..., None]
        return turn + 1, pooled

    out = samples.grid.out
    return _repeated(add, samples, tf.zeros([tf.size(samples.roi), out, out, table.shape[-1]]))


def _scatter(upstream, table_shape, samples):
    """The gradient of `_gather` with respect to the table."""
    channels = upstream.shape[-1]

    def add(turn, gradient):
        for index, weight in samples.corners(turn):
            share = tf.reshape(upstream * weight[..., None], [-1, channels])
            gradient = tf.tensor_scatter_nd_add(gradient, tf.reshape(index, [-1, 1]), share)
        return turn + 1, gradient

    return _repeated(add, samples, tf.zeros(table_shape))


def _repeated(add, samples, result):
    """`result` after all turns of `add`; a loop only where their number depends on the boxes."""
    if not samples.grid.ratio:
        start = (tf.constant(0), result)
        return tf.while_loop(lambda turn, _: turn < samples.turns, add, start, parallel_iterations=1)[1]
    for turn in range(samples.turns):
        _, result = add(turn, result)
    return result
