"""res5 as a head on the RoIs of C4 (Figure 3 of the paper, left)."""

import keras
import tensorflow as tf

from mrcnn_tf.layers.resnet import residual_stage
from mrcnn_tf.layers.roi_layer import RoILayer

SIDE = 7  # of what res5 gives, whatever it is given


@keras.saving.register_keras_serializable("mrcnn_tf")
class Res5(keras.layers.Layer):
    """RoI features from C4, and the fifth stage of the ResNet on them, which box and mask head share.

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
        pooled = self.roi_layer(features, rois, canvas_size)
        outputs = tf.reshape(pooled, [-1, *pooled.shape[2:]])
        for block in self.blocks:
            outputs = block(outputs, training=training)
        return tf.reshape(outputs, [-1, rois.shape[1], *outputs.shape[1:]])

    def get_config(self):
        roi_layer = keras.saving.serialize_keras_object(self.roi_layer)
        return super().get_config() | {"backbone": self.backbone, "roi_layer": roi_layer}
