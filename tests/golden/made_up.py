"""Made-up images and weights, the same to the bit on every machine, for the recorded outputs in this folder.

The golden files hold outputs of the original libraries only; the images and the weights that gave them are made again
here from a seed. Everything comes from raw PCG64 bits, integer arithmetic and single, correctly rounded float
operations, because numpy promises neither the streams of its distributions nor the order of its float sums.
"""

import re
import zlib

import numpy as np

MAP_SAMPLES = 250
HEAD_SAMPLES = 800

# Standard deviation of a linear map's output for inputs of order 1; the first pattern found in the name decides.
_GAINS = (
    # Pixels that aren't divided by their deviation: detectron2's of a ResNet, and mmdetection's of the same.
    (r"(stem\.conv1|^backbone\.conv1)\.weight", 1 / 34),
    (r"(cls_logits|objectness_logits|rpn_cls)\.weight", 0.8),
    (r"(rpn\.head\.bbox_pred|anchor_deltas|rpn_reg)\.weight", 0.1),
    (r"(box_predictor\.cls_score|bbox_head\.fc_cls)\.weight", 2.6),
    (r"(box_predictor\.bbox_pred|bbox_head\.fc_reg)\.weight", 0.7),
    (r"score_lowres\.weight", 0.6),
    (r"(mask_fcn_logits|mask_head\.predictor|mask_head\.conv_logits)\.weight", 1.7),
    (r"(bottom_up|backbone\.body|backbone\.(res|layer)\d|roi_heads\.res5|keypoint_head|keypoint_predictor)\.", 1.7),
    (r"(inner|lateral)", 0.7),
    (r"(fpn|rpn|fc6|fc1|box_head\.0|shared_fcs\.0|mask_fcn1|mask_head\.0|mask_head\.convs\.0)", 1.0),
    (r"", 1.5),
)
_LAST_OF_BLOCK = re.compile(r"(layer\d\.\d+\.bn3|res\d\.\d+\.conv3\.norm|layers\.\d+\.layer\.2\.normalization)\.")
_LAST_OF_BASIC_BLOCK = re.compile(r"backbone\..*(layer\d\.\d+\.bn2|res\d\.\d+\.conv2\.norm)\.")  # of a detector


def bits(count, seed):
    """Returns [count] int64 in 0..2**24-1 from the raw stream of PCG64."""
    raw = np.random.PCG64(seed).random_raw((count + 1) // 2).view(np.uint32)
    return (raw[:count] >> 8).astype(np.int64)


def uniform(shape, seed, low=0.0, high=1.0):
    """Returns float32 [*shape], evenly spread over [low, high)."""
    unit = bits(int(np.prod(shape)), seed).astype(np.float32) * np.float32(2.0**-24)
    return (unit * np.float32(high - low) + np.float32(low)).reshape(shape)


def positions(size, count):
    """Returns [min(count, size)] int64, increasing: where a flattened array of `size` numbers is sampled.

    One position from each of `count` equal stretches, so that every part of the array is seen.
    """
    if size <= count:
        return np.arange(size, dtype=np.int64)
    edges = np.arange(count + 1, dtype=np.int64) * size // count
    return edges[:-1] + bits(count, size) % np.diff(edges)


def sample(array, count=MAP_SAMPLES):
    """Returns the values of `array` (any shape, C order) at its `positions`."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat[positions(flat.size, count)]


def image(height, width, seed):
    """Returns a uint8 RGB picture [height, width, 3]: a smooth ground, shapes with sharp edges, stripes and grain."""
    picture = _ground(height, width, seed)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    for number in range(40):
        draw = bits(10, [seed, 1, number])
        center_y, center_x = draw[0] % height, draw[1] % width
        half_y, half_x = 3 + draw[2] % (height // 6), 3 + draw[3] % (width // 6)
        dy, dx = np.abs(rows - center_y), np.abs(columns - center_x)
        if draw[4] % 2:
            inside = (dy < half_y) & (dx < half_x)
        else:
            inside = (dy * half_x) ** 2 + (dx * half_y) ** 2 < (half_x * half_y) ** 2
        color = draw[5:8] % 256
        if draw[8] % 3 == 0:
            stripes = (rows + columns * (draw[9] % 3)) // (3 + draw[9] % 5) % 2
            color = color + 50 * stripes[..., None]
        picture = np.where(inside[..., None], color, picture)
    grain = bits(height * width * 3, [seed, 2]).reshape(height, width, 3) % 17 - 8
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def _ground(height, width, seed, cells=5):
    """Returns int64 [height, width, 3]: a coarse grid of random colours, interpolated in integers."""
    grid = bits((cells + 1) ** 2 * 3, [seed, 0]).reshape(cells + 1, cells + 1, 3) % 256
    top, y = np.divmod(np.arange(height) * cells, height)
    left, x = np.divmod(np.arange(width) * cells, width)
    y, x = y[:, None, None], x[None, :, None]
    upper = grid[top][:, left] * (width - x) + grid[top][:, left + 1] * x
    lower = grid[top + 1][:, left] * (width - x) + grid[top + 1][:, left + 1] * x
    return (upper * (height - y) + lower * y) // (height * width)


def objects(height, width, count, seed):
    """Returns (labels, polygons): numbers 1..80, and lists of [x, y] in whole pixels inside the picture: rectangles and
    octagons of an eighth to a half of its sides, none of them the picture's whole height or width."""
    labels, polygons = [], []
    for number in range(count):
        draw = bits(5, [seed, 3, number])
        half_x, half_y = width // 16 + draw[0] % (width // 5), height // 16 + draw[1] % (height // 5)
        x, y = half_x + 1 + draw[2] % (width - 2 * half_x - 2), half_y + 1 + draw[3] % (height - 2 * half_y - 2)
        cut_x, cut_y = (half_x // 3, half_y // 3) if number % 2 else (0, 0)
        side, end = half_y - cut_y, half_x - cut_x
        lower = [[half_x, side], [end, half_y], [-end, half_y], [-half_x, side]]
        corners = lower + [[-dx, -dy] for dx, dy in lower]
        corners = [corner for place, corner in enumerate(corners) if corner != corners[place - 1]]
        polygons.append([[int(x + dx), int(y + dy)] for dx, dy in corners])
        labels.append(int(1 + draw[4] % 80))
    return labels, polygons


def polygon_box(polygon):
    """Returns the box [x1, y1, x2, y2] around a list of [x, y]."""
    xs, ys = zip(*polygon, strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


def weights(shapes, seed, background, normalized=False):
    """Returns {name: array} for a published model's state dict, float32 (int64 zeros for batch counters).

    `shapes` maps names to (shape, dtype name) as the golden json lists them. Every tensor depends on its own name and
    shape and on the seed alone. Activations stay of order 1, scores and boxes spread out. `background`, a number of the
    golden json too, is added to the bias of the background's class logit: it decides how many detections there are.
    `normalized` says that a detectron2 model, its ResNeXt, divides pixels by their deviation.
    """
    first = any(name.startswith("backbone.body.") for name in shapes)  # torchvision's classes begin with the background
    norms = {name.removesuffix("running_var") for name in shapes if name.endswith("running_var")}
    last = _LAST_OF_BLOCK if any(map(_LAST_OF_BLOCK.search, shapes)) else _LAST_OF_BASIC_BLOCK
    made = {}
    for name, (shape, dtype) in shapes.items():
        stem, _, part = name.rpartition(".")
        source = [seed, zlib.crc32(name.encode())]
        if part == "num_batches_tracked":
            made[name] = np.zeros(shape, np.dtype(dtype))
        elif stem + "." in norms:
            made[name] = _norm(name, shape, [seed, zlib.crc32(stem.encode())], source, last)
        elif part == "weight" and len(shape) == 1:  # a group norm's scale
            made[name] = uniform(shape, source, 0.5, 1.5)
        elif part == "bias":
            made[name] = _bias(name, shape, source)
            if re.search(r"box_predictor\.cls_score|bbox_head\.fc_cls", name):
                made[name][0 if first else -1] += np.float32(background)
        else:
            made[name] = _linear(name, shape, source)
            if normalized and re.search(r"stem\.conv1|^backbone\.conv1", name):
                made[name] *= np.float32(58)
    return made


def _norm(name, shape, shared, source, last):
    """Returns one parameter of a batch norm.

    Scale over deviation lies in 0.5..1.5, at a residual block's end in 0.1..0.3, or sixteen blocks would add up.
    Variances reach down to 0.002, where an epsilon of 1e-5 instead of 0 moves the output by 0.25 %: the two must be
    told apart. `shared` seeds the variance, which the scale needs too; `last` finds a block's last norm by its name.
    """
    variance = np.float32(0.002) + uniform(shape, [*shared, 1]) ** 2 * uniform(shape, [*shared, 2]) ** 2
    part = name.rpartition(".")[2]
    if part == "running_var":
        return variance
    if part == "running_mean":
        return uniform(shape, source, -0.3, 0.3)
    if part == "bias":
        return uniform(shape, source, -0.3, 0.3)
    scale = uniform(shape, source, 0.5, 1.5) * np.sqrt(variance)
    return scale * np.float32(0.2) if last.search(name) else scale


def _bias(name, shape, source):
    values = uniform(shape, source, -0.1, 0.1)
    if re.search(r"cls_logits|objectness_logits|rpn_cls", name):
        values -= np.float32(3.0)
    return values


def _linear(name, shape, source):
    """Returns a kernel [out, in, ...] ([in, out, side, side] for the deconvolutions, whose sides are even).

    Each output's kernel sums to zero: inputs behind a ReLU share a positive mean, and without this it would drown what
    differs from place to place.
    """
    deconvolution = len(shape) == 4 and shape[2] % 2 == 0
    inputs = (0,) if deconvolution else tuple(range(1, len(shape)))
    fan_in = int(np.prod([shape[axis] for axis in inputs]))
    steps = bits(int(np.prod(shape)), source).reshape(shape)
    steps -= steps.sum(inputs, keepdims=True) // fan_in
    gain = next(gain for pattern, gain in _GAINS if re.search(pattern, name))
    return steps.astype(np.float32) * np.float32(gain * (12 / fan_in) ** 0.5 * 2.0**-24)
