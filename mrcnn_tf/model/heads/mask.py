"""The mask head: a small fully convolutional network on each RoI (Figure 3 of the paper)."""

import collections

import keras
import tensorflow as tf

from mrcnn_tf.model.blocks import HE_FAN_OUT, ConfiguredLayer, build_in_turn, conv_stack, convolve_rois
from mrcnn_tf.ops.masks import mask_targets

# Logarithms of the probabilities that a pixel belongs to the RoI's object, or to the background: float32 [B, R, M, M].
MaskScores = collections.namedtuple("MaskScores", "foreground background")


@keras.saving.register_keras_serializable("mrcnn_tf")
class MaskHead(ConfiguredLayer):
    """Four 3x3 convolutions, a 2x2 deconvolution of stride 2, and K masks, twice as large as the RoI features.

    Only one of the K masks matters for an RoI: the ground truth's class in training, the predicted one in inference
    (section 3). The last 1x1 convolution is linear in its kernel, so just that class's kernel is applied. With
    `activation` "softmax" the classes and the background compete for each pixel (Table 2b), and all are computed.

    Args:
        num_classes: K foreground classes.
        config: a dictionary with the fields of `MaskHeadConfig`; its `fcs` make a `MaskMLP` instead.
        conventions: a dictionary with the fields of `Conventions`.
    """

    def __init__(self, num_classes, config, conventions, **kwargs):
        super().__init__(autocast=False, **kwargs)  # scores must stay float32
        self.num_classes, self.config, self.conventions = num_classes, config, conventions
        self.multinomial = config["activation"] == "softmax"
        self.masks = 1 if config["class_agnostic"] else num_classes
        count, epsilon = 0 if config["fcs"] else config["convs"], conventions["batch_norm_epsilon"]
        self.convs = conv_stack(count, config["channels"], config["norm"], epsilon, self.dtype_policy)

    def build(self, input_shape):
        channels, hidden = build_in_turn(self.convs, input_shape[-1]), self.config["channels"]
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
        """(variable, initializer) of each weight whose shape depends on the classes."""
        if self.config["class_agnostic"]:
            return []
        return [(self.kernel, self.predictor_initializer()), (self.bias, keras.initializers.Zeros())]

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
        index = tf.zeros_like(classes) if self.config["class_agnostic"] else tf.maximum(classes - 1, 0)
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

    def targets(self, masks, boxes, rois):
        """What the masks should be: the part of each ground truth mask inside its RoI (section 3.1).

        Masks uint8 [B, G, S, S], 255 times the occupancy, each inside its own of boxes [B, G, 4] pixels, and a
        `RoISample` with P RoIs per image -> float32 [B, P, M, M] in 0..1.
        """
        side, crop = 2 * self.config["pool_size"], masks.shape[2]
        matched_masks = tf.reshape(tf.gather(masks, rois.truth, batch_dims=1), [-1, crop, crop])
        matched_boxes = tf.reshape(tf.gather(boxes, rois.truth, batch_dims=1), [-1, 4])
        binary = self.conventions["mask_target"] == "binary"
        targets = mask_targets(matched_masks, matched_boxes, tf.reshape(rois.boxes, [-1, 4]), side, binary)
        return tf.reshape(targets, [-1, rois.boxes.shape[1], side, side])


def _interleave(pixels, side):
    """[N, side * side * 4] -> [N, 2 * side, 2 * side]: the four pixels of each input pixel in their places.

    Last of all: the hidden layer that they come from is 256 times as large.
    """
    return tf.transpose(tf.reshape(pixels, [-1, side, side, 2, 2]), [0, 1, 3, 2, 4])


@keras.saving.register_keras_serializable("mrcnn_tf")
class MaskMLP(MaskHead):
    """The mask head as a multi-layer perceptron, which Table 2e of the paper compares the convolutional one with.

    Fully connected hidden layers on the flattened RoI features, and K masks of independent pixels. Arguments as of
    `MaskHead`; `config` has the number of hidden layers in `fcs` and their width in `channels`.
    """

    def __init__(self, num_classes, config, conventions, **kwargs):
        super().__init__(num_classes, config, conventions, **kwargs)
        channels, policy, self.fcs = config["channels"], self.dtype_policy, []
        for index in range(1, config["fcs"] + 1):
            he = keras.initializers.VarianceScaling(**HE_FAN_OUT)  # shared, it would draw equal layers
            layer = keras.layers.Dense(channels, "relu", kernel_initializer=he, dtype=policy, name=f"fc{index}")
            self.fcs.append(layer)

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
