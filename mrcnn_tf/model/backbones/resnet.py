"""ResNet (He et al. 2016): the backbone, stages res2 to res5 as C2 to C5 at strides 4 to 32."""

import dataclasses
import inspect

import keras
import tensorflow as tf

from mrcnn_tf.config.settings import RESNET_BLOCKS, BackboneConfig
from mrcnn_tf.model.blocks import ConfiguredLayer, ConvNorm, build_in_turn, count_outputs
from mrcnn_tf.ops import padding

WIDTHS = (64, 128, 256, 512)


@keras.saving.register_keras_serializable("mrcnn_tf")
class ResidualBlock(ConfiguredLayer):
    """Two 3x3 convolutions (basic), or 1x1, 3x3 and 1x1 (bottleneck), added to the input or its 1x1 projection.

    Args:
        width: channels of the 3x3 convolutions.
        filters: output channels.
        bottleneck: the form for depth 50 and more.
        strides: of the block.
        stride_in_1x1: a bottleneck strides in its first 1x1 (He et al.) instead of its 3x3 (torchvision).
        project: the shortcut is a 1x1 convolution.
        groups: of a bottleneck's 3x3 convolution (ResNeXt, Xie et al. 2017).
        norm, epsilon: see `ConvNorm`.
        dilation: of the 3x3 convolutions.
    """

    def __init__(
        self, width, filters, bottleneck, strides, stride_in_1x1, project, groups, norm, epsilon, dilation=1, **kwargs
    ):
        super().__init__(**kwargs)
        self.width, self.filters, self.bottleneck, self.strides = width, filters, bottleneck, strides
        self.stride_in_1x1, self.project, self.groups = stride_in_1x1, project, groups
        self.norm, self.epsilon, self.dilation = norm, epsilon, dilation

        def conv(name, filters, size, strides, activation, groups=1):
            rate = dilation if size == 3 else 1
            return ConvNorm(
                filters, size, strides, norm, activation, epsilon, groups, rate, dtype=self.dtype_policy, name=name
            )

        if bottleneck:
            strides_1x1, strides_3x3 = (strides, 1) if stride_in_1x1 else (1, strides)
            self.convs = [
                conv("conv1", width, 1, strides_1x1, "relu"),
                conv("conv2", width, 3, strides_3x3, "relu", groups),
                conv("conv3", filters, 1, 1, None),
            ]
        else:
            self.convs = [conv("conv1", width, 3, strides, "relu"), conv("conv2", width, 3, 1, None)]
        self.shortcut = conv("shortcut", filters, 1, strides, None) if project else None

    def build(self, input_shape):
        build_in_turn(self.convs, input_shape[-1])
        if self.shortcut:
            self.shortcut.build(input_shape)

    def call(self, inputs, valid_cells=None, training=False):
        """[B, H, W, C] -> [B, H / strides, W / strides, filters]; `valid_cells` [B, 2] of the input."""
        shortcut = self.shortcut(inputs, valid_cells=valid_cells, training=training) if self.shortcut else inputs
        first = self.convs[0]
        outputs = first(inputs, valid_cells=valid_cells, training=training)
        return self.finish(outputs, shortcut, padding.count_cells(valid_cells, first.strides), training)

    def finish(self, outputs, shortcut, valid_cells=None, training=False):
        """The block's output, from its first convolution's and its shortcut's."""
        for conv in self.convs[1:]:
            outputs = conv(outputs, valid_cells=valid_cells, training=training)
            valid_cells = padding.count_cells(valid_cells, conv.strides)
        return tf.nn.relu(outputs + shortcut)


def residual_stage(stage, settings, epsilon, channels, strides, dtype, dilation=1):
    """The blocks of one stage of a ResNet: a list of `ResidualBlock`s, named res{stage}_0 and so on.

    Args:
        stage: 2 to 5.
        settings: a `BackboneConfig`, or a `ResNet`, which has its arguments as attributes.
        epsilon: of the normalisation.
        channels: of the stage's input.
        strides: of its first block.
        dtype: policy.
        dilation: of all its 3x3 convolutions.
    """
    planes, bottleneck = WIDTHS[stage - 2], settings.depth >= 50
    filters = 4 * planes if bottleneck else planes
    width = planes * settings.width_per_group // 64 * settings.groups
    shared = {name: getattr(settings, name) for name in ("stride_in_1x1", "groups", "norm")}
    shared |= {"epsilon": epsilon, "bottleneck": bottleneck, "dilation": dilation, "dtype": dtype}
    blocks = []
    for index in range(RESNET_BLOCKS[settings.depth][stage - 2]):
        name, project = f"res{stage}_{index}", index == 0 and (strides > 1 or channels != filters)
        block_strides = strides if index == 0 else 1
        blocks.append(ResidualBlock(width, filters, strides=block_strides, project=project, name=name, **shared))
    return blocks


@keras.saving.register_keras_serializable("mrcnn_tf")
class ResNet(ConfiguredLayer):
    """Feature maps {C2, C3, C4, C5} of a batch of images; padding has no influence on them (`ops.padding`).

    Args:
        depth: 10, 18, 34, 50, 101 or 152.
        norm, epsilon: see `ConvNorm`.
        stride_in_1x1: see `ResidualBlock`.
        freeze_at: 1 freezes the stem, 2 also res2, and so on; 0 trains everything.
        groups, width_per_group: of the 3x3 convolutions, the latter in res2; (32, 4) makes a ResNeXt 32x4d.
        stem_pool: the max pooling's padding: "symmetric", or only at the end ("same", as Keras's `padding="same"`).
        dilated: res5 keeps res4's stride of 16, its 3x3 convolutions being dilated by two.
        last_stage: 5, or 4 to end with C4.
    """

    default_name = "backbone"

    float_layers = ("stem",)  # see `Head`: of an image's dark parts bytes would leave too little

    def __init__(
        self,
        depth,
        norm="frozen_bn",
        stride_in_1x1=False,
        freeze_at=2,
        epsilon=1e-5,
        groups=1,
        width_per_group=64,
        stem_pool="symmetric",
        dilated=False,
        last_stage=5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.depth, self.norm, self.epsilon, self.freeze_at = depth, norm, epsilon, freeze_at
        self.stride_in_1x1, self.groups, self.width_per_group = stride_in_1x1, groups, width_per_group
        self.stem_pool, self.dilated, self.last_stage = stem_pool, dilated, last_stage
        self.stem = ConvNorm(64, 7, 2, norm, "relu", epsilon, dtype=self.dtype_policy, name="stem")
        self.stages, channels = [], 64
        for stage in range(2, last_stage + 1):
            dilation = 2 if dilated and stage == 5 else 1
            strides = 1 if stage == 2 or dilation > 1 else 2
            blocks = residual_stage(stage, self, epsilon, channels, strides, self.dtype_policy, dilation)
            channels = blocks[-1].filters
            self.stages.append(blocks)
        for layers in [[self.stem], *self.stages][:freeze_at]:
            for layer in layers:
                layer.trainable = False

    keeps_padding_out = True

    @classmethod
    def from_settings(cls, settings, **arguments):
        """The ResNet of a `BackboneConfig`; `arguments` are those that aren't in it."""
        names = inspect.signature(cls.__init__).parameters.keys() & {
            field.name for field in dataclasses.fields(settings)
        }
        return cls(**{name: getattr(settings, name) for name in names}, **arguments)

    def sections(self):
        """The section of a config's `model` that the layer was made of, by name."""
        names = {field.name for field in dataclasses.fields(BackboneConfig)}
        values = {name: value for name, value in self.arguments().items() if name in names}
        return {"backbone": BackboneConfig(**values)}

    @property
    def strides(self):
        """Pixels per cell of each map, by name."""
        last = 16 if self.dilated else 32
        return dict(zip(("C2", "C3", "C4", "C5"), (4, 8, 16, last)[: len(self.stages)], strict=False))

    @property
    def needs_weights(self):
        """Whether a part stays as it is made, which must not be random then."""
        return bool(self.freeze_at) or self.norm == "frozen_bn"

    def activations(self, pixels):
        """Numbers that a training step keeps of an image of `pixels` pixels; for the estimate of memory."""
        groups = zip([2, *self.strides.values()], [[self.stem], *self.stages], strict=True)
        return sum(count_outputs(layers) * pixels / stride**2 for stride, layers in groups)

    def build(self, input_shape):
        self.stem.build(input_shape)
        channels = self.stem.filters
        for blocks in self.stages:
            channels = build_in_turn(blocks, channels)

    def compute_output_shape(self, input_shape):
        """Shapes (None, None, None, C) of the maps by name."""
        return {
            name: (None, None, None, blocks[-1].filters) for name, blocks in zip(self.strides, self.stages, strict=True)
        }

    def call(self, images, training=False):
        """Images [B, H, W, 3] -> {"C2": [B, ceil(H / 4), ceil(W / 4), C], ..., "C5": ...} at the strides."""
        padded_size = padding.running_padded_size()
        outputs = self.stem(images, valid_cells=padded_size, training=training)
        # Zeros are a neutral border for the maximum, since ReLU has gone before.
        pad = [0, 1] if self.stem_pool == "same" else [1, 1]
        outputs = padding.clear_padding(outputs, padding.count_cells(padded_size, 2))
        outputs = tf.nn.max_pool2d(tf.pad(outputs, [[0, 0], pad, pad, [0, 0]]), 3, 2, "VALID")
        maps, valid_cells = {}, padding.count_cells(padded_size, 4)
        for name, blocks in zip(self.strides, self.stages, strict=True):
            for block in blocks:
                outputs = block(outputs, valid_cells=valid_cells, training=training)
                valid_cells = padding.count_cells(valid_cells, block.strides)
            maps[name] = outputs
        return maps
