"""res5 as a head on the RoIs of C4 (Figure 3 of the paper, left)."""

import keras
import tensorflow as tf

from mrcnn_tf.model.backbones.resnet import residual_stage
from mrcnn_tf.model.rois import RoILayer
from mrcnn_tf.ops.conv import conv2d

SIDE = 7  # of what res5 gives, whatever it is given
MAP_CELLS = 4200  # of C4 of an image of 800 x 1333 pixels


@keras.saving.register_keras_serializable("mrcnn_tf")
class Res5(keras.layers.Layer):
    """RoI features from C4, and the fifth stage of the ResNet on them, which box and mask head share.

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
        strides = self.roi_layer.output_size // SIDE
        self.blocks = residual_stage(5, self.backbone, channels, strides, self.dtype_policy)
        self.roi_layer.build(None)
        for block in self.blocks:
            block.build((None, None, None, channels))
            channels = block.filters

    def compute_output_shape(self, input_shape):
        """Of a C4 of `input_shape`; the layer must be built."""
        return (None, None, SIDE, SIDE, self.blocks[-1].filters)

    def call(self, features, rois, canvas_size=None, training=False):
        """[C4] and rois [B, R, 4] pixels -> [B, R, 7, 7, channels]."""
        first, *others = self.blocks
        if self._may_convolve_first(first) and rois.shape[1] * SIDE**2 > MAP_CELLS:
            outputs = first.finish(*self._convolve_and_pool(first, features[0], rois, canvas_size), training=training)
        else:
            pooled = self.roi_layer(features, rois, canvas_size)
            outputs = first(tf.reshape(pooled, [-1, *pooled.shape[2:]]), training=training)
        for block in others:
            outputs = block(outputs, training=training)
        return tf.reshape(outputs, [-1, rois.shape[1], *outputs.shape[1:]])

    def _may_convolve_first(self, block):
        convs = [block.convs[0], block.shortcut]
        same = all(conv.kernel_size == 1 and conv.strides == block.strides for conv in convs)
        # Other norms aren't known before the features are.
        return same and self.backbone["norm"] == "frozen_bn" and self.roi_layer.linear

    def _convolve_and_pool(self, block, features, rois, canvas_size):
        """What the block's first convolution and its shortcut give for each RoI, [B * R, 7, 7, ...] both."""
        (kernel, shift), (other, other_shift) = (conv.kernel_and_shift() for conv in (block.convs[0], block.shortcut))
        maps = conv2d(tf.cast(features, self.compute_dtype), tf.concat([kernel, other], axis=-1))
        pooled = self.roi_layer([maps], rois, canvas_size, bin_step=block.strides)
        pooled = tf.reshape(pooled, [-1, *pooled.shape[2:]])
        # The shifts come last: a sample outside the map pools to zero, not to a shift.
        outputs = tf.nn.bias_add(pooled, tf.cast(tf.concat([shift, other_shift], axis=0), pooled.dtype))
        outputs, shortcut = tf.split(outputs, [kernel.shape[-1], other.shape[-1]], axis=-1)
        return tf.nn.relu(outputs), shortcut

    def get_config(self):
        roi_layer = keras.saving.serialize_keras_object(self.roi_layer)
        return super().get_config() | {"backbone": self.backbone, "roi_layer": roi_layer}
