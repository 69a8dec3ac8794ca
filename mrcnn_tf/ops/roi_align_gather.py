"""RoIAlign from stock TensorFlow operations: for exports, and wherever our own operation can't be built.

Averaging bilinear samples on a regular grid is separable: with Y [out, ky] and X [out, kx] the weights of the feature
rows and columns that an RoI's samples touch, the result is Y F X^T. So the touched cells are gathered once and reduced
by two small matrix products, which is exact and leaves nothing to interpolate cell by cell.
"""

import tensorflow as tf

from mrcnn_tf.ops.roi_maps import RoIMaps, cell_table
from mrcnn_tf.ops.sample_grid import SampleGrid, neighbours

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
