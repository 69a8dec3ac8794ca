"""RoIAlign from stock TensorFlow operations: for exports, and wherever our own operation can't be built.

Two implementations with one result. `gather_roi_align` is the faster one on a processor: the mean of bilinear samples
on a regular grid is separable, with Y [out, ky] and X [out, kx] the weights of the feature rows and columns that an
RoI's samples touch, the result is Y F X^T. So the touched cells are gathered once and reduced by two small matrix
products, which is exact. `static_roi_align` has no shape that depends on values, as compilers (XLA, TFLite) need it.
"""

import collections

import tensorflow as tf

from mrcnn_tf.ops.gradients import with_gradient

CHUNK = 128  # RoIs gathered at a time: about 100 MB of float32 at 7x7 bins, 2x2 samples and 256 channels


def gather_roi_align(features, rois, output_size, sampling_ratio, aligned, bin_step=1):
    """Pools `rois` (a `PyramidRoIs`) from maps [B, H_l, W_l, C]: [R, output_size, output_size, C] in their dtype."""
    maps = locate_maps(features, rois)
    grid = make_sample_grid(rois.boxes * maps.scale[:, None], output_size, sampling_ratio, aligned, bin_step)
    return _gather(cell_table(features), *maps, *grid)


def static_roi_align(features, rois, output_size, sampling_ratio, aligned, bin_step=1):
    """The same as `gather_roi_align`.

    How many cells an RoI covers is known at run time only, how many a sample touches always: four. So the first sample
    of every bin is pooled, then the second, and so on: a compiler makes one kernel of the four lookups, and with the
    adaptive ratio it is the number of turns that depends on the boxes.
    """
    maps = locate_maps(features, rois)
    grid = make_sample_grid(rois.boxes * maps.scale[:, None], output_size, sampling_ratio, aligned, bin_step)
    return _static_gather(cell_table(features), *maps, *grid)


def cell_table(features):
    """The cells of maps [B, H_l, W_l, C], one map after the other: [cells, C]."""
    levels = [tf.reshape(level, [-1, level.shape[-1]]) for level in features]
    return levels[0] if len(levels) == 1 else tf.concat(levels, axis=0)


class RoIMaps(collections.namedtuple("RoIMaps", "scale start pitch height width")):
    """Where in a `cell_table` the feature map of each of R RoIs lies, as far as its image's own area reaches.

    Attributes:
        scale: float32 [R], feature cells per image pixel.
        start: int32 [R], the row of the table that holds the map's first cell.
        pitch: int32 [R], rows of the table from one cell of a column to the next.
        height, width: int32 [R], cells.
    """

    def take(self, roi):
        """start, pitch, height and width of the RoIs `roi`."""
        return [tf.gather(values, roi) for values in self[1:]]


def locate_maps(features, rois):
    """The `RoIMaps` of `rois` (a `PyramidRoIs`) on maps [B, H_l, W_l, C]."""
    shapes = tf.stack([tf.shape(level) for level in features])
    starts = tf.cumsum(tf.reduce_prod(shapes[:, :3], axis=1), exclusive=True)
    sizes = tf.gather(shapes, rois.level)
    scale = tf.gather(tf.constant(rois.scales, tf.float32), rois.level)
    height, width = sizes[:, 1], sizes[:, 2]
    start = tf.gather(starts, rois.level) + rois.image * height * width
    if rois.padded_size is not None:
        own = tf.gather(tf.cast(rois.padded_size, tf.float32), rois.image) * scale[:, None]
        own = tf.cast(tf.math.ceil(own), tf.int32)
        height, width = tf.minimum(height, own[:, 0]), tf.minimum(width, own[:, 1])
    return RoIMaps(scale, start, sizes[:, 2], height, width)


class SampleGrid(collections.namedtuple("SampleGrid", "first bins pools out ratio bin_step")):
    """Where RoIAlign samples: a grid of points in each bin of R RoIs (section 3), in cells of each RoI's own map.

    Attributes:
        first: float32 [R, 2] = (x, y), the start of the first bin.
        bins: float32 [R, 2], the cells from one bin to the next (x, y), if `bin_step` is 1.
        pools: bool [R, 1 or 2], whether an RoI has samples at all (along x and y).
        out: bins per side.
        ratio: samples per bin side, 0 where they follow from the bin's size.
        bin_step: as in `pyramid_roi_align`.
    """

    def counts(self, roi, axis):
        """int32 [r], samples per bin along an axis (0: x, 1: y) of the RoIs `roi` [r]."""
        if self.ratio:
            return tf.fill(tf.shape(roi), self.ratio)
        return tf.cast(tf.maximum(tf.math.ceil(tf.gather(self.bins[:, axis], roi)), 1.0), tf.int32)

    def positions(self, roi, axis, sample, count, length):
        """Where some samples lie along one axis, and what each adds to its bin's mean.

        Args:
            roi: int32 [r], the RoIs.
            axis: 0 for x, 1 for y.
            sample: float32 [r or 1, 1, n], which of a bin's samples, counted from 0.
            count: float32, samples per bin, a scalar or [r, 1, 1].
            length: int32 [r], cells of the map.

        Returns:
            Positions float32 [r, out, n], moved onto the map, and weights [r, out, n]: 0 for a sample further outside,
            or one that the RoI doesn't have.
        """
        first, bins = (tf.gather(values[:, axis], roi)[:, None, None] for values in (self.first, self.bins))
        # The order of these operations is the reference systems': rounding decides whether a sample is on the map.
        bin_index = tf.range(self.out * self.bin_step, delta=self.bin_step, dtype=tf.float32)[None, :, None]
        position = first + bin_index * bins + (sample + 0.5) * bins / count
        end = tf.cast(length, tf.float32)[:, None, None]
        pools = tf.gather(self.pools[:, min(axis, self.pools.shape[1] - 1)], roi)[:, None, None]
        pools &= sample < count
        share = tf.cast((position >= -1.0) & (position <= end) & pools, tf.float32) / count
        return tf.clip_by_value(position, 0.0, tf.maximum(end - 1.0, 0.0)), share


def make_sample_grid(boxes, output_size, sampling_ratio, aligned, bin_step):
    """The `SampleGrid` of boxes float32 [R, 4] in cells; the other arguments as in `pyramid_roi_align`."""
    finite = tf.reduce_all(tf.math.is_finite(boxes), axis=1, keepdims=True)
    boxes = tf.where(finite, boxes, 0.0)
    sides = boxes[:, 2:] - boxes[:, :2]
    bins = (sides if aligned else tf.maximum(sides, 1.0)) / (output_size * bin_step)
    # Of no samples the mean is 0: so is the pooled value of a box that has no area, where the ratio is adaptive.
    pools = finite if sampling_ratio else finite & (bins > 0.0)
    return SampleGrid(boxes[:, :2] - (0.5 if aligned else 0.0), bins, pools, output_size, sampling_ratio, bin_step)


def neighbours(position, length):
    """The two cells beside each position, [..., 2] float32, and their weights; `length` [r] cells of the map."""
    low = tf.math.floor(position)
    last = tf.maximum(tf.cast(length, tf.float32) - 1.0, 0.0)[:, None, None]
    fraction = position - low
    return tf.stack([low, tf.minimum(low + 1.0, last)], axis=-1), tf.stack([1.0 - fraction, fraction], axis=-1)


def _maps_and_grid(values):
    """The `RoIMaps` and the `SampleGrid` whose attributes are `values`."""
    fields = len(RoIMaps._fields)
    return RoIMaps(*values[:fields]), SampleGrid(*values[fields:])


def _rois_at_a_time(grid):
    """How many are gathered at once; one where each has its own number of samples."""
    return CHUNK if grid.ratio else 1


def _weights(grid, roi, axis, length):
    """Cells int32 [r, k] and their weights [r, out, k] along one axis (0: x, 1: y) of `length` [r] cells."""
    samples = grid.ratio or grid.counts(roi, axis)[0]
    count = tf.cast(samples, tf.float32)
    position, share = grid.positions(roi, axis, tf.range(count)[None, None, :], count, length)
    # Small RoIs have several samples in a cell: their cells in a row are fewer than two for each sample.
    start = tf.math.floor(tf.reduce_min(position, axis=[1, 2]))
    window = tf.cast(tf.reduce_max(tf.reduce_max(position, axis=[1, 2]) - start), tf.int32) + 2
    return tf.cond(
        window < grid.out * samples * 2,
        lambda: _window_weights(position, share, start, window, length),
        lambda: _sample_weights(position, share, length),
    )


def _window_weights(position, share, start, window, length):
    """Cells start, start + 1, ... of each RoI; a sample's weight in a cell falls linearly with their distance."""
    cells = start[:, None] + tf.range(window, dtype=tf.float32)[None, :]
    near = tf.maximum(1.0 - tf.abs(position[..., None] - cells[:, None, None, :]), 0.0)
    last = tf.maximum(length - 1, 0)[:, None]
    return tf.minimum(tf.cast(cells, tf.int32), last), tf.reduce_sum(near * share[..., None], axis=2)


def _sample_weights(position, share, length):
    """The two cells beside each sample, repeated where samples share them, for RoIs that skip cells."""
    cells, weights = neighbours(position, length)  # [r, out, samples, 2]
    out, touched = position.shape[1], tf.size(position[0]) * 2
    own_bin = tf.eye(out)[None, :, :, None] * tf.reshape(weights * share[..., None], [-1, 1, out, touched // out])
    return tf.reshape(tf.cast(cells, tf.int32), [-1, touched]), tf.reshape(own_bin, [-1, out, touched])


def _patch(roi, maps, grid):
    """Table rows [r, ky, kx] that the RoIs `roi` touch, and the weights of both axes."""
    start, pitch, height, width = maps.take(roi)
    rows, y_weights = _weights(grid, roi, 1, height)
    columns, x_weights = _weights(grid, roi, 0, width)
    index = start[:, None, None] + rows[:, :, None] * pitch[:, None, None] + columns[:, None, :]
    return index, y_weights, x_weights


def _chunks(count, size):
    """RoI numbers [chunks, size]; the last chunk repeats the last RoI."""
    chunks = -(-count // size)
    return tf.reshape(tf.minimum(tf.range(chunks * size), count - 1), [-1, size])


def _scatter(upstream, table, *values):
    """The gradient of `_gather` with respect to the table, accumulated in float32."""
    maps, grid = _maps_and_grid(values)
    count, channels, out = tf.shape(maps.start)[0], upstream.shape[-1], grid.out
    chunks = _chunks(count, tf.maximum(tf.minimum(_rois_at_a_time(grid), count), 1))

    def add(chunk, gradient):
        roi = chunks[chunk]
        index, y_weights, x_weights = _patch(roi, maps, grid)
        # The last chunk repeats an RoI to fill up: it counts once.
        fresh = chunk * tf.shape(roi)[0] + tf.range(tf.shape(roi)[0]) < count
        share = tf.cast(tf.gather(upstream, roi), tf.float32) * tf.cast(fresh, tf.float32)[:, None, None, None]
        rows = tf.matmul(x_weights[:, None], share, transpose_a=True)  # [r, out, kx, C]
        rows = tf.reshape(rows, [tf.shape(roi)[0], out, tf.shape(index)[2] * channels])
        flat = tf.reshape(tf.matmul(y_weights, rows, transpose_a=True), [-1, channels])
        return chunk + 1, tf.tensor_scatter_nd_add(gradient, tf.reshape(index, [-1, 1]), flat)

    start = (tf.constant(0), tf.zeros(tf.shape(table)))
    shapes = (tf.TensorShape([]), tf.TensorShape([None, channels]))
    _, gradient = tf.while_loop(
        lambda chunk, _: chunk < tf.shape(chunks)[0], add, start, shape_invariants=shapes, parallel_iterations=1
    )
    return tf.cast(gradient, table.dtype)


@with_gradient("MrcnnTf>GatherRoIAlign", _scatter)
def _gather(table, *values):
    maps, grid = _maps_and_grid(values)
    count, channels = tf.shape(maps.start)[0], table.shape[-1]
    out, size = grid.out, tf.minimum(_rois_at_a_time(grid), tf.shape(maps.start)[0])

    def pool(roi):
        index, y_weights, x_weights = _patch(roi, maps, grid)
        cells = tf.gather(table, index)  # [r, ky, kx, C]
        # Rows first: one long product for each RoI, and only out shorter ones after it.
        rows = tf.reshape(cells, [tf.shape(roi)[0], tf.shape(index)[1], tf.shape(index)[2] * channels])
        rows = tf.matmul(tf.cast(y_weights, table.dtype), rows)
        rows = tf.reshape(rows, [tf.shape(roi)[0], out, tf.shape(index)[2], channels])
        return tf.matmul(tf.cast(x_weights, table.dtype)[:, None], rows)

    if maps.start.shape[0] is not None and 0 < maps.start.shape[0] <= _rois_at_a_time(grid) and grid.ratio:
        return pool(tf.range(count))

    def pool_chunks():
        signature = tf.TensorSpec([None, out, out, channels], table.dtype)
        pooled = tf.map_fn(pool, _chunks(count, size), fn_output_signature=signature, parallel_iterations=1)
        return tf.reshape(pooled, [-1, out, out, channels])[:count]

    # Of no chunks map_fn can't make a tensor.
    return tf.cond(count > 0, pool_chunks, lambda: tf.zeros([0, out, out, channels], table.dtype))


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


def _static_scatter(upstream, table, *values):
    """The gradient of `_static_gather` with respect to the table."""
    samples, upstream = _Samples(*_maps_and_grid(values)), tf.cast(upstream, tf.float32)
    channels = upstream.shape[-1]

    def add(turn, gradient):
        for index, weight in samples.corners(turn):
            share = tf.reshape(upstream * weight[..., None], [-1, channels])
            gradient = tf.tensor_scatter_nd_add(gradient, tf.reshape(index, [-1, 1]), share)
        return turn + 1, gradient

    return tf.cast(_repeated(add, samples, tf.zeros(tf.shape(table))), table.dtype)


@with_gradient("MrcnnTf>StaticRoIAlign", _static_scatter)
def _static_gather(table, *values):
    samples = _Samples(*_maps_and_grid(values))

    def add(turn, pooled):
        for index, weight in samples.corners(turn):
            pooled += tf.cast(tf.gather(table, index), tf.float32) * weight[..., None]
        return turn + 1, pooled

    out = samples.grid.out
    pooled = _repeated(add, samples, tf.zeros([tf.size(samples.roi), out, out, table.shape[-1]]))
    return tf.cast(pooled, table.dtype)


def _repeated(add, samples, result):
    """`result` after all turns of `add`; a loop only where their number depends on the boxes."""
    if not samples.grid.ratio:
        start = (tf.constant(0), result)
        return tf.while_loop(lambda turn, _: turn < samples.turns, add, start, parallel_iterations=1)[1]
    for turn in range(samples.turns):
        _, result = add(turn, result)
    return result
