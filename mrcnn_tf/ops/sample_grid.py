"""Where RoIAlign samples: a regular grid of points in each bin of each RoI (section 3 of the paper)."""

import tensorflow as tf


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
