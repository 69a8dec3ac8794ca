"""The keypoint head: a heatmap for each keypoint of an RoI (section 5 of the paper)."""

import keras
import tensorflow as tf

from mrcnn_tf.common.categories import keypoint_channels, max_keypoints
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.checks import valid_settings
from mrcnn_tf.config.settings import Conventions, KeypointHeadConfig
from mrcnn_tf.model import losses
from mrcnn_tf.model.blocks import HE_FAN_OUT, build_in_turn, conv_stack, convolve_rois
from mrcnn_tf.model.heads.head import Head
from mrcnn_tf.model.roi_features import make_pooling
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.boxes import to_half_open
from mrcnn_tf.ops.keypoints import decode_keypoints, keypoint_targets, upsample_heatmaps
from mrcnn_tf.results.output_spec import OutputSpec
from mrcnn_tf.weights.fit_classes import KEYPOINTS, ClassVariable


@keras.saving.register_keras_serializable("mrcnn_tf")
class KeypointHead(Head):
    """Eight 3x3 convolutions, a 4x4 deconvolution of stride 2 and bilinear doubling: logits of four times the side.

    A keypoint lies in one of M * M cells (a softmax over the heatmap), as in torchvision and detectron2.

    Args:
        channels_of_class: [K + 1][P], the heatmap of each keypoint of each class, -1 where it has fewer than P; see
            `keypoint_channels`.
        pooling: the layer that gives RoI features.
        settings, conventions: as in a config's `model.keypoint_head` and `model.conventions`.
    """

    section = default_name = "keypoint_head"
    loss_names = ("loss_keypoint",)
    learns_from_positives = True

    def __init__(
        self,
        channels_of_class,
        pooling,
        settings: KeypointHeadConfig | None = None,
        conventions: Conventions | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.channels_of_class, self.pooling = [list(row) for row in channels_of_class], pooling
        self.settings = valid_settings(settings, KeypointHeadConfig)
        self.conventions = valid_settings(conventions, Conventions)
        self.heatmaps = 1 + max(channel for row in self.channels_of_class for channel in row)
        epsilon = self.conventions.batch_norm_epsilon
        self.convs = conv_stack(self.settings.convs, self.settings.channels, None, epsilon, self.dtype_policy)

    @classmethod
    def from_settings(cls, model, spec, heads, **arguments):
        if not max_keypoints(model.categories):
            raise UserError(
                "The model has a keypoint head, and no category names its keypoints: list them in the json's "
                "categories, as keypoints: [nose, left_eye, ...], or set model.keypoint_head=null."
            )
        channels = keypoint_channels(model.categories)[1].tolist()
        pooling = make_pooling(model, model.keypoint_head.pool_size, spec, heads, arguments)
        return cls(channels, pooling, model.keypoint_head, model.conventions, **arguments)

    @property
    def outputs(self):
        shape, meaning = (len(self.channels_of_class[0]), 3), "(x, y, score), x and y in pixels of the image"
        return [OutputSpec("keypoints", shape, meaning, coordinates="points")]

    def build(self, input_shape):
        channels = build_in_turn(self.convs, input_shape[-1])
        he = keras.initializers.VarianceScaling(**HE_FAN_OUT)
        self.kernel = self.add_weight(name="score_kernel", shape=(4, 4, self.heatmaps, channels), initializer=he)
        self.bias = self.add_weight(name="score_bias", shape=(self.heatmaps,), initializer="zeros")

    def class_variables(self):
        he = keras.initializers.VarianceScaling(**HE_FAN_OUT)
        bias = ClassVariable(self.bias, keras.initializers.Zeros(), KEYPOINTS)
        return [ClassVariable(self.kernel, he, KEYPOINTS, axis=2), bias]

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

    def targets(self, rois, truth):
        """Which cell of its heatmap each keypoint lies in.

        Of a `RoISample` with N RoIs per image and a `GroundTruth` with `keypoints` float32 [B, G, P, 3] = (x, y,
        visibility) pixels -> int32 [B, N, P], the cells counted row by row, and bool [B, N, P]: labelled and inside a
        positive RoI.
        """
        matched = truth.of_rois(truth["keypoints"], rois)
        points, side = matched.shape[2], 4 * self.pooling.output_size
        cells, inside = keypoint_targets(tf.reshape(matched, [-1, points, 3]), tf.reshape(rois.boxes, [-1, 4]), side)
        shape = [-1, rois.boxes.shape[1], points]
        return tf.reshape(cells, shape), tf.reshape(inside, shape) & rois.positive[:, :, None]

    def compute_losses(self, features, rois, truth):
        rois = rois.positives
        heatmaps = self(features.pool(self.pooling, rois), rois.classes)
        return {"loss_keypoint": losses.keypoint_loss(heatmaps, *self.targets(rois, truth))}

    def training_examples(self, features, rois, truth):
        if "keypoints" not in truth:
            return {}
        rois = rois.positives
        cells, valid = self.targets(rois, truth)
        heatmaps = self(features.pool(self.pooling, rois), rois.classes)
        return {"keypoint_cells": cells, "keypoint_valid": valid, "heatmaps": heatmaps}

    def detect(self, features, regions):
        heatmaps = self(self.pooling(regions.boxes, features=features), regions.classes)
        boxes = to_half_open(regions.boxes, self.conventions.box_width)
        boxes = tf.where(regions.valid[..., None], boxes, 0.0)
        most = padding.static_image_size(*next(zip(features.maps.values(), features.strides.values(), strict=True)))
        return {"keypoints": self.decode(heatmaps, boxes, regions.classes, most)}

    def decode(self, logits, boxes, classes, max_box_size=None):
        """Keypoints float32 [B, D, P, 3] = (x, y, score) of boxes [B, D, 4] pixels; zeros where a class has fewer.

        `max_box_size` is as in `decode_keypoints`.
        """
        heatmaps = tf.reshape(logits, [-1, *logits.shape[2:]])
        score_rule = self.conventions.keypoint_score
        keypoints = decode_keypoints(heatmaps, tf.reshape(boxes, [-1, 4]), score_rule, max_box_size)
        keypoints = tf.reshape(keypoints, [-1, *logits.shape[1:3], 3])
        exists = tf.gather(tf.greater_equal(self.channels_of_class, 0), classes)
        return tf.where(exists[..., None], keypoints, 0.0)

    def results(self, outputs, model):
        return {"keypoints": outputs["keypoints"], "keypoint_offset": self.conventions.keypoint_offset}

    def activations(self, pixels, rois, positives):
        return (
            positives
            * self.pooling.output_size**2
            * (sum(conv.filters for conv in self.convs) + self.settings.channels)
        )
