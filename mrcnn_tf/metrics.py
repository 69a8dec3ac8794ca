"""What the progress bar shows beside the losses."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("mrcnn_tf")
class ImagesPerSecond(keras.metrics.Metric):
    """Images per second since the first step of the epoch, waiting for input included."""

    def __init__(self, name="images_per_second", **kwargs):
        super().__init__(name=name, dtype="float64", **kwargs)  # seconds since 1970 need more than float32
        self.images = self.add_variable((), "zeros", dtype="float64", name="images")
        self.start = self.add_variable((), "zeros", dtype="float64", name="start")
        self.now = self.add_variable((), "zeros", dtype="float64", name="now")

    def update_state(self, images):
        """Counts a step of `images`; the first one only starts the clock."""
        now, started = tf.timestamp(), self.start > 0.0
        self.images.assign_add(tf.where(started, tf.cast(images, tf.float64), 0.0))
        self.start.assign(tf.where(started, tf.convert_to_tensor(self.start), now))
        self.now.assign(now)

    def result(self):
        return tf.math.divide_no_nan(tf.convert_to_tensor(self.images), self.now - self.start)
