"""One forward pass of a `MaskRCNN`, stage by stage: the only place that says what follows what."""

import functools

from mrcnn_tf.model.necks import FeatureMaps
from mrcnn_tf.model.rois import GroundTruth
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.matching import image_seeds

TO_ORIGINAL = {"boxes": box_ops.to_original, "points": box_ops.points_to_original}  # by `OutputSpec.coordinates`


class stage(functools.cached_property):  # noqa: N801 (a decorator)
    """An attribute that is computed when it is first asked for, without a lock.

    Up to Python 3.11 functools has one for all objects. A replica that waits in its losses for the others' sums would
    hold it, and the others wait for it.
    """

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        if self.attrname not in vars(instance):
            vars(instance)[self.attrname] = self.func(instance)
        return vars(instance)[self.attrname]


class Stages:
    """The stages of a model on a batch. Each is an attribute, computed when it is first asked for.

    Detection (Figure 1 of the paper, section 3.1) is `normalized` -> `maps` -> `features` -> `rpn_scores` ->
    `proposals` -> `regions` -> `outputs`; training goes from `rpn_scores` on by
    `training_proposals` -> `rois` -> `losses`.

    Args:
        model: a `MaskRCNN`.
        inputs: a dictionary as `MaskRCNN.call` takes it, or a training batch of the data contract.
        fills_batch: each image is known to fill the batch, which spares the masking of padding.
        training: norms that learn use the batch's statistics.
        step: of the optimizer, decides with `model.seed` and the images' ids which anchors and RoIs are drawn.
        **known: stages that are there already, by name.
    """

    def __init__(self, model, inputs, fills_batch=False, training=False, step=0, **known):
        self.model, self.inputs, self.training, self.step = model, inputs, training, step
        self.padded_size = None
        if not fills_batch:
            self.padded_size = padding.round_up(inputs["image_size"], model.preprocess.divisor)
        self.__dict__.update(known)

    @stage
    def normalized(self):
        """Images [B, H, W, 3], (pixels - mean) / std, zeros outside each."""
        return self.model.preprocess.normalize(self.inputs["image"], self.inputs["image_size"])

    @stage
    def maps(self):
        """All maps [B, H_l, W_l, C_l] by name that backbone and neck give."""
        with padding.running_batch(self.normalized, self.padded_size):
            return self.model.features(self.normalized, training=self.training)

    @stage
    def features(self):
        """The `FeatureMaps` that RPN and heads read."""
        return self.feature_maps({name: self.maps[name] for name in self.model.spec.strides})

    def feature_maps(self, maps):
        """`FeatureMaps` of this batch's images, of maps by name."""
        spec = self.model.spec
        return FeatureMaps(maps, spec.strides, self.inputs["image_size"], self.padded_size, spec.roi_maps)

    @stage
    def rpn_scores(self):
        """`RPNScores` of all anchors; None without an RPN."""
        return self.model.rpn and self.model.rpn.scores(self.features)

    @stage
    def proposals(self):
        """The RPN's `Regions` in inference; None without one."""
        return self.model.rpn and self.model.rpn.propose(self.features, self.rpn_scores)

    @stage
    def training_proposals(self):
        """The same in training, where more are left."""
        return self.model.rpn and self.model.rpn.propose(self.features, self.rpn_scores, training=True)

    @stage
    def regions(self):
        """The `Regions` that each head works on, by its name: proposals that the heads in turn have refined."""
        regions, of_heads = self.proposals, {}
        for head in self.model.heads:
            regions = of_heads[head.name] = head.refine(self.features, regions)
        return of_heads

    @stage
    def outputs(self):
        """What `MaskRCNN.call` returns."""
        outputs = {}
        for head in self.model.heads:
            outputs |= head.detect(self.features, self.regions[head.name])
        sizes = self.inputs["image_size"], self.inputs["original_size"]
        for spec in self.model.output_specs:
            if spec.coordinates:
                outputs[spec.name] = TO_ORIGINAL[spec.coordinates](outputs[spec.name], *sizes)
        return outputs

    @stage
    def truth(self):
        """The `GroundTruth` of a training batch."""
        return GroundTruth(self.inputs, self.model.box_width)

    @stage
    def seeds(self):
        """uint32 [B], of what is drawn for each image."""
        return image_seeds(self.model.seed, self.step, self.inputs["image_id"])

    @stage
    def rois(self):
        """The `RoISample` that the heads learn from; None without an RPN."""
        return self.model.rpn and self.model.roi_sampler.draw(self.training_proposals, self.truth, self.seeds)

    @stage
    def losses(self):
        """The losses by name, float32 scalars."""
        losses = self.model.rpn.compute_losses(self.features, self.truth, self.seeds) if self.model.rpn else {}
        for head in self.model.heads:
            losses |= head.compute_losses(self.features, self.rois, self.truth)
        return losses
