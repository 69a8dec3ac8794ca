"""The cells of all feature maps in one table, and where in it the map of each RoI lies."""

import tensorflow as tf


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
