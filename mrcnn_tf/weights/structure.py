"""The architecture that a set of weights belongs to, read off the weights' names and shapes."""

import re

from mrcnn_tf.errors import UserError
from mrcnn_tf.layers.resnet import BLOCKS

DEPTHS = {(depth >= 50, blocks): depth for depth, blocks in BLOCKS.items()}  # (bottleneck, blocks of each stage)


def backbone_settings(arrays):
    """`BackboneConfig` values of the backbone in `arrays`: depth, groups and width_per_group, and norm if it is gn.

    Raises:
        UserError: no ResNet of a known depth.
    """
    stages = tuple(
        len({path.split("/")[1] for path in arrays if re.match(rf"backbone/res{s}_", path)}) for s in (2, 3, 4, 5)
    )
    bottleneck = "backbone/res2_0/conv3/kernel" in arrays
    if (bottleneck, stages) not in DEPTHS:
        raise UserError(
            f"The backbone has {', '.join(map(str, stages))} blocks in its stages and so is no ResNet-18, 34, 50, 101 "
            "or 152: give weights of one of those."
        )
    settings = {"depth": DEPTHS[bottleneck, stages]}
    if bottleneck and "backbone/res2_0/conv2/kernel" in arrays:
        settings["width_per_group"], width = arrays["backbone/res2_0/conv2/kernel"].shape[2:]
        settings["groups"] = width // settings["width_per_group"]
    if "backbone/stem/gamma" in arrays and "backbone/stem/moving_mean" not in arrays:
        settings["norm"] = "gn"
    return settings


def detector_settings(arrays):
    """`ModelConfig` values of the detector in `arrays`, nested, as far as shapes tell them."""
    fpn, rpn, box = "fpn/output2", "rpn/head", "box_head"
    settings = {
        "backbone": backbone_settings(arrays),
        "fpn": {"channels": _outputs(arrays, fpn), "norm": _norm(arrays, fpn)},
        "rpn": {"convs": _count(arrays, f"{rpn}/conv"), "channels": _outputs(arrays, f"{rpn}/conv")},
        "box_head": {
            "convs": _count(arrays, f"{box}/conv"),
            "fcs": _count(arrays, f"{box}/fc"),
            "channels": _outputs(arrays, f"{box}/fc1"),
            "norm": _norm(arrays, f"{box}/conv1"),
        },
        "mask_head": None,
    }
    if settings["box_head"]["convs"]:
        settings["box_head"]["conv_channels"] = _outputs(arrays, f"{box}/conv1")
    if any(path.startswith("mask_head/") for path in arrays):
        settings["mask_head"] = {
            "convs": _count(arrays, "mask_head/conv"),
            "channels": _outputs(arrays, "mask_head/conv1"),
            "norm": _norm(arrays, "mask_head/conv1"),
        }
    return settings


def num_classes(arrays):
    """K, the foreground classes of the detector in `arrays`; None without a classifier."""
    bias = arrays.get("box_head/class_logits/bias")
    return None if bias is None else len(bias) - 1


def _count(arrays, prefix):
    return sum(1 for path in arrays if re.fullmatch(rf"{prefix}\d*/kernel", path))


def _outputs(arrays, layer):
    """Output channels of a layer; a layer that the file lacks is reported as missing later, by name."""
    kernel = arrays.get(f"{layer}/kernel")
    return None if kernel is None else kernel.shape[-1]


def _norm(arrays, layer):
    if f"{layer}/gamma" not in arrays:
        return None
    return "frozen_bn" if f"{layer}/moving_mean" in arrays else "gn"
