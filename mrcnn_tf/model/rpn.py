"""The region proposal network: anchors, proposals, and the anchors that it learns from (Faster R-CNN, section 3)."""

import collections

import keras
import tensorflow as tf

from mrcnn_tf.config.checks import valid_settings
from mrcnn_tf.config.settings import Conventions, RPNConfig
from mrcnn_tf.model import losses
from mrcnn_tf.model.anchors import AnchorGenerator, usable_anchors
from mrcnn_tf.model.blocks import ConfiguredLayer, ConvNorm, build_in_turn, count_outputs
from mrcnn_tf.model.necks import common_channels
from mrcnn_tf.model.rois import Regions
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.boxes import DROPPED, nms
from mrcnn_tf.ops.matching import anchor_counters, match, sample, uniform

# Of all anchors, the head's outputs: lists over the maps of logits [B, H_l * W_l * A] and deltas [B, ..., 4], float32
RPNScores = collections.namedtuple("RPNScores", "logits deltas")
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
        """Takes the shapes of the maps, of as many channels each."""
        build_in_turn(self.hidden, input_shape[0][-1])
        self.objectness.build((None, None, None, self.channels))
        self.deltas.build((None, None, None, self.channels))

    def call(self, features, valid_cells=None):
        """`RPNScores` of a list of maps [B, H_l, W_l, C]; `valid_cells` are those of each, see `ops.padding`."""
        logits, deltas = [], []
        for hidden in self._hidden(features, valid_cells, self.hidden):
            batch = tf.shape(hidden)[0]
            logits.append(tf.reshape(self.objectness(hidden), [batch, -1]))
            deltas.append(tf.reshape(self.deltas(hidden), [batch, -1, 4]))
        return RPNScores(logits, deltas)

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
    """Proposals from the maps of a pyramid or a single one, and what they are learnt by.

    Args:
        settings, conventions: as in a config's `model.rpn` and `model.conventions`.
        anchors: an `AnchorGenerator`; None: the one of the settings.
    """

    default_name = "rpn"

    def __init__(
        self,
        settings: RPNConfig | None = None,
        conventions: Conventions | None = None,
        anchors: AnchorGenerator | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.settings = valid_settings(settings, RPNConfig)
        self.conventions = valid_settings(conventions, Conventions)
        self.anchors = anchors or AnchorGenerator(
            self.settings.anchor_sizes, self.settings.aspect_ratios, self.conventions, name="anchors"
        )
        self.supports_jit = False  # or Keras compiled `predict` by XLA where it sees a GPU, our own operations included

    loss_names = ("loss_rpn_objectness", "loss_rpn_box")
    float_layers = ("objectness_logits", "anchor_deltas")  # see `Head`

    def sections(self):
        """The sections of a config's `model` that the layer was made of, by name."""
        return {"rpn": self.settings, "conventions": self.conventions}

    def build(self, input_shape):
        """Takes the shapes of the maps by name, of as many channels each."""
        shapes = list(input_shape.values())
        inputs, per_cell = common_channels(input_shape, self), self.anchors.per_cell(len(shapes))
        channels = self.settings.channels or inputs
        self.head = RPNHead(per_cell, channels, self.settings.convs, dtype=self.dtype_policy, name="head")
        self.head.build(shapes)

    def activations(self, pixels, strides):
        """Numbers that a training step keeps of an image of `pixels` pixels, for maps of `strides`."""
        return count_outputs([self.head]) * sum(pixels / stride**2 for stride in strides)

    def scores(self, features):
        """`RPNScores` of all anchors on `FeatureMaps`, without a gradient: `compute_losses` looks at a sample."""
        maps, cells = _as_lists(features.stop_gradient())
        return self.head(maps, cells)

    def make_anchors(self, features):
        """(anchors, which of them may be used), lists over the maps: see `AnchorGenerator.make` and `usable_anchors`.

        Proposals and losses read the same: they are made once for `features`.
        """
        if self not in features.anchors:
            usable = usable_anchors(features, self.head.anchors_per_cell)
            features.anchors[self] = self.anchors.make(features), usable
        return features.anchors[self]

    def propose(self, features, scores, training=False):
        """The `Regions` that are worth a look: of each map the best, less those that a better one covers."""
        boxes, logits, level = self.decode_best(features, scores, training)
        most = self.settings.post_nms_train if training else self.settings.post_nms_test
        kept, valid = self.suppress(boxes, logits, level[None, :], most)
        boxes = tf.where(valid[..., None], tf.gather(boxes, kept, batch_dims=1), 0.0)
        logits = tf.gather(logits, kept, batch_dims=1)
        return Regions(tf.stop_gradient(boxes), logits, tf.zeros(tf.shape(valid), tf.int32), valid)

    def suppress(self, boxes, logits, level, most):
        """Indices [B, N] of at most `most` boxes that no better one of their level covers, and which are valid."""
        return nms(boxes, logits, level, self.settings.nms_iou, most)

    def decode_best(self, features, scores, training=False):
        """`ScoredBoxes`, the best of each level, which `propose` suppresses; arguments as there."""
        anchors, usable = self.make_anchors(features)
        most = self.settings.pre_nms_train if training else self.settings.pre_nms_test
        levels = [self._best_of_level(*level, most) for level in zip(*scores, anchors, usable, strict=True)]
        logits, boxes = (tf.concat(values, axis=1) for values in zip(*levels, strict=True))
        level = tf.concat([tf.fill([tf.shape(best[0])[1]], i) for i, best in enumerate(levels)], axis=0)
        boxes = box_ops.clip(boxes, box_ops.box_limits(features.image_size, self.conventions.box_width))
        usable = box_ops.large_enough(boxes, self.conventions.min_proposal_size) & (logits > DROPPED / 2)
        usable &= tf.math.is_finite(tf.reduce_sum(boxes, axis=-1)) & tf.math.is_finite(logits)
        return ScoredBoxes(tf.where(usable[..., None], boxes, 0.0), tf.where(usable, logits, DROPPED), level)

    def _best_of_level(self, logits, deltas, anchors, usable, count):
        """The `count` best scores [B, k] of one level and their decoded boxes [B, k, 4]."""
        logits = tf.where(usable, logits, DROPPED)
        scores, indices = tf.math.top_k(logits, _at_most(count, logits))
        deltas = tf.gather(deltas, indices, batch_dims=1)
        anchors, limit = _take(anchors, indices), self.conventions.delta_limit
        return scores, box_ops.decode(deltas, anchors, self.settings.delta_weights, limit)

    def compute_losses(self, features, truth, seeds):
        """The two losses by name, from `FeatureMaps`, a `GroundTruth` and the seeds uint32 [B] of the draw."""
        sampled, rules = self.sample_anchors(features, truth, seeds), self.conventions
        return {
            "loss_rpn_objectness": losses.rpn_objectness_loss(sampled, rules.rpn_normalizer),
            "loss_rpn_box": losses.rpn_box_loss(sampled, rules.rpn_normalizer, rules.rpn_box_beta),
        }

    def sample_anchors(self, features, truth, seeds):
        """The `AnchorSample` of a training step; arguments as for `compute_losses`."""
        settings = self.settings
        anchors, usable, matches = self.matched_anchors(features, truth)
        most_positives = int(settings.batch_per_image * settings.positive_fraction)
        maps, cells = _as_lists(features)
        noise = uniform(seeds, anchor_counters(maps, self.head.anchors_per_cell))
        indices, positive, drawn = sample(matches, usable, settings.batch_per_image, most_positives, noise)
        logits, deltas = self.head.at(maps, indices, cells)
        boxes = tf.gather(truth.boxes, tf.maximum(tf.gather(matches, indices, batch_dims=1), 0), batch_dims=1)
        targets = box_ops.encode(boxes, _take(anchors, indices), settings.delta_weights)
        return AnchorSample(logits, deltas, targets, positive, drawn)

    def matched_anchors(self, features, truth):
        """All levels' anchors [A, 4] or [B, A, 4], which may be drawn [B or 1, A], and their matches [B, A], see
        `match`, with the objects of a `GroundTruth`."""
        anchors, usable = self.make_anchors(features)
        anchors, usable = tf.concat(anchors, axis=-2), tf.concat(usable, axis=1)
        thresholds = self.settings.foreground_iou, self.settings.background_iou
        candidates = anchors[None] if anchors.shape.rank == 2 else anchors
        objects = truth.boxes, truth.valid, truth.crowd
        return anchors, usable, match(candidates, *objects, *thresholds, promote_best=True, usable=usable)


def _as_lists(features):
    """The maps of `FeatureMaps` and their valid cells, None where all images fill the batch."""
    cells = None if features.padded_size is None else list(features.valid_cells.values())
    return list(features.maps.values()), cells


def _take(anchors, indices):
    """The anchors [B, N, 4] at `indices` [B, N] of anchors [A, 4] or [B, A, 4]."""
    return tf.gather(anchors, indices, batch_dims=anchors.shape.rank - 2)


def _at_most(count, logits):
    """min(count, columns), as a Python number where the columns are known, so that shapes stay static."""
    columns = logits.shape[1]
    return tf.minimum(count, tf.shape(logits)[1]) if columns is None else min(count, columns)
