"""Dumped lazy configs of detectron2: the same facts as of its older configs, and arguments that aren't known."""

import copy

import pytest
import yaml

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.detectron2_config import read_detectron2_config

POOLER = {"_target_": "detectron2.modeling.poolers.ROIPooler", "sampling_ratio": 0, "pooler_type": "ROIAlignV2"}
RESNET = {
    "_target_": "detectron2.modeling.ResNet",
    "stem": {
        "_target_": "detectron2.modeling.backbone.BasicStem",
        "in_channels": 3,
        "out_channels": 64,
        "norm": "SyncBN",
    },
    "stages": {"_target_": "detectron2.modeling.ResNet.make_default_stages", "depth": 50, "norm": "SyncBN"},
    "out_features": ["res2", "res3", "res4", "res5"],
}
TREE = {
    "model": {
        "_target_": "detectron2.modeling.GeneralizedRCNN",
        "pixel_mean": [103.0, 116.0, 123.0],
        "pixel_std": [1.0, 2.0, 3.0],
        "input_format": "RGB",  # for pictures; images are read as the dataloader says
        "backbone": {
            "_target_": "detectron2.modeling.FPN",
            "bottom_up": RESNET,
            "in_features": "${.bottom_up.out_features}",
            "out_channels": 256,
            "norm": "SyncBN",
            "top_block": {"_target_": "detectron2.modeling.backbone.fpn.LastLevelMaxPool"},
        },
        "proposal_generator": {
            "_target_": "detectron2.modeling.proposal_generator.RPN",
            "in_features": ["p2", "p3", "p4", "p5", "p6"],
            "head": {"_target_": "detectron2.modeling.StandardRPNHead", "in_channels": 256, "conv_dims": [-1, -1]},
            "anchor_generator": {
                "_target_": "detectron2.modeling.DefaultAnchorGenerator",
                "sizes": [[16], [32], [64], [128], [256]],
                "aspect_ratios": [0.5, 1.0],
                "strides": [4, 8, 16, 32, 64],
                "offset": 0.0,
            },
            "anchor_matcher": {"_target_": "detectron2.modeling.matcher.Matcher", "thresholds": [0.3, 0.7]},
            "box2box_transform": {"_target_": "detectron2.modeling.Box2BoxTransform", "weights": [1.0, 1.0, 1.0, 1.0]},
            "batch_size_per_image": 256,
            "pre_nms_topk": [2000, 1000],
            "post_nms_topk": [1500, 500],
        },
        "roi_heads": {
            "_target_": "detectron2.modeling.StandardROIHeads",
            "num_classes": 80,
            "box_in_features": ["p2", "p3", "p4", "p5"],
            "box_pooler": POOLER | {"output_size": 7, "scales": [0.25, 0.125, 0.0625, 0.03125]},
            "box_head": {
                "_target_": "detectron2.modeling.FastRCNNConvFCHead",
                "conv_dims": [256, 256],
                "fc_dims": [1024],
                "conv_norm": "LAMBDA",
                "input_shape": "SHAPE",
            },
            "box_predictor": {
                "_target_": "detectron2.modeling.FastRCNNOutputLayers",
                "box2box_transform": {"_target_": "detectron2.modeling.Box2BoxTransform", "weights": [10, 10, 5, 5]},
                "num_classes": "${..num_classes}",
                "input_shape": "SHAPE",
                "test_topk_per_image": 300,
            },
            "mask_in_features": ["p2", "p3", "p4", "p5"],
            "mask_pooler": POOLER | {"output_size": 14},
            "mask_head": {
                "_target_": "detectron2.modeling.MaskRCNNConvUpsampleHead",
                "conv_dims": [256, 256, 256, 256, 256],
                "conv_norm": "GN",
                "num_classes": "${..num_classes}",
            },
        },
    },
    "dataloader": {
        "train": {"dataset": {"names": "coco_2017_train"}, "mapper": {"image_format": "BGR"}},
        "test": {
            "mapper": {
                "augmentations": [
                    {
                        "_target_": "detectron2.data.transforms.ResizeShortestEdge",
                        "short_edge_length": 640,
                        "max_size": 900,
                    }
                ],
                "image_format": "${...train.mapper.image_format}",
            }
        },
    },
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
}


def write(folder, changes=None):
    """The config with other values by place; None takes one away."""
    tree = copy.deepcopy(TREE)
    for place, value in (changes or {}).items():
        *parts, last = place.split(".")
        node = tree
        for part in parts:
            node = node.setdefault(part, {})
        if value is None:
            del node[last]
        else:
            node[last] = copy.deepcopy(value)
    text = yaml.safe_dump(tree)
    text = text.replace("LAMBDA", "!!python/name:None.%3Clambda%3E ''")
    text = text.replace("SHAPE", "!!python/object:detectron2.layers.shape_spec.ShapeSpec {channels: 256, height: 7}")
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path):
    with pytest.raises(UserError) as error:
        read_detectron2_config(path)
    message = str(error.value)
    assert message.count("\n") == 0 and message.endswith(".") and "config.yaml" in message
    return message


def test_what_a_lazy_config_says(tmp_path):
    config = read_detectron2_config(write(tmp_path))
    assert len(config.classes) == 80
    wanted = {
        "file.pixel_order": "BGR", "model.pixel_mean": [123.0, 116.0, 103.0], "model.pixel_std": [3.0, 2.0, 1.0],
        "model.resize.min_size": 640, "model.resize.max_size": 900,
        "model.backbone.depth": 50, "model.backbone.norm": "sync_bn", "model.backbone.groups": 1,
        "model.backbone.width_per_group": 64, "model.fpn.norm": "frozen_bn",
        "model.backbone.stride_in_1x1": False,  # the class's default, unlike that of the older configs
        "model.rpn.anchor_sizes": [16.0, 32.0, 64.0, 128.0, 256.0], "model.rpn.aspect_ratios": [0.5, 1.0],
        "model.rpn.convs": 2, "model.rpn.pre_nms_test": 1000, "model.rpn.post_nms_test": 500,
        "model.box_head.convs": 2, "model.box_head.fcs": 1, "model.box_head.pool_size": 7,
        "model.mask_head.convs": 4, "model.mask_head.channels": 256, "model.mask_head.norm": "gn",
        "model.mask_head.class_agnostic": False, "model.keypoint_head": None,
        "model.detections.score_threshold": 0.0,  # as above
        "model.detections.max_per_image": 300, "model.detections.nms_iou": 0.5,
    }  # fmt: skip
    assert {name: config.settings[name] for name in wanted} == wanted
    assert "model.box_head.norm" not in config.settings  # what a function makes only the tensors tell


def test_c4(tmp_path):
    res5 = {
        "_target_": "detectron2.modeling.ResNet.make_stage", "block_class": "detectron2.modeling.BottleneckBlock",
        "num_blocks": 3, "stride_per_block": [2, 1, 1], "in_channels": 1024, "norm": "FrozenBN", "stride_in_1x1": True,
    }  # fmt: skip
    changes = {f"model.roi_heads.{name}": None for name in ("box_in_features", "box_pooler", "box_head")}
    changes |= {f"model.roi_heads.mask_{name}": None for name in ("in_features", "pooler")}
    changes |= {
        "model.backbone": RESNET, "model.backbone.stages.stride_in_1x1": True, "model.backbone.stages.norm": "FrozenBN",
        "model.backbone.stem.norm": "FrozenBN", "model.backbone.out_features": ["res4"],
        "model.proposal_generator.in_features": ["res4"],
        "model.proposal_generator.anchor_generator.sizes": [[32, 64]],
        "model.roi_heads._target_": "detectron2.modeling.Res5ROIHeads", "model.roi_heads.in_features": ["res4"],
        "model.roi_heads.pooler": POOLER | {"output_size": 14}, "model.roi_heads.res5": res5,
        "model.roi_heads.mask_head.conv_dims": [256],
    }  # fmt: skip
    settings = read_detectron2_config(write(tmp_path, changes)).settings
    wanted = {"features": "C4", "rpn.anchor_sizes": [32.0, 64.0], "mask_head.convs": 0, "mask_head.pool_size": 7}
    assert {name: settings[f"model.{name}"] for name in wanted} == wanted
    assert "model.roi_heads.res5.stride_in_1x1" in refusal(
        write(tmp_path, changes | {"model.roi_heads.res5": res5 | {"stride_in_1x1": False}})
    )


@pytest.mark.parametrize(
    "place, value, reason",
    [
        ("model._target_", "detectron2.modeling.RetinaNet", "no model of this package is"),
        ("model.roi_heads._target_", "detectron2.modeling.CascadeROIHeads", "StandardROIHeads"),
        ("model.backbone._target_", "detectron2.modeling.SimpleFeaturePyramid", "ResNet"),
        ("model.backbone.bottom_up._target_", "detectron2.modeling.RegNet", "'ResNet'"),
        (
            "model.backbone.bottom_up.stages.block_class",
            "detectron2.modeling.DeformBottleneckBlock",
            "'BottleneckBlock'",
        ),
        ("model.backbone.fuse_type", "avg", "sum"),
        ("model.backbone.square_pad", 1024, "can only be 0"),
        ("model.proposal_generator.anchor_generator.offset", None, "is 0.5"),  # the class's default
        ("model.roi_heads.box_pooler", POOLER | {"output_size": 7, "canonical_level": 3}, "canonical_level"),
        ("model.roi_heads.mask_pooler", POOLER | {"output_size": 14, "pooler_type": "ROIAlign"}, "all heads share"),
        ("model.roi_heads.box_predictor.own", 1, "delete it from a copy"),
        ("model.pixel_mean", None, "model.pixel_mean is missing"),
        ("model.backbone.in_features", "${.nothing}", "nothing stands there"),
        ("model.backbone.in_features", "${.in_features}", "refers to itself"),
        ("dataloader.test.mapper.augmentations", [], "isn't ResizeShortestEdge alone"),
        ("dataloader.test", None, "add the section dataloader"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, place, value, reason):
    message = refusal(write(tmp_path, {place: value}))
    assert place in message and reason in message
