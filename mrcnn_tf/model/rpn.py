"""The region proposal network: anchors, proposals, and the anchors that it learns from (Faster R-CNN, section 3)."""

import collections

import keras
import numpy as np
import tensorflow as tf

from mrcnn_tf.model import anchors as anchor_ops
from mrcnn_tf.model.blocks import ConvNorm
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import canvas
from mrcnn_tf.ops.boxes import DROPPED, nms
from mrcnn_tf.ops.matching import match, sample, uniform

# The RPN's small network: 3x3 convolutions and two 1x1 siblings on every level (Faster R-CNN, section 3.1).
#

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


DELTA_WEIGHTS = (1.0, 1.0, 1.0, 1.0)

# boxes [B, N, 4] pixels, scores [B, N] (logits), valid [B, N] bool
Proposals = collections.namedtuple("Proposals", "boxes scores valid")
# Decoded and clipped boxes before suppression: boxes [B, N, 4] pixels, scores [B, N] (logits; DROPPED where unusable),
# level int32 [N], the map that each stems from
Candidates = collections.namedtuple("Candidates", "boxes scores level")
# What the RPN's losses need, of each sampled anchor: logits [B, S], deltas [B, S, 4], targets [B, S, 4], positive,
# drawn [B, S]
AnchorSample = collections.namedtuple("AnchorSample", "logits deltas targets positive drawn")


@keras.saving.register_keras_serializable("mrcnn_tf")
class RPN(keras.layers.Layer):
    """Proposals from a pyramid or a single map, and the sampled anchors to train it on.

    Args:
        config: a dictionary with the fields of `RPNConfig`.
        conventions: a dictionary with the fields of `Conventions`.
        strides: pixels per cell of each map. A single one has anchors of all sizes, of several each has its own size.
        channels: of the hidden layers, where the config leaves them open.
    """

    def __init__(self, config, conventions, strides, channels=256, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.config, self.conventions, self.strides = config, conventions, list(strides)
        self.channels = channels
        sizes = config["anchor_sizes"]
        self.sizes = [sizes] if len(self.strides) == 1 else [[size] for size in sizes]
        self.anchors_per_cell = len(self.sizes[0]) * len(config["aspect_ratios"])
        hidden = config["channels"] or channels
        self.head = RPNHead(self.anchors_per_cell, hidden, config["convs"], dtype=self.dtype_policy, name="head")
        self.supports_jit = False  # or Keras compiled `predict` by XLA where it sees a GPU, our own operations included

    def build(self, input_shape):
        self.head.build(input_shape)

    def call(self, features, image_size, canvas_size=None, training=False):
        """`Proposals` from maps [B, H_l, W_l, C] and image_size [B, 2]. No gradient flows through them."""
        features = [tf.stop_gradient(level) for level in features]
        return self.propose(features, *self.scores(features, canvas_size), image_size, canvas_size, training)

    def scores(self, features, canvas_size=None):
        """What the head says of maps [B, H_l, W_l, C]: lists over levels of logits and deltas, see `RPNHead`."""
        return self.head(features, [canvas.extent(canvas_size, stride) for stride in self.strides])

    def propose(self, features, logits, deltas, image_size, canvas_size=None, training=False):
        """`Proposals` from maps and their `scores`."""
        boxes, scores, level = self.candidates(features, logits, deltas, image_size, canvas_size, training)
        most = self.config["post_nms_train" if training else "post_nms_test"]
        kept, valid = nms(boxes, scores, level[None, :], self.config["nms_iou"], most)
        boxes = tf.where(valid[..., None], tf.gather(boxes, kept, batch_dims=1), 0.0)
        return Proposals(tf.stop_gradient(boxes), tf.gather(scores, kept, batch_dims=1), valid)

    def candidates(self, features, logits, deltas, image_size, canvas_size=None, training=False):
        """The `Candidates` that `propose` suppresses: the best of each level."""
        extents = [canvas.extent(canvas_size, stride) for stride in self.strides]
        anchors = self.anchors(features, canvas_size)
        most = self.config["pre_nms_train" if training else "pre_nms_test"]
        rows = zip(logits, deltas, anchors, self._usable(features, extents), strict=True)
        best = [_best_of_level(*row, most) for row in rows]
        scores, boxes = (tf.concat(parts, axis=1) for parts in zip(*best, strict=True))
        level = tf.concat([tf.fill([tf.shape(part[0])[1]], i) for i, part in enumerate(best)], axis=0)
        boxes = box_ops.clip(boxes, image_size)
        usable = box_ops.large_enough(boxes, self.conventions["min_proposal_size"]) & (scores > DROPPED / 2)
        usable &= tf.math.is_finite(tf.reduce_sum(boxes, axis=-1)) & tf.math.is_finite(scores)
        return Candidates(tf.where(usable[..., None], boxes, 0.0), tf.where(usable, scores, DROPPED), level)

    def sample_anchors(self, features, boxes, valid, crowd, seeds, canvas_size=None):
        """The `AnchorSample` of a training step.

        Args:
            features: the maps.
            boxes, valid, crowd: the ground truth, [B, G, 4] and [B, G].
            seeds: uint32 [B] of the draw, see `ops.noise`.
            canvas_size: int32 [B, 2], each image's own extent on the batch's canvas.
        """
        config = self.config
        extents = [canvas.extent(canvas_size, stride) for stride in self.strides]
        anchors, usable, matches = self.matched_anchors(features, boxes, valid, crowd, canvas_size)
        positives = int(config["batch_per_image"] * config["positive_fraction"])
        noise = uniform(seeds, self._places(features))
        indices, positive, drawn = sample(matches, usable, config["batch_per_image"], positives, noise)
        logits, deltas = self.head.at(features, indices, extents)
        truth = tf.gather(boxes, tf.maximum(tf.gather(matches, indices, batch_dims=1), 0), batch_dims=1)
        targets = box_ops.encode(truth, _take(anchors, indices), DELTA_WEIGHTS)
        return AnchorSample(logits, deltas, targets, positive, drawn)

    def matched_anchors(self, features, boxes, valid, crowd, canvas_size=None):
        """All levels' anchors [A, 4] or [B, A, 4], which may be drawn [B or 1, A], and their matches [B, A], see
        `match`; arguments as for `sample_anchors`."""
        extents = [canvas.extent(canvas_size, stride) for stride in self.strides]
        anchors = tf.concat(self.anchors(features, canvas_size), axis=-2)
        usable = tf.concat(self._usable(features, extents), axis=1)
        thresholds = self.config["foreground_iou"], self.config["background_iou"]
        every = anchors[None] if anchors.shape.rank == 2 else anchors
        return anchors, usable, match(every, boxes, valid, crowd, *thresholds, promote_best=True, usable=usable)

    def anchors(self, features, canvas_size):
        """List over levels of [H_l * W_l * A, 4], or [B, ..., 4] where the stride depends on the image."""
        grids = []
        for level, sizes, stride in zip(features, self.sizes, self.strides, strict=True):
            cell = anchor_ops.cell_anchors(sizes, self.config["aspect_ratios"], self.conventions["anchor_rounding"])
            if self.conventions["box_ends"] == "pixel":
                cell = cell - np.array([0, 0, 1, 1], np.float32)
            if self.conventions["anchor_stride"] == "padded":
                stride = self._padded_stride(features[0], canvas_size, stride)
            grids.append(anchor_ops.grid_anchors(cell, tf.shape(level)[1], tf.shape(level)[2], stride))
        return grids

    def _padded_stride(self, finest, canvas_size, stride):
        """float32 [B, 2]: the canvas in pixels over its cells on a map of `stride`, rounded down (torchvision)."""
        if canvas_size is None:
            canvas_size = tf.tile(tf.shape(finest)[None, 1:3] * self.strides[0], [tf.shape(finest)[0], 1])
        return tf.cast(canvas_size // canvas.extent(canvas_size, stride), tf.float32)

    def _places(self, features):
        """uint32 [A]: a number for each anchor, the same on maps of any size: of level, row, column and shape."""
        numbers = []
        for level, values in enumerate(features):
            row, column = (tf.range(tf.shape(values)[axis]) for axis in (1, 2))
            cells = level * 2**29 + row[:, None] * 2**17 + column * 2**5
            numbers.append(tf.reshape(cells[..., None] + tf.range(self.anchors_per_cell), [-1]))
        return tf.bitcast(tf.concat(numbers, axis=0), tf.uint32)

    def _usable(self, features, extents):
        """List over levels of bool [B or 1, H_l * W_l * A]: anchors at cells of the image's own canvas."""
        usable = []
        for level, extent in zip(features, extents, strict=True):
            height, width = tf.shape(level)[1], tf.shape(level)[2]
            extent = tf.stack([[height, width]]) if extent is None else extent
            cells = tf.reshape(canvas.inside(extent, height, width), [tf.shape(extent)[0], -1])
            usable.append(tf.repeat(cells, self.anchors_per_cell, axis=1))
        return usable

    def get_config(self):
        return super().get_config() | {
            "config": self.config,
            "conventions": self.conventions,
            "strides": self.strides,
            "channels": self.channels,
        }


def _best_of_level(logits, deltas, anchors, usable, count):
    """The `count` best scores [B, k] of one level and their decoded boxes [B, k, 4]."""
    logits = tf.where(usable, logits, DROPPED)
    scores, indices = tf.math.top_k(logits, _at_most(count, logits))
    deltas = tf.gather(deltas, indices, batch_dims=1)
    return scores, box_ops.decode(deltas, _take(anchors, indices), DELTA_WEIGHTS)


def _take(anchors, indices):
    """The anchors [B, N, 4] at `indices` [B, N] of anchors [A, 4] or [B, A, 4]."""
    return tf.gather(anchors, indices, batch_dims=anchors.shape.rank - 2)


def _at_most(count, logits):
    """min(count, columns), as a Python number where the columns are known, so that shapes stay static."""
    columns = logits.shape[1]
    return tf.minimum(count, tf.shape(logits)[1]) if columns is None else min(count, columns)
