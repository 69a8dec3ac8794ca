"""The box head: class scores and box deltas of each RoI (Figure 3), and the detections that they make."""

import collections

import keras
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.checks import valid_settings
from mrcnn_tf.config.settings import BoxHeadConfig, Conventions, DetectionConfig
from mrcnn_tf.model import losses
from mrcnn_tf.model.blocks import build_in_turn, conv_stack, convolve_rois
from mrcnn_tf.model.heads.head import Head
from mrcnn_tf.model.roi_features import make_pooling
from mrcnn_tf.model.rois import Regions
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.boxes import DROPPED, nms
from mrcnn_tf.results.output_spec import OutputSpec
from mrcnn_tf.weights.fit_classes import ClassVariable

# Of each RoI one box for each class, RoI after RoI: boxes [B, R * K, 4] pixels, scores [B, R * K] (DROPPED below the
# threshold), classes int32 [R * K]
ClassBoxes = collections.namedtuple("ClassBoxes", "boxes scores classes")


@keras.saving.register_keras_serializable("mrcnn_tf")
class BoxHead(Head):
    """Hidden layers and two siblings: K + 1 class logits (background first) and K boxes' deltas.

    The paper has two fully connected hidden layers on a pyramid and the average over res5's cells on C4, torchvision's
    newer models four convolutions and one fully connected layer.

    Args:
        num_classes: K foreground classes.
        pooling: the layer that gives RoI features.
        settings, detections, conventions: as in a config's `model.box_head`, `model.detections` and
            `model.conventions`.
    """

    section = default_name = "box_head"
    loss_names = ("loss_class", "loss_box")
    float_layers = ("class_logits", "box_deltas")  # boxes are ranked by the scores, and moved by the deltas

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
        self.settings = valid_settings(settings, BoxHeadConfig)
        self.detections = valid_settings(detections, DetectionConfig)
        self.conventions = valid_settings(conventions, Conventions)
        self.box_count = 1 if self.settings.class_agnostic else num_classes
        settings, epsilon = self.settings, self.conventions.batch_norm_epsilon
        self.convs = conv_stack(settings.convs, settings.conv_channels, settings.norm, epsilon, self.dtype_policy)

        def dense(name, units, activation, dtype):
            # torch.nn.Linear's initial weights, which torchvision trains from; from smaller predictors it learns later.
            uniform = keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")
            return keras.layers.Dense(units, activation, kernel_initializer=uniform, dtype=dtype, name=name)

        self.fcs = [
            dense(f"fc{index}", settings.channels, "relu", self.dtype_policy) for index in range(1, settings.fcs + 1)
        ]
        # float32, since detections are ranked by them: with eight bits of mantissa many would tie.
        self.class_logits = dense("class_logits", num_classes + 1, None, "float32")
        self.box_deltas = dense("box_deltas", 4 * self.box_count, None, "float32")

    @classmethod
    def from_settings(cls, model, spec, heads, **arguments):
        if not model.categories:
            raise UserError("The model has no classes: set data.train.annotations or model.categories in the config.")
        pooling = make_pooling(model, model.box_head.pool_size, spec, heads, arguments)
        settings = model.box_head, model.detections, model.conventions
        return cls(len(model.categories), pooling, *settings, **arguments)

    def check(self, model):
        if self.num_classes != len(model.categories):
            raise UserError(
                f"The box head has {self.num_classes} classes and the model {len(model.categories)} categories: give "
                "MaskRCNN(categories=[...]) as many, class 1 first."
            )
        if model.rpn is None:
            raise UserError("A box head makes detections of proposals: give MaskRCNN an RPN.")

    @property
    def outputs(self):
        return [
            OutputSpec("boxes", (4,), "(x1, y1, x2, y2), pixels of the image", coordinates="boxes"),
            OutputSpec("scores", (), "probability of the class, falling"),
            OutputSpec("classes", (), "1 to K; 0 in padding", "int32"),
            OutputSpec("num_detections", (), "how many rows are detections", "int32", per_detection=False),
        ]

    def build(self, input_shape):
        side, channels = input_shape[-2], build_in_turn(self.convs, input_shape[-1])
        units = side**2 * channels if self.fcs else channels
        for layer in self.fcs:
            layer.build((None, units))
            units = layer.units
        for layer in (self.class_logits, self.box_deltas):
            layer.build((None, units))

    def call(self, roi_features):
        """RoI features [B, R, S, S, C] -> logits [B, R, K + 1] and deltas [B, R, K, 4] (K = 1 where all classes share a
        box), float32."""
        hidden = convolve_rois(self.convs, roi_features)
        if self.fcs:
            hidden = tf.reshape(hidden, [-1, self.fcs[0].kernel.shape[0]])
        else:
            hidden = tf.reduce_mean(tf.cast(hidden, tf.float32), axis=[1, 2])
        for layer in self.fcs:
            hidden = layer(hidden)
        shape = [-1, roi_features.shape[1]]
        logits = tf.reshape(self.class_logits(hidden), [*shape, self.num_classes + 1])
        deltas = tf.reshape(self.box_deltas(hidden), [*shape, self.box_count, 4])
        return logits, deltas

    def targets(self, rois, truth):
        """Deltas float32 [B, R, 4] from each RoI of a `RoISample` to its object of a `GroundTruth`."""
        return box_ops.encode(truth.of_rois(truth.boxes, rois), rois.boxes, self.settings.delta_weights)

    def compute_losses(self, features, rois, truth):
        return self.losses_of(*self(features.pool(self.pooling, rois)), rois, truth)

    def losses_of(self, logits, deltas, rois, truth):
        """The losses by name, of what `call` gives for a `RoISample`."""
        return {
            "loss_class": losses.class_loss(logits, rois),
            "loss_box": losses.box_loss(deltas, self.targets(rois, truth), rois, self.conventions.box_beta),
        }

    def refine(self, features, regions):
        """The best detections of each image: softmax, decode, clip, threshold, NMS per class (section 3.1, Inference).

        D = max_per_image of the settings, by falling score.
        """
        return self.select(self.score_boxes(features, regions)[1])

    def score_boxes(self, features, regions):
        """Probabilities [B, R, K + 1] of `Regions`, background first, and the `ClassBoxes` that `select` chooses from;
        a diagnosis reads them."""
        logits, deltas = self(self.pooling(regions.boxes, features=features))
        return tf.nn.softmax(logits), self.decode_boxes(logits, deltas, regions, features.image_size)

    def select(self, candidates):
        """The detections, `Regions`, that suppression leaves of `ClassBoxes`."""
        boxes, scores, classes = candidates
        kept, valid = self.suppress(boxes, scores, classes[None, :], self.detections.max_per_image)
        return Regions(
            tf.where(valid[..., None], tf.gather(boxes, kept, batch_dims=1), 0.0),
            tf.where(valid, tf.gather(scores, kept, batch_dims=1), 0.0),
            tf.where(valid, tf.gather(classes, kept), 0),
            valid,
        )

    def suppress(self, boxes, scores, classes, most):
        """Indices [B, N] of at most `most` boxes that no better one of their class covers, and which are valid."""
        return nms(boxes, scores, classes, self.detections.nms_iou, most)

    def decode_boxes(self, logits, deltas, proposals, image_size):
        """`ClassBoxes`, which `select` suppresses.

        Args:
            logits, deltas: as `call` gives them.
            proposals: `Regions` with R boxes per image.
            image_size: [B, 2] = (height, width) pixels.
        """
        scores = tf.nn.softmax(logits)[..., 1:]
        references, rules = proposals.boxes[:, :, None, :], self.conventions
        boxes = box_ops.decode(deltas, references, self.settings.delta_weights, rules.delta_limit)
        if self.box_count < self.num_classes:
            boxes = tf.repeat(boxes, self.num_classes, axis=2)
        batch, count = tf.shape(boxes)[0], boxes.shape[1] * self.num_classes
        limits = box_ops.box_limits(image_size, self.conventions.box_width)
        boxes = box_ops.clip(tf.reshape(boxes, [batch, count, 4]), limits)
        scores = tf.reshape(scores, [batch, count])
        usable = (scores > self.detections.score_threshold) & tf.repeat(proposals.valid, self.num_classes, axis=1)
        usable &= box_ops.large_enough(boxes, self.conventions.min_detection_size)
        classes = tf.tile(tf.range(1, self.num_classes + 1), [boxes.shape[1] // self.num_classes])
        return ClassBoxes(boxes, tf.where(usable, scores, DROPPED), classes)

    def detect(self, features, regions):
        boxes = box_ops.to_half_open(regions.boxes, self.conventions.box_width)
        return {
            "boxes": tf.where(regions.valid[..., None], boxes, 0.0),
            "scores": regions.scores,
            "classes": regions.classes,
            "num_detections": tf.reduce_sum(tf.cast(regions.valid, tf.int32), axis=1),
        }

    def sections(self):
        own = {self.section: self.settings, "detections": self.detections, "conventions": self.conventions}
        return own | (self.pooling.sections() if hasattr(self.pooling, "sections") else {})

    def results(self, outputs, model):
        return {name: outputs[name] for name in ("boxes", "scores", "classes")}

    def class_variables(self):
        layouts = {self.class_logits: {"first": 1, "background": 0}}
        if not self.settings.class_agnostic:
            layouts[self.box_deltas] = {"size": 4}
        return [
            ClassVariable(variable, initializer, **layout)
            for layer, layout in layouts.items()
            for variable, initializer in (
                (layer.kernel, layer.kernel_initializer),
                (layer.bias, layer.bias_initializer),
            )
        ]

    def activations(self, pixels, rois, positives):
        return rois * self.pooling.output_size**2 * sum(conv.filters for conv in self.convs)
