"""The region proposal network: anchors, proposals, and the anchors that it learns from (Faster R-CNN, section 3)."""

import collections

import keras
import tensorflow as tf

from mrcnn_tf.model.anchors import pyramid_anchors, usable_anchors
from mrcnn_tf.model.blocks import ConfiguredLayer, ConvNorm, build_in_turn
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.boxes import DROPPED, nms
from mrcnn_tf.ops.matching import anchor_counters, match, sample, uniform

# boxes [B, N, 4] pixels, scores [B, N] (logits), valid [B, N] bool
Proposals = collections.namedtuple("Proposals", "boxes scores valid")
# Decoded and clipped boxes before suppression: boxes [B, N, 4] pixels, scores [B, N] (logits; DROPPED where unusable),
# level int32 [N], the map that each stems from
ScoredBoxes = collections.namedtuple("ScoredBoxes", "boxes scores level")
# What the RPN's losses need, of each sampled anchor: logits [B, S], deltas [B, S, 4], targets [B, S, 4], positive,
# drawn [B, S]
AnchorSample = collections.namedtuple("AnchorSample", "logits deltas targets positive drawn")


@keras.saving.register_keras_serializable("mrcnn_tf")
class RPNHead(ConfiguredLayer):
    """Objectness logits and box deltas of each anchor: 3x3 convolutions and two 1x1 siblings, shared by all levels.

    Args:
        anchors_per_cell: A, of all sizes and aspect ratios.
        channels: of the hidden layers.
        convs: how many hidden layers; the paper has one, torchvision's newer models two.
    """

    def __init__(self, anchors_per_cell, channels=256, convs=1, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.anchors_per_cell, self.channels, self.convs = anchors_per_cell, channels, convs

        def conv(name, filters, size, activation, dtype):
            normal = keras.initializers.RandomNormal(stddev=0.01)
            return ConvNorm(filters, size, activation=activation, kernel_initializer=normal, dtype=dtype, name=name)

        names = ["conv", *(f"conv{index}" for index in range(2, convs + 1))]
        self.hidden = [conv(name, channels, 3, "relu", self.dtype_policy) for name in names]
        # Proposals are ranked by these: with eight bits of mantissa many would tie.
        self.objectness = conv("objectness_logits", anchors_per_cell, 1, None, "float32")
        self.deltas = conv("anchor_deltas", 4 * anchors_per_cell, 1, None, "float32")

    def build(self, input_shape):
        build_in_turn(self.hidden, input_shape[0][-1])
        self.objectness.build((None, None, None, self.channels))
        self.deltas.build((None, None, None, self.channels))

    def call(self, features, valid_cells=None):
        """Of all anchors: lists over levels of float32 logits [B, H_l * W_l * A] and deltas [..., 4].

        `valid_cells` are those of each level, see `ops.padding`.
        """
        logits, deltas = [], []
        for hidden in self._hidden(features, valid_cells, self.hidden):
            batch = tf.shape(hidden)[0]
            logits.append(tf.reshape(self.objectness(hidden), [batch, -1]))
            deltas.append(tf.reshape(self.deltas(hidden), [batch, -1, 4]))
        return logits, deltas

    def _hidden(self, features, valid_cells, convs):
        """The levels after `convs`. The pyramid is zero in the padding, only hidden layers need clearing."""
        for index, conv in enumerate(convs):
            cells_of_level = valid_cells if valid_cells and index else [None] * len(features)
            features = [conv(level, cells) for level, cells in zip(features, cells_of_level, strict=True)]
        return features

    def at(self, features, anchors, valid_cells=None):
        """Of chosen anchors only: logits [B, N] and deltas [B, N, 4], float32, the same as `call` gives.

        The RPN learns from 256 anchors an image, out of 268,000 at 800x1333. Evaluating the loss here instead of on the
        dense output gives equal gradients and spares the backward pass of a convolution over the whole pyramid.

        Args:
            features: list of L maps [B, H_l, W_l, C].
            anchors: int32 [B, N], indices into the concatenation over levels of `call`'s anchors.
            valid_cells: as in `call`.
        """
        *first, last = self.hidden  # only the last hidden layer can be spared: the others' outputs overlap
        features = self._hidden(features, valid_cells, first)
        if first and valid_cells:
            features = [padding.clear_padding(*level) for level in zip(features, valid_cells, strict=True)]
        patches = _patches(features, anchors // self.anchors_per_cell)  # [B, N, 9 * C]
        hidden = tf.nn.relu(_affine(patches, last))
        logits = _affine(hidden, self.objectness)
        deltas = _affine(hidden, self.deltas)
        within_cell = anchors % self.anchors_per_cell
        deltas = tf.reshape(deltas, tf.concat([tf.shape(anchors), [self.anchors_per_cell, 4]], axis=0))
        return tf.gather(logits, within_cell, batch_dims=2), tf.gather(deltas, within_cell, batch_dims=2)


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


@keras.saving.register_keras_serializable("mrcnn_tf")
class RPN(ConfiguredLayer):
    """Proposals from a pyramid or a single map, and the sampled anchors to train it on.

    Args:
        config, conventions: dictionaries with the fields of `RPNConfig` and `Conventions`.
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

    def call(self, features, image_size, padded_size=None, training=False):
        """`Proposals` from maps [B, H_l, W_l, C] and image_size [B, 2]. No gradient flows through them."""
        features = [tf.stop_gradient(level) for level in features]
        return self.propose(features, *self.scores(features, padded_size), image_size, padded_size, training)

    def scores(self, features, padded_size=None):
        """The head's outputs for maps [B, H_l, W_l, C]: lists over levels of logits and deltas, see `RPNHead`."""
        return self.head(features, self._valid_cells(padded_size))

    def propose(self, features, logits, deltas, image_size, padded_size=None, training=False):
        """`Proposals` from maps and their `scores`."""
        boxes, scores, level = self.decode_best(features, logits, deltas, image_size, padded_size, training)
        most = self.config["post_nms_train" if training else "post_nms_test"]
        kept, valid = nms(boxes, scores, level[None, :], self.config["nms_iou"], most)
        boxes = tf.where(valid[..., None], tf.gather(boxes, kept, batch_dims=1), 0.0)
        return Proposals(tf.stop_gradient(boxes), tf.gather(scores, kept, batch_dims=1), valid)

    def decode_best(self, features, logits, deltas, image_size, padded_size=None, training=False):
        """`ScoredBoxes`, the best of each level, which `propose` suppresses; arguments as there."""
        anchors = self.anchors(features, padded_size)
        usable = usable_anchors(features, self._valid_cells(padded_size), self.anchors_per_cell)
        most = self.config["pre_nms_train" if training else "pre_nms_test"]
        levels = [self._best_of_level(*level, most) for level in zip(logits, deltas, anchors, usable, strict=True)]
        scores, boxes = (tf.concat(values, axis=1) for values in zip(*levels, strict=True))
        level = tf.concat([tf.fill([tf.shape(best[0])[1]], i) for i, best in enumerate(levels)], axis=0)
        boxes = box_ops.clip(boxes, image_size)
        usable = box_ops.large_enough(boxes, self.conventions["min_proposal_size"]) & (scores > DROPPED / 2)
        usable &= tf.math.is_finite(tf.reduce_sum(boxes, axis=-1)) & tf.math.is_finite(scores)
        return ScoredBoxes(tf.where(usable[..., None], boxes, 0.0), tf.where(usable, scores, DROPPED), level)

    def _best_of_level(self, logits, deltas, anchors, usable, count):
        """The `count` best scores [B, k] of one level and their decoded boxes [B, k, 4]."""
        logits = tf.where(usable, logits, DROPPED)
        scores, indices = tf.math.top_k(logits, _at_most(count, logits))
        deltas = tf.gather(deltas, indices, batch_dims=1)
        return scores, box_ops.decode(deltas, _take(anchors, indices), self.config["delta_weights"])

    def sample_anchors(self, features, boxes, valid, crowd, seeds, padded_size=None):
        """The `AnchorSample` of a training step.

        Args:
            features: the maps.
            boxes, valid, crowd: the ground truth, [B, G, 4] and [B, G].
            seeds: uint32 [B] of the draw, see `ops.matching.image_seeds`.
            padded_size: int32 [B, 2], see `ops.padding`.
        """
        config = self.config
        anchors, usable, matches = self.matched_anchors(features, boxes, valid, crowd, padded_size)
        most_positives = int(config["batch_per_image"] * config["positive_fraction"])
        noise = uniform(seeds, anchor_counters(features, self.anchors_per_cell))
        indices, positive, drawn = sample(matches, usable, config["batch_per_image"], most_positives, noise)
        logits, deltas = self.head.at(features, indices, self._valid_cells(padded_size))
        truth = tf.gather(boxes, tf.maximum(tf.gather(matches, indices, batch_dims=1), 0), batch_dims=1)
        targets = box_ops.encode(truth, _take(anchors, indices), config["delta_weights"])
        return AnchorSample(logits, deltas, targets, positive, drawn)

    def matched_anchors(self, features, boxes, valid, crowd, padded_size=None):
        """All levels' anchors [A, 4] or [B, A, 4], which may be drawn [B or 1, A], and their matches [B, A], see
        `match`; arguments as for `sample_anchors`."""
        anchors = tf.concat(self.anchors(features, padded_size), axis=-2)
        usable = tf.concat(usable_anchors(features, self._valid_cells(padded_size), self.anchors_per_cell), axis=1)
        thresholds = self.config["foreground_iou"], self.config["background_iou"]
        candidates = anchors[None] if anchors.shape.rank == 2 else anchors
        return anchors, usable, match(candidates, boxes, valid, crowd, *thresholds, promote_best=True, usable=usable)

    def anchors(self, features, padded_size):
        """List over levels of [H_l * W_l * A, 4], or [B, ..., 4] where the stride depends on the image."""
        ratios = self.config["aspect_ratios"]
        return pyramid_anchors(features, self.sizes, ratios, self.strides, self.conventions, padded_size)

    def _valid_cells(self, padded_size):
        return [padding.count_cells(padded_size, stride) for stride in self.strides]


def _take(anchors, indices):
    """The anchors [B, N, 4] at `indices` [B, N] of anchors [A, 4] or [B, A, 4]."""
    return tf.gather(anchors, indices, batch_dims=anchors.shape.rank - 2)


def _at_most(count, logits):
    """min(count, columns), as a Python number where the columns are known, so that shapes stay static."""
    columns = logits.shape[1]
    return tf.minimum(count, tf.shape(logits)[1]) if columns is None else min(count, columns)
