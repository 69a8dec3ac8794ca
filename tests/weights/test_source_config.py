"""Which library's a training config is, and where it lies beside a file of weights."""

import pytest
from test_detectron import blobs_and_tensors
from test_detectron2_config import BASE_FPN
from torch_writer import save_torch

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.pretrained import read_pretrained
from mrcnn_tf.weights.source_config import find_companion, read_source_config

DETECTRON2 = "INPUT:\n  FORMAT: RGB\nMODEL:\n  MASK_ON: true\nVERSION: 2\n"
MMDETECTION = "model = dict(\n    type='MaskRCNN')\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_content_tells_the_library(tmp_path):
    path = write(tmp_path / "anything.txt", DETECTRON2)
    config = read_source_config(path)
    assert (config.library, config.name, config.settings["file.pixel_order"]) == ("detectron2", str(path), "RGB")


def test_a_config_of_another_library_is_refused(tmp_path):
    path = write(tmp_path / "config.yaml", DETECTRON2)
    for library in (None, "detectron2", "caffe2"):
        assert read_source_config(path, library).library == "detectron2"
    for library in ("torchvision", "mmdetection", "matterport"):
        with pytest.raises(UserError, match=f"{library}'s names"):
            read_source_config(path, library)


@pytest.mark.parametrize("name", ["any.py", "any.txt"])
def test_mmdetections_config_is_told_by_its_content_too(tmp_path, name):
    text = "data_preprocessor = dict(bgr_to_rgb=True)\n" + MMDETECTION.replace(")", ", backbone=dict(type='ResNet'))")
    assert read_source_config(write(tmp_path / name, text)).library == "mmdetection"


@pytest.mark.parametrize(
    "name, text, reason",
    [
        ("lazy.py", "from detectron2.config import LazyCall as L\nmodel = L(FCOS)()\n", "programs aren't run"),
        ("config.yaml", "model: {backbone: {depth: 50}}\n", "no config of detectron2"),
        ("notes.txt", "some words", "no config of detectron2"),
        ("list.yaml", "[1, 2]", "no config of detectron2"),
    ],
)
def test_what_is_neither_is_refused(tmp_path, name, text, reason):
    with pytest.raises(UserError, match=reason) as error:
        read_source_config(write(tmp_path / name, text))
    assert name in str(error.value)


def test_the_config_that_detectron2_writes(tmp_path):
    weights = tmp_path / "model_final.pth"
    assert find_companion(weights, "detectron2") is None
    path = write(tmp_path / "config.yaml", DETECTRON2)
    assert find_companion(weights, "detectron2") == path
    assert find_companion(weights, "torchvision") is None
    assert find_companion(tmp_path / "model_final_f10217.pkl", "detectron2") is None  # a published file
    write(path, "model:\n  _target_: detectron2.modeling.GeneralizedRCNN\n")
    assert find_companion(weights, "detectron2") == path
    write(path, "model:\n  backbone:\n    depth: 50\n")  # of this package, or anybody else's
    assert find_companion(weights, "detectron2") is None
    path.write_bytes(b"\xff\xfe")
    assert find_companion(weights, "detectron2") is None


def test_the_config_that_mmdetection_writes(tmp_path):
    weights = tmp_path / "epoch_12.pth"
    inner = write(tmp_path / "20240101_101010/vis_data/config.py", MMDETECTION)
    assert find_companion(weights, "mmdetection") == inner
    outer = write(tmp_path / "mask-rcnn_r50_fpn_1x_coco.py", MMDETECTION)
    write(tmp_path / "train.py", "import mmdet\n\nmodel = build()\n")
    for name in ("epoch_12.pth", "latest.pth", "best_coco_bbox_mAP_epoch_3.pth", "iter_90000.pth"):
        assert find_companion(tmp_path / name, "mmdetection") == outer
    assert find_companion(tmp_path / "mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth", "mmdetection") is None
    write(tmp_path / "other.py", "_base_ = 'mask-rcnn_r50_fpn_1x_coco.py'\n")
    with pytest.raises(UserError, match="--source-config") as error:
        find_companion(weights, "mmdetection")
    assert "other.py" in str(error.value) and outer.name in str(error.value)


OF_TINY = """
_BASE_: base.yaml
MODEL:
  MASK_ON: true
  PIXEL_STD: [57.0, 58.0, 59.0]
  RESNETS: {NORM: GN, WIDTH_PER_GROUP: 2, STRIDE_IN_1X1: false}
  FPN: {OUT_CHANNELS: 2}
  ROI_HEADS: {NUM_CLASSES: 3}
  ROI_BOX_HEAD: {FC_DIM: 4}
  ROI_MASK_HEAD: {CONV_DIM: 2}
"""


def test_a_companion_that_contradicts_the_file_is_refused_with_both_named(tmp_path):
    _, tensors = blobs_and_tensors()
    weights = tmp_path / "model_final.pth"
    save_torch(weights, tensors)
    write(tmp_path / "base.yaml", BASE_FPN)
    config = write(tmp_path / "config.yaml", OF_TINY)
    model = read_pretrained(weights)
    assert any(str(config) in note for note in model.notes)
    assert model.config().model.pixel_std == [59.0, 58.0, 57.0]
    assert not any(fact.origin == "assumption" for fact in model.provenance().values())

    for right, wrong, said in (
        ("NUM_CLASSES: 3", "NUM_CLASSES: 80", ("80 classes", "has 3")),
        ("FC_DIM: 4", "FC_DIM: 1024", ("model.box_head.channels=4", "model.box_head.channels=1024")),
    ):
        write(config, OF_TINY.replace(right, wrong))
        with pytest.raises(UserError, match="give the config") as error:
            read_pretrained(weights)
        assert all(part in str(error.value) for part in (str(config), *said))
    assert not any(str(config) in note for note in read_pretrained(weights, source_config=False).notes)
