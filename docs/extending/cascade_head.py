"""Cascade R-CNN (Cai and Vasconcelos 2018): three box heads for one, each on the boxes of the one before."""

import dataclasses

import keras
import tensorflow as tf

from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import matching
from mrcnn_tf.parts import BoxHead, BoxHeadConfig, Conventions, DetectionConfig, Head, Regions, RoISample

OVERLAPS = (0.5, 0.6, 0.7)  # the IoU with an object from which a stage takes a box for that object's
DELTA_WEIGHTS = ([10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0], [30.0, 30.0, 15.0, 15.0])


@keras.saving.register_keras_serializable("extending")
class CascadeHead(Head):
    """Each stage moves the boxes, one for all classes, and the next learns to move them further.

    The arguments are those of `BoxHead`.
    """

    section = "box_head"
    float_layers = BoxHead.float_layers

    def __init__(
        self,
        num_classes,
        pooling,
        settings: BoxHeadConfig | None = None,
        detections: DetectionConfig | None = None,
        conventions: Conventions | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_classes, self.pooling = num_classes, pooling
        self.settings, self.detections = settings or BoxHeadConfig(), detections or DetectionConfig()
        self.conventions = conventions or Conventions()
        self.stages = []
        for number, weights in enumerate(DELTA_WEIGHTS, 1):
            own = dataclasses.replace(self.settings, class_agnostic=True, delta_weights=weights)
            arguments = pooling, own, self.detections, self.conventions
            self.stages.append(BoxHead(num_classes, *arguments, dtype=self.dtype_policy, name=f"stage{number}"))

    loss_names = tuple(f"loss_{name}{number}" for number in (1, 2, 3) for name in ("class", "box"))
    from_settings = classmethod(BoxHead.from_settings.__func__)
    sections = BoxHead.sections

    @property
    def outputs(self):
        return self.stages[-1].outputs

    def build(self, input_shape):
        for stage in self.stages:
            stage.build(input_shape)

    def compute_losses(self, features, rois, truth):
        losses, moved = {}, rois.boxes
        for number, (stage, overlap) in enumerate(zip(self.stages, OVERLAPS, strict=True), 1):
            sample = rois if number == 1 else self._match(moved, rois.drawn, truth, overlap)
            logits, deltas = stage(features.pool(self.pooling, sample))
            own = stage.losses_of(logits, deltas, sample, truth)
            losses |= {f"{name}{number}": value for name, value in own.items()}
            moved = tf.stop_gradient(self._move(stage, sample.boxes, deltas, features))
        return losses

    def _match(self, boxes, drawn, truth, overlap):
        """The `RoISample` of boxes [B, R, 4] that a stage before has moved."""
        objects = truth.boxes, truth.valid, truth.crowd
        matches = matching.match(boxes, *objects, overlap, overlap, promote_best=False)
        positive, drawn = drawn & (matches >= 0), drawn & (matches != matching.IGNORED)
        own_object = tf.maximum(matches, 0)
        classes = tf.where(positive, tf.gather(truth.classes, own_object, batch_dims=1), 0)
        return RoISample(boxes, classes, own_object, positive, drawn)

    def _move(self, stage, boxes, deltas, features):
        moved = box_ops.decode(deltas[:, :, 0], boxes, stage.settings.delta_weights)
        return box_ops.clip(moved, box_ops.box_limits(features.image_size, self.conventions.box_width))

    def refine(self, features, regions):
        return self.stages[-1].select(self.score_boxes(features, regions)[1])

    def score_boxes(self, features, regions):
        boxes, probabilities = regions.boxes, 0.0
        for stage in self.stages:
            before = boxes
            logits, deltas = stage(self.pooling(before, features=features))
            probabilities += tf.nn.softmax(logits) / len(self.stages)
            boxes = self._move(stage, before, deltas, features)
        proposals = Regions(before, regions.scores, regions.classes, regions.valid)
        scores = tf.math.log(probabilities)
        return probabilities, self.stages[-1].decode_boxes(scores, deltas, proposals, features.image_size)

    def suppress(self, boxes, scores, classes, most):
        return self.stages[-1].suppress(boxes, scores, classes, most)

    def detect(self, features, regions):
        return self.stages[-1].detect(features, regions)

    def results(self, outputs, model):
        return self.stages[-1].results(outputs, model)

    def class_variables(self):
        return [variable for stage in self.stages for variable in stage.class_variables()]
