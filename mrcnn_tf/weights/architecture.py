"""The model that a set of weights belongs to, read off the weights' names and shapes: its architecture and classes."""

import math
import pathlib
import re

import yaml

from mrcnn_tf.common.categories import UNUSED, Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import RESNET_BLOCKS
from mrcnn_tf.weights.facts import Origin

SHAPES = "the shape of its tensors"  # what says so, of facts that shapes and names tell

# (bottleneck, blocks of each stage) -> depth
DEPTHS = {(depth >= 50, blocks): depth for depth, blocks in RESNET_BLOCKS.items()}


def backbone_settings(arrays):
    """`BackboneConfig` values of the backbone in `arrays`: depth, groups and width_per_group, and norm if it is gn.

    `arrays` are those of `ConvertedWeights`; the last stage may stand in the heads, as C4 detectors have it. UserError
    if it is no ResNet of a known depth.
    """
    blocks = tuple(
        len({path.split("/")[1] for path in arrays if re.match(rf"(backbone|res5)/res{stage}_", path)})
        for stage in (2, 3, 4, 5)
    )
    bottleneck = "backbone/res2_0/conv3/kernel" in arrays
    if (bottleneck, blocks) not in DEPTHS:
        raise UserError(
            f"The backbone has {', '.join(map(str, blocks))} blocks in its stages and so is no ResNet-10, 18, 34, 50, "
            "101 or 152: give weights of one of those."
        )
    settings = {"depth": DEPTHS[bottleneck, blocks]}
    if bottleneck and "backbone/res2_0/conv2/kernel" in arrays:
        settings["width_per_group"], width = arrays["backbone/res2_0/conv2/kernel"].shape[2:]
        settings["groups"] = width // settings["width_per_group"]
    if "backbone/stem/gamma" in arrays and "backbone/stem/moving_mean" not in arrays:
        settings["norm"] = "gn"
    return settings


def add_shapes(weights):
    """Add the facts that the shapes of `ConvertedWeights` tell; return whether they are a detector's.

    The first fully connected layer's inputs are brought from PyTorch's order, channels first, into ours.
    """
    arrays = weights.arrays
    is_detector = "fpn/output2/kernel" in arrays or "box_head/class_logits/kernel" in arrays
    settings = detector_settings(arrays) if is_detector else {"backbone": backbone_settings(arrays)}
    weights.facts.add_all(settings, Origin.SHAPE, SHAPES)
    kernel = arrays.get("box_head/fc1/kernel")
    if kernel is not None and kernel.ndim == 4:  # a convolution as large as its input, channels last
        weights.facts.add("model.box_head.pool_size", kernel.shape[0], Origin.SHAPE, SHAPES)
    elif kernel is not None:
        channels = _box_feature_channels(arrays)
        side = math.isqrt(kernel.shape[0] // channels) if channels else 0
        if not side or side * side * channels != kernel.shape[0]:
            raise UserError(
                f"The box head's first layer has {kernel.shape[0]} inputs: no square of {channels} channels is that."
            )
        # A view: flattened, the largest weight of all would be copied before its turn.
        arrays["box_head/fc1/kernel"] = kernel.T.reshape(-1, channels, side, side).transpose(2, 3, 1, 0)
        weights.conversions["box_head/fc1/kernel"] = "inputs channels last"
        weights.facts.add("model.box_head.pool_size", side, Origin.SHAPE, SHAPES)
    return is_detector


def _box_feature_channels(arrays):
    """Channels of what the box head's first fully connected layer reads; None where the layer before it is missing."""
    convs = _count_layers(arrays, "box_head/conv")
    if convs:
        return _channels(arrays, f"box_head/conv{convs}")
    outputs = [f"res5_0/{conv}" for conv in ("conv3", "conv2")]  # of C5
    before = ["fpn/output2", *(f"{part}/{output}" for output in outputs for part in ("backbone", "res5"))]
    return next((_channels(arrays, layer) for layer in before if _channels(arrays, layer)), None)


def detector_settings(arrays):
    """`ModelConfig` values of the detector in `arrays`, nested, as far as shapes tell them.

    What a missing layer would tell is left out: it is reported as missing later, by name.
    """
    parts = {path.split("/")[0] for path in arrays}
    settings = {
        "backbone": backbone_settings(arrays),
        "features": "FPN" if "fpn" in parts else "C4" if "res5" in parts else "C5",
        "rpn": {"convs": _count_layers(arrays, "rpn/head/conv"), "channels": _channels(arrays, "rpn/head/conv")},
        "box_head": {
            "convs": _count_layers(arrays, "box_head/conv"),
            "fcs": _count_layers(arrays, "box_head/fc"),
            **_known_sizes(
                channels=_channels(arrays, "box_head/fc1"), conv_channels=_channels(arrays, "box_head/conv1")
            ),
            "norm": _norm(arrays, "box_head/conv1"),
            "class_agnostic": _has_one_box(arrays),
        },
        "mask_head": _mask_head_settings(arrays) if "mask_head" in parts else None,
        "keypoint_head": None,
        "semantic_head": _conv_settings(arrays, "semantic_head/p2_conv1") if "semantic_head" in parts else None,
    }
    if "fpn" in parts:
        settings["fpn"] = _conv_settings(arrays, "fpn/output2")
    if "keypoint_head" in parts:
        sizes = _known_sizes(channels=_channels(arrays, "keypoint_head/conv1"))
        settings["keypoint_head"] = {"convs": _count_layers(arrays, "keypoint_head/conv"), **sizes}
    return settings


def _has_one_box(arrays):
    bias, classes = arrays.get("box_head/box_deltas/bias"), num_classes(arrays)
    return classes is not None and classes > 1 and bias is not None and len(bias) == 4


def _mask_head_settings(arrays):
    deconv, classes = arrays.get("mask_head/deconv_kernel"), num_classes(arrays)
    class_agnostic = classes is not None and classes > 1 and len(arrays.get("mask_head/predictor_bias", ())) == 1
    return {
        "convs": _count_layers(arrays, "mask_head/conv"),
        "class_agnostic": class_agnostic,
        **_known_sizes(channels=None if deconv is None else deconv.shape[2]),
        "norm": _norm(arrays, "mask_head/conv1"),
    }


def _conv_settings(arrays, layer):
    return _known_sizes(channels=_channels(arrays, layer)) | {"norm": _norm(arrays, layer)}


def _known_sizes(**sizes):
    return {key: size for key, size in sizes.items() if size is not None}


def _count_layers(arrays, prefix):
    return sum(1 for path in arrays if re.fullmatch(rf"{prefix}\d*/kernel", path))


def _channels(arrays, layer):
    """Output channels of a layer, or None if it is missing."""
    kernel = arrays.get(f"{layer}/kernel")
    return None if kernel is None else kernel.shape[-1]


def _norm(arrays, layer):
    if f"{layer}/gamma" not in arrays:
        return None
    return "frozen_bn" if f"{layer}/moving_mean" in arrays else "gn"


def num_classes(arrays):
    """K, the foreground classes of the detector in `arrays`; None without a classifier."""
    bias = arrays.get("box_head/class_logits/bias")
    return None if bias is None else len(bias) - 1


def num_heatmaps(arrays):
    """How many keypoints the detector in `arrays` tells apart; 0 without a keypoint head."""
    return len(arrays.get("keypoint_head/score_bias", ()))


def num_stuff(arrays):
    """S, the stuff classes of the detector in `arrays`, whose first semantic class is all things; None without any."""
    bias = arrays.get("semantic_head/predictor/bias")
    return None if bias is None else len(bias) - 1


_COCO = yaml.safe_load(pathlib.Path(__file__).with_name("coco_classes.yaml").read_text(encoding="utf-8"))
# COCO's 80 classes with their sparse ids, as detectron2 and matterport count them: without gaps.
COCO_80 = [Category(id, name) for id, name in _COCO["things"].items()]
# Every id from 1 to 90, as torchvision counts them: its class is the id.
COCO_90 = [Category(id, _COCO["things"].get(id, UNUSED)) for id in range(1, 91)]
# The 53 stuff classes of COCO's panoptic task, by id.
COCO_STUFF = [Category(id, name) for id, name in _COCO["stuff"].items()]
# The one class of keypoint detectors.
PERSON = Category(1, "person", **_COCO["person"])


def published_categories(arrays, classes):
    """The categories of a published detector's weights, by how many there are; None where these aren't COCO's.

    `classes` is `COCO_80` or `COCO_90`, as the detector's library counts them.
    """
    counts = (num_classes(arrays), num_heatmaps(arrays))
    if counts == (1, len(PERSON.keypoints)):
        return [PERSON]
    return classes if counts == (len(classes), 0) else None


def published_stuff(arrays):
    """The stuff classes of a published detector's weights, by how many there are; None where these aren't COCO's."""
    return COCO_STUFF if num_stuff(arrays) == len(COCO_STUFF) else None
