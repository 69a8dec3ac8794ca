"""Every layer comes back from its config, through JSON, as a saved model stores it."""

import json

import keras
import pytest

from mrcnn_tf.model.backbones.application import (
    ApplicationBackbone,
    CanvasAveragePooling,
    ChannelScale,
    ChannelStatistics,
    ClearPadding,
    HardSwish,
)
from mrcnn_tf.model.backbones.resnet import ResidualBlock, ResNet
from mrcnn_tf.model.blocks import BatchNorm, ConfiguredLayer, ConvNorm, GroupNorm
from mrcnn_tf.model.fpn import FPN
from mrcnn_tf.model.heads.box import BoxHead
from mrcnn_tf.model.heads.keypoint import KeypointHead
from mrcnn_tf.model.heads.mask import MaskHead, MaskMLP
from mrcnn_tf.model.heads.semantic import SemanticHead
from mrcnn_tf.model.preprocess import Preprocess
from mrcnn_tf.model.rois import Res5, RoILayer, RoISampler
from mrcnn_tf.model.rpn import RPN, RPNHead

PYRAMID = [(None, None, None, 16)] * 5
IMAGES = (None, None, None, 3)
ROI_FEATURES = (None, None, 4, 4, 16)
RES5 = {"depth": 50, "groups": 1, "width_per_group": 64, "stride_in_1x1": True, "norm": "gn", "epsilon": 1e-3}
TAPS = ["conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"]
KEYPOINTS = {"pool_size": 4, "convs": 2, "channels": 6}
# Settings other than the defaults, so that a forgotten one shows; then the shape to build with.
LAYERS = {
    "ConvNorm": (lambda tree, **k: ConvNorm(8, 3, 2, None, "relu", 1e-3, 1, "zeros", **k), IMAGES),
    "ConvNorm with group norm": (lambda tree, **k: ConvNorm(32, 1, norm="gn", epsilon=1e-2, **k), IMAGES),
    "ConvNorm in groups": (lambda tree, **k: ConvNorm(9, 3, groups=3, **k), IMAGES),
    "BatchNorm": (lambda tree, **k: BatchNorm(0.8, 1e-3, True, **k), PYRAMID[0]),
    "GroupNorm": (lambda tree, **k: GroupNorm(4, 1e-3, **k), PYRAMID[0]),
    "ResidualBlock": (lambda tree, **k: ResidualBlock(8, 20, True, 2, True, True, 4, "bn", 1e-3, 1, **k), IMAGES),
    "ResNet": (lambda tree, **k: ResNet(50, "bn", True, 3, 1e-3, 2, 8, "same", True, 5, **k), IMAGES),
    "ApplicationBackbone": (lambda tree, **k: ApplicationBackbone("MobileNet", TAPS, 3, **k), IMAGES),
    "ClearPadding": (lambda tree, **k: ClearPadding(**k), PYRAMID[0]),
    "CanvasAveragePooling": (lambda tree, **k: CanvasAveragePooling(keepdims=True, **k), PYRAMID[0]),
    "ChannelStatistics": (lambda tree, **k: ChannelStatistics(**k), PYRAMID[0]),
    "ChannelScale": (lambda tree, **k: ChannelScale(0.5, **k), PYRAMID[0]),
    "HardSwish": (lambda tree, **k: HardSwish(**k), PYRAMID[0]),
    "FPN": (lambda tree, **k: FPN(16, "frozen_bn", 1e-3, **k), PYRAMID[:4]),
    "RPNHead": (lambda tree, **k: RPNHead(2, 12, 2, **k), PYRAMID),
    "RPN": (lambda tree, **k: RPN(tree["rpn"], tree["conventions"], [4, 8, 16, 32, 64], 16, **k), PYRAMID),
    "RPN on one map": (lambda tree, **k: RPN(tree["rpn"], tree["conventions"], [16], 16, **k), PYRAMID[:1]),
    "RoILayer": (lambda tree, **k: RoILayer(5, [4, 8], tree["conventions"], "warp", "max", **k), None),
    "Res5": (lambda tree, **k: Res5(RES5, RoILayer(14, [16], tree["conventions"]), **k), PYRAMID[:1]),
    "BoxHead": (
        lambda tree, **k: BoxHead(2, tree["box_head"], tree["detections"], tree["conventions"], **k),
        ROI_FEATURES,
    ),
    "MaskHead": (lambda tree, **k: MaskHead(2, tree["mask_head"], tree["conventions"], **k), ROI_FEATURES),
    "MaskMLP": (lambda tree, **k: MaskMLP(2, tree["mask_head"] | {"fcs": 2}, tree["conventions"], **k), ROI_FEATURES),
    "KeypointHead": (
        lambda tree, **k: KeypointHead([[-1, -1], [0, 1], [2, -1]], KEYPOINTS, tree["conventions"], **k),
        ROI_FEATURES,
    ),
    "SemanticHead": (
        lambda tree, **k: SemanticHead(3, [4, 8, 16, 32], {"channels": 32, "norm": "frozen_bn"}, 1e-3, **k),
        PYRAMID[:4],
    ),
    "RoISampler": (lambda tree, **k: RoISampler(tree["rois"], **k), None),
    "Preprocess": (lambda tree, **k: Preprocess([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], tree["resize"], 1, **k), None),
}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_comes_back_from_its_config(tiny_tree, name, policy):
    make, shape = LAYERS[name]
    layer = make(tiny_tree, name="some_layer", dtype=policy)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    copy = keras.saving.deserialize_keras_object(saved)
    assert type(copy) is type(layer) and copy.name == "some_layer"
    assert copy.dtype_policy.name == policy
    assert copy.get_config() == layer.get_config()
    for one in (layer, copy):
        one.build(shape)
    described = [[(w.name, tuple(w.shape), w.trainable, w.dtype) for w in one.weights] for one in (layer, copy)]
    assert described[0] == described[1]
    assert {dtype for *_, dtype in described[0]} <= {"float32"}


def test_every_layer_of_the_package_is_here():
    """A layer added later must be added above."""
    own = {
        cls.__name__
        for cls in _subclasses(keras.layers.Layer)
        if cls.__module__.startswith("mrcnn_tf.model.")
        and cls is not ConfiguredLayer
        and not issubclass(cls, keras.Model)
    }
    assert own == {name.split()[0] for name in LAYERS}


def _subclasses(cls):
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)
