"""Made-up weights for matterport's Mask R-CNN, the same to the bit on every machine (see made_up.py)."""

import re
import zlib

import numpy as np
from golden import made_up

# Standard deviation of a layer's output for inputs of order 1: the first pattern found in its name decides.
_GAINS = (
    (r"^conv1", 1 / 50),  # pixels reach 150
    (r"rpn_class_raw", 0.8),
    (r"rpn_bbox_pred", 1.0),
    (r"mrcnn_class_logits", 4.0),
    (r"mrcnn_bbox_fc", 0.7),
    (r"mrcnn_mask/", 1.7),
    (r"^res", 1.7),
    (r"fpn_c", 0.7),
    (r"fpn_p|rpn_|conv1/", 1.0),
    (r"", 1.5),
)
_BACKGROUND_BIAS = 10.0


def weights(shapes, seed):
    """Returns {name: float32 array} for the datasets of a weights file; `shapes` maps their names to shapes.

    Every array depends on its own name, shape and the seed alone. Activations stay of order 1, scores and boxes spread.
    """
    return {name: _weight(name, tuple(shape), seed) for name, shape in shapes.items()}


def _weight(name, shape, seed):
    layer, _, kind = name.rpartition("/")
    source = [seed, zlib.crc32(name.encode())]
    if kind == "kernel:0":
        return _kernel(name, shape, source)
    if kind in ("moving_variance:0", "gamma:0"):
        # Down to 0.002, so that an epsilon of 1e-3 and one of 1e-5 are far apart.
        shared = [seed, zlib.crc32(layer.encode())]
        unit = made_up.uniform(shape, [*shared, 1]) * made_up.uniform(shape, [*shared, 2])
        variance = np.float32(0.002) + unit * unit
        if kind == "moving_variance:0":
            return variance
        scale = made_up.uniform(shape, source, 0.5, 1.5) * np.sqrt(variance)
        return scale * np.float32(0.2) if re.match(r"bn\w+_branch2c", name) else scale
    values = made_up.uniform(shape, source, -0.3, 0.3)
    if "mrcnn_class_logits" in name:
        values[0] += np.float32(_BACKGROUND_BIAS)
    return values


def _kernel(name, shape, source):
    """Each output's kernel sums to zero: the mean of inputs behind a ReLU would drown what differs between places."""
    inputs = (3,) if "deconv" in name else tuple(range(len(shape) - 1))
    fan_in = int(np.prod([shape[axis] for axis in inputs]))
    steps = made_up.bits(int(np.prod(shape)), source).reshape(shape)
    steps -= steps.sum(inputs, keepdims=True) // fan_in
    gain = next(gain for pattern, gain in _GAINS if re.search(pattern, name))
    return steps.astype(np.float32) * np.float32(gain * (12 / fan_in) ** 0.5 * 2.0**-24)
