"""Models whose settings aren't those of the published ones detect in ours what they detect in their own library.

Each file is told of by what people have: the config of its training, tensors in it, the name of a published file, or by
what they state. `tests/golden/record_*_settings.py`, `record_mmdetection.py` and `record_backbones.py` have the truth.
"""

import pickle

import numpy as np
import parity
import pytest
import torch_writer
from golden import backbone_files

from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights import architecture
from mrcnn_tf.weights.facts import deciding_settings, same_value, setting_of
from mrcnn_tf.weights.pretrained import read_pretrained

SMALL = ["model.resize.min_size=240", "model.resize.max_size=400"]
FEWER = [*SMALL, "model.rpn.post_nms_test=300"]
# In RGB, as our settings are.
OWN_PIXELS = ["model.pixel_mean=[110.0, 120.5, 95.25]", "model.pixel_std=[60.0, 55.5, 64.0]", "file.pixel_order=RGB"]
OWN_LIMITS = ["model.rpn.pre_nms_test=400", "model.rpn.nms_iou=0.6", "model.detections.score_threshold=0.01"]
OWN_LIMITS += ["model.detections.max_per_image=150", "model.resize.min_size=288", "model.resize.max_size=360"]
OWN_LIMITS += ["model.rpn.post_nms_test=300"]
OWN_SIZES = "model.rpn.anchor_sizes=[20, 44, 90, 170, 330]"
SCRATCH = ["model.pixel_std=[58.395, 57.12, 57.375]", "model.backbone.stride_in_1x1=false"]
# What a user states of each record's file, where its tensors don't tell it.
STATEMENTS = {
    "detectron2_lsj": [*SMALL, "model.rpn.post_nms_test=100", "model.detections.max_per_image=30"],
    "detectron2_scratch_gn": [*FEWER, *SCRATCH],
    "detectron2_scratch_syncbn": [*FEWER, *SCRATCH],
    "detectron2_detectron1": [
        *FEWER, "model.conventions.roi_aligned=false", "model.conventions.roi_sampling_ratio=2",
    ],
    "detectron2_own_anchors": [*FEWER, OWN_SIZES, "model.rpn.aspect_ratios=[0.3, 1, 3]"],
    "detectron2_own_pixels": [*FEWER, *OWN_PIXELS, "model.backbone.stride_in_1x1=false"],
    "detectron2_lvis": [*FEWER, "model.detections.score_threshold=0.0001", "model.detections.max_per_image=300"],
    "detectron2_cityscapes": ["model.resize.min_size=256", "model.resize.max_size=512", "model.rpn.post_nms_test=300"],
    "detectron2_voc": [*SMALL, "model.rpn.post_nms_test=60"],
    "detectron2_own_keypoints": [*FEWER, "model.detections.max_per_image=40"],
    "detectron2_class_agnostic": [*FEWER, "model.rpn.aspect_ratios=[0.25, 0.5, 1, 2, 4]"],
    "detectron2_own_limits": [*OWN_LIMITS, "model.detections.nms_iou=0.3"],
    "torchvision_own_anchors": [*FEWER, OWN_SIZES, "model.rpn.aspect_ratios=[0.3, 1, 3]"],
    "torchvision_own_ratios": [
        *FEWER, "model.rpn.anchor_sizes=[[16, 28], [48, 64], [96, 128], [180, 256], [360, 512]]",
        "model.rpn.aspect_ratios=[0.4, 2]",
    ],
    "torchvision_own_pixels": [
        *FEWER, "model.pixel_mean=[102, 140.25, 76.5]", "model.pixel_std=[51, 76.5, 63.75]",
    ],
    "torchvision_own_pooling": [*FEWER, "model.conventions.roi_sampling_ratio=1"],
    "torchvision_own_limits": [*OWN_LIMITS, "model.detections.nms_iou=0.4"],
    "torchvision_trained_norm": FEWER,
    "torchvision_resnet101": FEWER,
    "torchvision_own_keypoints": [*FEWER, "model.detections.max_per_image=40"],
}  # fmt: skip
# The frozen batch norms of people's own torchvision models, which no tensor tells from those of the published ones.
EPSILON = "model.conventions.batch_norm_epsilon=1e-5"
OWN_TORCHVISION = [
    name for name in STATEMENTS if name.startswith("torchvision_") and name != "torchvision_trained_norm"
]
MMDETECTION = ["mmdetection_r50", "mmdetection_r50_caffe", "mmdetection_x50", "mmdetection_c4", "mmdetection_own"]
# Of these the config that detectron2's trainer writes lies beside the file, and nothing is stated.
WITH_CONFIG = ["scratch_gn", "lvis", "cityscapes", "own_keypoints", "own_limits", "class_agnostic"]
WITH_CONFIG = [f"detectron2_{name}" for name in WITH_CONFIG]
# Of these older files hold buffers that tell the rest.
BESIDE_BUFFERS = {
    "detectron2_own_anchors": FEWER,
    "detectron2_own_pixels": [*FEWER, "file.pixel_order=RGB", "model.backbone.stride_in_1x1=false"],
}
CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")  # of mmdetection's


def tensors_of(record):
    """The record's tensors as its library's files hold them, with the buffers of the years in which it saved some."""
    tensors = parity.state_dict(record, record)
    if record == "detectron2_own_pixels":
        tensors["pixel_mean"] = np.float32([110.0, 120.5, 95.25]).reshape(3, 1, 1)
        tensors["pixel_std"] = np.float32([60.0, 55.5, 64.0]).reshape(3, 1, 1)
    if record == "detectron2_own_anchors":
        ratios = np.array([0.3, 1, 3])
        for level, size in enumerate([20, 44, 90, 170, 330]):
            sides = np.stack([size / np.sqrt(ratios), size * np.sqrt(ratios)], axis=1)
            anchors = np.concatenate([-sides, sides], axis=1) / 2
            tensors[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = np.float32(anchors)
    return tensors


def write(folder, record):
    """Writes the record's file; returns its path and what is to be stated of it."""
    tensors = tensors_of(record)
    if record in MMDETECTION:
        text = (parity.GOLDEN / "configs" / f"{record}.txt").read_text()
        meta = {"mmdet_version": "3.3.0", "cfg": text, "dataset_meta": {"classes": CLASSES}}
        torch_writer.save_torch(folder / "epoch_12.pth", tensors, meta)
        return folder / "epoch_12.pth", []
    if record == "detectron2_lsj":  # the name of the published file
        path = folder / "model_final_bb69de.pkl"
        path.write_bytes(pickle.dumps({"model": tensors, "__author__": "Detectron2 Model Zoo"}))
        return path, STATEMENTS[record]
    path = folder / "model_final.pth"
    torch_writer.save_torch(path, tensors)
    if record in WITH_CONFIG:
        (folder / "config.yaml").write_text((parity.GOLDEN / "configs" / f"{record}.yaml").read_text())
        return path, []
    if record in BESIDE_BUFFERS:
        return path, BESIDE_BUFFERS[record]
    return path, [*STATEMENTS[record], EPSILON] if record in OWN_TORCHVISION else STATEMENTS[record]


@pytest.fixture(scope="module", params=[*STATEMENTS, *MMDETECTION])
def imported(request, tmp_path_factory):
    """(model, record), where the model is of the record's file and of what people know of it."""
    path, statements = write(tmp_path_factory.mktemp("weights"), request.param)
    model = MaskRCNN.from_pretrained(path, statements, verbose=False)
    path.unlink()
    return model, request.param


def test_detections_are_the_librarys(imported):
    model, record = imported
    first_label = 1 if record.startswith("torchvision_") else 0
    theirs, pairs = parity.compare_detections(model, parity.images(record, record), first_label)
    assert theirs > 20 and pairs >= 0.99 * theirs


@pytest.mark.parametrize("record", [*WITH_CONFIG, *BESIDE_BUFFERS])
def test_config_and_statements_say_the_same(tmp_path, record):
    """What detectron2's trainer writes beside a file, and what its user states of the tensors alone."""
    path = parity.save(tmp_path / "model.pth", record, record)
    stated = read_pretrained(path, statements=STATEMENTS[record]).config().model
    config = parity.GOLDEN / "configs" / f"{record}.yaml"
    known = read_pretrained(path, source_config=config)
    model = known.config().model
    for name in [name for name in deciding_settings(stated) if name.startswith("model.")]:
        assert same_value(setting_of(model, name), setting_of(stated, name)), name
    provenance = known.provenance()
    assumed = [name for name in deciding_settings(stated) if provenance[name].origin == "assumption"]
    without_bottlenecks = ["model.backbone.stride_in_1x1"]  # which then strides nothing
    assert assumed == ([] if model.backbone.depth >= 50 else without_bottlenecks)


BACKBONES = {
    "backbone_torchvision": "torchvision",
    "backbone_caffe2": "caffe2",
    "backbone_fused": "fused",
    "backbone_caffe2_x": "caffe2",
    "backbone_fused_x": "fused",
}


@pytest.mark.parametrize("record", BACKBONES)
def test_backbones_are_detectron2s(tmp_path, record):
    """Maps of the files that detectron2's models start from, read by their names and by `__author__`.

    Only a fused ResNeXt's deviation of pixels must be stated: Detectron's own divides by none.
    """
    path = tmp_path / "backbone.pkl"
    path.write_bytes(pickle.dumps(backbone_files.content(BACKBONES[record], parity.state_dict(record, record))))
    weights = read_pretrained(path, statements=SCRATCH[:1] if record == "backbone_fused_x" else ())
    config = weights.model_config()
    config.resize.min_size, config.resize.max_size = 192, 256  # the picture's own
    config.categories, config.mask_head = architecture.COCO_80[:1], None
    config.fpn.channels = config.box_head.channels = 8
    model = MaskRCNN.from_settings(config)
    model.load_pretrained(weights, verbose=False)
    ((image, recorded),) = parity.images(record, record)
    maps = model.stages(model.preprocess(image)).maps
    for name in ("C2", "C3", "C4", "C5"):
        assert parity.difference(name, maps[name].numpy()[0], recorded) <= 1e-4, name
