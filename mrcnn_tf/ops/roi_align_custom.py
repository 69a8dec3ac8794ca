"""RoIAlign by our own operation (custom_ops/): CPU and CUDA, all feature maps in one launch."""

import tensorflow as tf

from mrcnn_tf.ops.native.library import custom_ops, load_custom_ops, register_gradient

CPU_TYPES = (tf.float32, tf.bfloat16)
GPU_TYPES = (tf.float32, tf.bfloat16, tf.float16)


def has_custom_roi_align(dtype):
    """Whether the operation is there for features of this dtype; builds it on the first use."""
    types = GPU_TYPES if tf.config.list_physical_devices("GPU") else CPU_TYPES
    return dtype in types and custom_ops() is not None


def custom_roi_align(features, rois, output_size, sampling_ratio, aligned, bin_step=1):
    """Pools `rois` (a `PyramidRoIs`) from maps [B, H_l, W_l, C]: [R, output_size, output_size, C] in their dtype."""
    canvas = tf.zeros([0, 2], tf.int32) if rois.canvas is None else tf.cast(rois.canvas, tf.int32)
    return custom_ops().mrcnn_tf_roi_align(
        features,
        rois.boxes,
        rois.image,
        rois.level,
        canvas,
        spatial_scales=rois.scales,
        output_size=output_size,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
        bin_step=bin_step,
    )


@register_gradient("MrcnnTf>RoiAlign")
def _gradient(op, upstream):
    """With respect to the maps; none for the boxes, images, levels and canvas."""
    levels = op.get_attr("levels")
    names = ("spatial_scales", "output_size", "sampling_ratio", "aligned", "bin_step")
    attributes = {name: op.get_attr(name) for name in names}
    shapes = tf.shape_n(op.inputs[:levels])
    gradients = load_custom_ops().mrcnn_tf_roi_align_grad(upstream, shapes, *op.inputs[levels:], **attributes)
    return [*gradients, None, None, None, None]
