"""Every layer comes back from its config, through JSON, as a saved model stores it."""

import json

import keras
import pytest

from mrcnn_tf.config.settings import (
    BackboneConfig,
    BoxHeadConfig,
    Conventions,
    DetectionConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ResizeConfig,
    RoIConfig,
    RoILayerConfig,
    RPNConfig,
    SemanticHeadConfig,
)
from mrcnn_tf.model.anchors import AnchorGenerator
from mrcnn_tf.model.backbones.application import ApplicationBackbone, ChannelScale, ChannelStatistics, HardSwish
from mrcnn_tf.model.backbones.padding_layers import ClearPadding, ImageAveragePooling
from mrcnn_tf.model.backbones.resnet import ResidualBlock, ResNet
from mrcnn_tf.model.blocks import BatchNorm, ConfiguredLayer, ConvNorm, GroupNorm
from mrcnn_tf.model.heads.box import BoxHead
from mrcnn_tf.model.heads.head import Head
from mrcnn_tf.model.heads.keypoint import KeypointHead
from mrcnn_tf.model.heads.mask import MaskHead, MaskMLP
from mrcnn_tf.model.heads.semantic import SemanticHead
from mrcnn_tf.model.necks import FPN, SingleMap
from mrcnn_tf.model.preprocess import Preprocess
from mrcnn_tf.model.roi_features import Res5, RoILayer
from mrcnn_tf.model.rois import RoISampler
from mrcnn_tf.model.rpn import RPN, RPNHead

MAP = (None, None, None, 16)
PYRAMID = dict.fromkeys(["P2", "P3", "P4", "P5", "P6"], MAP)
IMAGES = (None, None, None, 3)
ROI_FEATURES = (None, None, 4, 4, 16)
RULES = Conventions(roi_sampling_ratio=3, batch_norm_epsilon=1e-3, box_width="inclusive")
RES5 = BackboneConfig(depth=50, stride_in_1x1=True, norm="gn", taps=["a"])
TAPS = ["conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"]
STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32}
MASK = {"pool_size": 4, "channels": 6}
# Settings other than the defaults, so that a forgotten one shows; then the shape to build with.
LAYERS = {
    "ConvNorm": (lambda **k: ConvNorm(8, 3, 2, None, "relu", 1e-3, 1, "zeros", **k), IMAGES),
    "ConvNorm with group norm": (lambda **k: ConvNorm(32, 1, norm="gn", epsilon=1e-2, **k), IMAGES),
    "ConvNorm in groups": (lambda **k: ConvNorm(9, 3, groups=3, **k), IMAGES),
    "BatchNorm": (lambda **k: BatchNorm(0.8, 1e-3, True, **k), MAP),
    "GroupNorm": (lambda **k: GroupNorm(4, 1e-3, **k), MAP),
    "ResidualBlock": (lambda **k: ResidualBlock(8, 20, True, 2, True, True, 4, "bn", 1e-3, 1, **k), IMAGES),
    "ResNet": (lambda **k: ResNet(50, "bn", True, 3, 1e-3, 2, 8, "same", True, 5, **k), IMAGES),
    "ApplicationBackbone": (lambda **k: ApplicationBackbone("MobileNet", TAPS, 3, **k), IMAGES),
    "ClearPadding": (lambda **k: ClearPadding(**k), MAP),
    "ImageAveragePooling": (lambda **k: ImageAveragePooling(keepdims=True, **k), MAP),
    "ChannelStatistics": (lambda **k: ChannelStatistics(**k), MAP),
    "ChannelScale": (lambda **k: ChannelScale(0.5, **k), MAP),
    "HardSwish": (lambda **k: HardSwish(**k), MAP),
    "FPN": (lambda **k: FPN(ResNet(10, norm="gn"), 32, "frozen_bn", 1e-3, **k), IMAGES),
    "SingleMap": (lambda **k: SingleMap(ResNet(10, last_stage=4), **k), IMAGES),
    "AnchorGenerator": (lambda **k: AnchorGenerator([[8.0, 12.0], [16.0, 24.0]], [1.0, 3.0], RULES, **k), None),
    "RPNHead": (lambda **k: RPNHead(2, 12, 2, **k), list(PYRAMID.values())),
    "RPN": (lambda **k: RPN(RPNConfig([4, 8, 16, 32, 64], channels=12, nms_iou=0.6), RULES, **k), PYRAMID),
    "RPN on one map": (lambda **k: RPN(RPNConfig([16]), RULES, **k), {"C4": MAP}),
    "RPN with anchors of its own": (lambda **k: RPN(anchors=AnchorGenerator([4.0], [1.0, 2.0]), **k), {"C4": MAP}),
    "RoILayer": (lambda **k: RoILayer(5, ["P2", "P3"], RULES, RoILayerConfig("warp", "max"), **k), None),
    "Res5": (lambda **k: Res5(RES5, RoILayer(14, ["C4"], RULES), 1e-3, **k), {"C4": MAP}),
    "BoxHead": (
        lambda **k: BoxHead(2, RoILayer(4), BoxHeadConfig(4, channels=12), DetectionConfig(0.1), RULES, **k),
        ROI_FEATURES,
    ),
    "BoxHead of class-agnostic boxes": (
        lambda **k: BoxHead(2, RoILayer(4), BoxHeadConfig(4, convs=1, fcs=0, class_agnostic=True), **k),
        ROI_FEATURES,
    ),
    "BoxHead on Res5": (lambda **k: BoxHead(2, Res5(RES5, RoILayer(7)), BoxHeadConfig(fcs=0), **k), ROI_FEATURES),
    "MaskHead": (lambda **k: MaskHead(2, RoILayer(4), MaskHeadConfig(**MASK, convs=2), RULES, **k), ROI_FEATURES),
    "MaskMLP": (lambda **k: MaskMLP(2, RoILayer(4), MaskHeadConfig(**MASK, fcs=2), RULES, **k), ROI_FEATURES),
    "KeypointHead": (
        lambda **k: KeypointHead([[-1, -1], [0, 1], [2, -1]], RoILayer(4), KeypointHeadConfig(4, 2, 6), RULES, **k),
        ROI_FEATURES,
    ),
    "SemanticHead": (
        lambda **k: SemanticHead(3, STRIDES, SemanticHeadConfig(32, "frozen_bn", 0.25), RULES, **k),
        PYRAMID,
    ),
    "RoISampler": (lambda **k: RoISampler(RoIConfig(8, 0.5, 0.6), **k), None),
    "Preprocess": (
        lambda **k: Preprocess([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], ResizeConfig(64, 96, "detectron2"), 1, **k),
        None,
    ),
}


def assert_equal(copy, layer):
    """Both are of one class and of the same arguments, settings and layers among them."""
    assert type(copy) is type(layer) and copy.name == layer.name
    assert copy.dtype_policy.name == layer.dtype_policy.name
    if not isinstance(layer, ConfiguredLayer):
        return
    for name, value in layer.arguments().items():
        found = getattr(copy, name)
        if isinstance(value, keras.layers.Layer):
            assert_equal(found, value)
        elif not isinstance(value, keras.initializers.Initializer):
            assert found == value and type(found) is type(value), name


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_comes_back_from_its_config(name, policy, built):
    make, shape = LAYERS[name]
    layer = make(name="some_layer", dtype=policy)
    if built:
        layer.build(shape)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    copy = keras.saving.deserialize_keras_object(saved)
    assert copy.name == "some_layer" and copy.dtype_policy.name == policy
    assert_equal(copy, layer)
    assert copy.get_config() == layer.get_config()
    for each in (layer, copy):
        if not each.built:
            each.build(shape)
    described = [[(w.name, tuple(w.shape), w.trainable, w.dtype) for w in one.weights] for one in (layer, copy)]
    assert described[0] == described[1]
    assert {dtype for *_, dtype in described[0]} <= {"float32"}


def test_every_layer_of_the_package_is_here():
    """A layer added later must be added above."""
    own = {
        cls.__name__
        for cls in _subclasses(keras.layers.Layer)
        if cls.__module__.startswith("mrcnn_tf.model.")
        and cls not in (ConfiguredLayer, Head)
        and not issubclass(cls, keras.Model)
    }
    assert own == {name.split()[0] for name in LAYERS}


def _subclasses(cls):
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)
