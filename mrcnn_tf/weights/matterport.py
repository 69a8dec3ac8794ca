"""matterport/Mask_RCNN's weights, such as mask_rcnn_coco.h5.

Source: mrcnn/model.py and mrcnn/config.py of that project (2019). Backbone, pyramid, RPN and heads give the same
numbers here from the same inputs. What differs: the image lies in the middle of a black square there, proposals of all
levels compete in one NMS, and an RoI keeps its best class only, which a score threshold of 0.7 does by itself.
"""

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.architecture import COCO_80, add_shapes, num_classes
from mrcnn_tf.weights.facts import Origin
from mrcnn_tf.weights.keras_applications import fold_biases, parse_path, resnet_path
from mrcnn_tf.weights.rules import ConvertedWeights, check_rank

EPSILON = 1e-3  # Keras's default, in backbone and heads
# What its code always does; all else is a matter of its Config.
LIBRARY = (
    "model.conventions.pad_multiple", "model.conventions.delta_limit",
    "file.pixel_order", "model.pixel_std", "model.resize.rule", "model.backbone.stride_in_1x1",
    "model.backbone.stem_pool", "model.conventions.batch_norm_epsilon", "file.fpn_fuse", "file.anchor_offset",
    "model.conventions.box_width", "model.conventions.anchor_rounding", "model.conventions.anchor_stride",
    "model.conventions.min_proposal_size", "model.conventions.level_assignment", "model.conventions.roi_aligned",
    "model.conventions.roi_sampling_ratio", "model.roi_layer.kind", "model.roi_layer.aggregate",
    "model.conventions.min_detection_size", "model.mask_head.activation", "model.conventions.mask_paste",
)  # fmt: skip
# Deltas are (dy, dx, dh, dw) in units of their standard deviation, in the RPN as in the box head.
DELTA_ORDER = [1, 0, 3, 2]
RPN_DELTA_STD = np.array([0.1, 0.1, 0.2, 0.2], np.float32)  # of (dx, dy, dw, dh); 1 / (10, 10, 5, 5)

_LAYERS = (
    {f"fpn_c{level}p{level}": f"fpn/lateral{level}" for level in range(2, 6)}
    | {f"fpn_p{level}": f"fpn/output{level}" for level in range(2, 6)}
    | {
        "rpn_conv_shared": "rpn/head/conv",
        "rpn_class_raw": "rpn/head/objectness_logits",
        "rpn_bbox_pred": "rpn/head/anchor_deltas",
        "mrcnn_class_logits": "box_head/class_logits",
        "mrcnn_bbox_fc": "box_head/box_deltas",
        "mrcnn_mask_deconv": "mask_head/deconv",
        "mrcnn_mask": "mask_head/predictor",
    }
    | {f"mrcnn_class_{part}{number}": f"box_head/fc{number}" for part in ("conv", "bn") for number in (1, 2)}
    | {f"mrcnn_mask_{part}{number}": f"mask_head/conv{number}" for part in ("conv", "bn") for number in range(1, 5)}
)
_DENSE = {"mrcnn_class_logits", "mrcnn_bbox_fc"}
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def matches(tensors):
    """Whether the names are those of a matterport model, with or without the layers that depend on the classes."""
    layers = {part for name in tensors for part in name.split("/")[:-1]}
    return {"rpn_class_raw", "mrcnn_class_conv1"} <= layers


def convert(tensors, facts, metadata):
    """The `ConvertedWeights` of a detector, whose class 0 is the background too; `facts` are added to.

    `tensors` are by HDF5 path, such as "rpn_model/rpn_class_raw/kernel:0". The heads' batch norms are folded into the
    layers before them. UserError for a tensor of the wrong rank, half a batch norm, or an unknown backbone.
    """
    weights = _read(tensors, facts)
    weights.conversions |= fold_biases(weights.arrays)
    _fold_norms(weights.arrays, weights.conversions)
    _reorder_rpn(weights.arrays, weights.conversions)
    _reorder_box_head(weights.arrays, weights.conversions)
    _reorder_mask_head(weights.arrays, weights.conversions)
    add_shapes(weights)
    facts.add("file.pixel_order", "RGB", Origin.LIBRARY, "matterport")
    weights.config = "matterport_mask_rcnn_coco"
    weights.categories = COCO_80 if num_classes(weights.arrays) == len(COCO_80) else None
    return weights


def _read(tensors, facts):
    """`ConvertedWeights` whose arrays are as they stand in the file."""
    weights = ConvertedWeights({}, facts=facts)
    for name, array in tensors.items():
        layer, parameter = parse_path(name, lambda part: part in _LAYERS or part == "anchors" or resnet_path(part))
        if layer == "anchors":
            weights.skipped[name] = "the anchors, which follow from the image's size"
        elif layer is None or parameter is None:
            weights.unknown.append(name)
        else:
            check_rank(name, array, 1 if parameter != "kernel" else 2 if layer in _DENSE else 4)
            weights.arrays[f"{resnet_path(layer) or _LAYERS[layer]}/{parameter}"] = np.asarray(array, np.float32)
    return weights


def _fold_norms(arrays, conversions):
    """Multiply the heads' batch norms into the kernels and biases before them."""
    normed = sorted({path.rpartition("/")[0] for path in arrays if path.endswith(_NORM)})
    for layer in [layer for layer in normed if not layer.startswith("backbone/")]:
        missing = [name for name in ("kernel", *_NORM) if f"{layer}/{name}" not in arrays]
        if missing:
            raise UserError(
                f"The file lacks {missing[0]} of the layer or batch norm that becomes {layer}: it is cut off."
            )
        gamma, beta, mean, variance = (arrays.pop(f"{layer}/{name}") for name in _NORM)
        scale = gamma / np.sqrt(variance + np.float32(EPSILON))
        arrays[f"{layer}/kernel"] = arrays[f"{layer}/kernel"] * scale
        arrays[f"{layer}/bias"] = beta - mean * scale
        conversions |= {f"{layer}/{name}": "batch norm folded in" for name in ("kernel", "bias")}


def _reorder_rpn(arrays, conversions):
    for parameter in ("kernel", "bias"):
        logits, deltas = f"rpn/head/objectness_logits/{parameter}", f"rpn/head/anchor_deltas/{parameter}"
        if logits in arrays:
            pairs = _split_last_axis(arrays, logits, 2)
            arrays[logits] = pairs[..., 1] - pairs[..., 0]
            conversions[logits] = "foreground less background"
        if deltas in arrays:
            reordered = _split_last_axis(arrays, deltas, 4)[..., DELTA_ORDER] * RPN_DELTA_STD
            arrays[deltas] = reordered.reshape(arrays[deltas].shape)
            conversions[deltas] = "(dy, dx, dh, dw) to (dx, dy, dw, dh), times their standard deviation"


def _reorder_box_head(arrays, conversions):
    path = "box_head/fc2/kernel"
    if path in arrays:  # a convolution of single cells, as fc1 is one as large as its input
        arrays[path] = arrays[path].reshape(-1, arrays[path].shape[-1])
    for path in ("box_head/box_deltas/kernel", "box_head/box_deltas/bias"):
        if path in arrays:
            reordered = _split_last_axis(arrays, path, 4)[..., 1:, DELTA_ORDER]
            arrays[path] = reordered.reshape(*arrays[path].shape[:-1], -1)
            conversions[path] = "background dropped, (dy, dx, dh, dw) to (dx, dy, dw, dh)"


def _reorder_mask_head(arrays, conversions):
    for parameter in ("kernel", "bias"):
        for layer in ("deconv", "predictor"):
            if f"mask_head/{layer}/{parameter}" in arrays:
                arrays[f"mask_head/{layer}_{parameter}"] = arrays.pop(f"mask_head/{layer}/{parameter}")
        path = f"mask_head/predictor_{parameter}"
        if path in arrays:
            array = arrays[path].reshape(-1, arrays[path].shape[-1]) if parameter == "kernel" else arrays[path]
            arrays[path] = array[..., 1:]
            conversions[path] = "background dropped"


def _split_last_axis(arrays, path, width):
    """[..., n * width] -> [..., n, width]; UserError if the last axis doesn't divide."""
    array = arrays[path]
    if array.shape[-1] % width:
        raise UserError(
            f"The weight that becomes {path} is of shape {list(array.shape)}: its last side is no multiple of {width}."
        )
    return array.reshape(*array.shape[:-1], -1, width)
