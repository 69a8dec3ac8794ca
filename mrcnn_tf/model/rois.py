"""Regions of interest: those that a stage hands to the next, and those that the heads learn from (section 3)."""

import collections

import keras
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.checks import valid_settings
from mrcnn_tf.config.settings import RoIConfig
from mrcnn_tf.model.blocks import ConfiguredLayer
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.matching import match, roi_counters, sample, uniform

# What the RPN proposes and what the box head makes of it: boxes [B, N, 4] pixels of the network's input, scores [B, N]
# (logits of proposals, probabilities of detections), classes int32 [B, N] (1..K; 0 of proposals and padding), valid
# bool [B, N]
Regions = collections.namedtuple("Regions", "boxes scores classes valid")


class GroundTruth:
    """The objects of a training batch.

    Args:
        batch: of the data contract (data/pipeline.py).
        box_width: the model's, see `Conventions`.

    Attributes:
        boxes: float32 [B, G, 4] pixels, as the model has them.
        classes: int32 [B, G], 1..K; 0 is padding.
        crowd, valid: bool [B, G].
    """

    def __init__(self, batch, box_width="half_open"):
        self.batch = batch
        self.boxes = box_ops.from_half_open(batch["boxes"], box_width)
        self.classes, self.crowd = batch["classes"], batch["crowd"]
        self.valid = self.classes > 0

    def __getitem__(self, name):
        """An entry of the batch.

        Raises:
            UserError: the data has no such entry.
        """
        if name not in self.batch:
            raise UserError(
                f"The batch has no '{name}', which a head learns from: {_REMEDIES.get(name, _OWN_FIELD.format(name))}."
            )
        return self.batch[name]

    def __contains__(self, name):
        return name in self.batch

    def of_rois(self, values, rois):
        """Of values [B, G, ...] of the objects those of each RoI's own object: [B, R, ...] for a `RoISample`."""
        return tf.gather(values, rois.truth, batch_dims=1)


_REMEDIES = {
    "masks": "set data.train.masks=true",
    "keypoints": "set data.train.keypoints=true and give categories with keypoints",
    "semantic": "set data.train.semantic=true and data.train.panoptic or data.train.semantic_maps",
}
_OWN_FIELD = "if the annotations have it, set data.train.fields=[{}]"


class RoISample:
    """The RoIs of each image that the heads learn from, positives first.

    Attributes:
        boxes: float32 [B, R, 4] pixels, without gradient.
        classes: int32 [B, R], 0 is the background.
        truth: int32 [B, R], the index of each RoI's object among the ground truth.
        positive, drawn: bool [B, R]. Slots that weren't drawn are padding.
        positives: the leading RoIs, all that may be positive, as a `RoISample` of [B, P].
        whole: of `positives` the sample that they are of; of that itself.
    """

    def __init__(self, boxes, classes, truth, positive, drawn, most_positives=None):
        self.boxes, self.classes, self.truth, self.positive, self.drawn = boxes, classes, truth, positive, drawn
        self.whole = self.positives = self
        if most_positives is not None:
            leading = [values[:, :most_positives] for values in (boxes, classes, truth, positive, drawn)]
            self.positives = RoISample(*leading)
            self.positives.whole = self


@keras.saving.register_keras_serializable("mrcnn_tf")
class RoISampler(ConfiguredLayer):
    """Draws `batch_per_image` RoIs of each image, a quarter positive, ground truth boxes among the candidates.

    Args:
        settings: as in a config's `model.rois`.
    """

    default_name = "roi_sampler"

    def __init__(self, settings: RoIConfig | None = None, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.settings = valid_settings(settings, RoIConfig)

    def sections(self):
        """The section of a config's `model` that the layer was made of, by name."""
        return {"rois": self.settings}

    @property
    def most_positives(self):
        """The number of leading slots that can hold a positive RoI."""
        return int(self.settings.batch_per_image * self.settings.positive_fraction)

    def draw(self, proposals, truth, seeds):
        """`RoISample` from `Regions` and a `GroundTruth`; `seeds` uint32 [B]: see `ops.matching.image_seeds`."""
        # Without its own box an object that no proposal hits would teach nothing while the RPN is still poor.
        candidates = tf.concat([proposals.boxes, truth.boxes], axis=1)
        usable = tf.concat([proposals.valid, truth.valid & ~truth.crowd], axis=1)
        threshold, count = self.settings.foreground_iou, self.settings.batch_per_image
        objects = truth.boxes, truth.valid, truth.crowd
        matches = match(candidates, *objects, threshold, threshold, promote_best=False)
        noise = uniform(seeds, roi_counters(tf.shape(matches)[1]))
        indices, positive, drawn = sample(matches, usable, count, self.most_positives, noise)
        boxes = tf.stop_gradient(tf.gather(candidates, indices, batch_dims=1))
        own_object = tf.maximum(tf.gather(matches, indices, batch_dims=1), 0)
        classes = tf.where(positive, tf.gather(truth.classes, own_object, batch_dims=1), 0)
        return RoISample(boxes, classes, own_object, positive, drawn, self.most_positives)
