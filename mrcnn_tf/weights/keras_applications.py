"""ResNet classifiers of keras.applications, old and new, as backbones.

Source: keras/src/applications/resnet.py (Keras 3) and keras_applications/resnet50.py (Keras 2.0 to 2.2). Both stride in
the first 1x1 convolution of a bottleneck, see BGR pixels 0..255 less the ImageNet mean, and give convolutions a bias.
"""

import re

import numpy as np

from mrcnn_tf.model.backbones.resnet import BLOCKS
from mrcnn_tf.weights.rules import Converted
from mrcnn_tf.weights.structure import backbone_settings

PIXEL_MEAN = [123.68, 116.779, 103.939]  # RGB; "caffe" mode of keras/src/applications/imagenet_utils.py
EPSILON, OLD_EPSILON = 1.001e-5, 1e-3

_NEW_LAYER = re.compile(r"conv([2-5])_block(\d+)_([0-3])_(?:conv|bn)")
_OLD_LAYER = re.compile(r"(?:res|bn)([2-5])([a-z])_branch(1|2a|2b|2c)")
_STEM = {"conv1_conv", "conv1_bn", "conv1", "bn_conv1"}
_CONVS = {"0": "shortcut", "1": "conv1", "2": "conv2", "3": "conv3"}
_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_CLASSIFIERS = {"predictions", "probs", "fc1000"}

# The last part of a weight's name: "kernel:0", "kernel", or, from Keras 1, "res2a_branch2a_W_1:0".
_KIND = re.compile(
    r"(?:(kernel|bias|gamma|beta|moving_mean|moving_variance)"
    r"|(?:\w+_)?(W|b|gamma|beta|running_mean|running_std)(?:_\d+)?)(?::0)?"
)
# Keras 1 called the variance running_std.
_KERAS_1 = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
_KERAS_3 = re.compile(r"(?:.*/)?layers/(conv2d|batch_normalization|dense)(?:_(\d+))?/vars/(\d)")
_KERAS_3_KINDS = {
    "conv2d": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
}


def recognise(tensors):
    """Whether `tensors` (name in the file -> array) are a ResNet v1 of keras.applications, whole or without its top."""
    labels = _labels(tensors)
    layers = {part for label in labels.values() for part in label.split("/")[:-1]}
    detector = any(layer.startswith(("mrcnn_", "rpn_", "fpn_")) for layer in layers)
    return not detector and not layers.isdisjoint({"conv1_bn", "bn_conv1"})


def tensors_of(model):
    """The tensors of a Keras model in memory, under the names that `convert` expects.

    Args:
        model: a keras.Model (or one of tf_keras), such as keras.applications.ResNet50(); it may be nested in another.

    Returns:
        "layer/weight" -> float32 array.
    """
    tensors = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            tensors |= tensors_of(layer)
        else:
            tensors |= {f"{layer.name}/{weight.name}": weight.numpy() for weight in layer.weights}
    return tensors


def convert(tensors):
    """The backbone in this package's terms.

    Args:
        tensors: name in the file -> array, as HDF5 paths: of a Keras 1 or 2 `.h5` (weights or whole model), a Keras 3
            `.weights.h5`, or from `tensors_of`.

    Returns:
        `Converted`, without config: mean-only pixels, stride in the 1x1, and keras.applications' batch norm epsilon.

    Raises:
        UserError: the network isn't 50, 101 or 152 layers deep.
    """
    labels = _labels(tensors)
    weights, skipped, unknown = {}, {}, []
    for name, array in tensors.items():
        layer, kind = split(labels[name], lambda part: part in _CLASSIFIERS or place(part) is not None)
        if name.startswith("optimizer/"):
            skipped[name] = "the optimizer's state"
        elif layer in _CLASSIFIERS:
            skipped[name] = "the classifier's last layer"
        elif layer is None or kind is None:
            unknown.append(name)
        else:
            weights[f"{place(layer)}/{kind}"] = np.asarray(array, np.float32)
    changes = fold_biases(weights)
    if "backbone/stem/kernel" in weights:
        weights["backbone/stem/kernel"] = np.ascontiguousarray(weights["backbone/stem/kernel"][:, :, ::-1])
        changes["backbone/stem/kernel"] = "BGR to RGB"
    new = any("conv1_bn" in label.split("/") for label in labels.values())
    settings = {
        "backbone": {"norm": "frozen_bn", "stride_in_1x1": True} | backbone_settings(weights),
        "pixel_mean": PIXEL_MEAN,
        "pixel_std": [1.0, 1.0, 1.0],
        "conventions": {"batch_norm_epsilon": EPSILON if new else OLD_EPSILON},
    }
    return Converted(weights, changes, skipped, unknown, settings, None, None)


def place(layer):
    """Our path of the convolution that a Keras layer is, or normalises ("bn2a_branch2a" -> "backbone/res2_0/conv1").

    None for any other layer.
    """
    if layer in _STEM:
        return "backbone/stem"
    if match := _NEW_LAYER.fullmatch(layer):
        stage, block, conv = match.groups()
        return f"backbone/res{stage}_{int(block) - 1}/{_CONVS[conv]}"
    if match := _OLD_LAYER.fullmatch(layer):
        stage, block, branch = match.groups()
        return f"backbone/res{stage}_{ord(block) - ord('a')}/{_BRANCHES[branch]}"
    return None


def split(name, known):
    """(layer, kind) of an HDF5 path such as "rpn_model/rpn_conv_shared/kernel:0"; None for what it doesn't tell.

    Args:
        name: the path.
        known: layer name -> bool. The outermost part that it accepts is the layer: below it Keras numbers names anew.
    """
    *parts, last = name.split("/")
    layer = next((part for part in parts if known(part)), None)
    match = _KIND.fullmatch(last)
    kind = (match[1] or match[2]) if match else None
    return layer, _KERAS_1.get(kind, kind)


def fold_biases(weights):
    """Moves each convolution's bias into the mean of the batch norm behind it, which is exact; returns the changes.

    Args:
        weights: our path -> array, the batch norm's under its convolution's path; changed in place.
    """
    changes = {}
    for mean in [path for path in weights if path.endswith("/moving_mean")]:
        bias = weights.pop(mean.removesuffix("moving_mean") + "bias", None)
        if bias is not None:
            weights[mean] = weights[mean] - bias
            changes[mean] = "the convolution's bias subtracted"
    return changes


def _labels(tensors):
    """Name in the file -> name that tells layer and kind: the same, except in Keras 3's files, which count layers."""
    labels = {name: name for name in tensors}
    matches = {name: match for name in tensors if (match := _KERAS_3.fullmatch(name))}
    stems = [tensors[name].shape for name, match in matches.items() if match.groups() == ("conv2d", None, "0")]
    convs = {match[2] for match in matches.values() if match[1] == "conv2d"}
    counts = {1 + sum(3 * count + 1 for count in blocks): blocks for depth, blocks in BLOCKS.items() if depth >= 50}
    if len(convs) not in counts or stems != [(7, 7, 3, 64)]:
        return labels
    order = ["conv1"]
    for stage, count in enumerate(counts[len(convs)], start=2):
        for block in range(1, count + 1):
            # In the order of Functional.layers, by depth in the graph.
            order += [f"conv{stage}_block{block}_{conv}" for conv in ("1203" if block == 1 else "123")]
    for name, match in matches.items():
        layer, number, index = match[1], int(match[2] or 0), int(match[3])
        if layer == "dense":
            labels[name] = f"predictions/{_KERAS_3_KINDS[layer][index]}"
        elif number < len(order):
            suffix = "conv" if layer == "conv2d" else "bn"
            labels[name] = f"{order[number]}_{suffix}/{_KERAS_3_KINDS[layer][index]}"
    return labels
