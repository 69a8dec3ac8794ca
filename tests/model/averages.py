"""A backbone without weights, for tests that hand a neck its maps or look at their names and strides."""

import keras


class Averages(keras.layers.Layer):
    """{name: the average colour of each cell, repeated to `channels`}, strides by name."""

    def __init__(self, strides, channels=3, **kwargs):
        super().__init__(**kwargs)
        self.strides, self.channels = dict(strides), channels

    def call(self, images, training=False):
        """Images [B, H, W, 3] -> {name: [B, H / stride, W / stride, channels]}."""
        pooled = {name: keras.ops.average_pool(images, stride, stride) for name, stride in self.strides.items()}
        return {name: keras.ops.repeat(cells, self.channels // 3, axis=-1) for name, cells in pooled.items()}
