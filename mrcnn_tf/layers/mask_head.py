"""The mask head: a small fully convolutional network on each RoI (Figure 3, right)."""

import keras
import tensorflow as tf

from mrcnn_tf.layers.conv import HE_FAN_OUT, conv_stack
from mrcnn_tf.layers.roi_align import PyramidRoIAlign
from mrcnn_tf.ops.masks import mask_targets


@keras.saving.register_keras_serializable("mrcnn_tf")
class MaskHead(keras.layers.Layer):
    """RoIAlign 14x14, four 3x3 convolutions, a 2x2 deconvolution of stride 2, and K masks of 28x28 logits.

    Only one of the K masks matters for an RoI: the ground truth's class in training, the predicted one in inference
    (section 3). The last 1x1 convolution is linear in its kernel, so just that class's kernel is applied.

    Args:
        num_classes: K foreground classes.
        config: a dictionary with the fields of `MaskHeadConfig`.
        conventions: a dictionary with the fields of `Conventions`.
    """

    def __init__(self, num_classes, config, conventions, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.num_classes, self.config, self.conventions = num_classes, config, conventions
        self.roi_align = PyramidRoIAlign(config["pool_size"], conventions, name="roi_align")
        self.convs = conv_stack(
            config["convs"], config["channels"], config["norm"], conventions["batch_norm_epsilon"], self.dtype_policy
        )

    def build(self, input_shape):
        self.roi_align.build(None)
        channels, hidden = input_shape[0][-1], self.config["channels"]
        for conv in self.convs:
            conv.build((None, None, None, channels))
            channels = hidden
        he = keras.initializers.VarianceScaling(**HE_FAN_OUT)
        # The four output pixels of an input pixel don't overlap: the deconvolution is a 1x1 to 4 * channels,
        # rearranged.
        self.deconv_kernel = self.add_weight(name="deconv_kernel", shape=(2, 2, hidden, channels), initializer=he)
        self.deconv_bias = self.add_weight(name="deconv_bias", shape=(hidden,), initializer="zeros")
        self.kernel = self.add_weight(name="predictor_kernel", shape=(hidden, self.num_classes), initializer=he)
        self.bias = self.add_weight(name="predictor_bias", shape=(self.num_classes,), initializer="zeros")

    def class_variables(self):
        """(variable, initializer) of each weight whose shape depends on the classes."""
        he = keras.initializers.VarianceScaling(**HE_FAN_OUT)
        return [(self.kernel, he), (self.bias, keras.initializers.Zeros())]

    def call(self, features, rois, classes, canvas_size=None):
        """Logits float32 [B, R, M, M] of the masks of `classes` int32 [B, R] (0: padding, any) for rois [B, R, 4]."""
        outputs = self.roi_align(features, rois, canvas_size)
        for conv in self.convs:
            outputs = conv(outputs)
        index = tf.reshape(tf.maximum(classes - 1, 0), [-1])
        return tf.reshape(self._predict(outputs, index), [-1, rois.shape[1], *2 * [2 * outputs.shape[1]]])

    def _predict(self, inputs, index):
        """Deconvolution, ReLU and the masks `index` int32 [N]: [N, h, w, C] -> logits float32 [N, 2h, 2w]."""
        side, channels = inputs.shape[1], inputs.shape[3]
        hidden = self.deconv_kernel.shape[2]
        deconv = tf.reshape(
            tf.transpose(tf.cast(self.deconv_kernel, inputs.dtype), [3, 0, 1, 2]), [channels, 4 * hidden]
        )
        outputs = tf.matmul(tf.reshape(inputs, [-1, channels]), deconv)
        outputs = tf.reshape(outputs, [-1, side * side * 4, hidden])
        outputs = tf.nn.relu(tf.nn.bias_add(outputs, tf.cast(self.deconv_bias, outputs.dtype)))
        kernel = tf.gather(tf.transpose(tf.cast(self.kernel, outputs.dtype)), index)  # [N, hidden]
        logits = tf.cast(tf.matmul(outputs, kernel[:, :, None])[..., 0], tf.float32)
        logits += tf.gather(tf.cast(self.bias, tf.float32), index)[:, None]
        # Only now are the four pixels of each input pixel put in their places: the hidden layer is 256 times as large.
        logits = tf.transpose(tf.reshape(logits, [-1, side, side, 2, 2]), [0, 1, 3, 2, 4])
        return tf.reshape(logits, [-1, 2 * side, 2 * side])

    def targets(self, masks, boxes, rois):
        """What the logits should be: the part of each ground truth mask inside its RoI (section 3.1).

        Args:
            masks: uint8 [B, G, S, S], 255 times the occupancy, each inside its own box.
            boxes: [B, G, 4] pixels.
            rois: `RoISample` with P RoIs per image.

        Returns:
            float32 [B, P, M, M] in 0..1.
        """
        side, crop = 2 * self.config["pool_size"], masks.shape[2]
        own_masks = tf.reshape(tf.gather(masks, rois.truth, batch_dims=1), [-1, crop, crop])
        own_boxes = tf.reshape(tf.gather(boxes, rois.truth, batch_dims=1), [-1, 4])
        binary = self.conventions["mask_target"] == "binary"
        targets = mask_targets(own_masks, own_boxes, tf.reshape(rois.boxes, [-1, 4]), side, binary)
        return tf.reshape(targets, [-1, rois.boxes.shape[1], side, side])

    def get_config(self):
        return super().get_config() | {
            "num_classes": self.num_classes,
            "config": self.config,
            "conventions": self.conventions,
        }
