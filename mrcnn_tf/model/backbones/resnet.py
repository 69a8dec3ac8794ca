"""ResNet (He et al. 2016): the backbone, stages res2 to res5 as C2 to C5 at strides 4 to 32."""

import keras
import tensorflow as tf

from mrcnn_tf.model.blocks import ConvNorm
from mrcnn_tf.ops import canvas

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
WIDTHS = (64, 128, 256, 512)


@keras.saving.register_keras_serializable("mrcnn_tf")
class ResidualBlock(keras.layers.Layer):
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
        self.settings = {
            "width": width,
            "filters": filters,
            "bottleneck": bottleneck,
            "strides": strides,
            "stride_in_1x1": stride_in_1x1,
            "project": project,
            "groups": groups,
            "norm": norm,
            "epsilon": epsilon,
            "dilation": dilation,
        }

        def conv(name, filters, size, step, activation, groups=1):
            spread = dilation if size == 3 else 1
            return ConvNorm(
                filters, size, step, norm, activation, epsilon, groups, spread, dtype=self.dtype_policy, name=name
            )

        if bottleneck:
            first, second = (strides, 1) if stride_in_1x1 else (1, strides)
            self.convs = [
                conv("conv1", width, 1, first, "relu"),
                conv("conv2", width, 3, second, "relu", groups),
                conv("conv3", filters, 1, 1, None),
            ]
        else:
            self.convs = [conv("conv1", width, 3, strides, "relu"), conv("conv2", width, 3, 1, None)]
        self.shortcut = conv("shortcut", filters, 1, strides, None) if project else None
        self.filters, self.strides = filters, strides

    def build(self, input_shape):
        channels = input_shape[-1]
        for conv in self.convs:
            conv.build((None, None, None, channels))
            channels = conv.filters
        if self.shortcut:
            self.shortcut.build(input_shape)

    def call(self, inputs, extent=None, training=False):
        shortcut = self.shortcut(inputs, extent=extent, training=training) if self.shortcut else inputs
        first = self.convs[0]
        outputs = first(inputs, extent=extent, training=training)
        return self.finish(outputs, shortcut, canvas.extent(extent, first.strides), training)

    def finish(self, outputs, shortcut, extent=None, training=False):
        """The block's output, from its first convolution's and its shortcut's."""
        for conv in self.convs[1:]:
            outputs = conv(outputs, extent=extent, training=training)
            extent = canvas.extent(extent, conv.strides)
        return tf.nn.relu(outputs + shortcut)

    def get_config(self):
        return super().get_config() | self.settings


def residual_stage(stage, settings, channels, strides, dtype, dilation=1):
    """The blocks of one stage of a ResNet.

    Args:
        stage: 2 to 5.
        settings: a dictionary with depth, groups, width_per_group, stride_in_1x1, norm and epsilon, as `ResNet` takes
            them.
        channels: of the stage's input.
        strides: of its first block.
        dtype: policy.
        dilation: of all its 3x3 convolutions.

    Returns:
        A list of `ResidualBlock`s, named res{stage}_0 and so on.
    """
    planes, bottleneck = WIDTHS[stage - 2], settings["depth"] >= 50
    filters = 4 * planes if bottleneck else planes
    width = planes * settings["width_per_group"] // 64 * settings["groups"]
    blocks = []
    for index in range(BLOCKS[settings["depth"]][stage - 2]):
        first = index == 0
        blocks.append(
            ResidualBlock(
                width,
                filters,
                bottleneck,
                strides if first else 1,
                settings["stride_in_1x1"],
                first and (strides > 1 or channels != filters),
                settings["groups"],
                settings["norm"],
                settings["epsilon"],
                dilation,
                dtype=dtype,
                name=f"res{stage}_{index}",
            )
        )
    return blocks


@keras.saving.register_keras_serializable("mrcnn_tf")
class ResNet(keras.layers.Layer):
    """Feature maps {C2, C3, C4, C5} of a batch of images.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm, epsilon: see `ConvNorm`.
        stride_in_1x1: see `ResidualBlock`.
        freeze_at: 1 freezes the stem, 2 also res2, and so on; 0 trains everything.
        groups, width_per_group: of the 3x3 convolutions, the latter in res2; (32, 4) makes a ResNeXt 32x4d.
        stem_pool: the max pooling's padding: "symmetric", or only at the end ("same", as Keras's `padding="same"`).
        dilated: res5 keeps res4's stride of 16, its 3x3 convolutions being dilated by two.
        last_stage: 5, or 4 to end with C4.
    """

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
        self.settings = {
            "depth": depth,
            "norm": norm,
            "stride_in_1x1": stride_in_1x1,
            "freeze_at": freeze_at,
            "epsilon": epsilon,
            "groups": groups,
            "width_per_group": width_per_group,
            "stem_pool": stem_pool,
            "dilated": dilated,
            "last_stage": last_stage,
        }
        self.stem = ConvNorm(64, 7, 2, norm, "relu", epsilon, dtype=self.dtype_policy, name="stem")
        self.stages, channels = [], 64
        for stage in range(2, last_stage + 1):
            spread = 2 if dilated and stage == 5 else 1
            strides = 1 if stage == 2 or spread > 1 else 2
            row = residual_stage(stage, self.settings, channels, strides, self.dtype_policy, spread)
            channels = row[-1].filters
            self.stages.append(row)
        for layers in [[self.stem], *self.stages][:freeze_at]:
            for layer in layers:
                layer.trainable = False

    def build(self, input_shape):
        self.stem.build(input_shape)
        channels = self.stem.filters
        for row in self.stages:
            for block in row:
                block.build((None, None, None, channels))
                channels = block.filters

    @property
    def output_shapes(self):
        """Shapes (None, None, None, C) of C2 to C5."""
        return [(None, None, None, row[-1].filters) for row in self.stages]

    @property
    def strides(self):
        """Pixels per cell of C2 to C5."""
        return [4, 8, 16, 16 if self.settings["dilated"] else 32][: len(self.stages)]

    def call(self, images, canvas_size=None, training=False):
        """Images [B, H, W, 3] -> list of maps [B, ceil(H / s), ceil(W / s), C] at the strides s."""
        outputs = self.stem(images, extent=canvas_size, training=training)
        # Zeros are a neutral border for the maximum, since ReLU has gone before.
        pad = [0, 1] if self.settings["stem_pool"] == "same" else [1, 1]
        outputs = canvas.clear(outputs, canvas.extent(canvas_size, 2))
        outputs = tf.nn.max_pool2d(tf.pad(outputs, [[0, 0], pad, pad, [0, 0]]), 3, 2, "VALID")
        maps, cells = [], canvas.extent(canvas_size, 4)
        for row in self.stages:
            for block in row:
                outputs = block(outputs, extent=cells, training=training)
                cells = canvas.extent(cells, block.strides)
            maps.append(outputs)
        maps[-1] = canvas.clear(maps[-1], cells)  # heads read it as it is where there is no pyramid
        return maps

    def get_config(self):
        return super().get_config() | self.settings
