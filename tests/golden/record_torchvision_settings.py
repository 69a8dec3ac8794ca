"""Records torchvision's models that people put together themselves.

A file of theirs holds the tensors alone, so that what is set here must be stated by whoever imports it. recording.py
says what the files hold, of which only the sizes, a ResNet's maps and the detections are kept. Channels are few and
backbones shallow, so that tests are quick. Made with Python 3.11, torch 2.14.1, torchvision 0.29.1 and numpy 2.4.6 by

    PYTHONPATH=tests python tests/golden/record_torchvision_settings.py
"""

import functools
import sys

import numpy as np
import torch
import torchvision
from golden import record_torchvision, recording
from torchvision.models.detection import faster_rcnn, keypoint_rcnn, mask_rcnn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.misc import FrozenBatchNorm2d

KEPT = ("size", "padded_size", "C2", "C3", "C4", "C5", "boxes", "scores", "labels", "masks", "keypoints")
SMALL, FOUR = record_torchvision.SMALL, record_torchvision.FOUR
LEVELS = ["0", "1", "2", "3"]
FEW, CHANNELS, HIDDEN, MASK_CHANNELS = 9, 32, 64, 16  # classes with the background, and the channels of the parts
PROPOSALS = {"rpn_post_nms_top_n_test": 300}


def resnet18(norm):
    """A ResNet-18 with a narrow pyramid, put together as torchvision's tutorial does."""
    body = torchvision.models.resnet18(weights=None, norm_layer=norm)
    layers = {f"layer{number}": str(number - 1) for number in (1, 2, 3, 4)}
    return BackboneWithFPN(body, layers, [64, 128, 256, 512], CHANNELS)


def box_parts(channels, classes):
    return {
        "box_head": faster_rcnn.TwoMLPHead(channels * 49, HIDDEN),
        "box_predictor": faster_rcnn.FastRCNNPredictor(HIDDEN, classes),
    }


def masks(backbone, classes=FEW, **settings):
    """A Mask R-CNN with the few channels above on `backbone`."""
    return mask_rcnn.MaskRCNN(
        backbone,
        **box_parts(backbone.out_channels, classes),
        mask_head=mask_rcnn.MaskRCNNHeads(backbone.out_channels, (MASK_CHANNELS,) * 4, 1),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(MASK_CHANNELS, MASK_CHANNELS, classes),
        **SMALL | PROPOSALS | settings,
    )


def keypoints(backbone, count, **settings):
    """A Keypoint R-CNN with one class and `count` keypoints."""
    return keypoint_rcnn.KeypointRCNN(
        backbone,
        **box_parts(backbone.out_channels, 2),
        keypoint_head=keypoint_rcnn.KeypointRCNNHeads(backbone.out_channels, (MASK_CHANNELS,) * 8),
        keypoint_predictor=keypoint_rcnn.KeypointRCNNPredictor(MASK_CHANNELS, count),
        **SMALL | PROPOSALS | settings,
    )


def anchors(sizes, ratios):
    return AnchorGenerator(tuple(sizes), (tuple(ratios),) * len(sizes))


def pools(ratio):
    """The RoIAligns of the box and of the mask head, with `ratio` samples."""
    sides = {"box_roi_pool": 7, "mask_roi_pool": 14}
    return {name: MultiScaleRoIAlign(LEVELS, side, sampling_ratio=ratio) for name, side in sides.items()}


frozen18 = functools.partial(resnet18, FrozenBatchNorm2d)
# What each is built by; the epsilon of FrozenBatchNorm2d is 1e-5, where the published COCO_V1 models have 0.
MODELS = {
    "torchvision_own_anchors": lambda: masks(
        frozen18(), rpn_anchor_generator=anchors([(20,), (44,), (90,), (170,), (330,)], (0.3, 1.0, 3.0))
    ),
    "torchvision_own_ratios": lambda: masks(
        frozen18(), rpn_anchor_generator=anchors([(16, 28), (48, 64), (96, 128), (180, 256), (360, 512)], (0.4, 2.0))
    ),
    "torchvision_own_pixels": lambda: masks(frozen18(), image_mean=[0.4, 0.55, 0.3], image_std=[0.2, 0.3, 0.25]),
    "torchvision_own_pooling": lambda: masks(frozen18(), **pools(1)),
    "torchvision_own_limits": lambda: masks(
        frozen18(),
        min_size=288,
        max_size=360,
        box_score_thresh=0.01,
        box_nms_thresh=0.4,
        box_detections_per_img=150,
        rpn_pre_nms_top_n_test=400,
        rpn_nms_thresh=0.6,
    ),
    "torchvision_trained_norm": lambda: masks(resnet18(torch.nn.BatchNorm2d)),
    "torchvision_resnet101": lambda: masks(resnet_fpn_backbone(backbone_name="resnet101", weights=None)),
    "torchvision_own_keypoints": lambda: keypoints(frozen18(), 24, box_detections_per_img=40),
}
ENTRIES = {
    "torchvision_own_anchors": {"seed": 61, "background": 8.5, "images": FOUR[1:2]},
    "torchvision_own_ratios": {"seed": 62, "background": 8.5, "images": FOUR[:1]},
    "torchvision_own_pixels": {"seed": 63, "background": 7, "images": FOUR[:1]},
    "torchvision_own_pooling": {"seed": 64, "background": 8.5, "images": FOUR[1:2]},
    "torchvision_own_limits": {"seed": 65, "background": 7, "images": FOUR[:1]},
    "torchvision_trained_norm": {"seed": 66, "background": 10, "images": FOUR[1:2]},
    "torchvision_resnet101": {"seed": 67, "background": 10.5, "images": FOUR[:1]},
    "torchvision_own_keypoints": {"seed": 68, "background": 1.5, "images": FOUR[:1]},
}


def build(architecture, entry):
    model = MODELS[architecture]()
    entry |= {"min_size": model.transform.min_size[0], "max_size": model.transform.max_size}
    return model


def run(model, entry, image):
    """Returns the `KEPT` stages for a uint8 RGB image."""
    stages = record_torchvision.run(model, entry, image)
    return {stage: array for stage, array in stages.items() if stage in KEPT}


if __name__ == "__main__":
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "numpy": np.__version__}
    records = {name: {name: ENTRIES[name]} for name in sys.argv[1:] or MODELS}
    recording.record_all("torchvision", versions, records, build, run)
