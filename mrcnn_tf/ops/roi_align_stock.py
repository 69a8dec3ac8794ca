"""RoIAlign from stock TensorFlow operations: for exports, and wherever our own operation can't be built.

Averaging bilinear samples on a regular grid is separable: with Y [out, ky] and X [out, kx] the weights of the feature
rows and columns that an RoI's samples touch, the result is Y F X^T. So the touched cells are gathered once and reduced
by two small matrix products, which is exact and leaves nothing to interpolate cell by cell.
"""

import tensorflow as tf

# The cells of all feature maps in one table, and where in it the map of each RoI lies.
#

def cell_table(features):
    """The cells of maps [B, H_l, W_l, C], one map after the other: [cells, C]."""
    rows = [tf.reshape(level, [-1, level.shape[-1]]) for level in features]
    return rows[0] if len(rows) == 1 else tf.concat(rows, axis=0)


class RoIMaps:
    """The map of each of the R RoIs of a `PyramidRoIs`, as far as its image's own canvas reaches.

    Attributes:
        scale: float32 [R], feature cells per image pixel.
        start: int32 [R], the row of `cell_table` that holds the map's first cell.
        pitch: int32 [R], how many rows of the table lie between two cells of a column.
        height, width: int32 [R], cells.
    """

    def __init__(self, features, rois):
        shapes = tf.stack([tf.shape(level) for level in features])
        cells = tf.reduce_prod(shapes[:, :3], axis=1)
        starts = tf.cumsum(cells, exclusive=True)
        sizes = tf.gather(shapes, rois.level)
        self.scale = tf.gather(tf.constant(rois.scales, tf.float32), rois.level)
        self.pitch = sizes[:, 2]
        self.start = tf.gather(starts, rois.level) + rois.image * sizes[:, 1] * sizes[:, 2]
        self.height, self.width = sizes[:, 1], sizes[:, 2]
        if rois.canvas is not None:
            own = tf.gather(tf.cast(rois.canvas, tf.float32), rois.image) * self.scale[:, None]
            own = tf.cast(tf.math.ceil(own), tf.int32)
            self.height, self.width = tf.minimum(self.height, own[:, 0]), tf.minimum(self.width, own[:, 1])

    def take(self, roi):
        """start, pitch, height and width of the RoIs `roi`."""
        return [tf.gather(values, roi) for values in (self.start, self.pitch, self.height, self.width)]


# Where RoIAlign samples: a regular grid of points in each bin of each RoI (section 3 of the paper).
#

class SampleGrid:
    """The samples of R RoIs, in cells of each one's own map.

    Args:
        boxes: float32 [R, 4], in cells.
        output_size, sampling_ratio, aligned: as in `roi_align`.
        bin_step: as in `pyramid_roi_align`.

    Attributes:
        out: bins per side.
        ratio: samples per bin side, 0 where they follow from the bin's size.
        bins: float32 [R, 2], the cells from one bin to the next (x, y), if `bin_step` is 1.
    """

    def __init__(self, boxes, output_size, sampling_ratio, aligned, bin_step):
        self.out, self.ratio, self.step = output_size, sampling_ratio, bin_step
        finite = tf.reduce_all(tf.math.is_finite(boxes), axis=1, keepdims=True)
        boxes = tf.where(finite, boxes, 0.0)
        self.first = boxes[:, :2] - (0.5 if aligned else 0.0)
        sides = boxes[:, 2:] - boxes[:, :2]
        self.bins = (sides if aligned else tf.maximum(sides, 1.0)) / (output_size * bin_step)
        # Of no samples the mean is 0: so is the pooled value of a box that has no area, where the ratio is adaptive.
        self.pools = finite if sampling_ratio else finite & (self.bins > 0.0)

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
        bin_starts = first + tf.range(self.out * self.step, delta=self.step, dtype=tf.float32)[None, :, None] * bins
        position = bin_starts + (sample + 0.5) * bins / count
        end = tf.cast(length, tf.float32)[:, None, None]
        pools = tf.gather(self.pools[:, min(axis, self.pools.shape[1] - 1)], roi)[:, None, None]
        pools &= sample < count
        share = tf.cast((position >= -1.0) & (position <= end) & pools, tf.float32) / count
        return tf.clip_by_value(position, 0.0, tf.maximum(end - 1.0, 0.0)), share


def neighbours(position, length):
    """The two cells beside each position, [..., 2] float32, and their weights; `length` [r] cells of the map."""
    low = tf.math.floor(position)
    last = tf.maximum(tf.cast(length, tf.float32) - 1.0, 0.0)[:, None, None]
    fraction = position - low
    return tf.stack([low, tf.minimum(low + 1.0, last)], axis=-1), tf.stack([1.0 - fraction, fraction], axis=-1)


CHUNK = 128  # RoIs gathered at a time: about 100 MB of float32 at 7x7 bins, 2x2 samples and 256 channels


def gather_roi_align(features, rois, output_size, sampling_ratio, aligned, bin_step=1):
    """Pools `rois` (a `PyramidRoIs`) from maps [B, H_l, W_l, C]: [R, output_size, output_size, C] in their dtype."""
    maps = RoIMaps(features, rois)
    grid = SampleGrid(rois.boxes * maps.scale[:, None], output_size, sampling_ratio, aligned, bin_step)

    @tf.custom_gradient
    def pool(table):
        def backward(upstream):
            return _scatter(upstream, tf.shape(table), maps, grid, table.dtype)

        return _gather(table, maps, grid), backward

    return pool(cell_table(features))


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


def _gather(table, maps, grid):
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


def _scatter(upstream, table_shape, maps, grid, dtype):
    """The gradient of `_gather` with respect to the table, accumulated in float32."""
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

    start = (tf.constant(0), tf.zeros(table_shape))
    shapes = (tf.TensorShape([]), tf.TensorShape([None, channels]))
    _, gradient = tf.while_loop(
        lambda chunk, _: chunk < tf.shape(chunks)[0], add, start, shape_invariants=shapes, parallel_iterations=1
    )
    return tf.cast(gradient, dtype)


# RoIAlign from stock operations whose shapes don't depend on values, for compilers: XLA and TFLite.
#
# How many cells an RoI covers is known at run time only, how many a sample touches always: four. So the first sample of
# every bin is pooled, then the second, and so on: a compiler makes one kernel of the four lookups, and with the
# adaptive ratio it is the number of turns that depends on the boxes.
#

def static_roi_align(features, rois, output_size, sampling_ratio, aligned, bin_step=1):
    """Pools `rois` (a `PyramidRoIs`) from maps [B, H_l, W_l, C]: [R, output_size, output_size, C] in their dtype."""
    maps = RoIMaps(features, rois)
    grid = SampleGrid(rois.boxes * maps.scale[:, None], output_size, sampling_ratio, aligned, bin_step)
    samples = _Samples(maps, grid)

    @tf.custom_gradient
    def pool(table):
        def backward(upstream):
            return tf.cast(_static_scatter(tf.cast(upstream, tf.float32), tf.shape(table), samples), table.dtype)

        return tf.cast(_static_gather(table, samples), table.dtype), backward

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


def _static_gather(table, samples):
    def add(turn, pooled):
        for index, weight in samples.corners(turn):
            pooled += tf.cast(tf.gather(table, index), tf.float32) * weight[..., None]
        return turn + 1, pooled

    out = samples.grid.out
    return _repeated(add, samples, tf.zeros([tf.size(samples.roi), out, out, table.shape[-1]]))


def _static_scatter(upstream, table_shape, samples):
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
