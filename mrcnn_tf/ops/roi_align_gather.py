"""RoIAlign from stock TensorFlow operations: for exports, XLA, TFLite, and wherever our own operation can't be built.

Averaging bilinear samples on a regular grid is separable: with Y [out, ky] and X [out, kx] the weights of the feature
rows and columns that an RoI's samples touch, the result is Y F X^T. So the touched cells are gathered once and reduced
by two small matrix products, which is exact and leaves nothing to interpolate cell by cell.
"""

import tensorflow as tf

from mrcnn_tf.ops.roi_maps import RoIMaps, cell_table

CHUNK = 128  # RoIs gathered at a time: about 100 MB of float32 at 7x7 bins, 2x2 samples and 256 channels


def gather_roi_align(features, rois, output_size, sampling_ratio, aligned, bin_step=1):
    """Pools `rois` (a `PyramidRoIs`) from maps [B, H_l, W_l, C]: [R, output_size, output_size, C] in their dtype."""
    maps = RoIMaps(features, rois)
    grid = _Grid(rois.boxes * maps.scale[:, None], output_size, sampling_ratio, aligned, bin_step)

    @tf.custom_gradient
    def pool(table):
        def backward(upstream):
            return _scatter(upstream, tf.shape(table), maps, grid, table.dtype)

        return _gather(table, maps, grid), backward

    return pool(cell_table(features))


class _Grid:
    """The sample grid of each RoI in cells of its own map."""

    def __init__(self, boxes, output_size, sampling_ratio, aligned, bin_step):
        self.out, self.ratio, self.step = output_size, sampling_ratio, bin_step
        finite = tf.reduce_all(tf.math.is_finite(boxes), axis=1, keepdims=True)
        boxes = tf.where(finite, boxes, 0.0)
        self.first = boxes[:, :2] - (0.5 if aligned else 0.0)
        sides = boxes[:, 2:] - boxes[:, :2]
        self.bins = (sides if aligned else tf.maximum(sides, 1.0)) / (output_size * bin_step)
        # Of no samples the mean is 0: so is the pooled value of a box that has no area, where the ratio is adaptive.
        self.pools = finite if sampling_ratio else finite & (self.bins > 0.0)
        # With the adaptive ratio every RoI has its own number of samples, so each is pooled by itself.
        self.chunk = CHUNK if sampling_ratio else 1

    def weights(self, roi, axis, length):
        """Cells int32 [r, k] and their weights [r, out, k] along one axis (0: x, 1: y) of `length` [r] cells."""
        first, bins = (tf.gather(values[:, axis], roi)[:, None, None] for values in (self.first, self.bins))
        samples = self.ratio or tf.cast(tf.maximum(tf.math.ceil(bins[0, 0, 0]), 1.0), tf.int32)
        count = tf.cast(samples, tf.float32)
        # The order of these operations is the reference systems': rounding decides whether a sample is on the map.
        bin_starts = first + tf.range(self.out * self.step, delta=self.step, dtype=tf.float32)[None, :, None] * bins
        position = bin_starts + (tf.range(count) + 0.5)[None, None, :] * bins / count  # [r, out, samples]
        end = tf.cast(length, tf.float32)[:, None, None]
        pools = tf.gather(self.pools[:, min(axis, self.pools.shape[1] - 1)], roi)[:, None, None]
        share = tf.cast((position >= -1.0) & (position <= end) & pools, tf.float32) / count
        position = tf.clip_by_value(position, 0.0, tf.maximum(end - 1.0, 0.0))
        # Small RoIs have several samples in a cell: their cells in a row are fewer than two for each sample.
        start = tf.math.floor(tf.reduce_min(position, axis=[1, 2]))
        window = tf.cast(tf.reduce_max(tf.reduce_max(position, axis=[1, 2]) - start), tf.int32) + 2
        return tf.cond(
            window < self.out * samples * 2,
            lambda: _window_weights(position, share, start, window, length),
            lambda: _sample_weights(position, share, end),
        )


def _window_weights(position, share, start, window, length):
    """Cells start, start + 1, ... of each RoI; a sample's weight in a cell falls linearly with their distance."""
    cells = start[:, None] + tf.range(window, dtype=tf.float32)[None, :]
    near = tf.maximum(1.0 - tf.abs(position[..., None] - cells[:, None, None, :]), 0.0)
    last = tf.maximum(length - 1, 0)[:, None]
    return tf.minimum(tf.cast(cells, tf.int32), last), tf.reduce_sum(near * share[..., None], axis=2)


def _sample_weights(position, share, end):
    """The two cells beside each sample, repeated where samples share them, for RoIs that skip cells."""
    low = tf.math.floor(position)
    high = tf.minimum(low + 1.0, tf.maximum(end - 1.0, 0.0))
    fraction = position - low
    out, touched = position.shape[1], tf.size(position[0]) * 2
    cells = tf.cast(tf.stack([low, high], axis=-1), tf.int32)  # [r, out, samples, 2]
    shares = tf.stack([(1.0 - fraction) * share, fraction * share], axis=-1)
    own_bin = tf.eye(out)[None, :, :, None] * tf.reshape(shares, [-1, 1, out, touched // out])
    return tf.reshape(cells, [-1, touched]), tf.reshape(own_bin, [-1, out, touched])


def _patch(roi, maps, grid):
    """Table rows [r, ky, kx] that the RoIs `roi` touch, and the weights of both axes."""
    start, pitch, height, width = maps.take(roi)
    rows, y_weights = grid.weights(roi, 1, height)
    columns, x_weights = grid.weights(roi, 0, width)
    index = start[:, None, None] + rows[:, :, None] * pitch[:, None, None] + columns[:, None, :]
    return index, y_weights, x_weights


def _chunks(count, size):
    """RoI numbers [chunks, size]; the last chunk repeats the last RoI."""
    chunks = -(-count // size)
    return tf.reshape(tf.minimum(tf.range(chunks * size), count - 1), [-1, size])


def _gather(table, maps, grid):
    count, channels = tf.shape(maps.start)[0], table.shape[-1]
    out, size = grid.out, tf.minimum(grid.chunk, tf.shape(maps.start)[0])

    def pool(roi):
        index, y_weights, x_weights = _patch(roi, maps, grid)
        cells = tf.gather(table, index)  # [r, ky, kx, C]
        # Rows first: one long product for each RoI, and only out shorter ones after it.
        rows = tf.reshape(cells, [tf.shape(roi)[0], tf.shape(index)[1], tf.shape(index)[2] * channels])
        rows = tf.matmul(tf.cast(y_weights, table.dtype), rows)
        rows = tf.reshape(rows, [tf.shape(roi)[0], out, tf.shape(index)[2], channels])
        return tf.matmul(tf.cast(x_weights, table.dtype)[:, None], rows)

    if maps.start.shape[0] is not None and 0 < maps.start.shape[0] <= grid.chunk and grid.ratio:
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
    chunks = _chunks(count, tf.maximum(tf.minimum(grid.chunk, count), 1))

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
