"""The region proposal network: anchors, proposals, and the anchors that it learns from (Faster R-CNN, section 3)."""

import collections

import keras
import numpy as np
import tensorflow as tf

from mrcnn_tf.layers.rpn_head import RPNHead
from mrcnn_tf.ops import anchors as anchor_ops
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import canvas
from mrcnn_tf.ops.matching import match, sample
from mrcnn_tf.ops.nms import DROPPED, nms
from mrcnn_tf.ops.noise import uniform

DELTA_WEIGHTS = (1.0, 1.0, 1.0, 1.0)

# boxes [B, N, 4] pixels, scores [B, N] (logits), valid [B, N] bool
Proposals = collections.namedtuple("Proposals", "boxes scores valid")
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
        scores = self.head(features, [canvas.extent(canvas_size, stride) for stride in self.strides])
        return self.propose(features, *scores, image_size, canvas_size, training)

    def propose(self, features, logits, deltas, image_size, canvas_size=None, training=False):
        """The same from what the head gave on `features`: lists over levels, see `RPNHead`."""
        extents = [canvas.extent(canvas_size, stride) for stride in self.strides]
        anchors = self._anchors(features, canvas_size)
        before, after = ("pre_nms_train", "post_nms_train") if training else ("pre_nms_test", "post_nms_test")
        rows = zip(logits, deltas, anchors, self._usable(features, extents), strict=True)
        best = [_best_of_level(*row, self.config[before]) for row in rows]
        scores, boxes = (tf.concat(parts, axis=1) for parts in zip(*best, strict=True))
        level = tf.concat([tf.fill([tf.shape(part[0])[1]], i) for i, part in enumerate(best)], axis=0)
        boxes = box_ops.clip(boxes, image_size)
        usable = box_ops.large_enough(boxes, self.conventions["min_proposal_size"]) & (scores > DROPPED / 2)
        usable &= tf.math.is_finite(tf.reduce_sum(boxes, axis=-1)) & tf.math.is_finite(scores)
        boxes, scores = tf.where(usable[..., None], boxes, 0.0), tf.where(usable, scores, DROPPED)
        kept, valid = nms(boxes, scores, level[None, :], self.config["nms_iou"], self.config[after])
        boxes = tf.where(valid[..., None], tf.gather(boxes, kept, batch_dims=1), 0.0)
        return Proposals(tf.stop_gradient(boxes), tf.gather(scores, kept, batch_dims=1), valid)

    def sample_anchors(self, features, boxes, valid, crowd, seeds, canvas_size=None):
        """The `AnchorSample` of a training step.

        Args:
            features: the maps.
            boxes, valid, crowd: the ground truth, [B, G, 4] and [B, G].
            seeds: uint32 [B] of the draw, see `ops.noise`.
            canvas_size: int32 [B, 2], each image's own extent on the batch's canvas.
        """
        extents = [canvas.extent(canvas_size, stride) for stride in self.strides]
        anchors = tf.concat(self._anchors(features, canvas_size), axis=-2)
        usable = tf.concat(self._usable(features, extents), axis=1)
        config = self.config
        thresholds = config["foreground_iou"], config["background_iou"]
        every = anchors[None] if anchors.shape.rank == 2 else anchors
        matches = match(every, boxes, valid, crowd, *thresholds, promote_best=True, usable=usable)
        positives = int(config["batch_per_image"] * config["positive_fraction"])
        noise = uniform(seeds, self._places(features))
        indices, positive, drawn = sample(matches, usable, config["batch_per_image"], positives, noise)
        logits, deltas = self.head.at(features, indices, extents)
        truth = tf.gather(boxes, tf.maximum(tf.gather(matches, indices, batch_dims=1), 0), batch_dims=1)
        targets = box_ops.encode(truth, _take(anchors, indices), DELTA_WEIGHTS)
        return AnchorSample(logits, deltas, targets, positive, drawn)

    def _anchors(self, features, canvas_size):
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
