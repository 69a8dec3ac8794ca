"""The box head: class scores and box deltas of each RoI (Figure 3), and the detections that they make."""

import collections

import keras
import tensorflow as tf

from mrcnn_tf.model.blocks import ConfiguredLayer, build_in_turn, conv_stack, convolve_rois
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.boxes import DROPPED, nms

# Of each RoI one box for each class, RoI after RoI: boxes [B, R * K, 4] pixels, scores [B, R * K] (DROPPED below the
# threshold), classes int32 [R * K]
ClassBoxes = collections.namedtuple("ClassBoxes", "boxes scores classes")
# boxes [B, D, 4] pixels, scores [B, D], classes int32 [B, D] in 1..K (0 in padding), valid [B, D] bool
Detected = collections.namedtuple("Detected", "boxes scores classes valid")


@keras.saving.register_keras_serializable("mrcnn_tf")
class BoxHead(ConfiguredLayer):
    """Hidden layers and two siblings: K + 1 class logits (background first) and K boxes' deltas.

    The paper has two fully connected hidden layers on a pyramid and the average over res5's cells on C4, torchvision's
    newer models four convolutions and one fully connected layer.

    Args:
        num_classes: K foreground classes.
        config, detections, conventions: dictionaries with the fields of `BoxHeadConfig`, `DetectionConfig` and
            `Conventions`.
    """

    def __init__(self, num_classes, config, detections, conventions, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.num_classes, self.config = num_classes, config
        self.detections, self.conventions = detections, conventions
        epsilon = conventions["batch_norm_epsilon"]
        self.convs = conv_stack(config["convs"], config["conv_channels"], config["norm"], epsilon, self.dtype_policy)

        def dense(name, units, activation, dtype):
            # torch.nn.Linear's initial weights, which torchvision trains from; from smaller predictors it learns later.
            uniform = keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")
            return keras.layers.Dense(units, activation, kernel_initializer=uniform, dtype=dtype, name=name)

        self.fcs = [
            dense(f"fc{index}", config["channels"], "relu", self.dtype_policy) for index in range(1, config["fcs"] + 1)
        ]
        # float32, since detections are ranked by them: with eight bits of mantissa many would tie.
        self.class_logits = dense("class_logits", num_classes + 1, None, "float32")
        self.box_deltas = dense("box_deltas", 4 * num_classes, None, "float32")

    def build(self, input_shape):
        side, channels = input_shape[-2], build_in_turn(self.convs, input_shape[-1])
        units = side**2 * channels if self.fcs else channels
        for layer in self.fcs:
            layer.build((None, units))
            units = layer.units
        for layer in (self.class_logits, self.box_deltas):
            layer.build((None, units))

    def call(self, roi_features):
        """RoI features [B, R, S, S, C] -> logits [B, R, K + 1] and deltas [B, R, K, 4], float32."""
        hidden = convolve_rois(self.convs, roi_features)
        if self.fcs:
            hidden = tf.reshape(hidden, [-1, self.fcs[0].kernel.shape[0]])
        else:
            hidden = tf.reduce_mean(tf.cast(hidden, tf.float32), axis=[1, 2])
        for layer in self.fcs:
            hidden = layer(hidden)
        shape = [-1, roi_features.shape[1]]
        logits = tf.reshape(self.class_logits(hidden), [*shape, self.num_classes + 1])
        deltas = tf.reshape(self.box_deltas(hidden), [*shape, self.num_classes, 4])
        return logits, deltas

    def targets(self, boxes, rois):
        """Deltas float32 [B, R, 4] from each RoI of a `RoISample` to its object, one of the true boxes [B, G, 4]."""
        return box_ops.encode(tf.gather(boxes, rois.truth, batch_dims=1), rois.boxes, self.config["delta_weights"])

    def class_variables(self):
        """(variable, initializer) of each weight whose shape depends on the classes."""
        return [
            pair
            for layer in (self.class_logits, self.box_deltas)
            for pair in ((layer.kernel, layer.kernel_initializer), (layer.bias, layer.bias_initializer))
        ]

    def detect(self, logits, deltas, proposals, image_size):
        """The best detections of each image: softmax, decode, clip, threshold, NMS per class (section 3.1, Inference).

        Args:
            logits, deltas: as `call` gives them.
            proposals: `Proposals` with R boxes per image.
            image_size: [B, 2] = (height, width) pixels.

        Returns:
            `Detected`, D = max_per_image of the config, by falling score.
        """
        boxes, scores, classes = self.decode_boxes(logits, deltas, proposals, image_size)
        config = self.detections
        kept, valid = nms(boxes, scores, classes[None, :], config["nms_iou"], config["max_per_image"])
        return Detected(
            tf.where(valid[..., None], tf.gather(boxes, kept, batch_dims=1), 0.0),
            tf.where(valid, tf.gather(scores, kept, batch_dims=1), 0.0),
            tf.where(valid, tf.gather(classes, kept), 0),
            valid,
        )

    def decode_boxes(self, logits, deltas, proposals, image_size):
        """`ClassBoxes`, which `detect` suppresses; arguments as there."""
        scores = tf.nn.softmax(logits)[..., 1:]
        boxes = box_ops.decode(deltas, proposals.boxes[:, :, None, :], self.config["delta_weights"])
        batch, count = tf.shape(boxes)[0], boxes.shape[1] * self.num_classes
        boxes = box_ops.clip(tf.reshape(boxes, [batch, count, 4]), image_size)
        scores = tf.reshape(scores, [batch, count])
        usable = (scores > self.detections["score_threshold"]) & tf.repeat(proposals.valid, self.num_classes, axis=1)
        usable &= box_ops.large_enough(boxes, self.conventions["min_detection_size"])
        classes = tf.tile(tf.range(1, self.num_classes + 1), [boxes.shape[1] // self.num_classes])
        return ClassBoxes(boxes, tf.where(usable, scores, DROPPED), classes)
