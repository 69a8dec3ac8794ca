"""keras.applications: its networks by name, and their ImageNet weights as a backbone's.

Of ResNets the files are read too, of any Keras version. Source: keras/src/applications/resnet.py (Keras 3) and
keras_applications/resnet50.py (Keras 2.0 to 2.2). Both stride in the first 1x1 convolution of a bottleneck, see BGR
pixels 0..255 less the ImageNet mean, and give convolutions a bias.
"""

import difflib
import inspect
import re
import warnings

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import RESNET_BLOCKS
from mrcnn_tf.weights.architecture import SHAPES, backbone_settings
from mrcnn_tf.weights.facts import Facts, Origin
from mrcnn_tf.weights.rules import BRANCHES, ConvertedWeights

# The networks.

STRIDES = (4, 8, 16, 32)  # of C2 to C5
PROBE_SIZE = 128  # pixels a side, enough for a network that loses cells at the borders to show it
# Made without their preprocessing, so that padding is the mean pixel. Elsewhere it belongs to the weights.
WITHOUT_PREPROCESSING = ("MobileNetV3Large", "MobileNetV3Small")


def make_network(application, weights=None):
    """The network of that name in keras.applications, without its classifier, for images of any size.

    `weights` as Keras takes them: None (random) or "imagenet" (downloaded). UserError if there is no such network.
    """
    import keras

    known = [name for name in dir(keras.applications) if name[0].isupper()]
    if application not in known:
        similar = difflib.get_close_matches(application, known, n=3)
        raise UserError(
            f"keras.applications has no '{application}': set model.backbone.application to one of "
            f"{', '.join(similar or known)}."
        )
    options = {"include_preprocessing": False} if application in WITHOUT_PREPROCESSING else {}
    make = getattr(keras.applications, application)
    return make(include_top=False, weights=weights, input_shape=(None, None, 3), **options)


def download_network(application):
    """The network with its ImageNet weights, which Keras keeps; UserError if it is unknown or can't be downloaded."""
    try:
        with warnings.catch_warnings():
            # Keras warns that the weights are for 224 pixels, on which no layer here depends.
            warnings.simplefilter("ignore")
            return make_network(application, weights="imagenet")
    except UserError:
        raise
    except Exception as error:  # what Keras raises when it can't download depends on the way it fails
        raise UserError(
            f"Keras can't download the ImageNet weights of {application} ({str(error).splitlines()[0]}): go online, or "
            "give a checkpoint's path."
        ) from error


def stable_layer_names(network):
    """The names of a network's layers and operations -> those that they would have in a process without others.

    Keras numbers what it is given no name for, and goes on counting from one network to the next.
    """
    names, numbered = {operation.name: operation.name for operation in network.operations}, {}
    for operation in network.operations:
        base, _, number = operation.name.rpartition("_")
        base, number = (base, int(number)) if number.isdecimal() else (operation.name, 0)
        if base.replace("_", "") == type(operation).__name__.lower():
            numbered.setdefault(base, []).append((number, operation.name))
    for base, operations in numbered.items():
        for index, (_, name) in enumerate(sorted(operations)):
            names[name] = f"{base}_{index}" if index else base
    return names


def feature_network(network, application, taps):
    """The part of a network that leads to the layers `taps`: a keras.Model with their four outputs, C2 to C5.

    UserError for other than four taps, one that the network lacks, or one of another stride.
    """
    import keras

    names = stable_layer_names(network)
    outputs = {names[operation.name]: operation.output for operation in network.operations}
    strides = _output_strides(network.input, outputs)
    last_of_stride = {stride: tap for tap, stride in strides.items()}
    for stride in STRIDES:
        if stride not in last_of_stride:
            raise UserError(
                f"No layer of {application} has stride {stride} exactly, since its convolutions lose cells at the "
                "borders: set model.backbone.application to another network."
            )
    if len(taps) != len(STRIDES):
        examples = ", ".join(last_of_stride[stride] for stride in STRIDES)
        raise UserError(
            f"model.backbone.taps names {len(taps)} layers: name four of {application}, such as {examples}."
        )
    for level, (tap, stride) in enumerate(zip(taps, STRIDES, strict=True), start=2):
        if tap not in outputs:
            similar = difflib.get_close_matches(tap, outputs, n=3) or [last_of_stride[stride]]
            raise UserError(
                f"{application} has no layer '{tap}': set one such as {', '.join(similar)} in model.backbone.taps."
            )
        if strides.get(tap) != stride:
            fault = f"has stride {strides[tap]:g}" if tap in strides else "gives no map"
            raise UserError(
                f"Layer '{tap}' of {application} {fault}, and C{level} needs stride {stride}: set it in "
                f"model.backbone.taps to another one, such as {last_of_stride[stride]}."
            )
    return keras.Model(network.input, [outputs[tap] for tap in taps])


def _output_strides(images, outputs):
    """Stride of each output that is a map, by name, from a probe image; empty if its maps don't fit together."""
    import keras

    try:
        network = keras.Model(images, list(outputs.values()))
        shapes = network.compute_output_shape((1, PROBE_SIZE, PROBE_SIZE, 3))
    except ValueError:  # NASNet adds maps that agree for some sizes only
        return {}
    return {name: PROBE_SIZE / shape[1] for name, shape in zip(outputs, shapes, strict=True) if len(shape) == 4}


# Weights of any network in memory, for an `ApplicationBackbone`, which is a copy of it.


def convert_network(network, application, taps):
    """The `ConvertedWeights`, without config, of the layers that lead to `taps`; UserError as in `feature_network`.

    Their pixel scale is the one that the network was trained with.

    Args:
        network: a keras.Model such as `download_network` returns.
        application: its name in keras.applications.
        taps: the names of four of its layers, see `ApplicationBackbone`.
    """
    names = stable_layer_names(network)
    needed = {path for _, path in _layers_with_weights(feature_network(network, application, taps).layers, names)}
    arrays, conversions, skipped = {}, {}, {}
    for layer, path in _layers_with_weights(network.layers, names):
        for weight in layer.weights:
            # Keras leaves one kind of weight without a name, the scale of ConvNeXt's branches.
            weight_name = "gamma" if type(layer).__name__ == "LayerScale" else weight.name
            if path not in needed:
                skipped[f"{layer.name}/{weight_name}"] = "beyond C5"
            elif weight_name == "count":
                skipped[f"{layer.name}/{weight_name}"] = "the images that mean and variance come from"
            else:
                arrays[f"backbone/{path}/{weight_name}"] = weight.numpy()
    _fold_rescaling(network, names, arrays, conversions)
    mean, std, bgr = pixel_scale(application)
    if bgr:
        first = next(path for path, array in arrays.items() if array.ndim == 4)
        arrays[first], conversions[first] = np.ascontiguousarray(arrays[first][:, :, ::-1]), "BGR to RGB"
    backbone = {"norm": "frozen_bn", "application": application, "taps": list(taps)}
    facts = Facts()
    facts.add_all({"backbone": backbone}, Origin.SHAPE, "the network")
    facts.add_all({"pixel_mean": mean, "pixel_std": std}, Origin.LIBRARY, f"keras.applications' {application}")
    facts.add("file.pixel_order", "BGR" if bgr else "RGB", Origin.LIBRARY, f"keras.applications' {application}")
    return ConvertedWeights(arrays, conversions, skipped, [], facts)


def pixel_scale(application):
    """What a network expects of RGB pixels 0..255: (mean, std, bgr).

    Two lists of three numbers, RGB, of (pixels - mean) / std, and whether it then takes them in the order BGR.
    """
    import keras

    if application in WITHOUT_PREPROCESSING:
        return [127.5] * 3, [127.5] * 3, False
    prepare = inspect.getmodule(getattr(keras.applications, application)).preprocess_input
    black, red, white = (
        np.reshape(prepare(np.array(pixel, np.float64).reshape(1, 1, 1, 3)), 3)
        for pixel in ([0, 0, 0], [255, 0, 0], [255, 255, 255])
    )
    std = 255 / (white - black)
    mean, bgr = -black * std, bool(red[0] == black[0])
    order = [2, 1, 0] if bgr else [0, 1, 2]
    # Adding 0.0 turns -0.0 into 0.0.
    return [[round(float(values[channel]), 3) + 0.0 for channel in order] for values in (mean, std)] + [bgr]


def _layers_with_weights(layers, names):
    """(layer, its stable name) of the layers with weights, those inside a Sequential too."""
    import keras

    for layer in layers:
        if isinstance(layer, keras.Sequential):
            yield from _layers_with_weights(layer.layers, names)
        elif layer.weights:
            yield layer, names.get(layer.name, layer.name)


def _fold_rescaling(network, names, arrays, conversions):
    """EfficientNet divides its normalised pixels once more, in its ImageNet version only: into the variance with it."""
    import keras

    for before, after in zip(network.layers, network.layers[1:], strict=False):
        if isinstance(before, keras.layers.Normalization) and isinstance(after, keras.layers.Rescaling):
            path = f"backbone/{names[before.name]}/variance"
            arrays[path] = (arrays[path] / np.square(after.scale)).astype(np.float32)
            conversions[path] = f"{after.name} folded in"


# ResNets, from a file or in memory.

PIXEL_MEAN = [123.68, 116.779, 103.939]  # RGB; "caffe" mode of keras/src/applications/imagenet_utils.py
EPSILON, OLD_EPSILON = 1.001e-5, 1e-3  # of batch norm

_NEW_LAYER = re.compile(r"conv([2-5])_block(\d+)_([0-3])_(?:conv|bn)")
_OLD_LAYER = re.compile(r"(?:res|bn)([2-5])([a-z])_branch(1|2a|2b|2c)")
_STEM = {"conv1_conv", "conv1_bn", "conv1", "bn_conv1"}
_CONVS = {"0": "shortcut", "1": "conv1", "2": "conv2", "3": "conv3"}
_CLASSIFIERS = {"predictions", "probs", "fc1000"}

# The last part of a weight's path: "kernel:0", "kernel", or, from Keras 1, "res2a_branch2a_W_1:0".
_PARAMETER = re.compile(
    r"(?:(kernel|bias|gamma|beta|moving_mean|moving_variance)"
    r"|(?:\w+_)?(W|b|gamma|beta|running_mean|running_std)(?:_\d+)?)(?::0)?"
)
# Keras 1 called the variance running_std.
_KERAS_1 = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
_KERAS_3 = re.compile(r"(?:.*/)?layers/(conv2d|batch_normalization|dense)(?:_(\d+))?/vars/(\d)")
_KERAS_3_PARAMETERS = {
    "conv2d": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
}


def matches(tensors):
    """Whether `tensors` (name in the file -> array) are a ResNet v1 of keras.applications, with or without its top."""
    layers = {part for path in _descriptive_paths(tensors).values() for part in path.split("/")[:-1]}
    detector = any(layer.startswith(("mrcnn_", "rpn_", "fpn_")) for layer in layers)
    return not detector and not layers.isdisjoint({"conv1_bn", "bn_conv1"})


def model_tensors(model):
    """The tensors of a Keras model in memory, as `convert` expects them: "layer/weight" -> float32 array.

    The model may be one of tf_keras too, and nested in another.
    """
    tensors = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            tensors |= model_tensors(layer)
        else:
            tensors |= {f"{layer.name}/{weight.name}": weight.numpy() for weight in layer.weights}
    return tensors


# What keras.applications' ResNets always do.
LIBRARY = ("model.backbone.stem_pool",)


def convert(tensors, facts, metadata):
    """The `ConvertedWeights`, without config, of a ResNet; UserError if it isn't 50, 101 or 152 layers deep.

    Added to the `facts` are mean-only pixels, stride in the 1x1, and keras.applications' epsilon.

    Args:
        tensors: name in the file -> array, as HDF5 paths: of a Keras 1 or 2 `.h5` (weights or whole model), a Keras 3
            `.weights.h5`, or from `model_tensors`.
    """
    paths = _descriptive_paths(tensors)
    arrays, skipped, unknown = {}, {}, []
    for name, array in tensors.items():
        layer, parameter = parse_path(paths[name], lambda part: part in _CLASSIFIERS or resnet_path(part) is not None)
        if name.startswith("optimizer/"):
            skipped[name] = "the optimizer's state"
        elif layer in _CLASSIFIERS:
            skipped[name] = "the classifier's last layer"
        elif layer is None or parameter is None:
            unknown.append(name)
        else:
            arrays[f"{resnet_path(layer)}/{parameter}"] = np.asarray(array, np.float32)
    conversions = fold_biases(arrays)
    if "backbone/stem/kernel" in arrays:
        arrays["backbone/stem/kernel"] = np.ascontiguousarray(arrays["backbone/stem/kernel"][:, :, ::-1])
        conversions["backbone/stem/kernel"] = "BGR to RGB"
    new = any("conv1_bn" in path.split("/") for path in paths.values())
    settings = {
        "backbone": {"stride_in_1x1": True},
        "pixel_mean": list(PIXEL_MEAN),
        "pixel_std": [1.0, 1.0, 1.0],
        "conventions": {"batch_norm_epsilon": EPSILON if new else OLD_EPSILON},
    }
    facts.add_all({"backbone": {"norm": "frozen_bn"} | backbone_settings(arrays)}, Origin.SHAPE, SHAPES)
    facts.add_all(settings, Origin.LIBRARY, "keras.applications")
    facts.add("file.pixel_order", "BGR", Origin.LIBRARY, "keras.applications")
    return ConvertedWeights(arrays, conversions, skipped, unknown, facts)


def resnet_path(layer):
    """Our path of the convolution that a Keras layer is, or normalises ("bn2a_branch2a" -> "backbone/res2_0/conv1").

    None for any other layer.
    """
    if layer in _STEM:
        return "backbone/stem"
    if match := _NEW_LAYER.fullmatch(layer):
        return f"backbone/res{match[1]}_{int(match[2]) - 1}/{_CONVS[match[3]]}"
    if match := _OLD_LAYER.fullmatch(layer):
        return f"backbone/res{match[1]}_{ord(match[2]) - ord('a')}/{BRANCHES[match[3]]}"
    return None


def parse_path(path, is_layer):
    """(layer, parameter) of an HDF5 path such as "rpn_model/rpn_conv_shared/kernel:0"; None for what it doesn't tell.

    The layer is the outermost part that `is_layer` (name -> bool) accepts: below it Keras numbers names anew.
    """
    *parts, last = path.split("/")
    layer = next((part for part in parts if is_layer(part)), None)
    match = _PARAMETER.fullmatch(last)
    parameter = (match[1] or match[2]) if match else None
    return layer, _KERAS_1.get(parameter, parameter)


def fold_biases(arrays):
    """Move each convolution's bias into the mean of the batch norm after it, which is exact; returns the conversions.

    `arrays` (our path -> array, the batch norm's under its convolution's path) are changed in place.
    """
    conversions = {}
    for mean in [path for path in arrays if path.endswith("/moving_mean")]:
        bias = arrays.pop(mean.removesuffix("moving_mean") + "bias", None)
        if bias is not None:
            arrays[mean] = arrays[mean] - bias
            conversions[mean] = "the convolution's bias subtracted"
    return conversions


def _descriptive_paths(tensors):
    """Name in the file -> path of layer and parameter: the same, except in Keras 3's files, which count layers."""
    paths = {name: name for name in tensors}
    numbered = {name: match for name in tensors if (match := _KERAS_3.fullmatch(name))}
    stems = [tensors[name].shape for name, match in numbered.items() if match.groups() == ("conv2d", None, "0")]
    convs = {match[2] for match in numbered.values() if match[1] == "conv2d"}
    bottlenecks = [blocks for depth, blocks in RESNET_BLOCKS.items() if depth >= 50]
    blocks_by_convs = {1 + sum(3 * count + 1 for count in blocks): blocks for blocks in bottlenecks}
    if len(convs) not in blocks_by_convs or stems != [(7, 7, 3, 64)]:
        return paths
    layers = ["conv1"]
    for stage, count in enumerate(blocks_by_convs[len(convs)], start=2):
        for block in range(1, count + 1):
            # In the order of Functional.layers, by depth in the graph.
            layers += [f"conv{stage}_block{block}_{conv}" for conv in ("1203" if block == 1 else "123")]
    for name, match in numbered.items():
        kind, number, index = match[1], int(match[2] or 0), int(match[3])
        if kind == "dense":
            paths[name] = f"predictions/{_KERAS_3_PARAMETERS[kind][index]}"
        elif number < len(layers):
            suffix = "conv" if kind == "conv2d" else "bn"
            paths[name] = f"{layers[number]}_{suffix}/{_KERAS_3_PARAMETERS[kind][index]}"
    return paths
