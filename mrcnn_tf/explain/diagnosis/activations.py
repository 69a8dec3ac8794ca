"""The maps inside a model as pictures: how strongly each cell responds, and its features as colours."""

import dataclasses

import numpy as np
import tensorflow as tf

CELLS = 300  # that the main directions are taken from, spread evenly over the map; more cost seconds


@dataclasses.dataclass
class FeatureMap:
    """One map of the backbone or the pyramid.

    Attributes:
        name: such as "C3" or "P5".
        stride: pixels of the network's input per cell.
        strength: [h, w] float32, the mean absolute activation over the channels.
        colours: [h, w, 3] uint8, the three principal components of the channels as red, green and blue.
    """

    name: str
    stride: int
    strength: np.ndarray
    colours: np.ndarray


def feature_maps(model, seen, names):
    """The `FeatureMap`s of the tensors of a `trace`; `names` are those of the maps that RPN and heads read."""
    height = int(seen["normalized"].shape[1])
    maps = [(f"C{2 + place}", values) for place, values in enumerate(seen["maps"])]
    if model.fpn:
        maps += zip(names, seen["features"], strict=True)
    found = []
    for name, values in maps:
        values = np.asarray(tf.cast(values[0], tf.float32))
        stride = int(2 ** np.round(np.log2(height / values.shape[0])))
        found.append(FeatureMap(name, stride, np.abs(values).mean(axis=-1), principal_colours(values)))
    return found


def principal_colours(values):
    """[h, w, 3] uint8: the three principal components of features [h, w, C], each stretched to 0..255.

    The sign of a component is that of its largest weight, so that a picture doesn't depend on the solver.
    """
    cells = np.nan_to_num(values.reshape(-1, values.shape[-1]), posinf=0, neginf=0)
    some = cells[np.linspace(0, len(cells) - 1, min(len(cells), CELLS)).round().astype(int)]
    mean = some.mean(axis=0)
    directions = np.linalg.svd(some - mean, full_matrices=False)[2][:3]
    signs = np.sign(np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1))
    parts = (cells - mean) @ (directions * signs).T
    parts = np.pad(parts, [(0, 0), (0, 3 - parts.shape[1])])
    low, high = np.percentile(parts, [1, 99], axis=0)
    parts = (parts - low) / np.maximum(high - low, 1e-9)
    return (parts.clip(0, 1) * 255).round().astype(np.uint8).reshape(*values.shape[:2], 3)
