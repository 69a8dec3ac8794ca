"""Brightness, contrast, saturation and hue, as one linear map of each pixel's colours."""

import math

import numpy as np
import tensorflow as tf

from mrcnn_tf.data.draws import COLOUR, stream

# From RGB to luma and two axes of chrominance, the YIQ of the NTSC (ITU-R BT.601's luma): turning the chrominance
# shifts hues and leaves the luma alone.
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
TO_RGB = np.linalg.inv(TO_YIQ)


def recoloured(image, augment, seed):
    """The image [h, w, 3] float32 0..255 in other colours, each change drawn from `augment`'s range for it.

    Brightness multiplies the image, contrast its difference from its mean luma, saturation each pixel's from its own.
    They act in this order, hue last, and what then lies outside 0..255 is clipped.
    """
    brightness, contrast, saturation, hue = tf.unstack(
        tf.random.stateless_uniform([4], stream(seed, COLOUR), -1.0, 1.0)
    )
    brightness, contrast = 1.0 + augment.brightness * brightness, 1.0 + augment.contrast * contrast
    saturation, angle = 1.0 + augment.saturation * saturation, 2 * math.pi * augment.hue * hue
    cos, sin = saturation * tf.cos(angle), saturation * tf.sin(angle)
    chroma = tf.convert_to_tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    to_rgb, to_yiq = tf.constant(TO_RGB, tf.float32), tf.constant(TO_YIQ, tf.float32)
    matrix = brightness * contrast * (to_rgb @ chroma @ to_yiq)
    offset = 0.0
    if augment.contrast:
        luma = tf.reduce_sum(tf.reduce_mean(image, [0, 1]) * to_yiq[0])
        offset = (1.0 - contrast) * brightness * luma  # gray, which neither saturation nor hue changes
    colours = tf.matmul(tf.reshape(image, [-1, 3]), matrix, transpose_b=True) + offset
    return tf.reshape(tf.clip_by_value(colours, 0.0, 255.0), tf.shape(image))
