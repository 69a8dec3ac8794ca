"""Which level of the pyramid an RoI is pooled from (FPN, equation 1)."""

import math

import tensorflow as tf

from mrcnn_tf.ops import boxes as box_ops


def assign_levels(boxes, lowest, highest, rule):
    """int32 [...] levels in lowest..highest of boxes [..., 4]: floor(4 + log2(sqrt(area) / 224)), clipped.

    `rule` says what keeps a box of exactly 224 pixels on its level in float32: 1e-6 added to the logarithm
    ("torchvision"), 1e-8 to its argument ("detectron2"), or nothing ("paper"). "matterport" rounds the logarithm to
    the nearest level instead.
    """
    relative = tf.sqrt(box_ops.area(boxes)) / 224.0
    if rule == "detectron2":
        relative += 1e-8
    exponent = tf.math.log(tf.maximum(relative, 1e-9)) / math.log(2.0)
    if rule == "torchvision":
        exponent += 1e-6
    whole = tf.math.round(exponent) if rule == "matterport" else tf.math.floor(exponent)
    level = 4 + tf.cast(whole, tf.int32)
    return tf.clip_by_value(level, lowest, highest)
