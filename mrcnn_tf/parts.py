"""What a `MaskRCNN` is put together from, and what a part of your own is made with.

Backbones and necks, layers from images [B, H, W, 3] to maps by name:

- `ResNet`: ResNet and ResNeXt, C2 to C5.
- `ApplicationBackbone`: a network of keras.applications, four of its layers being C2 to C5.
- `FPN`: the feature pyramid P2 to P6 on a backbone.
- `SingleMap`: the coarsest map of a backbone alone, for C4 and C5.
- `FeatureSpec`: names, channels and strides of the maps that a backbone or a neck gives.
- `Preprocess`: resizes, normalises and pads images.

What keeps the padding of a batch out of a backbone:

- `ClearPadding`: sets what lies beyond each image to zero, before a layer that looks at neighbours.
- `ImageAveragePooling`: the average over a map, each image's own cells only.
- `copy_without_padding`: a copy of a Keras network with these two where it needs them.
- `padding_leaks`: how much a backbone's maps depend on the padding.

From maps to regions and their features:

- `FeatureMaps`: the maps of a batch by name, with what is needed to find an image on them.
- `AnchorGenerator`: the reference boxes at every cell.
- `RPN`: the region proposal network.
- `Regions`: boxes, scores and classes that one stage hands to the next.
- `RoISampler`: draws the RoIs that the heads learn from.
- `RoISample`: those RoIs, positives first.
- `GroundTruth`: the objects of a training batch.
- `RoILayer`: RoIAlign, from a pyramid or a single map.
- `Res5`: RoIAlign and the fifth stage of a ResNet, which the heads on C4 share.

Heads:

- `Head`: the base of all, which says what a model asks of one.
- `BoxHead`: classes and boxes.
- `MaskHead`: a fully convolutional network for masks.
- `MaskMLP`: a perceptron for masks.
- `KeypointHead`: a heatmap for each keypoint.
- `SemanticHead`: a class for each pixel.
- `OutputSpec`: name, shape and meaning of an output of a head.
- `ClassVariable`: a weight whose shape depends on the classes.
- `masked_mean`: what a loss takes the mean by, over the batches of all replicas.

Settings, dataclasses that parts take in the place of a config's section, see docs/configs.md: `Conventions`, where the
reference systems disagree; `ResizeConfig`, `BackboneConfig` (of `Res5`), `RPNConfig`, `RoIConfig` (of `RoISampler`),
`RoILayerConfig`, `BoxHeadConfig`, `DetectionConfig` (which detections the box head keeps), `MaskHeadConfig`,
`KeypointHeadConfig`, `SemanticHeadConfig`, and `PanopticConfig`, by which a model fuses instances and stuff.
`Category` is a class with its id, name and keypoints.
"""

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import (
    BackboneConfig,
    BoxHeadConfig,
    Conventions,
    DetectionConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    PanopticConfig,
    ResizeConfig,
    RoIConfig,
    RoILayerConfig,
    RPNConfig,
    SemanticHeadConfig,
)
from mrcnn_tf.model.anchors import AnchorGenerator
from mrcnn_tf.model.backbones.application import ApplicationBackbone, copy_without_padding
from mrcnn_tf.model.backbones.padding_layers import ClearPadding, ImageAveragePooling, padding_leaks
from mrcnn_tf.model.backbones.resnet import ResNet
from mrcnn_tf.model.heads.box import BoxHead
from mrcnn_tf.model.heads.head import Head
from mrcnn_tf.model.heads.keypoint import KeypointHead
from mrcnn_tf.model.heads.mask import MaskHead, MaskMLP
from mrcnn_tf.model.heads.semantic import SemanticHead
from mrcnn_tf.model.losses import masked_mean
from mrcnn_tf.model.necks import FPN, FeatureMaps, FeatureSpec, SingleMap
from mrcnn_tf.model.preprocess import Preprocess
from mrcnn_tf.model.roi_features import Res5, RoILayer
from mrcnn_tf.model.rois import GroundTruth, Regions, RoISample, RoISampler
from mrcnn_tf.model.rpn import RPN
from mrcnn_tf.results.output_spec import OutputSpec
from mrcnn_tf.weights.fit_classes import ClassVariable

__all__ = [
    "FPN",
    "RPN",
    "AnchorGenerator",
    "ApplicationBackbone",
    "BackboneConfig",
    "BoxHead",
    "BoxHeadConfig",
    "Category",
    "ClassVariable",
    "ClearPadding",
    "Conventions",
    "DetectionConfig",
    "FeatureMaps",
    "FeatureSpec",
    "GroundTruth",
    "Head",
    "ImageAveragePooling",
    "KeypointHead",
    "KeypointHeadConfig",
    "MaskHead",
    "MaskHeadConfig",
    "MaskMLP",
    "OutputSpec",
    "PanopticConfig",
    "Preprocess",
    "RPNConfig",
    "Regions",
    "Res5",
    "ResNet",
    "ResizeConfig",
    "RoIConfig",
    "RoILayer",
    "RoILayerConfig",
    "RoISample",
    "RoISampler",
    "SemanticHead",
    "SemanticHeadConfig",
    "SingleMap",
    "copy_without_padding",
    "masked_mean",
    "padding_leaks",
]
