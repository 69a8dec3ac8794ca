"""Every published architecture is recognised by its tensors alone, and gets the config that was written for it."""

import numpy as np
import parity
import pytest

from mrcnn_tf.weights import detectron, torchvision
from mrcnn_tf.weights.architecture import COCO_80, COCO_90, PERSON
from mrcnn_tf.weights.facts import Facts
from mrcnn_tf.weights.pretrained import PretrainedWeights

CONFIGS = {
    "mask_rcnn_R_50_FPN_3x": "detectron2_mask_rcnn_R_50_FPN",
    "mask_rcnn_R_101_FPN_3x": "detectron2_mask_rcnn_R_101_FPN",
    "mask_rcnn_R_50_C4_3x": "detectron2_mask_rcnn_R_50_C4",
    "mask_rcnn_R_50_DC5_3x": "detectron2_mask_rcnn_R_50_DC5",
    "mask_rcnn_X_101_32x8d_FPN_3x": "detectron2_mask_rcnn_X_101_32x8d_FPN",
    "faster_rcnn_R_50_FPN_3x": "detectron2_faster_rcnn_R_50_FPN",
    "keypoint_rcnn_R_50_FPN_3x": "detectron2_keypoint_rcnn_R_50_FPN",
    "maskrcnn_resnet50_fpn_v2": "torchvision_maskrcnn_resnet50_fpn_v2",
    "keypointrcnn_resnet50_fpn": "torchvision_keypointrcnn_resnet50_fpn",
}
DEEPER = {  # as R50, with 17 blocks more in res4
    "mask_rcnn_R_50_C4_3x": "detectron2_mask_rcnn_R_101_C4",
    "mask_rcnn_R_50_DC5_3x": "detectron2_mask_rcnn_R_101_DC5",
    "keypoint_rcnn_R_50_FPN_3x": "detectron2_keypoint_rcnn_R_101_FPN",
}


def tensors(architecture, deeper=False, without=()):
    """The architecture's tensors: all zeros that take no memory."""
    found = {}
    for name, (shape, dtype) in parity.architecture(architecture)["shapes"].items():
        if not any(part in name for part in without):
            found[name] = np.broadcast_to(np.zeros((), dtype), shape)
    if deeper:
        last = {name: array for name, array in found.items() if "res4.5." in name}
        found |= {name.replace("res4.5.", f"res4.{i}."): array for i in range(6, 23) for name, array in last.items()}
    return found


def convert(named):
    if torchvision.matches(named):
        return torchvision.convert(named, Facts(), {})
    assert detectron.matches_detectron2(named)
    return detectron.convert_detectron2(named, Facts(), {})


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_config_of_an_architecture_says_what_its_tensors_say(architecture):
    found = convert(tensors(architecture))
    assert found.config == CONFIGS[architecture] and not found.unknown
    library = parity.architecture(architecture)["library"]
    everything = COCO_80 if library == "detectron2" else COCO_90
    assert found.categories == ([PERSON] if "keypoint" in architecture else everything)
    # What the tensors imply is laid over the config: without, it says the same.
    implied = PretrainedWeights("file", library, found).config()
    found.facts = Facts()
    written = PretrainedWeights("file", library, found).config()
    written.model.rpn.channels = implied.model.rpn.channels  # null there, as many as its input has
    assert written == implied


@pytest.mark.parametrize("architecture", DEEPER)
def test_depth_is_told_by_the_blocks(architecture):
    found = convert(tensors(architecture, deeper=True))
    assert found.config == DEEPER[architecture] and found.facts.value("model.backbone.depth") == 101


@pytest.mark.parametrize("body", ["R_50_C4", "R_50_DC5", "X_101_32x8d_FPN"])
def test_without_masks_it_is_a_faster_rcnn(body):
    found = convert(tensors(f"mask_rcnn_{body}_3x", without=["mask_head"]))
    assert found.config == f"detectron2_faster_rcnn_{body}" and found.facts.value("model.mask_head", "there") is None


def test_other_numbers_of_keypoints_are_numbered():
    named = tensors("keypointrcnn_resnet50_fpn")
    for name in [name for name in named if "kps_score_lowres" in name]:
        named[name] = named[name][:, :5] if named[name].ndim == 4 else named[name][:5]
    (category,) = PretrainedWeights("file", "torchvision", convert(named)).config().model.categories
    assert category.name == "class 1" and category.keypoints == [f"keypoint {number}" for number in range(1, 6)]
