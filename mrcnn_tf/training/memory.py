"""How much memory training takes, before it is taken."""

import math
import re

# Bytes held for each byte that trained convolutions put out: what norms and activations make of it counts, too. And
# those that a step takes besides. Both are fitted, see `activation_bytes`.
HELD = 1.46
WORKSPACE = 0.39e9
# The same of the logits that the semantic loss interpolates to the image's pixels, with 200 to 600 classes.
LABELS_HELD = 1.1
LEVELS = range(2, 7)  # P2 to P6


def state_bytes(model):
    """Bytes that a compiled model's weights, gradients and optimizer (momentum, averages) take on each device.

    Exact for float32; parts of a batch that are added up (`accumulate`) hold the gradients twice.
    """
    weights = sum(_bytes(variable) for variable in model.weights)
    gradients = sum(_bytes(variable) for variable in model.trainable_variables)
    slots = sum(_bytes(variable) for variable in model.optimizer.variables)
    return weights + gradients * (2 if model.accumulate > 1 else 1) + slots


def activation_bytes(model, height, width, images):
    """An estimate of what a step takes on one device beside `state_bytes`; None for a network of keras.applications.

    It counts what the trained convolutions, the RoI layers and the semantic loss put out. The constants were fitted to
    the growth of a process on a processor, with TensorFlow 2.20: the first two in seven cases of 0.7 to 1.9 GB
    (ResNet-18 and -50, 256 and 512 pixels, one and two images, float32 and bfloat16), of which the smallest is missed
    by 16 %, the others by 6 % at most, as are three that were not among them (800x800, 800x1088, C4). What a semantic
    head for 53 classes of stuff added to one of 512 pixels was 0.11 GB, where 0.09 are expected. What a GPU's
    convolutions ask for besides isn't in it.

    Args:
        model: a MaskRCNN.
        height, width: of the padded images, in pixels.
        images: that the device works on at once.
    """
    if model.config.backbone.application:
        return None
    elements = sum(_elements(model, variable, height * width) for variable in model.trainable_variables)
    size = 4 if model.compute_dtype == "float32" else 2
    held = HELD * size * (elements + _roi_elements(model)) + LABELS_HELD * 4 * _logits(model) * height * width
    return round(WORKSPACE + images * held)


def _bytes(variable):
    return math.prod(variable.shape) * (8 if variable.dtype.endswith("64") else 4)


def _elements(model, variable, pixels):
    """Outputs, per image, of the convolution that a variable is the kernel of."""
    path = variable.path.removeprefix(f"{model.name}/")
    if len(variable.shape) != 4:
        return 0
    return variable.shape[-1] * _positions(model, path, pixels)


def _positions(model, path, pixels):
    config, part = model.config, path.split("/")[0]
    if part == "res5":
        return config.rois.batch_per_image * (config.box_head.pool_size // 2) ** 2
    if part == "box_head":
        return config.rois.batch_per_image * config.box_head.pool_size**2
    if part == "semantic_head":
        return _semantic_positions(path, pixels)
    if part in ("mask_head", "keypoint_head"):
        side = getattr(config, part).pool_size * (2 if "deconv" in path or "predictor" in path else 1)
        return model.roi_sampler.most_positives * side**2
    if part == "rpn":
        strides = [2**level for level in LEVELS] if model.fpn else model.backbone.strides[-1:]
        return sum(pixels / stride**2 for stride in strides)
    level = int((re.search(r"(?:res|lateral|output)(\d)", path) or [0, "1"])[1])  # the stem has a stride of 2
    return pixels / 4**level


def _semantic_positions(path, pixels):
    """A level's convolutions run on ever finer maps, from its own down to that of stride 4; the classifier on two."""
    found = re.search(r"p(\d)_conv(\d)", path)
    if not found:
        return pixels / 4**2 + pixels / 4**3
    level, number = map(int, found.groups())
    return pixels / 4 ** (level - number + 1)


def _logits(model):
    """Of each pixel of an image, which the semantic loss interpolates."""
    return model.semantic_head.num_classes if model.semantic_head else 0


def _roi_elements(model):
    """What is cut out of the maps for an image's RoIs."""
    config, rois = model.config, model.roi_sampler
    if rois is None:
        return 0
    count = config.rois.batch_per_image * config.box_head.pool_size**2
    for head in (config.mask_head, config.keypoint_head):
        if head and model.fpn:
            count += rois.most_positives * head.pool_size**2
    return count * model.channels
