"""Records outputs of mmdetection's detectors with made-up weights; recording.py says what the files hold.

Only the sizes, the backbone's maps and the detections are kept. `configs/ARCHITECTURE.txt` is the config as text, as
mmdetection writes it into `meta["cfg"]` of its files of weights. Channels are few where its own config allows it. Made
with Python 3.11, mmdet 3.3.0, mmengine 0.10.7, mmcv-lite 2.1.0, opencv-python-headless, torch 2.14.1, torchvision
0.29.1 and numpy 2.4.6 by

    PYTHONPATH=tests python tests/golden/record_mmdetection.py

mmcv-lite comes without compiled operations: the two that these detectors need, `nms` and `roi_align`, are torchvision's
here. Images are made in RGB and given to mmdetection in its own order BGR.
"""

import pathlib
import sys
import types

import numpy as np
import torch
import torchvision
from golden import record_torchvision, recording


def _roi_align(features, rois, output, *_, spatial_scale, sampling_ratio, aligned, **__):
    output[:] = torchvision.ops.roi_align(features, rois, output.shape[2:], spatial_scale, sampling_ratio, aligned)


class _Operations(types.ModuleType):
    """Stands in for mmcv's compiled module: two operations, and a name for every other."""

    roi_align_forward = staticmethod(_roi_align)

    @staticmethod
    def nms(boxes, scores, iou_threshold, offset):
        return torchvision.ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)

    def __getattr__(self, name):
        return None


sys.modules["mmcv._ext"] = _Operations("mmcv._ext")

import cv2  # noqa: E402
import mmcv  # noqa: E402
import mmdet  # noqa: E402
import mmengine  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures.bbox import bbox2roi  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402
from mmengine.dataset import Compose  # noqa: E402

FOUR = record_torchvision.FOUR
SIZE = (400, 240)  # the limits of the long and of the short side
CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")
HEADS = {
    "model.neck.out_channels": 32,
    "model.rpn_head.in_channels": 32,
    "model.rpn_head.feat_channels": 32,
    "model.roi_head.bbox_roi_extractor.out_channels": 32,
    "model.roi_head.bbox_head.in_channels": 32,
    "model.roi_head.bbox_head.fc_out_channels": 64,
    "model.roi_head.bbox_head.num_classes": len(CLASSES),
    "model.test_cfg.rpn.max_per_img": 300,
}
MASKS = {
    "model.roi_head.mask_roi_extractor.out_channels": 32,
    "model.roi_head.mask_head.in_channels": 32,
    "model.roi_head.mask_head.conv_out_channels": 16,
    "model.roi_head.mask_head.num_classes": len(CLASSES),
}
C4 = {
    "model.roi_head.bbox_head.num_classes": len(CLASSES),
    "model.roi_head.mask_head.conv_out_channels": 16,
    "model.roi_head.mask_head.num_classes": len(CLASSES),
    "model.test_cfg.rpn.max_per_img": 60,
    "model.test_cfg.rcnn.max_per_img": 30,
}
OWN = {
    "model.backbone.depth": 18,
    "model.neck.in_channels": [64, 128, 256, 512],
    "model.rpn_head.anchor_generator.scales": [6],
    "model.rpn_head.anchor_generator.ratios": [0.4, 1.0, 3.0],
    "model.roi_head.bbox_head.reg_class_agnostic": True,
    "model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio": 2,
    "model.data_preprocessor.mean": [110.0, 120.5, 95.25],
    "model.data_preprocessor.std": [60.0, 55.5, 64.0],
    "model.test_cfg.rpn.nms_pre": 400,
    "model.test_cfg.rpn.nms.iou_threshold": 0.6,
    "model.test_cfg.rcnn.score_thr": 0.01,
    "model.test_cfg.rcnn.nms.iou_threshold": 0.4,
    "model.test_cfg.rcnn.max_per_img": 150,
}
# architecture -> the published config, and what is set beside it.
CONFIGS = {
    "mmdetection_r50": ("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", HEADS | MASKS),
    "mmdetection_r50_caffe": ("mask_rcnn/mask-rcnn_r50-caffe_fpn_1x_coco.py", HEADS | MASKS),
    "mmdetection_x50": ("mask_rcnn/mask-rcnn_x101-32x4d_fpn_1x_coco.py", {"model.backbone.depth": 50} | HEADS | MASKS),
    "mmdetection_c4": ("mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py", C4),
    "mmdetection_own": ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", HEADS | OWN),
}
ENTRIES = {
    "mmdetection_r50": {"seed": 81, "background": 12.5, "normalized": True, "images": FOUR[:1]},
    "mmdetection_r50_caffe": {"seed": 82, "background": 13, "images": FOUR[:1]},
    "mmdetection_x50": {"seed": 83, "background": 9.5, "normalized": True, "images": FOUR[1:2]},
    "mmdetection_c4": {"seed": 84, "background": 3, "images": FOUR[:1]},
    "mmdetection_own": {"seed": 85, "background": 8.5, "normalized": True, "images": FOUR[1:2]},
}


def read_config(architecture):
    """The published config with what `CONFIGS` sets beside it."""
    published, options = CONFIGS[architecture]
    cfg = mmengine.Config.fromfile(pathlib.Path(mmdet.__file__).parent / ".mim/configs" / published)
    cfg.merge_from_dict(options)
    for pipeline in (cfg.test_pipeline, cfg.test_dataloader.dataset.pipeline, cfg.val_dataloader.dataset.pipeline):
        next(step for step in pipeline if step.type == "Resize").scale = SIZE
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = {"classes": CLASSES}
    return cfg


def build(architecture, entry):
    register_all_modules()
    cfg = read_config(architecture)
    (recording.FOLDER / "configs" / f"{architecture}.txt").write_text(cfg.pretty_text)
    entry |= {"min_size": SIZE[1], "max_size": SIZE[0]}
    model = MODELS.build(cfg.model)
    resize = next(step for step in cfg.test_pipeline if step.type == "Resize")
    model.prepare = Compose([{"type": "mmdet.LoadImageFromNDArray"}, resize, cfg.test_pipeline[-1]])
    return model


def run(model, entry, image):
    """Returns {stage: array} for a uint8 RGB image."""
    inputs, samples = preprocess(model, image)
    size = samples[0].img_shape
    stages = {"size": np.array(size[:2]), "padded_size": np.array(inputs.shape[2:])}
    body = model.backbone(inputs)
    if len(body) == 4:
        stages |= {f"C{level}": recording.hwc(value) for level, value in enumerate(body, 2)}
    features = model.extract_feat(inputs)
    proposals = model.rpn_head.predict(features, samples, rescale=False)
    found = model.roi_head.predict_bbox(
        features, [samples[0].metainfo], proposals, model.roi_head.test_cfg, rescale=False
    )[0]
    if model.with_mask:
        logits = model.roi_head._mask_forward(features, bbox2roi([found.bboxes]))["mask_preds"]
        stages["masks"] = logits[torch.arange(len(logits)), found.labels].sigmoid().numpy()
    # As its heads divide them, which would paste the masks too, and can't in float64.
    boxes = found.bboxes / found.bboxes.new_tensor(samples[0].scale_factor).repeat(1, 2)
    return stages | {"boxes": boxes.numpy(), "scores": found.scores.numpy(), "labels": found.labels.numpy()}


def preprocess(model, image):
    """The normalised and padded image [1, 3, H, W] in the module's precision, and its data sample in a list."""
    data = model.prepare({"img": np.ascontiguousarray(image[:, :, ::-1]), "img_id": 0})
    batch = {"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]}
    batch = model.data_preprocessor(batch, False)
    return batch["inputs"].to(next(model.parameters()).dtype), batch["data_samples"]


if __name__ == "__main__":
    versions = {"mmdet": mmdet.__version__, "mmcv-lite": mmcv.__version__, "mmengine": mmengine.__version__}
    versions |= {"opencv": cv2.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__}
    records = {name: {name: ENTRIES[name]} for name in sys.argv[1:] or CONFIGS}
    recording.record_all("mmdetection", versions | {"numpy": np.__version__}, records, build, run)
