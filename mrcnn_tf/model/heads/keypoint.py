"""The keypoint head: a heatmap for each keypoint of an RoI (section 5 of the paper)."""

import keras
import tensorflow as tf

from mrcnn_tf.model.blocks import HE_FAN_OUT, ConfiguredLayer, build_in_turn, conv_stack, convolve_rois
from mrcnn_tf.ops.keypoints import decode_keypoints, keypoint_targets, upsample_heatmaps


@keras.saving.register_keras_serializable("mrcnn_tf")
class KeypointHead(ConfiguredLayer):
    """Eight 3x3 convolutions, a 4x4 deconvolution of stride 2 and bilinear doubling: logits of four times the side.

    A keypoint lies in one of M * M cells (a softmax over the heatmap), as in torchvision and detectron2.

    Args:
        channels_of_class: [K + 1][P], the heatmap of each keypoint of each class, -1 where it has fewer than P; see
            `keypoint_channels`.
        config, conventions: dictionaries with the fields of `KeypointHeadConfig` and `Conventions`.
    """

    def __init__(self, channels_of_class, config, conventions, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes and scores must stay float32
        self.channels_of_class = [list(row) for row in channels_of_class]
        self.config, self.conventions = config, conventions
        self.heatmaps = 1 + max(channel for row in self.channels_of_class for channel in row)
        epsilon = conventions["batch_norm_epsilon"]
        self.convs = conv_stack(config["convs"], config["channels"], None, epsilon, self.dtype_policy)

    def build(self, input_shape):
        channels = build_in_turn(self.convs, input_shape[-1])
        he = keras.initializers.VarianceScaling(**HE_FAN_OUT)
        self.kernel = self.add_weight(name="score_kernel", shape=(4, 4, self.heatmaps, channels), initializer=he)
        self.bias = self.add_weight(name="score_bias", shape=(self.heatmaps,), initializer="zeros")

    def class_variables(self):
        """(variable, initializer) of each weight whose shape depends on the classes."""
        he = keras.initializers.VarianceScaling(**HE_FAN_OUT)
        return [(self.kernel, he), (self.bias, keras.initializers.Zeros())]

    def call(self, roi_features, classes):
        """Logits float32 [B, R, P, M, M] of the keypoints of `classes` int32 [B, R] for features [B, R, S, S, C].

        Of a class with fewer than P keypoints the remaining logits mean nothing.
        """
        outputs = convolve_rois(self.convs, roi_features)
        side = 2 * outputs.shape[1]
        shape = [tf.shape(outputs)[0], side, side, self.heatmaps]
        scores = tf.nn.conv2d_transpose(outputs, tf.cast(self.kernel, outputs.dtype), shape, 2, "SAME")
        # The softmax over thousands of cells and its maximum need float32.
        scores = upsample_heatmaps(tf.cast(scores, tf.float32) + tf.cast(self.bias, tf.float32))
        scores = tf.transpose(scores, [0, 3, 1, 2])
        channels = tf.gather(tf.maximum(self.channels_of_class, 0), tf.reshape(classes, [-1]))
        class_scores = tf.gather(scores, channels, batch_dims=1)
        return tf.reshape(class_scores, [-1, roi_features.shape[1], class_scores.shape[1], 2 * side, 2 * side])

    def targets(self, keypoints, rois):
        """Which cell of its heatmap each keypoint lies in.

        Keypoints float32 [B, G, P, 3] = (x, y, visibility) pixels and a `RoISample` with N RoIs per image -> int32
        [B, N, P], the cells counted row by row, and bool [B, N, P]: labelled and inside a positive RoI.
        """
        matched = tf.gather(keypoints, rois.truth, batch_dims=1)
        points, side = matched.shape[2], 4 * self.config["pool_size"]
        cells, inside = keypoint_targets(tf.reshape(matched, [-1, points, 3]), tf.reshape(rois.boxes, [-1, 4]), side)
        shape = [-1, rois.boxes.shape[1], points]
        return tf.reshape(cells, shape), tf.reshape(inside, shape) & rois.positive[:, :, None]

    def detect(self, logits, boxes, classes, max_box_size=None):
        """Keypoints float32 [B, D, P, 3] = (x, y, score) of boxes [B, D, 4] pixels; zeros where a class has fewer.

        `max_box_size` is as in `decode_keypoints`.
        """
        heatmaps = tf.reshape(logits, [-1, *logits.shape[2:]])
        score_rule = self.conventions["keypoint_score"]
        keypoints = decode_keypoints(heatmaps, tf.reshape(boxes, [-1, 4]), score_rule, max_box_size)
        keypoints = tf.reshape(keypoints, [-1, *logits.shape[1:3], 3])
        exists = tf.gather(tf.greater_equal(self.channels_of_class, 0), classes)
        return tf.where(exists[..., None], keypoints, 0.0)
