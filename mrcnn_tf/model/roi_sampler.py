"""The RoIs that the heads learn from (section 3.1, Training)."""

import collections

import keras
import tensorflow as tf

from mrcnn_tf.model.heads.box_head import DELTA_WEIGHTS
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.matching import match, sample
from mrcnn_tf.ops.noise import uniform

FIRST_COUNTER = 7 * 2**29  # of the noise: beyond those of the RPN's anchors, whose levels are counted from 0

# Per sampled RoI: boxes [B, R, 4] pixels (no gradient), classes int32 [B, R] (0 background), truth int32 [B, R] index
# into the ground truth, targets [B, R, 4] deltas, positive and drawn bool [B, R]. Positives come first.
RoISample = collections.namedtuple("RoISample", "boxes classes truth targets positive drawn")


def foreground(sample, most_positives):
    """The leading slots of a `RoISample`, all that can be positive: [B, P] instead of [B, R]."""
    return RoISample(*(values[:, :most_positives] for values in sample))


@keras.saving.register_keras_serializable("mrcnn_tf")
class RoISampler(keras.layers.Layer):
    """Draws `batch_per_image` RoIs of each image, a quarter positive, ground truth boxes among the candidates."""

    def __init__(self, config, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.config = config

    @property
    def most_positives(self):
        """The number of leading slots that can hold a positive RoI."""
        return int(self.config["batch_per_image"] * self.config["positive_fraction"])

    def call(self, proposals, boxes, classes, crowd, seeds):
        """`RoISample` from `Proposals` and the truth: boxes [B, G, 4], classes [B, G] (0: padding), crowd [B, G].

        `seeds` uint32 [B] decide the draw, see `ops.noise`.
        """
        valid = classes > 0
        # Without its own box an object that no proposal hits would teach nothing while the RPN is still poor.
        candidates = tf.concat([proposals.boxes, boxes], axis=1)
        usable = tf.concat([proposals.valid, valid & ~crowd], axis=1)
        threshold = self.config["foreground_iou"]
        matches = match(candidates, boxes, valid, crowd, threshold, threshold, promote_best=False)
        noise = uniform(seeds, FIRST_COUNTER + tf.cast(tf.range(tf.shape(matches)[1]), tf.uint32))
        indices, positive, drawn = sample(matches, usable, self.config["batch_per_image"], self.most_positives, noise)
        rois = tf.gather(candidates, indices, batch_dims=1)
        truth = tf.maximum(tf.gather(matches, indices, batch_dims=1), 0)
        targets = box_ops.encode(tf.gather(boxes, truth, batch_dims=1), rois, DELTA_WEIGHTS)
        labels = tf.where(positive, tf.gather(classes, truth, batch_dims=1), 0)
        return RoISample(tf.stop_gradient(rois), labels, truth, targets, positive, drawn)

    def get_config(self):
        return super().get_config() | {"config": self.config}
