"""What keeps the padding of a batch from an image's features, in a network that knows nothing of it.

A window that reaches over the edge of an image sees the padding, which convolutions, biases and norms have made
nonzero; so an image's features would depend on the sizes of its neighbours in the batch. `ClearPadding` before each
such layer keeps it out, `ImageAveragePooling` in the place of global averages, and `padding_leaks` tells whether
anything is left; a model asks it of any layer that doesn't say `keeps_padding_out = True`. The layers learn of each
image's size from the running batch (`ops.padding`), and do nothing outside a model.
"""

import warnings

import keras
import numpy as np
import tensorflow as tf

from mrcnn_tf.ops import padding


@keras.saving.register_keras_serializable("mrcnn_tf")
class ClearPadding(keras.layers.Layer):
    """Zeros beyond each image's valid cells: [B, H, W, C] -> the same."""

    def call(self, inputs):
        return padding.clear_padding(inputs, padding.running_valid_cells(inputs))


@keras.saving.register_keras_serializable("mrcnn_tf")
class ImageAveragePooling(keras.layers.GlobalAveragePooling2D):
    """The average over each image's valid cells: [B, H, W, C] -> [B, C], or [B, 1, 1, C] with `keepdims`."""

    def call(self, inputs):
        valid_cells = padding.running_valid_cells(inputs)
        if valid_cells is None:
            return super().call(inputs)
        cleared = tf.cast(padding.clear_padding(inputs, valid_cells), tf.float32)
        count = tf.cast(tf.reduce_prod(valid_cells, axis=1), tf.float32)[:, None, None, None]
        mean = tf.reduce_sum(cleared, axis=[1, 2], keepdims=True) / count
        return tf.cast(mean if self.keepdims else mean[:, 0, 0, :], inputs.dtype)


def sees_neighbours(layer):
    """Whether a Keras layer's windows reach over the edge of the valid cells; those that tile the map don't."""
    if isinstance(layer, keras.layers.ZeroPadding2D):  # before windows without padding of their own
        return True
    convolves = getattr(layer, "padding", None) == "same" and hasattr(layer, "kernel_size")
    return convolves and max(layer.kernel_size) > min(layer.strides)


IMAGE_SIDE, BATCH_SIDE = 128, 192  # pixels of the image that is looked at, and of the batch that holds it
LEAST_LEAK = 1e-4  # of a map's largest value; rounding is a hundred times less in float32
EPSILON = {tf.float32: 2**-23, tf.float16: 2**-10, tf.bfloat16: 2**-7}
ROUNDING = 8  # times that much may be rounding


def padding_leaks(features):
    """The maps of a backbone or neck that the padding of a batch has an influence on.

    An image of noise is looked at alone and in the same batch as a larger one: its features should be equal. Beyond it
    the batch holds noise too, as biases and norms will make it once they are trained.

    Args:
        features: a layer or model that maps images [B, H, W, 3] to maps by name.

    Returns:
        {name: the largest difference, as a share of the map's largest value}, of the maps where it is more than
        rounding; {} where none is.
    """
    with tf.device("CPU"):  # a GPU may round to TF32
        alone, beside = _maps_alone_and_beside(features)
    leaks = {}
    for name, expected in alone.items():
        height, width = expected.shape[1:3]
        difference = tf.abs(tf.cast(beside[name][:1, :height, :width] - expected, tf.float32))
        scale = tf.reduce_max(tf.abs(tf.cast(expected, tf.float32)))
        leak = float(tf.math.divide_no_nan(tf.reduce_max(difference), scale))
        if not leak <= max(LEAST_LEAK, ROUNDING * EPSILON[expected.dtype]):
            leaks[name] = leak
    return leaks


def warn_of_padding_leaks(features):
    """Warns of `padding_leaks`, unless the layer says that it keeps padding out."""
    leaks = {} if getattr(features, "keeps_padding_out", False) else padding_leaks(features)
    if leaks:
        listed = ", ".join(f"{name} by {leak:.1%}" for name, leak in leaks.items())
        warnings.warn(
            f"The features of an image depend on the padding of its batch ({listed}), so its detections and losses do "
            "too: put mrcnn_tf.parts.ClearPadding() before each layer of the backbone whose windows see neighbours, or "
            "copy it by mrcnn_tf.parts.copy_without_padding.",
            stacklevel=3,
        )


def _maps_alone_and_beside(features):
    batch = tf.constant(np.random.default_rng(0).normal(size=(2, BATCH_SIDE, BATCH_SIDE, 3)), tf.float32)
    alone = features(batch[:1, :IMAGE_SIDE, :IMAGE_SIDE], training=False)
    with padding.running_batch(batch, tf.constant([[IMAGE_SIDE] * 2, [BATCH_SIDE] * 2])):
        return alone, features(batch, training=False)
