"""The features of regions of interest: RoIAlign (section 3) and its variants.

On a pyramid an RoI is pooled from the level that fits its size. On C4 it goes through the ResNet's fifth stage
(Figure 3 of the paper, left).
"""

import math

import keras
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.checks import valid_settings
from mrcnn_tf.config.settings import BackboneConfig, Conventions, RoILayerConfig
from mrcnn_tf.model.backbones.resnet import residual_stage
from mrcnn_tf.model.blocks import ConfiguredLayer, build_in_turn, count_outputs
from mrcnn_tf.model.necks import FeatureMaps, common_channels
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.conv import conv2d
from mrcnn_tf.ops.roi_align import PyramidRoIs, pyramid_roi_align
from mrcnn_tf.ops.roi_pool import max_roi_align, quantised_boxes, roi_pool

RES5_SIDE = 7  # cells of what res5 gives, of 14 or 7
C4_CELLS = 4200  # of an image of 800 x 1333 pixels


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
        maps: names of the maps that RoIs are pooled from: one, or some of P2, P3, ... in a row; None: the features'
            `roi_maps`.
        conventions, settings: as in a config's `model.conventions` and `model.roi_layer`.
    """

    def __init__(
        self,
        output_size,
        maps: list | None = None,
        conventions: Conventions | None = None,
        settings: RoILayerConfig | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.output_size, self.maps = output_size, maps and list(maps)
        self.conventions = valid_settings(conventions, Conventions)
        self.settings = valid_settings(settings, RoILayerConfig)

    def build(self, input_shape=None):
        """Nothing: it has no weights."""

    def sections(self):
        """The sections of a config's `model` that the layer was made of, by name."""
        return {"roi_layer": self.settings}

    def output_shape_of(self, shapes):
        """(None, None, S, S, C), of maps of `shapes` by name.

        Raises:
            UserError: maps that aren't there, or of different numbers of channels.
        """
        names = self.maps or list(shapes)
        if not set(names) <= set(shapes):
            raise UserError(
                f"RoIs are pooled from {', '.join(names)}, and the features are {', '.join(shapes)}: give "
                "RoILayer(maps=[...]) some of them."
            )
        channels = common_channels({name: shapes[name] for name in names}, self)
        return (None, None, self.output_size, self.output_size, channels)

    def call(self, rois, features, bin_step=1):
        """RoIs [B, R, 4] pixels on `FeatureMaps` -> [B, R, S, S, C], S = output_size.

        With `bin_step` n only every n-th of the bins, for layers that are linear: S = output_size / n.
        """
        features = features.select(self.maps or features.roi_maps)
        maps, count = list(features.maps.values()), rois.shape[1]
        levels = self.levels(rois, features)
        pyramid_rois = PyramidRoIs(
            boxes=tf.reshape(self.bounds(rois, features, levels), [-1, 4]),
            image=tf.repeat(tf.range(tf.shape(rois)[0]), count),
            level=tf.reshape(levels, [-1]),
            scales=[1.0 / stride for stride in features.strides.values()],
            padded_size=features.padded_size,
        )
        pooled = self._pool(maps, pyramid_rois, bin_step)
        return tf.reshape(pooled, [-1, count, *2 * [self.output_size // bin_step], maps[0].shape[-1]])

    @property
    def has_static_shapes(self):
        """Whether no shape in here depends on values, as compilers want it: maxima are of bins that differ in size."""
        return self.is_linear

    @property
    def is_linear(self):
        """Whether the features are a linear function of the maps."""
        return self.settings.kind != "pool" and self.settings.aggregate == "average"

    def levels(self, rois, features):
        """int32 [B, R]: which of the maps each of rois [B, R, 4] is pooled from, counted from 0."""
        if len(features.maps) == 1:
            return tf.zeros(tf.shape(rois)[:2], tf.int32)
        finest, *_, coarsest = levels = [round(math.log2(stride)) for stride in features.strides.values()]
        if levels != list(range(finest, coarsest + 1)):
            raise UserError(
                f"RoIs are pooled from maps whose strides double, and these have {features.strides}: give "
                "RoILayer(maps=[...]) some in a row."
            )
        return assign_levels(rois, finest, coarsest, self.conventions.level_assignment) - finest

    @property
    def sampling(self):
        """Samples per bin side (0: as many as the bin has cells), and whether cells' centres are aligned."""
        if self._has_inclusive_boxes:
            return 1, True
        return self.conventions.roi_sampling_ratio, self.conventions.roi_aligned

    def _pool(self, maps, rois, bin_step):
        ratio, aligned = self.sampling
        if self.settings.kind == "pool":
            return roi_pool(maps, rois, self.output_size)
        if self.settings.kind == "warp":
            # Quantised as by RoIPool, then sampled as by RoIAlign: what Table 2c tells apart is the alignment alone.
            rois, aligned = rois._replace(boxes=quantised_boxes(rois)), True
        if self.settings.aggregate == "max":
            return max_roi_align(maps, rois, self.output_size, ratio, aligned)
        return pyramid_roi_align(maps, rois, self.output_size // bin_step, ratio, aligned, bin_step=bin_step)

    @property
    def _has_inclusive_boxes(self):
        return self.conventions.box_width == "inclusive"

    def bounds(self, rois, features, levels):
        """What is divided into bins, pixels: rois [B, R, 4] themselves, unless their width is inclusive: then RoIs
        whose aligned bins have their centres where `tf.image.crop_and_resize` samples `rois`."""
        if not self._has_inclusive_boxes:
            return rois
        padded_size = features.batch_size[None] if features.padded_size is None else features.padded_size
        stride = tf.gather(tf.constant(list(features.strides.values()), tf.float32), levels)[..., None]
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
        backbone, epsilon: as in a config's `model.backbone` (a ResNet), and of its normalisation.
        roi_layer: a `RoILayer` of 14 bins a side, which res5 strides over (Faster R-CNN), or 7, where its stride is 1
            (the paper).
    """

    default_name = "res5"

    def __init__(self, backbone: BackboneConfig, roi_layer, epsilon=1e-5, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.backbone, self.roi_layer, self.epsilon = backbone, roi_layer, epsilon
        if roi_layer.output_size not in (RES5_SIDE, 2 * RES5_SIDE):
            raise UserError(
                f"Res5 makes {RES5_SIDE} x {RES5_SIDE} cells of 14 x 14 or 7 x 7, and its RoILayer gives "
                f"{roi_layer.output_size}: give RoILayer(14) or RoILayer(7)."
            )

    def build(self, input_shape):
        """Takes the shapes of the maps by name."""
        channels = self.roi_layer.output_shape_of(input_shape)[-1]
        strides = self.roi_layer.output_size // RES5_SIDE
        self.blocks = residual_stage(5, self.backbone, self.epsilon, channels, strides, self.dtype_policy)
        self.roi_layer.build(None)
        build_in_turn(self.blocks, channels)

    def sections(self):
        """As of its `RoILayer`."""
        return self.roi_layer.sections()

    @property
    def has_static_shapes(self):
        """As of its `RoILayer`."""
        return self.roi_layer.has_static_shapes

    @property
    def output_size(self):
        """Cells per side of what it gives."""
        return RES5_SIDE

    def output_shape_of(self, shapes):
        """(None, None, 7, 7, C); the layer must be built."""
        return (None, None, RES5_SIDE, RES5_SIDE, self.blocks[-1].filters)

    def activations(self, rois, shapes):
        """Numbers that a training step keeps of as many RoIs of an image, of maps of `shapes` by name: what RoIAlign
        and the trained convolutions put out."""
        pooled = math.prod(self.roi_layer.output_shape_of(shapes)[2:])
        return rois * (pooled + RES5_SIDE**2 * count_outputs(self.blocks))

    def call(self, rois, features, training=False):
        """RoIs [B, R, 4] pixels on `FeatureMaps` -> [B, R, 7, 7, channels]."""
        first_block, *blocks = self.blocks
        if self._may_convolve_first(first_block) and rois.shape[1] * RES5_SIDE**2 > C4_CELLS:
            convolved, shortcut = self._convolve_and_pool(first_block, rois, features)
            outputs = first_block.finish(convolved, shortcut, training=training)
        else:
            pooled = self.roi_layer(rois, features=features)
            outputs = first_block(tf.reshape(pooled, [-1, *pooled.shape[2:]]), training=training)
        for block in blocks:
            outputs = block(outputs, training=training)
        return tf.reshape(outputs, [-1, rois.shape[1], *outputs.shape[1:]])

    def _may_convolve_first(self, block):
        convs = [block.convs[0], block.shortcut]
        are_alike = all(conv.kernel_size == 1 and conv.strides == block.strides for conv in convs)
        # The statistics of other norms are those of the pooled features.
        return are_alike and self.backbone.norm == "frozen_bn" and self.roi_layer.is_linear

    def _convolve_and_pool(self, block, rois, features):
        """What the block's first convolution and its shortcut give for each RoI, [B * R, 7, 7, ...] both."""
        kernels, shifts = zip(*(conv.kernel_and_shift() for conv in (block.convs[0], block.shortcut)), strict=True)
        features = features.select(self.roi_layer.maps or features.roi_maps)
        ((name, c4),) = features.maps.items()
        maps = {name: conv2d(tf.cast(c4, self.compute_dtype), tf.concat(kernels, axis=-1))}
        convolved = FeatureMaps(maps, features.strides, features.image_size, features.padded_size)
        pooled = self.roi_layer(rois, features=convolved, bin_step=block.strides)
        pooled = tf.reshape(pooled, [-1, *pooled.shape[2:]])
        # The shifts come last: a sample outside the map pools to zero, not to a shift.
        outputs = tf.nn.bias_add(pooled, tf.cast(tf.concat(shifts, axis=0), pooled.dtype))
        outputs, shortcut = tf.split(outputs, [kernel.shape[-1] for kernel in kernels], axis=-1)
        return tf.nn.relu(outputs), shortcut


def make_pooling(model, output_size, spec, heads, arguments):
    """The layer that gives a head's RoI features, as a config has it; with features C4 it is a `Res5` for all heads.

    Args:
        model: a `ModelConfig`.
        output_size: bins per side.
        spec: the `FeatureSpec` of the maps.
        heads: those made before.
        arguments: the head's own, of which `name` and `dtype` are read.
    """
    shared = next((head.pooling for head in heads if head.pooling), None)
    if model.features == "C4" and shared:
        return shared
    dtype, settings = arguments.get("dtype"), (model.conventions, model.roi_layer)
    layer = RoILayer(output_size, spec.roi_maps, *settings, dtype=dtype, name=f"{arguments['name']}_rois")
    if model.features != "C4":
        return layer
    return Res5(model.backbone, layer, model.conventions.batch_norm_epsilon, dtype=dtype)
