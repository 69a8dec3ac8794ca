"""RoIAlign over the pyramid: each RoI from the level that fits its size."""

import keras
import tensorflow as tf

from mrcnn_tf.layers.fpn import STRIDES
from mrcnn_tf.ops.levels import assign_levels
from mrcnn_tf.ops.roi_align import PyramidRoIs, pyramid_roi_align


@keras.saving.register_keras_serializable("mrcnn_tf")
class PyramidRoIAlign(keras.layers.Layer):
    """RoI features from P2 to P5 (section 3 of the paper; levels by equation 1 of the FPN paper).

    Args:
        output_size: bins per side.
        conventions: a dictionary with the fields of `Conventions`.
    """

    def __init__(self, output_size, conventions, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes must stay float32
        self.output_size, self.conventions = output_size, conventions

    def call(self, features, rois, canvas_size=None):
        """Maps P2.. (P6 isn't used) and rois [B, R, 4] pixels -> [B * R, output_size, output_size, C]."""
        count = rois.shape[1]
        levels = assign_levels(rois, 2, 5, self.conventions["level_assignment"]) - 2
        ratio, aligned = self.conventions["roi_sampling_ratio"], self.conventions["roi_aligned"]
        if self.conventions["box_ends"] == "pixel":
            rois, ratio, aligned = self._corner_to_corner(features, rois, levels, canvas_size), 1, True
        batch = tf.repeat(tf.range(tf.shape(rois)[0]), count)
        pooled = PyramidRoIs(
            tf.reshape(rois, [-1, 4]),
            batch,
            tf.reshape(levels, [-1]),
            [1.0 / stride for stride in STRIDES[:4]],
            canvas_size,
        )
        return pyramid_roi_align(list(features[:4]), pooled, self.output_size, ratio, aligned)

    def _corner_to_corner(self, features, rois, levels, canvas_size):
        """RoIs [B, R, 4] whose aligned bins have their centres where `tf.image.crop_and_resize` samples `rois`."""
        if canvas_size is None:
            canvas_size = tf.shape(features[0])[None, 1:3] * STRIDES[0]
        stride = tf.gather(tf.constant(STRIDES[:4], tf.float32), levels)[..., None]
        pixels = tf.cast(canvas_size[:, None, ::-1], tf.float32)
        scale = (tf.math.ceil(pixels / stride) - 1.0) / (pixels - 1.0)
        first, last = rois[..., :2] * scale, rois[..., 2:] * scale
        half_bin = (last - first) / (2 * (self.output_size - 1))
        return (tf.concat([first - half_bin, last + half_bin], axis=-1) + 0.5) * stride

    def get_config(self):
        return super().get_config() | {"output_size": self.output_size, "conventions": self.conventions}
