"""The RPN's small network: 3x3 convolutions and two 1x1 siblings on every level (Faster R-CNN, section 3.1)."""

import keras
import tensorflow as tf

from mrcnn_tf.model.conv import ConvNorm
from mrcnn_tf.ops import canvas


@keras.saving.register_keras_serializable("mrcnn_tf")
class RPNHead(keras.layers.Layer):
    """Objectness logits and box deltas of each anchor, shared by all levels.

    Args:
        anchors_per_cell: A, of all sizes and aspect ratios.
        channels: of the hidden layers.
        convs: how many hidden layers; the paper has one, torchvision's newer models two.
    """

    def __init__(self, anchors_per_cell, channels=256, convs=1, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.anchors_per_cell, self.channels = anchors_per_cell, channels

        def conv(name, filters, size, activation, dtype):
            initializer = keras.initializers.RandomNormal(stddev=0.01)
            return ConvNorm(
                filters, size, activation=activation, kernel_initializer=initializer, dtype=dtype, name=name
            )

        names = ["conv", *(f"conv{index}" for index in range(2, convs + 1))]
        self.hidden = [conv(name, channels, 3, "relu", self.dtype_policy) for name in names]
        # Proposals are ranked by these: with eight bits of mantissa many would tie.
        self.objectness = conv("objectness_logits", anchors_per_cell, 1, None, "float32")
        self.deltas = conv("anchor_deltas", 4 * anchors_per_cell, 1, None, "float32")

    def build(self, input_shape):
        channels = input_shape[0][-1]
        for conv in self.hidden:
            conv.build((None, None, None, channels))
            channels = self.channels
        self.objectness.build((None, None, None, self.channels))
        self.deltas.build((None, None, None, self.channels))

    def call(self, features, extents=None):
        """Everywhere: lists over levels of float32 logits [B, H_l * W_l * A] and deltas [..., 4].

        `extents` is the canvas in cells of each level, see ops/canvas.py.
        """
        logits, deltas = [], []
        for hidden in self._hidden(features, extents, self.hidden):
            batch = tf.shape(hidden)[0]
            logits.append(tf.reshape(self.objectness(hidden), [batch, -1]))
            deltas.append(tf.reshape(self.deltas(hidden), [batch, -1, 4]))
        return logits, deltas

    def _hidden(self, features, extents, convs):
        """The levels after `convs`. The pyramid is clear beyond the canvas, only hidden layers need clearing."""
        for index, conv in enumerate(convs):
            cells = extents if extents and index else [None] * len(features)
            features = [conv(*each) for each in zip(features, cells, strict=True)]
        return features

    def at(self, features, anchors, extents=None):
        """The same numbers for chosen anchors only: logits [B, N] and deltas [B, N, 4], float32.

        The RPN learns from 256 anchors an image, out of 268,000 at 800x1333. Evaluating the loss here instead of on the
        dense output gives equal gradients and spares the backward pass of a convolution over the whole pyramid.

        Args:
            features: list of L maps [B, H_l, W_l, C].
            anchors: int32 [B, N], indices into the concatenation over levels of `call`'s anchors.
            extents: as in `call`.
        """
        *first, last = self.hidden  # only the last hidden layer can be spared: the others' outputs overlap
        features = self._hidden(features, extents, first)
        if first and extents:
            features = [canvas.clear(*each) for each in zip(features, extents, strict=True)]
        patches = _patches(features, anchors // self.anchors_per_cell)  # [B, N, 9 * C]
        hidden = tf.nn.relu(_affine(patches, last))
        logits = _affine(hidden, self.objectness)
        deltas = _affine(hidden, self.deltas)
        ratio = anchors % self.anchors_per_cell
        deltas = tf.reshape(deltas, tf.concat([tf.shape(anchors), [self.anchors_per_cell, 4]], axis=0))
        return tf.gather(logits, ratio, batch_dims=2), tf.gather(deltas, ratio, batch_dims=2)

    def get_config(self):
        return super().get_config() | {
            "anchors_per_cell": self.anchors_per_cell,
            "channels": self.channels,
            "convs": len(self.hidden),
        }


def _affine(inputs, conv):
    """A convolution applied to one window each: [B, N, k * k * C] -> [B, N, filters]."""
    kernel = tf.reshape(tf.cast(conv.kernel, conv.compute_dtype), [-1, conv.filters])
    return tf.matmul(tf.cast(inputs, conv.compute_dtype), kernel) + tf.cast(conv.bias, conv.compute_dtype)


def _patches(features, cells):
    """The 3x3 windows [B, N, 9 * C] around `cells` [B, N], which count through all levels' cells row by row."""
    bordered = [tf.pad(level, [[0, 0], [1, 1], [1, 1], [0, 0]]) for level in features]
    channels = features[0].shape[-1]
    table = tf.concat([tf.reshape(level, [tf.shape(level)[0], -1, channels]) for level in bordered], axis=1)
    sizes = tf.stack([tf.shape(level)[1:3] for level in features])
    counts, bordered_counts = tf.reduce_prod(sizes, axis=1), tf.reduce_prod(sizes + 2, axis=1)
    level = tf.searchsorted(tf.cumsum(counts), tf.reshape(cells, [-1]), side="right")
    level = tf.reshape(level, tf.shape(cells))
    within = cells - tf.gather(tf.cumsum(counts, exclusive=True), level)
    width = tf.gather(sizes[:, 1], level)
    pitch = width + 2
    corner = tf.gather(tf.cumsum(bordered_counts, exclusive=True), level) + within // width * pitch + within % width
    window = tf.range(3)[:, None] * pitch[..., None, None] + tf.range(3)[None, :]
    rows = tf.gather(table, corner[..., None, None] + window, batch_dims=1)  # [B, N, 3, 3, C]
    return tf.reshape(rows, tf.concat([tf.shape(cells), [9 * channels]], axis=0))
