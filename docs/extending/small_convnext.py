"""A backbone of our own: a small ConvNeXt (Liu et al. 2022) as a plain Keras layer."""

import keras

from mrcnn_tf.parts import ClearPadding


@keras.saving.register_keras_serializable("extending")
class SmallConvNeXt(keras.layers.Layer):
    """Images [B, H, W, 3] -> {"C2": ..., "C5": ...} at strides 4 to 32.

    Args:
        widths: channels of the four stages.
        depths: blocks of each.
    """

    strides = {"C2": 4, "C3": 8, "C4": 16, "C5": 32}

    def __init__(self, widths=(32, 64, 128, 256), depths=(1, 1, 2, 1), **kwargs):
        super().__init__(**kwargs)
        self.widths, self.depths, policy = list(widths), list(depths), self.dtype_policy
        # Windows as large as their stride tile the map: they never look over an image's edge.
        self.reductions = [
            keras.layers.Conv2D(width, size, strides=size, dtype=policy, name=f"reduce{stage}")
            for stage, (width, size) in enumerate(zip(widths, (4, 2, 2, 2), strict=True), 2)
        ]
        self.norms = [
            keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name=f"norm{stage}") for stage in range(2, 6)
        ]
        self.blocks = [
            [_Block(width, dtype=policy, name=f"block{stage}_{index}") for index in range(depth)]
            for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), 2)
        ]

    def call(self, images):
        maps, outputs = {}, images
        for name, reduce, norm, blocks in zip(self.strides, self.reductions, self.norms, self.blocks, strict=True):
            outputs = norm(reduce(outputs))
            for block in blocks:
                outputs = block(outputs)
            maps[name] = outputs
        return maps

    def get_config(self):
        return super().get_config() | {"widths": self.widths, "depths": self.depths}


class _Block(keras.layers.Layer):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        # The 7x7 windows reach over the edge of an image, so what lies there in a batch is cleared before.
        self.layers = [
            ClearPadding(dtype=policy, name="clear"),
            keras.layers.DepthwiseConv2D(7, padding="same", dtype=policy, name="windows"),
            keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="norm"),
            keras.layers.Dense(4 * width, "gelu", dtype=policy, name="widen"),
            keras.layers.Dense(width, dtype=policy, name="narrow"),
        ]

    def call(self, inputs):
        outputs = inputs
        for layer in self.layers:
            outputs = layer(outputs)
        return inputs + outputs
