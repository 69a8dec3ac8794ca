"""ResNet backbones as Hugging Face's transformers names them, alone or inside its classifiers and detectors.

Either they are of transformers' own ResNet (microsoft/resnet-50), or timm's ResNets, with torchvision's names, in one
of its wrappers. Source: the models resnet, timm_backbone, timm_wrapper and detr of transformers 5, which saves a DETR's
backbone under "conv_encoder.model." and holds it under "backbone.model.".
"""

import re

from mrcnn_tf.config.settings import IMAGENET_MEAN, IMAGENET_STD
from mrcnn_tf.weights import rules, torchvision
from mrcnn_tf.weights.architecture import add_shapes
from mrcnn_tf.weights.facts import Origin
from mrcnn_tf.weights.rules import Rule, read_bgr, translate

# The stem's name behind the names of what the backbone is a part of.
_STEMS = (
    re.compile(r"((?:.+\.)?)embedder\.embedder\.convolution\.weight"),
    re.compile(r"((?:.+\.)?(?:timm_model|_backbone|conv_encoder\.model|backbone\.model)\.)conv1\.weight"),
)
_BLOCK = r"encoder\.stages\.(\d)\.layers\.(\d+)"
SKIP = {
    r".*\.num_batches_tracked": "counts training steps",
    r"(fc|classifier\.1)\.(weight|bias)": "the classifier of ImageNet's classes",
}
BEYOND = "of the model around the backbone"


def _layer(match):
    part = "shortcut" if match[3] is None else f"conv{int(match[3]) + 1}"
    return f"backbone/res{int(match[1]) + 2}_{match[2]}/{part}"


RULES = [
    Rule(r"embedder\.embedder\.convolution", "backbone/stem", rules.CONV),
    Rule(r"embedder\.embedder\.normalization", "backbone/stem", rules.NORM),
    Rule(rf"{_BLOCK}\.(?:shortcut|layer\.(\d))\.convolution", _layer, rules.CONV),
    Rule(rf"{_BLOCK}\.(?:shortcut|layer\.(\d))\.normalization", _layer, rules.NORM),
    *torchvision.BACKBONE_RULES,
]


def matches(tensors):
    """Whether the names are those of transformers' ResNet, or of one of timm's in a wrapper of transformers."""
    return _prefix(tensors) is not None


def _prefix(tensors):
    """What stands before the backbone's own names, such as "resnet."; None unless there is one such backbone."""
    found = [match[1] for name in tensors for stem in _STEMS if (match := stem.fullmatch(name))]
    # timm has ResNets with three convolutions in the stem and others, which lack the first block's name.
    if len(found) != 1 or not any(
        f"{found[0]}{block}.weight" in tensors
        for block in ("encoder.stages.0.layers.0.layer.0.convolution", "layer1.0.conv1")
    ):
        return None
    return found[0]


# What transformers' and timm's code always does; the rest stands in their config files.
LIBRARY = ("model.conventions.batch_norm_epsilon", "model.backbone.stem_pool")


def convert(tensors, facts, metadata):
    """`ConvertedWeights` of the backbone in tensors that `matches` accepts; `facts` are known before, and added to."""
    prefix = _prefix(tensors)
    inner = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
    weights = translate(inner, RULES, SKIP, facts)
    weights.skipped = {prefix + name: reason for name, reason in weights.skipped.items()}
    weights.skipped |= {name: BEYOND for name in tensors if not name.startswith(prefix)}
    weights.unknown = [prefix + name for name in weights.unknown]
    add_shapes(weights)
    facts.add("model.conventions.batch_norm_epsilon", 1e-5, Origin.LIBRARY, "transformers")
    if f"{prefix}conv1.weight" in tensors:
        facts.add("model.backbone.stride_in_1x1", False, Origin.LIBRARY, "timm")
    else:
        facts.add("model.backbone.stride_in_1x1", False, Origin.ASSUMPTION, "transformers' default")
    facts.add("file.pixel_order", "RGB", Origin.ASSUMPTION, "transformers' image processors")
    facts.add("model.pixel_mean", list(IMAGENET_MEAN), Origin.ASSUMPTION, "transformers' default")
    facts.add("model.pixel_std", list(IMAGENET_STD), Origin.ASSUMPTION, "transformers' default")
    read_bgr(weights)
    return weights
