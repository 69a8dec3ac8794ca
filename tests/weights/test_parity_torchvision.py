"""torchvision's weights in our model give torchvision's outputs, stage by stage and in the end."""

import re

import parity
import pytest

from mrcnn_tf.model.mask_rcnn import MaskRCNN

RECORDS = [
    ("maskrcnn_resnet50_fpn", "torchvision_maskrcnn_seed1"),
    ("maskrcnn_resnet50_fpn", "torchvision_maskrcnn_seed2"),
    ("maskrcnn_resnet50_fpn", "torchvision_maskrcnn_default_size"),
    ("fasterrcnn_resnet50_fpn", "torchvision_fasterrcnn"),
    ("maskrcnn_resnet50_fpn_v2", "torchvision_maskrcnn_v2"),
    ("fasterrcnn_resnet50_fpn_v2", "torchvision_fasterrcnn_v2"),
    ("keypointrcnn_resnet50_fpn", "torchvision_keypointrcnn"),
]


def old_name(name):
    """The name that the published files of 2019 have; torchvision has since moved convolutions into blocks."""
    name = re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d)\.0\.", r"\1.", name)
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    return re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", name)


@pytest.fixture(scope="module", params=RECORDS, ids=lambda pair: pair[1])
def loaded(request, tmp_path_factory):
    """(model, architecture, record) with the record's weights."""
    architecture, record = request.param
    rename = old_name if record in ("torchvision_maskrcnn_seed2", "torchvision_keypointrcnn") else str
    path = parity.save(tmp_path_factory.mktemp("weights") / "model.pth", architecture, record, rename)
    model = MaskRCNN.from_pretrained(path, parity.sizes(architecture, record), verbose=False)
    path.unlink()
    return model, architecture, record


def test_every_stage_is_torchvisions(loaded):
    model, architecture, record = loaded
    for image, recorded in parity.images(architecture, record):
        ours, features = parity.dense_stages(model, model.preprocess(image))
        ours |= parity.head_stages(model, features, recorded["proposal_boxes"][:50], "first")
        ours |= parity.keypoint_stages(model, features, recorded["resized_boxes"])
        parity.check_stages(model, ours, recorded)


def test_detections_are_torchvisions(loaded):
    model, architecture, record = loaded
    theirs, pairs = parity.compare_detections(model, parity.images(architecture, record), first_label=1)
    assert theirs > 20 and pairs >= 0.99 * theirs
