"""A head of our own: the direction of each object, learnt from the annotations' field `orientation`."""

import math

import keras
import tensorflow as tf

from mrcnn_tf.parts import Head, OutputSpec, masked_mean


@keras.saving.register_keras_serializable("extending")
class OrientationHead(Head):
    """The direction that each object points to, in degrees, clockwise from the right: 90 is down.

    Args:
        pooling: the layer that gives RoI features.
        units: of the hidden layer.
    """

    loss_names = ("loss_orientation",)
    outputs = (OutputSpec("orientation", (), "degrees, clockwise from the right"),)
    float_layers = ("direction",)  # in exports of bytes

    def __init__(self, pooling, units=128, **kwargs):
        super().__init__(**kwargs)
        self.pooling, self.units = pooling, units
        self.hidden = keras.layers.Dense(units, "relu", dtype=self.dtype_policy, name="hidden")
        self.direction = keras.layers.Dense(2, dtype="float32", name="direction")

    def build(self, input_shape):
        *_, height, width, channels = input_shape
        self.hidden.build((None, height * width * channels))
        self.direction.build((None, self.units))

    def call(self, roi_features):
        """RoI features [B, R, S, S, C] -> (cos, sin) of the direction, [B, R, 2]."""
        batch, count, *sides = roi_features.shape
        flat = tf.reshape(roi_features, [-1, count, math.prod(sides)])
        return self.direction(self.hidden(flat))

    def compute_losses(self, features, rois, truth):
        rois = rois.positives
        predicted = self(features.pool(self.pooling, rois))
        radians = truth["orientation"] * (math.pi / 180)  # [B, G], NaN where an annotation doesn't say it
        direction = tf.stack([tf.cos(radians), tf.sin(radians)], axis=-1)
        # Mirrored or turned images turn it along.
        direction = tf.linalg.l2_normalize(tf.linalg.matvec(truth["transform"], direction), axis=-1)
        expected = truth.of_rois(direction, rois)
        counts = rois.positive & tf.math.is_finite(expected[..., 0])
        expected = tf.where(counts[..., None], expected, 0.0)  # a NaN times 0 would be one
        error = tf.reduce_sum(tf.square(predicted - expected), axis=-1)
        return {"loss_orientation": masked_mean(error, counts)}

    def detect(self, features, regions):
        cos, sin = tf.unstack(self(self.pooling(regions.boxes, features=features)), axis=-1)
        return {"orientation": tf.math.atan2(sin, cos) * (180 / math.pi) % 360}
