"""The feature maps that RPN and heads read, by name, and the necks that make them of a backbone's.

A neck, the feature pyramid (Lin et al. 2017) or a single map, is a layer that holds its backbone: it maps images
[B, H, W, 3] to maps by name, as a backbone does, and a model takes either. Which maps there are `FeatureSpec` finds
out; `FeatureMaps` are those of a batch.
"""

import dataclasses
import functools
import math

import keras
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import FPNConfig
from mrcnn_tf.model.backbones import make_backbone
from mrcnn_tf.model.blocks import ConfiguredLayer, ConvNorm, count_outputs
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.gradients import with_gradient
from mrcnn_tf.ops.native.library import shapes_must_be_static

MEASURED_SIDE = 512  # pixels


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """The maps of a backbone or a neck that RPN and heads read, by name, the finest first."""

    channels: dict[str, int]
    strides: dict[str, int]  # pixels per cell
    roi_maps: list[str]  # the names of those that RoIs are pooled from

    @classmethod
    def of(cls, layer):
        """The `FeatureSpec` of a Keras layer or model, whose weights are made if they aren't there.

        It may say its `strides`, of those maps alone that are to be read, and its `roi_maps`. Otherwise strides follow
        from the shapes, and RoIs are pooled from all maps.

        Raises:
            UserError: it gives something else than a dictionary of maps, or maps of unknown strides.
        """
        outputs = layer(keras.KerasTensor((None, None, None, 3))) if callable(layer) else None
        if not isinstance(outputs, dict) or any(len(features.shape) != 4 for features in outputs.values()):
            raise UserError(
                f"{type(layer).__name__} doesn't give feature maps: MaskRCNN takes a layer from images [B, H, W, 3] to "
                "a dictionary of maps [B, H, W, C] by name, such as {'C2': ..., 'C5': ...}, and MaskRCNN.from_settings "
                "a config."
            )
        channels = {name: features.shape[-1] for name, features in outputs.items()}
        strides = getattr(layer, "strides", None) or _measure_strides(layer)
        names = sorted(strides, key=lambda name: strides[name])
        roi_maps = list(getattr(layer, "roi_maps", names))
        if missing := [name for name in (*strides, *roi_maps) if name not in channels]:
            raise UserError(
                f"{type(layer).__name__} names the map {missing[0]} in its strides or roi_maps, and gives "
                f"{', '.join(channels)}: correct the names."
            )
        return cls({name: channels[name] for name in names}, {name: strides[name] for name in names}, roi_maps)


def _measure_strides(layer):
    """Pixels per cell of each map, by name, as an image shows them whose sides all usual strides divide."""
    outputs = layer(keras.KerasTensor((1, MEASURED_SIDE, MEASURED_SIDE, 3)))
    sides = {name: features.shape[1] for name, features in outputs.items()}
    if any(side is None or MEASURED_SIDE % side for side in sides.values()):
        raise UserError(
            f"The strides of {type(layer).__name__} don't follow from its maps, whose sides are {sides} for an image "
            f"of {MEASURED_SIDE} pixels: give it an attribute `strides`, pixels per cell of each map by name."
        )
    return {name: MEASURED_SIDE // side for name, side in sides.items()}


def common_channels(shapes, reader):
    """The number of channels that maps of `shapes` by name have; UserError for `reader`, a layer, if they differ."""
    channels = {name: shape[-1] for name, shape in shapes.items()}
    if len(set(channels.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in channels.items())
        raise UserError(
            f"{type(reader).__name__} reads maps of as many channels each, and these have {listed}: put an FPN around "
            "the backbone, or take its coarsest map by SingleMap."
        )
    return next(iter(channels.values()))


class FeatureMaps:
    """The maps of a batch, the finest first, with what is needed to find an image on them.

    Args:
        maps: dictionary of [B, H_l, W_l, C] by name, such as {"P2": ..., "P6": ...}.
        strides: pixels per cell of each, by name; those of other maps may be among them.
        image_size: int32 [B, 2] = (height, width), pixels of each image without padding.
        padded_size: int32 [B, 2], see `ops.padding`; None: all images fill the batch.
        roi_maps: names of the maps that RoIs are pooled from; None: all.
    """

    def __init__(self, maps, strides, image_size=None, padded_size=None, roi_maps=None):
        self.maps = dict(maps)
        self.strides = {name: strides[name] for name in self.maps}
        self.image_size, self.padded_size = image_size, padded_size
        self.roi_maps = [name for name in roi_maps or self.maps if name in self.maps]
        self._pooled = {}
        self.anchors = {}  # on these maps, by the RPN that reads them: see `RPN.make_anchors`

    def __getitem__(self, name):
        return self.maps[name]

    def select(self, names):
        """The maps of these names alone, in this order."""
        return self._with({name: self.maps[name] for name in names})

    def stop_gradient(self):
        """The same maps, which a loss's gradient doesn't reach."""
        return self._with({name: tf.stop_gradient(features) for name, features in self.maps.items()})

    def _with(self, maps):
        return FeatureMaps(maps, self.strides, self.image_size, self.padded_size, self.roi_maps)

    @functools.cached_property
    def valid_cells(self):
        """Of each map, int32 [B, 2] or None, by name; see `ops.padding`."""
        return {name: padding.count_cells(self.padded_size, stride) for name, stride in self.strides.items()}

    @functools.cached_property
    def batch_size(self):
        """int32 [2] = (height, width), pixels of the padded batch."""
        name, features = next(iter(self.maps.items()))
        return tf.shape(features)[1:3] * self.strides[name]

    def pool(self, pooling, rois):
        """RoI features [B, R, S, S, C] of a `RoISample` by a pooling layer.

        Each layer pools a sample once: where heads share a layer, one that reads the positives takes its part of what
        was pooled of all.
        """
        for sample in (rois, rois.whole):
            if (pooling, sample) in self._pooled:
                return self._pooled[pooling, sample][:, : rois.boxes.shape[1]]
        pooled = self._pooled[pooling, rois] = pooling(rois.boxes, features=self)
        return pooled


def upsample(features):
    """Nearest-neighbour doubling: [B, H, W, C] -> [B, 2H, 2W, C]."""
    if shapes_must_be_static():
        return _resized(features)
    batch, height, width = tf.unstack(tf.shape(features)[:3])
    channels = features.shape[-1]
    repeated = tf.broadcast_to(features[:, :, None, :, None, :], [batch, height, 2, width, 2, channels])
    return tf.reshape(repeated, [batch, 2 * height, 2 * width, channels])


def _sum_of_copies(upstream, features):
    """The gradient of `_resized`: of the four cells that each cell was copied to."""
    return 4 * tf.nn.avg_pool2d(upstream, 2, 2, "VALID")


@with_gradient("MrcnnTf>NearestUpsample", _sum_of_copies)
def _resized(features):
    """The same by the operation that TFLite has a fast kernel for; XLA has no gradient of it."""
    return tf.raw_ops.ResizeNearestNeighbor(images=features, size=2 * tf.shape(features)[1:3])


@keras.saving.register_keras_serializable("mrcnn_tf")
class SingleMap(ConfiguredLayer):
    """The coarsest map of a backbone as it is: C4 or C5, as the detectors before the pyramid had it.

    Args:
        backbone: the layer that gives the maps.
    """

    default_name = "single_map"

    def __init__(self, backbone, **kwargs):
        super().__init__(**kwargs)
        self.backbone, self._maps = backbone, FeatureSpec.of(backbone)
        *_, self.map = self._maps.strides
        self.strides = {self.map: self._maps.strides[self.map]}
        self.keeps_padding_out = getattr(backbone, "keeps_padding_out", False)
        self.needs_weights = getattr(backbone, "needs_weights", False)

    def sections(self):
        """The settings of a config's `model` that the layer and its backbone were made of, by name."""
        own = {"features": self.map} if self.map in ("C4", "C5") else {}
        return own | _sections(self.backbone)

    def activations(self, pixels):
        """As of the backbone."""
        return activations_of(self.backbone, pixels)

    def build(self, input_shape=None):
        """Nothing: the backbone's weights are there."""

    def compute_output_shape(self, input_shape):
        return {name: (None, None, None, channels) for name, channels in self._maps.channels.items()}

    def call(self, images, training=False):
        """Images [B, H, W, 3] -> the backbone's maps, of which the coarsest is zero beyond each image's padded size."""
        return self.from_maps(self.backbone(images, training=training))

    def from_maps(self, maps):
        """The same from the backbone's maps."""
        features = maps[self.map]
        return maps | {self.map: padding.clear_padding(features, padding.running_valid_cells(features))}


@keras.saving.register_keras_serializable("mrcnn_tf")
class FPN(ConfiguredLayer):
    """Pyramid levels {P2, ..., P6} of a backbone's {C2, ..., C5}; P6 is P5 subsampled by two (FPN paper, footnote 2).

    Level n has the stride 2^n, whatever the backbone calls its maps; each must be half as fine as the one before.

    Args:
        backbone: the layer that gives the maps.
        channels: of every level.
        norm, epsilon: of the convolutions, see `ConvNorm`.

    Raises:
        UserError: the backbone's strides don't double.
    """

    default_name = "fpn"

    def __init__(self, backbone, channels=256, norm=None, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.backbone, self.channels, self.norm, self.epsilon = backbone, channels, norm, epsilon
        self._maps = FeatureSpec.of(backbone)
        strides = list(self._maps.strides.values())
        levels = [round(math.log2(stride)) for stride in strides]
        if strides != [2**level for level in range(levels[0], levels[0] + len(levels))]:
            raise UserError(
                f"FPN doubles each map and adds it to the finer one, but the maps of {type(backbone).__name__} have "
                f"the strides {', '.join(map(str, strides))}: give it maps whose strides double, such as 4, 8, 16, 32."
            )
        settings = {"norm": norm, "epsilon": epsilon, "dtype": self.dtype_policy}

        def conv(name, size):
            uniform = keras.initializers.VarianceScaling(scale=1.0, mode="fan_in", distribution="uniform")
            return ConvNorm(channels, size, kernel_initializer=uniform, name=name, **settings)

        self.lateral = [conv(f"lateral{level}", 1) for level in levels]
        self.output_convs = [conv(f"output{level}", 3) for level in levels]
        self.roi_maps = [f"P{level}" for level in levels]
        self.keeps_padding_out = getattr(backbone, "keeps_padding_out", False)
        self.needs_weights = getattr(backbone, "needs_weights", False)
        self.strides = {f"P{level}": 2**level for level in [*levels, levels[-1] + 1]}
        self.divisor = strides[-1]  # of the images' sides: coarser maps are doubled and added to finer ones

    def sections(self):
        """The settings of a config's `model` that the layer and its backbone were made of, by name."""
        return {"features": "FPN", "fpn": FPNConfig(self.channels, self.norm)} | _sections(self.backbone)

    def activations(self, pixels):
        """Numbers that a training step keeps of an image of `pixels` pixels, see `activations_of`."""
        of_backbone = activations_of(self.backbone, pixels)
        levels = zip(self._maps.strides.values(), self.lateral, self.output_convs, strict=True)
        own = sum(count_outputs(convs) * pixels / stride**2 for stride, *convs in levels)
        return None if of_backbone is None else of_backbone + own

    def build(self, input_shape=None):
        for channels, lateral, output in zip(
            self._maps.channels.values(), self.lateral, self.output_convs, strict=True
        ):
            lateral.build((None, None, None, channels))
            output.build((None, None, None, self.channels))

    def compute_output_shape(self, input_shape):
        maps = {name: (None, None, None, channels) for name, channels in self._maps.channels.items()}
        return maps | dict.fromkeys(self.strides, (None, None, None, self.channels))

    def call(self, images, training=False):
        """Images [B, H, W, 3] -> the backbone's maps and {"P2": [B, H / 4, W / 4, channels], ..., "P6": ...}.

        The levels are zero beyond each image's padded size, so that heads need not look at it.
        """
        return self.from_maps(self.backbone(images, training=training))

    def from_maps(self, maps):
        """The same from the backbone's maps [B, H_l, W_l, C_l] by name."""
        padded_size = padding.running_padded_size()
        cells_of_level = [padding.count_cells(padded_size, stride) for stride in self._maps.strides.values()]
        levels = zip(self.lateral, self._maps.strides, cells_of_level, strict=True)
        laterals = [conv(maps[name], cells) for conv, name, cells in levels]
        merged = [laterals[-1]]
        for finer in laterals[-2::-1]:
            merged.insert(0, finer + upsample(merged[0]))
        outputs = [
            padding.clear_padding(conv(features, cells), cells)
            for conv, features, cells in zip(self.output_convs, merged, cells_of_level, strict=True)
        ]
        return maps | dict(zip(self.strides, [*outputs, outputs[-1][:, ::2, ::2, :]], strict=True))


def activations_of(layer, pixels):
    """Numbers that a training step keeps of an image of `pixels` pixels in a backbone or a neck; None if it doesn't
    say so by its own `activations`."""
    return layer.activations(pixels) if hasattr(layer, "activations") else None


def _sections(backbone):
    return backbone.sections() if hasattr(backbone, "sections") else {}


def make_neck(model, dtype=None):
    """The neck of a `ModelConfig` with its backbone."""
    backbone = make_backbone(model, dtype)
    if model.features != "FPN":
        return SingleMap(backbone, dtype=dtype)
    settings, epsilon = model.fpn, model.conventions.batch_norm_epsilon
    return FPN(backbone, settings.channels, settings.norm, epsilon, dtype=dtype)
