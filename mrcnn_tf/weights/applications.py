"""ImageNet weights of any network of keras.applications, for a backbone that is a copy of it."""

import inspect
import warnings

import keras
import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.backbones.application import BARE, application_network, stable_names, tapped
from mrcnn_tf.weights.rules import Converted


def download(application):
    """The network of that name without its classifier, a keras.Model; Keras keeps what it downloaded.

    Raises:
        UserError: it can't be downloaded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Keras warns that the weights are for 224 pixels, which no layer here knows
            return application_network(application, weights="imagenet")
    except UserError:
        raise
    except Exception as error:  # what Keras raises when it can't download depends on the way it fails
        raise UserError(
            f"Keras can't download the ImageNet weights of {application} ({str(error).splitlines()[0]}): go online, or "
            "give a checkpoint's path."
        ) from error


def convert(network, application, taps):
    """The layers that lead to `taps`, in this package's terms.

    Args:
        network: a keras.Model such as `download` returns.
        application: its name in keras.applications.
        taps: the names of four of its layers, see `ApplicationBackbone`.

    Returns:
        `Converted`, without config; its pixel scale is the one that the network was trained with.

    Raises:
        UserError: the network has no such taps.
    """
    names = stable_names(network)
    needed = {path for _, path in _weighted(tapped(network, application, taps).layers, names)}
    arrays, changes, skipped = {}, {}, {}
    for layer, path in _weighted(network.layers, names):
        for weight in layer.weights:
            # Keras names all but one kind, the scale of ConvNeXt's branches.
            kind = "gamma" if type(layer).__name__ == "LayerScale" else weight.name
            if path not in needed:
                skipped[f"{layer.name}/{kind}"] = "beyond C5"
            elif kind == "count":
                skipped[f"{layer.name}/{kind}"] = "the images that mean and variance come from"
            else:
                arrays[f"backbone/{path}/{kind}"] = weight.numpy()
    _fold_rescaling(network, arrays, changes)
    mean, std, bgr = pixel_scale(application)
    if bgr:
        first = next(path for path, array in arrays.items() if array.ndim == 4)
        arrays[first], changes[first] = np.ascontiguousarray(arrays[first][:, :, ::-1]), "BGR to RGB"
    settings = {
        "backbone": {"norm": "frozen_bn", "application": application, "taps": list(taps)},
        "pixel_mean": mean,
        "pixel_std": std,
    }
    return Converted(arrays, changes, skipped, [], settings, None, None)


def pixel_scale(application):
    """What a network expects of RGB pixels 0..255.

    Returns:
        (mean, std, bgr): two lists of three numbers, RGB, of (pixels - mean) / std, and whether the network then takes
        them in the order BGR.
    """
    if application in BARE:
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


def _weighted(layers, names):
    """(layer, its name) of the layers with weights, those inside a Sequential too."""
    for layer in layers:
        if isinstance(layer, keras.Sequential):
            yield from _weighted(layer.layers, names)
        elif layer.weights:
            yield layer, names.get(layer.name, layer.name)


def _fold_rescaling(network, arrays, changes):
    """EfficientNet divides its normalised pixels once more, in its ImageNet version only: into the variance with it."""
    for before, after in zip(network.layers, network.layers[1:], strict=False):
        if isinstance(before, keras.layers.Normalization) and isinstance(after, keras.layers.Rescaling):
            path = f"backbone/{stable_names(network)[before.name]}/variance"
            arrays[path] = (arrays[path] / np.square(after.scale)).astype(np.float32)
            changes[path] = f"with the {after.name} behind it"
