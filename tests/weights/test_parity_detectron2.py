"""detectron2's weights in our model give detectron2's outputs, stage by stage and in the end."""

import pickle

import numpy as np
import parity
import pytest
from golden import made_up

from mrcnn_tf.model.mask_rcnn import MaskRCNN

RECORDS = [
    ("mask_rcnn_R_50_FPN_3x", "detectron2_mask_rcnn_R_50_seed1"),
    ("mask_rcnn_R_50_FPN_3x", "detectron2_mask_rcnn_R_50_seed2"),
    ("mask_rcnn_R_101_FPN_3x", "detectron2_mask_rcnn_R_101"),
    ("faster_rcnn_R_50_FPN_3x", "detectron2_faster_rcnn_R_50"),
    ("mask_rcnn_R_50_C4_3x", "detectron2_mask_rcnn_R_50_C4"),
    ("mask_rcnn_R_50_DC5_3x", "detectron2_mask_rcnn_R_50_DC5"),
    ("mask_rcnn_X_101_32x8d_FPN_3x", "detectron2_mask_rcnn_X_101"),
    ("keypoint_rcnn_R_50_FPN_3x", "detectron2_keypoint_rcnn_R_50"),
    ("panoptic_fpn_R_50_3x", "detectron2_panoptic_fpn_R_50"),
    ("panoptic_fpn_R_101_3x", "detectron2_panoptic_fpn_R_101"),
]


@pytest.fixture(scope="module", params=RECORDS, ids=lambda pair: pair[1])
def loaded(request, tmp_path_factory):
    """(model, architecture, record) with the record's weights, read as the model zoo's files are."""
    architecture, record = request.param
    path = tmp_path_factory.mktemp("weights") / "model_final.pkl"
    tensors = parity.state_dict(architecture, record)
    sizes = [[32], [64], [128], [256], [512]] if "fpn" in architecture.lower() else [[32, 64, 128, 256, 512]]
    for level, those in enumerate(sizes):  # as files of the zoo have them
        sides = np.array([[size / ratio**0.5, size * ratio**0.5] for size in those for ratio in (0.5, 1.0, 2.0)])
        anchors = np.concatenate([-sides, sides], axis=1) / 2
        tensors[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = anchors.astype(np.float32)
    path.write_bytes(pickle.dumps({"model": tensors, "__author__": "test"}, protocol=4))
    model = MaskRCNN.from_pretrained(path, parity.sizes(architecture, record), verbose=False)
    path.unlink()
    return model, architecture, record


def test_every_stage_is_detectron2s(loaded):
    model, architecture, record = loaded
    for image, recorded in parity.images(architecture, record):
        prepared = model.preprocess(image)
        ours, features = parity.dense_stages(model, prepared)
        height, width = ours["size"]
        resized = prepared["image"].numpy()[0, :height, :width]
        np.testing.assert_array_equal(made_up.sample(resized), recorded["resized"])
        ours["preprocessed"] = ours["preprocessed"][..., ::-1]  # detectron2 works on BGR
        ours |= parity.head_stages(model, features, recorded["proposal_boxes"][:50], "last")
        ours |= parity.keypoint_stages(model, features, recorded["resized_boxes"])
        ours |= parity.semantic_stages(model, features)
        parity.check_stages(model, ours, recorded)


def test_detections_are_detectron2s(loaded):
    model, architecture, record = loaded
    theirs, pairs = parity.compare_detections(model, parity.images(architecture, record), first_label=0)
    assert theirs > 20 and pairs >= 0.99 * theirs


def test_segments_are_detectron2s(loaded):
    model, architecture, record = loaded
    if not model.gives("semantic_logits"):
        pytest.skip("a model of instances alone")
    semantic, fused = parity.compare_segments(model, parity.images(architecture, record))
    assert semantic >= 0.99 and fused >= 0.99
