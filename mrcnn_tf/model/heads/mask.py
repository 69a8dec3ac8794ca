"""The mask head: a small fully convolutional network on each RoI (Figure 3 of the paper)."""

import collections
import dataclasses

import keras
import tensorflow as tf

from mrcnn_tf.config.checks import valid_settings
from mrcnn_tf.config.settings import Conventions, MaskHeadConfig
from mrcnn_tf.model import losses
from mrcnn_tf.model.blocks import HE_FAN_OUT, build_in_turn, conv_stack, convolve_rois
from mrcnn_tf.model.heads.head import Head
from mrcnn_tf.model.roi_features import make_pooling
from mrcnn_tf.ops.masks import mask_targets
from mrcnn_tf.results.output_spec import OutputSpec
from mrcnn_tf.weights.fit_classes import ClassVariable

# Logarithms of the probabilities that a pixel belongs to the RoI's object, or to the background: float32 [B, R, M, M].
MaskScores = collections.namedtuple("MaskScores", "foreground background")


@keras.saving.register_keras_serializable("mrcnn_tf")
class MaskHead(Head):
    """Four 3x3 convolutions, a 2x2 deconvolution of stride 2, and K masks, twice as large as the RoI features.

    Only one of the K masks matters for an RoI: the ground truth's class in training, the predicted one in inference
    (section 3). The last 1x1 convolution is linear in its kernel, so just that class's kernel is applied. With
    `activation` "softmax" the classes and the background compete for each pixel (Table 2b), and all are computed.

    Args:
        num_classes: K foreground classes.
        pooling: the layer that gives RoI features.
        settings, conventions: as in a config's `model.mask_head` and `model.conventions`; settings with `fcs` are of a
            `MaskMLP` instead.
    """

    section = default_name = "mask_head"
    loss_names = ("loss_mask",)
    learns_from_positives = True

    def __init__(
        self,
        num_classes,
        pooling,
        settings: MaskHeadConfig | None = None,
        conventions: Conventions | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_classes, self.pooling = num_classes, pooling
        self.settings = valid_settings(settings, MaskHeadConfig)
        self.conventions = valid_settings(conventions, Conventions)
        self.multinomial = self.settings.activation == "softmax"
        self.masks = 1 if self.settings.class_agnostic else num_classes
        self._make_hidden_layers()

    @classmethod
    def from_settings(cls, model, spec, heads, **arguments):
        kind = MaskMLP if model.mask_head.fcs and cls is MaskHead else cls
        pooling = make_pooling(model, model.mask_head.pool_size, spec, heads, arguments)
        return kind(len(model.categories), pooling, model.mask_head, model.conventions, **arguments)

    def _make_hidden_layers(self):
        settings, epsilon = self.settings, self.conventions.batch_norm_epsilon
        self.convs = conv_stack(settings.convs, settings.channels, settings.norm, epsilon, self.dtype_policy)

    @property
    def side(self):
        """M, cells along each side of a mask."""
        return 2 * self.pooling.output_size

    @property
    def outputs(self):
        return [OutputSpec("masks", (self.side, self.side), "probability of each part of the box to be the object's")]

    def build(self, input_shape):
        channels, hidden = build_in_turn(self.convs, input_shape[-1]), self.settings.channels
        he = keras.initializers.VarianceScaling(**HE_FAN_OUT)
        # The four output pixels of an input pixel don't overlap: it is a 1x1 to 4 * channels, rearranged.
        self.deconv_kernel = self.add_weight(name="deconv_kernel", shape=(2, 2, hidden, channels), initializer=he)
        self.deconv_bias = self.add_weight(name="deconv_bias", shape=(hidden,), initializer="zeros")
        self._add_predictor(hidden, self.masks + self.multinomial)

    @staticmethod
    def predictor_initializer():
        """A new one for each use: the same one draws the same numbers again."""
        return keras.initializers.VarianceScaling(**HE_FAN_OUT)

    def _add_predictor(self, inputs, outputs):
        initializer = self.predictor_initializer()
        self.kernel = self.add_weight(name="predictor_kernel", shape=(inputs, outputs), initializer=initializer)
        self.bias = self.add_weight(name="predictor_bias", shape=(outputs,), initializer="zeros")

    def class_variables(self):
        if self.settings.class_agnostic:
            return []
        layout = {"background": -1 if self.multinomial else None}
        kernel = ClassVariable(self.kernel, self.predictor_initializer(), **layout)
        return [kernel, ClassVariable(self.bias, keras.initializers.Zeros(), **layout)]

    def call(self, roi_features, classes):
        """`MaskScores` of the masks of `classes` int32 [B, R] (0: padding, any) for RoI features [B, R, S, S, C]."""
        outputs = convolve_rois(self.convs, roi_features)
        side, hidden = outputs.shape[1], self._deconvolve(outputs)
        score = self._score_competing if self.multinomial else self._score_independently
        scores = score(hidden, self._mask_of(classes))
        shape = [-1, roi_features.shape[1], 2 * side, 2 * side]
        return MaskScores(*(tf.reshape(_interleave(values, side), shape) for values in scores))

    def _mask_of(self, classes):
        """int32 [B * R]: which of the masks belongs to each of `classes` [B, R]."""
        index = tf.zeros_like(classes) if self.settings.class_agnostic else tf.maximum(classes - 1, 0)
        return tf.reshape(index, [-1])

    def _deconvolve(self, inputs):
        """[N, h, w, C] -> the hidden layer [N, h * w * 4, channels], the four pixels of each input pixel in a row."""
        cells, channels, hidden = inputs.shape[1] * inputs.shape[2], inputs.shape[3], self.deconv_kernel.shape[2]
        kernel = tf.transpose(tf.cast(self.deconv_kernel, inputs.dtype), [3, 0, 1, 2])
        outputs = tf.matmul(tf.reshape(inputs, [-1, channels]), tf.reshape(kernel, [channels, 4 * hidden]))
        outputs = tf.reshape(outputs, [-1, cells * 4, hidden])
        return tf.nn.relu(tf.nn.bias_add(outputs, tf.cast(self.deconv_bias, outputs.dtype)))

    def _score_independently(self, hidden, index):
        """Independent masks: a sigmoid of the logits of mask `index` int32 [N] -> two [N, pixels]."""
        kernel = tf.gather(tf.transpose(tf.cast(self.kernel, hidden.dtype)), index)  # [N, channels]
        logits = tf.cast(tf.matmul(hidden, kernel[:, :, None])[..., 0], tf.float32)
        logits += tf.gather(tf.cast(self.bias, tf.float32), index)[:, None]
        return tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)

    def _score_competing(self, hidden, index):
        """Multinomial masks: a softmax over the background, which is last, and all masks -> two [N, pixels]."""
        logits = tf.tensordot(hidden, tf.cast(self.kernel, hidden.dtype), 1)
        scores = tf.nn.log_softmax(tf.cast(logits, tf.float32) + self.bias)
        return tf.gather(tf.transpose(scores, [0, 2, 1]), index, batch_dims=1), scores[..., -1]

    def targets(self, rois, truth):
        """What the masks should be: the part of each ground truth mask inside its RoI (section 3.1).

        Of a `RoISample` with P RoIs per image and a `GroundTruth`, whose `masks` uint8 [B, G, S, S] are 255 times the
        occupancy inside each object's box -> float32 [B, P, M, M] in 0..1.
        """
        masks = truth.of_rois(truth["masks"], rois)
        crop, side = masks.shape[2], self.side
        masks, boxes = tf.reshape(masks, [-1, crop, crop]), tf.reshape(truth.of_rois(truth.boxes, rois), [-1, 4])
        binary = self.conventions.mask_target == "binary"
        targets = mask_targets(masks, boxes, tf.reshape(rois.boxes, [-1, 4]), side, binary)
        return tf.reshape(targets, [-1, rois.boxes.shape[1], side, side])

    def compute_losses(self, features, rois, truth):
        rois = rois.positives
        scores = self(features.pool(self.pooling, rois), rois.classes)
        return {"loss_mask": losses.mask_loss(scores, self.targets(rois, truth), rois.positive)}

    def training_examples(self, features, rois, truth):
        if "masks" not in truth:
            return {}
        rois = rois.positives
        scores = self(features.pool(self.pooling, rois), rois.classes)
        return {"mask_targets": self.targets(rois, truth), "predicted_masks": tf.exp(scores.foreground)}

    def detect(self, features, regions):
        scores = self(self.pooling(regions.boxes, features=features), regions.classes)
        return {"masks": tf.exp(scores.foreground)}

    def results(self, outputs, model):
        return {"mask_probabilities": outputs["masks"], "mask_rule": self.conventions.mask_paste}

    def activations(self, pixels, rois, positives):
        cells = self.pooling.output_size**2
        return positives * (cells * sum(conv.filters for conv in self.convs) + 4 * cells * self.settings.channels)


def _interleave(pixels, side):
    """[N, side * side * 4] -> [N, 2 * side, 2 * side]: the four pixels of each input pixel in their places.

    Last of all: the hidden layer that they come from is 256 times as large.
    """
    return tf.transpose(tf.reshape(pixels, [-1, side, side, 2, 2]), [0, 1, 3, 2, 4])


@keras.saving.register_keras_serializable("mrcnn_tf")
class MaskMLP(MaskHead):
    """The mask head as a multi-layer perceptron, which Table 2e of the paper compares the convolutional one with.

    Fully connected hidden layers on the flattened RoI features, and K masks of independent pixels. Arguments as of
    `MaskHead`; the settings have the number of hidden layers in `fcs` and their width in `channels`.
    """

    def _make_hidden_layers(self):
        self.fcs = []
        for index in range(1, self.settings.fcs + 1):
            he = keras.initializers.VarianceScaling(**HE_FAN_OUT)  # shared, it would draw equal layers
            units, policy = self.settings.channels, self.dtype_policy
            layer = keras.layers.Dense(units, "relu", kernel_initializer=he, dtype=policy, name=f"fc{index}")
            self.fcs.append(layer)

    def activations(self, pixels, rois, positives):
        return 0

    def class_variables(self):
        pixels = self.side**2
        return [dataclasses.replace(variable, size=pixels) for variable in super().class_variables()]

    @staticmethod
    def predictor_initializer():
        """torch.nn.Linear's initial weights; He's by fan-out would be tiny for so many outputs."""
        return keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")

    def build(self, input_shape):
        side, units = input_shape[-2], input_shape[-3] * input_shape[-2] * input_shape[-1]
        for layer in self.fcs:
            layer.build((None, units))
            units = layer.units
        self._add_predictor(units, self.masks * 4 * side * side)

    def call(self, roi_features, classes):
        """As `MaskHead.call`."""
        side, count = roi_features.shape[-2], roi_features.shape[1]
        hidden = tf.reshape(roi_features, [-1, self.fcs[0].kernel.shape[0]])
        for layer in self.fcs:
            hidden = layer(hidden)
        logits = tf.cast(tf.matmul(hidden, tf.cast(self.kernel, hidden.dtype)), tf.float32) + self.bias
        logits = tf.reshape(logits, [-1, self.masks, 2 * side, 2 * side])
        logits = tf.gather(logits, self._mask_of(classes), batch_dims=1)
        logits = tf.reshape(logits, [-1, count, 2 * side, 2 * side])
        return MaskScores(tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits))
