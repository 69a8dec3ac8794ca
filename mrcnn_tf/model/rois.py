"""Regions of interest: their features (RoIAlign, section 3, and its variants), and those that the heads learn from.

On a pyramid an RoI is pooled from the level that fits its size. On C4 it goes through the ResNet's fifth stage
(Figure 3 of the paper, left).
"""

import collections
import math

import keras
import tensorflow as tf

from mrcnn_tf.model.backbones.resnet import residual_stage
from mrcnn_tf.model.blocks import ConfiguredLayer, build_in_turn
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.conv import conv2d
from mrcnn_tf.ops.matching import match, roi_counters, sample, uniform
from mrcnn_tf.ops.roi_align import PyramidRoIs, pyramid_roi_align
from mrcnn_tf.ops.roi_pool import max_roi_align, quantised_boxes, roi_pool

RES5_SIDE = 7  # cells of what res5 gives, whatever it is given
C4_CELLS = 4200  # of an image of 800 x 1333 pixels
# Per sampled RoI: boxes [B, R, 4] pixels (no gradient), classes int32 [B, R] (0 background), truth int32 [B, R] index
# into the ground truth, positive and drawn bool [B, R]. Positives come first.
RoISample = collections.namedtuple("RoISample", "boxes classes truth positive drawn")


def assign_levels(boxes, lowest, highest, rule):
    """The pyramid's level that each box is pooled from (FPN, equation 1).

    int32 [...] in lowest..highest for boxes [..., 4]: floor(4 + log2(sqrt(area) / 224)), clipped.

    `rule` says what keeps a box of exactly 224 pixels on its level in float32: 1e-6 added to the logarithm
    ("torchvision"), 1e-8 to its argument ("detectron2"), or nothing ("paper"). "matterport" rounds the logarithm to
    the nearest level instead.
    """
    relative = tf.sqrt(box_ops.area(boxes)) / 224.0
    if rule == "detectron2":
        relative += 1e-8
    exponent = tf.math.log(tf.maximum(relative, 1e-9)) / math.log(2.0)
    if rule == "torchvision":
        exponent += 1e-6
    rounded = tf.math.round(exponent) if rule == "matterport" else tf.math.floor(exponent)
    level = 4 + tf.cast(rounded, tf.int32)
    return tf.clip_by_value(level, lowest, highest)


@keras.saving.register_keras_serializable("mrcnn_tf")
class RoILayer(ConfiguredLayer):
    """RoI features from a pyramid (levels by equation 1 of the FPN paper) or from a single map.

    Args:
        output_size: bins per side.
        strides: pixels per cell of the maps that RoIs are pooled from: one, or those of P2 to P5.
        conventions: a dictionary with the fields of `Conventions`.
        kind, aggregate: see `RoILayerConfig`.
    """

    def __init__(self, output_size, strides, conventions, kind="align", aggregate="average", **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.output_size, self.strides, self.conventions = output_size, list(strides), conventions
        self.kind, self.aggregate = kind, aggregate

    def call(self, features, rois, padded_size=None, bin_step=1):
        """Maps at `strides` (P6 may follow, unused) and rois [B, R, 4] pixels -> [B, R, S, S, C], S = output_size.

        With `bin_step` n only every n-th of the bins, for layers that are linear: S = output_size / n.
        """
        maps, count = list(features[: len(self.strides)]), rois.shape[1]
        levels = self.levels(rois)
        pyramid_rois = PyramidRoIs(
            boxes=tf.reshape(self.bounds(maps, rois, levels, padded_size), [-1, 4]),
            image=tf.repeat(tf.range(tf.shape(rois)[0]), count),
            level=tf.reshape(levels, [-1]),
            scales=[1.0 / stride for stride in self.strides],
            padded_size=padded_size,
        )
        pooled = self._pool(maps, pyramid_rois, bin_step)
        return tf.reshape(pooled, [-1, count, *2 * [self.output_size // bin_step], maps[0].shape[-1]])

    @property
    def is_linear(self):
        """Whether the features are a linear function of the maps."""
        return self.kind != "pool" and self.aggregate == "average"

    def compute_output_shape(self, input_shape):
        """Of maps of `input_shape`."""
        return (None, None, self.output_size, self.output_size, input_shape[0][-1])

    def levels(self, rois):
        """int32 [B, R]: which of the maps each of rois [B, R, 4] is pooled from, counted from 0."""
        if len(self.strides) == 1:
            return tf.zeros(tf.shape(rois)[:2], tf.int32)
        return assign_levels(rois, 2, 5, self.conventions["level_assignment"]) - 2

    @property
    def sampling(self):
        """Samples per bin side (0: as many as the bin has cells), and whether cells' centres are aligned."""
        if self._has_inclusive_boxes:
            return 1, True
        return self.conventions["roi_sampling_ratio"], self.conventions["roi_aligned"]

    def _pool(self, maps, rois, bin_step):
        ratio, aligned = self.sampling
        if self.kind == "pool":
            return roi_pool(maps, rois, self.output_size)
        if self.kind == "warp":
            # Quantised as by RoIPool, then sampled as by RoIAlign: what Table 2c tells apart is the alignment alone.
            rois, aligned = rois._replace(boxes=quantised_boxes(rois)), True
        if self.aggregate == "max":
            return max_roi_align(maps, rois, self.output_size, ratio, aligned)
        return pyramid_roi_align(maps, rois, self.output_size // bin_step, ratio, aligned, bin_step=bin_step)

    @property
    def _has_inclusive_boxes(self):
        return self.conventions["box_width"] == "inclusive"

    def bounds(self, maps, rois, levels, padded_size=None):
        """What is divided into bins, pixels: rois [B, R, 4] themselves, unless their width is inclusive: then RoIs
        whose aligned bins have their centres where `tf.image.crop_and_resize` samples `rois`."""
        if not self._has_inclusive_boxes:
            return rois
        if padded_size is None:
            padded_size = tf.shape(maps[0])[None, 1:3] * self.strides[0]
        stride = tf.gather(tf.constant(self.strides, tf.float32), levels)[..., None]
        pixels = tf.cast(padded_size[:, None, ::-1], tf.float32)
        scale = (tf.math.ceil(pixels / stride) - 1.0) / (pixels - 1.0)
        first, last = rois[..., :2] * scale, rois[..., 2:] * scale
        half_bin = (last - first) / (2 * (self.output_size - 1))
        return (tf.concat([first - half_bin, last + half_bin], axis=-1) + 0.5) * stride


@keras.saving.register_keras_serializable("mrcnn_tf")
class Res5(ConfiguredLayer):
    """RoI features from C4 after the fifth stage of the ResNet, which box and mask head share.

    Its first block starts with two 1x1 convolutions (a bottleneck's first and the shortcut). Both they and RoIAlign are
    linear, so where the RoIs have more cells than the map, the map is convolved and then pooled: at 1000 RoIs that
    spares a sixth of all operations, and it reads only the bins that a stride leaves.

    Args:
        backbone: a dictionary with the settings of `residual_stage`.
        roi_layer: a `RoILayer` of 14 bins a side, which res5 strides over (Faster R-CNN), or 7, where its stride is 1
            (the paper).
    """

    def __init__(self, backbone, roi_layer, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.backbone = backbone
        if not isinstance(roi_layer, RoILayer):  # from a config
            roi_layer = keras.saving.deserialize_keras_object(roi_layer)
        self.roi_layer = roi_layer

    def build(self, input_shape):
        channels = input_shape[0][-1]
        strides = self.roi_layer.output_size // RES5_SIDE
        self.blocks = residual_stage(5, self.backbone, channels, strides, self.dtype_policy)
        self.roi_layer.build(None)
        build_in_turn(self.blocks, channels)

    def compute_output_shape(self, input_shape):
        """Of a C4 of `input_shape`; the layer must be built."""
        return (None, None, RES5_SIDE, RES5_SIDE, self.blocks[-1].filters)

    def call(self, features, rois, padded_size=None, training=False):
        """[C4] and rois [B, R, 4] pixels -> [B, R, 7, 7, channels]."""
        first_block, *blocks = self.blocks
        if self._may_convolve_first(first_block) and rois.shape[1] * RES5_SIDE**2 > C4_CELLS:
            convolved, shortcut = self._convolve_and_pool(first_block, features[0], rois, padded_size)
            outputs = first_block.finish(convolved, shortcut, training=training)
        else:
            pooled = self.roi_layer(features, rois, padded_size)
            outputs = first_block(tf.reshape(pooled, [-1, *pooled.shape[2:]]), training=training)
        for block in blocks:
            outputs = block(outputs, training=training)
        return tf.reshape(outputs, [-1, rois.shape[1], *outputs.shape[1:]])

    def _may_convolve_first(self, block):
        convs = [block.convs[0], block.shortcut]
        are_alike = all(conv.kernel_size == 1 and conv.strides == block.strides for conv in convs)
        # The statistics of other norms are those of the pooled features.
        return are_alike and self.backbone["norm"] == "frozen_bn" and self.roi_layer.is_linear

    def _convolve_and_pool(self, block, features, rois, padded_size):
        """What the block's first convolution and its shortcut give for each RoI, [B * R, 7, 7, ...] both."""
        kernels, shifts = zip(*(conv.kernel_and_shift() for conv in (block.convs[0], block.shortcut)), strict=True)
        maps = conv2d(tf.cast(features, self.compute_dtype), tf.concat(kernels, axis=-1))
        pooled = self.roi_layer([maps], rois, padded_size, bin_step=block.strides)
        pooled = tf.reshape(pooled, [-1, *pooled.shape[2:]])
        # The shifts come last: a sample outside the map pools to zero, not to a shift.
        outputs = tf.nn.bias_add(pooled, tf.cast(tf.concat(shifts, axis=0), pooled.dtype))
        outputs, shortcut = tf.split(outputs, [kernel.shape[-1] for kernel in kernels], axis=-1)
        return tf.nn.relu(outputs), shortcut

    def get_config(self):
        roi_layer = keras.saving.serialize_keras_object(self.roi_layer)
        return super().get_config() | {"roi_layer": roi_layer}


@keras.saving.register_keras_serializable("mrcnn_tf")
class RoISampler(ConfiguredLayer):
    """Draws `batch_per_image` RoIs of each image, a quarter positive, ground truth boxes among the candidates."""

    def __init__(self, config, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.config = config

    @property
    def most_positives(self):
        """The number of leading slots that can hold a positive RoI."""
        return int(self.config["batch_per_image"] * self.config["positive_fraction"])

    def call(self, proposals, boxes, classes, crowd, seeds):
        """`RoISample` from `Proposals` and the truth: boxes [B, G, 4], classes [B, G] (0: padding), crowd [B, G].

        `seeds` uint32 [B] decide the draw, see `ops.matching.image_seeds`.
        """
        valid = classes > 0
        # Without its own box an object that no proposal hits would teach nothing while the RPN is still poor.
        candidates = tf.concat([proposals.boxes, boxes], axis=1)
        usable = tf.concat([proposals.valid, valid & ~crowd], axis=1)
        threshold = self.config["foreground_iou"]
        matches = match(candidates, boxes, valid, crowd, threshold, threshold, promote_best=False)
        noise = uniform(seeds, roi_counters(tf.shape(matches)[1]))
        indices, positive, drawn = sample(matches, usable, self.config["batch_per_image"], self.most_positives, noise)
        rois = tf.gather(candidates, indices, batch_dims=1)
        truth = tf.maximum(tf.gather(matches, indices, batch_dims=1), 0)
        labels = tf.where(positive, tf.gather(classes, truth, batch_dims=1), 0)
        return RoISample(tf.stop_gradient(rois), labels, truth, positive, drawn)


def foreground(sample, most_positives):
    """The leading slots of a `RoISample`, all that can be positive: [B, P] instead of [B, R]."""
    return RoISample(*(values[:, :most_positives] for values in sample))
