"""matterport/Mask_RCNN's weights, such as mask_rcnn_coco.h5.

Source: mrcnn/model.py and mrcnn/config.py of that project (2019). Backbone, pyramid, RPN and heads give the same
numbers here from the same inputs. What differs: the image lies in the middle of a black square there, proposals of all
levels compete in one NMS, and an RoI keeps its best class only, which a score threshold of 0.7 does by itself.
"""

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.keras_applications import fold_biases, place, split
from mrcnn_tf.weights.rules import Converted
from mrcnn_tf.weights.structure import COCO_80, detector_settings, num_classes

EPSILON = 1e-3  # Keras's default, in backbone and heads
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


def recognise(tensors):
    """Whether the names are those of a matterport model, with or without the layers that depend on the classes."""
    layers = {part for name in tensors for part in name.split("/")[:-1]}
    return {"rpn_class_raw", "mrcnn_class_conv1"} <= layers


def convert(tensors):
    """The detector in this package's terms; class 0 is the background there too.

    Args:
        tensors: name in the file (HDF5 path, such as "rpn_model/rpn_class_raw/kernel:0") -> array.

    Returns:
        `Converted`. The heads' batch norms are folded into the layers before them.

    Raises:
        UserError: a tensor of the wrong rank, half a batch norm, or a backbone that is no known ResNet.
    """
    weights, skipped, unknown = _read(tensors)
    changes = fold_biases(weights)
    for step in (_fold_norms, _reorder_rpn, _reorder_box_head, _reorder_mask_head):
        changes |= step(weights)
    settings = detector_settings(weights)
    categories = COCO_80 if num_classes(weights) == len(COCO_80) else None
    return Converted(weights, changes, skipped, unknown, settings, "matterport_mask_rcnn_coco", categories)


def _read(tensors):
    """Our path -> array as it stands in the file; and the names skipped and unknown, as in `Converted`."""
    weights, skipped, unknown = {}, {}, []
    for name, array in tensors.items():
        layer, kind = split(name, lambda part: part in _LAYERS or part == "anchors" or place(part) is not None)
        if layer == "anchors":
            skipped[name] = "the anchors, which follow from the image's size"
        elif layer is None or kind is None:
            unknown.append(name)
        else:
            rank = 1 if kind != "kernel" else 2 if layer in _DENSE else 4
            if np.ndim(array) != rank:
                shape = list(np.shape(array))
                raise UserError(f"Tensor '{name}' is of shape {shape} and should have {rank} dimensions.")
            weights[f"{place(layer) or _LAYERS[layer]}/{kind}"] = np.asarray(array, np.float32)
    return weights, skipped, unknown


def _fold_norms(weights):
    """Multiplies the heads' batch norms into the kernels and biases before them."""
    changes = {}
    normed = sorted({path.rpartition("/")[0] for path in weights if path.endswith(_NORM)})
    for layer in [layer for layer in normed if not layer.startswith("backbone/")]:
        missing = [name for name in ("kernel", *_NORM) if f"{layer}/{name}" not in weights]
        if missing:
            raise UserError(
                f"The file lacks {missing[0]} of the layer or batch norm that becomes {layer}: it is cut off."
            )
        gamma, beta, mean, variance = (weights.pop(f"{layer}/{name}") for name in _NORM)
        scale = gamma / np.sqrt(variance + np.float32(EPSILON))
        weights[f"{layer}/kernel"] = weights[f"{layer}/kernel"] * scale
        weights[f"{layer}/bias"] = beta - mean * scale
        changes |= {f"{layer}/{name}": "batch norm folded in" for name in ("kernel", "bias")}
    return changes


def _reorder_rpn(weights):
    changes = {}
    for kind in ("kernel", "bias"):
        logits, deltas = f"rpn/head/objectness_logits/{kind}", f"rpn/head/anchor_deltas/{kind}"
        if logits in weights:
            pairs = _groups(weights, logits, 2)
            weights[logits] = pairs[..., 1] - pairs[..., 0]
            changes[logits] = "foreground less background"
        if deltas in weights:
            rows = _groups(weights, deltas, 4)[..., DELTA_ORDER] * RPN_DELTA_STD
            weights[deltas] = rows.reshape(weights[deltas].shape)
            changes[deltas] = "(dy, dx, dh, dw) to (dx, dy, dw, dh), times their standard deviation"
    return changes


def _reorder_box_head(weights):
    changes = {}
    for path in [f"box_head/fc{number}/kernel" for number in (1, 2)]:
        if path in weights:  # a convolution as large as its input
            weights[path] = weights[path].reshape(-1, weights[path].shape[-1])
    for path in [f"box_head/box_deltas/{kind}" for kind in ("kernel", "bias")]:
        if path in weights:
            rows = _groups(weights, path, 4)[..., 1:, DELTA_ORDER]
            weights[path] = rows.reshape(*weights[path].shape[:-1], -1)
            changes[path] = "background dropped, (dy, dx, dh, dw) to (dx, dy, dw, dh)"
    return changes


def _reorder_mask_head(weights):
    changes = {}
    for kind in ("kernel", "bias"):
        for layer in ("deconv", "predictor"):
            if f"mask_head/{layer}/{kind}" in weights:
                weights[f"mask_head/{layer}_{kind}"] = weights.pop(f"mask_head/{layer}/{kind}")
        path = f"mask_head/predictor_{kind}"
        if path in weights:
            rows = weights[path].reshape(-1, weights[path].shape[-1]) if kind == "kernel" else weights[path]
            weights[path] = rows[..., 1:]
            changes[path] = "background dropped"
    return changes


def _groups(weights, path, width):
    """[..., n * width] -> [..., n, width]; UserError if the last axis doesn't divide."""
    array = weights[path]
    if array.shape[-1] % width:
        raise UserError(
            f"The weight that becomes {path} is of shape {list(array.shape)}: its last side is no multiple of {width}."
        )
    return array.reshape(*array.shape[:-1], -1, width)
