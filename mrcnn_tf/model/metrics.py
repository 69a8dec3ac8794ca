"""What the progress bar shows beside the losses."""

import keras
import tensorflow as tf


class _Clock(keras.metrics.Metric):
    """Counts something over the wall time since the first step of the epoch, whose own count only starts the clock.

    On several replicas all count the same, and what is read is the sum over them: both parts of a ratio grow alike.
    """

    def __init__(self, name, **kwargs):
        super().__init__(name=name, dtype="float64", **kwargs)  # seconds since 1970 need more than float32
        self.count = self.add_variable((), "zeros", dtype="float64", name="count")
        self.start = self.add_variable((), "zeros", dtype="float64", name="start")
        self.now = self.add_variable((), "zeros", dtype="float64", name="now")

    def update_state(self, count, now):
        """Adds a step's count; `now` is the time in seconds."""
        started = self.start > 0.0
        self.count.assign_add(tf.where(started, tf.cast(count, tf.float64), 0.0))
        self.start.assign(tf.where(started, tf.convert_to_tensor(self.start), now))
        self.now.assign(now)

    def result(self):
        return tf.math.divide_no_nan(tf.convert_to_tensor(self.count), self.now - self.start)


@keras.saving.register_keras_serializable("mrcnn_tf")
class ImagesPerSecond(_Clock):
    """Images of all replicas per second, waiting for input included."""

    def __init__(self, name="images_per_second", **kwargs):
        super().__init__(name, **kwargs)


@keras.saving.register_keras_serializable("mrcnn_tf")
class InputWait(_Clock):
    """The share of the time, 0 to 1, that the step waited for its batch. Updated with seconds."""

    def __init__(self, name="input_wait", **kwargs):
        super().__init__(name, **kwargs)
