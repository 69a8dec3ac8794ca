"""RoIAlign (section 3 of the paper) over one feature map or several: one function, three implementations.

"custom" is our own operation (custom_ops/) on CPU and CUDA, all feature maps in one launch; the others are made of
stock operations (`ops.roi_align_stock`).
"""

import collections

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.gradients import register_gradient
from mrcnn_tf.ops.native.library import custom_ops, load_custom_ops, shapes_must_be_static
from mrcnn_tf.ops.roi_align_stock import gather_roi_align, static_roi_align

CPU_TYPES = (tf.float32, tf.bfloat16)
GPU_TYPES = (tf.float32, tf.bfloat16, tf.float16)  # of our own operation, on either device


class PyramidRoIs(collections.namedtuple("PyramidRoIs", "boxes image level scales padded_size", defaults=[None])):
    """R RoIs and the maps they are pooled from.

    Attributes:
        boxes: float32 [R, 4] = (x1, y1, x2, y2) in image pixels.
        image: int32 [R], the index of each RoI's image in the batch.
        level: int32 [R], the index of each RoI's map.
        scales: L numbers, feature cells per image pixel (1 / stride) of each map.
        padded_size: int32 [B, 2] = (height, width) pixels, see `ops.padding`; None where all images fill the batch. The
            map ends there for the image's RoIs, so that what lies beyond has no influence.
    """


def roi_align(features, boxes, box_batch, spatial_scale, output_size, sampling_ratio, aligned, implementation="auto"):
    """RoIAlign over one feature map.

    Args:
        features: [B, H, W, C].
        boxes: [R, 4] = (x1, y1, x2, y2) in image pixels.
        box_batch: int32 [R], the image of each RoI.
        spatial_scale: feature cells per image pixel (1 / stride).
        output_size: bins per side.
        sampling_ratio: samples per bin side; 0 takes ceil(bin size) samples, as detectron2.
        aligned: shift by half a cell, so that pixel centres and cell centres coincide. Unaligned RoIs are at least one
            cell wide and high, as in Detectron and torchvision.
        implementation: "custom" (our own operation, built on the first use), "gather" (stock operations, for graphs
            that must run without this package), "static" (the same without shapes that depend on values, for XLA and
            TFLite) or "auto": "static" inside `static_shapes`, elsewhere "custom" where it is there.

    Returns:
        [R, output_size, output_size, C] in the features' dtype. Samples more than one cell outside the map are 0,
        others are clamped to it. A box with a coordinate that isn't finite gives zeros, and so does, where the ratio
        is adaptive, one without area. The gradient flows to `features` only: none is defined for `boxes`.

    Raises:
        UserError: an implementation that doesn't exist, or isn't there for this dtype on this machine.
        tf.errors.InvalidArgumentError: with "custom", shapes that don't fit, or on a CPU an image that isn't there.
    """
    box_batch = tf.convert_to_tensor(box_batch, tf.int32)
    rois = PyramidRoIs(boxes, box_batch, tf.zeros_like(box_batch), [spatial_scale])
    return pyramid_roi_align([features], rois, output_size, sampling_ratio, aligned, implementation)


def pyramid_roi_align(features, rois, output_size, sampling_ratio, aligned, implementation="auto", bin_step=1):
    """RoIAlign over several feature maps at once, each RoI on its own level.

    Args:
        features: list of L maps [B, H_l, W_l, C].
        rois: a `PyramidRoIs`.
        output_size, sampling_ratio, aligned, implementation: as in `roi_align`.
        bin_step: n pools only every n-th bin, along both sides, of a grid of n * output_size: what a convolution of
            stride n reads of it.

    Returns and raises what `roi_align` does.
    """
    features = check_maps("RoIAlign", features, rois)
    if implementation not in ("auto", *IMPLEMENTATIONS):
        raise UserError(
            f"There is no RoIAlign implementation '{implementation}': choose auto, {' or '.join(IMPLEMENTATIONS)}."
        )
    rois = rois._replace(boxes=tf.stop_gradient(tf.cast(rois.boxes, tf.float32)))
    dtype = features[0].dtype
    if implementation == "auto":
        implementation = "static" if shapes_must_be_static() else implementations(dtype)[0]
    if implementation == "custom" and not has_custom_roi_align(dtype):
        raise UserError(f"The custom RoIAlign isn't there for {dtype.name} on this machine: choose auto or gather.")
    pool = IMPLEMENTATIONS[implementation]
    return pool(features, rois, output_size, sampling_ratio, aligned, bin_step)


def check_maps(operation, features, rois):
    """The maps as tensors. Raises UserError where they are not as many as the scales of `rois`."""
    if not features or len(features) != len(rois.scales):
        counts = f"{len(features)} feature maps and {len(rois.scales)} scales"
        raise UserError(f"{operation} got {counts}: give one scale a map.")
    return [tf.convert_to_tensor(level) for level in features]


def implementations(dtype=tf.float32):
    """The names of what can pool features of this dtype here, the preferred one first; may build the custom op."""
    return ("custom", "gather") if has_custom_roi_align(tf.as_dtype(dtype)) else ("gather",)


def has_custom_roi_align(dtype):
    """Whether the operation is there for features of this dtype; builds it on the first use."""
    types = GPU_TYPES if tf.config.list_physical_devices("GPU") else CPU_TYPES
    return dtype in types and custom_ops() is not None


def custom_roi_align(features, rois, output_size, sampling_ratio, aligned, bin_step=1):
    """Pools `rois` (a `PyramidRoIs`) from maps [B, H_l, W_l, C]: [R, output_size, output_size, C] in their dtype."""
    padded_size = tf.zeros([0, 2], tf.int32) if rois.padded_size is None else tf.cast(rois.padded_size, tf.int32)
    options = {"output_size": output_size, "sampling_ratio": sampling_ratio, "aligned": aligned, "bin_step": bin_step}
    return custom_ops().mrcnn_tf_roi_align(
        features, rois.boxes, rois.image, rois.level, padded_size, spatial_scales=rois.scales, **options
    )


@register_gradient("MrcnnTf>RoiAlign")
def _gradient(op, upstream):
    """The gradient with respect to the maps; none for the boxes, images, levels and padded sizes."""
    levels = op.get_attr("levels")
    names = ("spatial_scales", "output_size", "sampling_ratio", "aligned", "bin_step")
    attributes = {name: op.get_attr(name) for name in names}
    shapes = tf.shape_n(op.inputs[:levels])
    gradients = load_custom_ops().mrcnn_tf_roi_align_grad(upstream, shapes, *op.inputs[levels:], **attributes)
    return [*gradients, None, None, None, None]


IMPLEMENTATIONS = {"custom": custom_roi_align, "gather": gather_roi_align, "static": static_roi_align}
