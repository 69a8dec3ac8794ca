"""The region proposal network: anchors, proposals, and the anchors that it learns from (Faster R-CNN, section 3)."""

import collections

import keras
import numpy as np
import tensorflow as tf

from mrcnn_tf.model import anchors as anchor_ops
from mrcnn_tf.model.rpn_head import RPNHead
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import canvas
from mrcnn_tf.ops.matching import match, sample
from mrcnn_tf.ops.nms import DROPPED, nms
from mrcnn_tf.ops.noise import uniform

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
