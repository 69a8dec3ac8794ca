"""Records detectron2's models whose settings differ from those that the zoo's common models have.

What each differs in stands in `CONFIGS`; recording.py says what the files hold, of which only the sizes, the backbone's
maps and the detections are kept here. `configs/ARCHITECTURE.yaml` is the config as detectron2's own trainer writes it
beside its weights. Channels are few, and backbones are ResNet-18 where nothing depends on a bottleneck, so that tests
are quick. Made with Python 3.11, torch 2.14.1, torchvision 0.29.1, numpy 2.4.6, Pillow 13.0.0 and the Python code of
detectron2 0.6 at the commit that record_detectron2.py names (none of these models needs its compiled operations), by

    PYTHONPATH=tests python tests/golden/record_detectron2_settings.py
"""

import sys

import detectron2
import numpy as np
import PIL
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.modeling import build_model
from golden import record_detectron2, recording

KEPT = ("size", "padded_size", "C2", "C3", "C4", "C5", "boxes", "scores", "labels", "masks", "keypoints")
ONE, TWO = record_detectron2.FOUR[:1], record_detectron2.FOUR[1:3]
SIZE = {"INPUT.MIN_SIZE_TEST": 240, "INPUT.MAX_SIZE_TEST": 400}
HEADS = {
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 300,
    **SIZE,
}
FEW = {"MODEL.ROI_HEADS.NUM_CLASSES": 8}
R_18 = {"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64, **HEADS}
R_50 = {"MODEL.RESNETS.WIDTH_PER_GROUP": 32, **HEADS}
GN = {"MODEL.FPN.OUT_CHANNELS": 64, "MODEL.ROI_BOX_HEAD.CONV_DIM": 64, "MODEL.ROI_MASK_HEAD.CONV_DIM": 64}
COCO_MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
# architecture -> the published config, and what is set beside it.
CONFIGS = {
    "detectron2_lsj": ("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py", {}),
    "detectron2_scratch_gn": ("Misc/scratch_mask_rcnn_R_50_FPN_9x_gn.yaml", R_50 | FEW | GN),
    "detectron2_scratch_syncbn": ("Misc/scratch_mask_rcnn_R_50_FPN_9x_syncbn.yaml", R_50 | FEW),
    "detectron2_detectron1": ("Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x.yaml", R_18 | FEW),
    "detectron2_own_anchors": (
        COCO_MASK,
        R_18
        | FEW
        | {
            "MODEL.ANCHOR_GENERATOR.SIZES": [[20], [44], [90], [170], [330]],
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.3, 1.0, 3.0]],
        },
    ),
    "detectron2_own_pixels": (
        COCO_MASK,
        R_50
        | FEW
        | {
            "INPUT.FORMAT": "RGB",
            "MODEL.PIXEL_MEAN": [110.0, 120.5, 95.25],
            "MODEL.PIXEL_STD": [60.0, 55.5, 64.0],
            "MODEL.RESNETS.STRIDE_IN_1X1": False,
        },
    ),
    "detectron2_lvis": ("LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", R_18),
    "detectron2_cityscapes": (
        "Cityscapes/mask_rcnn_R_50_FPN.yaml",
        R_18 | {"INPUT.MIN_SIZE_TEST": 256, "INPUT.MAX_SIZE_TEST": 512},
    ),
    "detectron2_voc": (
        "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml",
        {"MODEL.RESNETS.WIDTH_PER_GROUP": 32, "MODEL.RPN.POST_NMS_TOPK_TEST": 60, **SIZE},
    ),
    "detectron2_own_keypoints": (
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml",
        R_18
        | {
            "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 5,
            "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [16] * 8,
            "TEST.DETECTIONS_PER_IMAGE": 40,
        },
    ),
    "detectron2_class_agnostic": (
        COCO_MASK,
        R_18
        | FEW
        | {
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
            "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.25, 0.5, 1.0, 2.0, 4.0]],
        },
    ),
    "detectron2_own_limits": (
        COCO_MASK,
        R_18
        | FEW
        | {
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.01,
            "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.3,
            "MODEL.RPN.NMS_THRESH": 0.6,
            "MODEL.RPN.PRE_NMS_TOPK_TEST": 400,
            "TEST.DETECTIONS_PER_IMAGE": 150,
            "INPUT.MIN_SIZE_TEST": 288,
            "INPUT.MAX_SIZE_TEST": 360,
        },
    ),
}
# The seed, the background's bias and the images of each.
ENTRIES = {
    "detectron2_lsj": {"seed": 41, "background": 8, "images": ONE},
    "detectron2_scratch_gn": {"seed": 42, "background": 5.5, "normalized": True, "images": ONE},
    "detectron2_scratch_syncbn": {"seed": 43, "background": 7, "normalized": True, "images": ONE},
    "detectron2_detectron1": {"seed": 44, "background": 8.5, "images": ONE},
    "detectron2_own_anchors": {"seed": 45, "background": 10, "images": TWO[:1]},
    "detectron2_own_pixels": {"seed": 46, "background": 8.5, "normalized": True, "images": ONE},
    "detectron2_lvis": {"seed": 47, "background": 20, "images": TWO[:1]},
    "detectron2_cityscapes": {"seed": 48, "background": 10, "images": TWO[1:]},
    "detectron2_voc": {"seed": 49, "background": 10, "images": ONE},
    "detectron2_own_keypoints": {"seed": 50, "background": 2, "images": ONE},
    "detectron2_class_agnostic": {"seed": 51, "background": 10, "images": TWO[:1]},
    "detectron2_own_limits": {"seed": 52, "background": 10, "images": ONE},
}


def read_config(architecture):
    """The published config with what `CONFIGS` sets beside it; of a lazy one the nested dictionaries."""
    published, overrides = CONFIGS[architecture]
    cfg = model_zoo.get_config(published)
    if not published.endswith(".py"):
        cfg.merge_from_list([part for pair in overrides.items() for part in pair])
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def build(architecture, entry):
    cfg = read_config(architecture)
    if CONFIGS[architecture][0].endswith(".py"):
        entry |= record_detectron2.SMALL
        # Convolutions on each proposal and detection take long.
        cfg.model.proposal_generator.post_nms_topk = (1000, 100)
        cfg.model.roi_heads.box_predictor.test_topk_per_image = 30
        return instantiate(cfg.model)
    (recording.FOLDER / "configs" / f"{architecture}.yaml").write_text(cfg.dump())
    entry |= {"min_size": cfg.INPUT.MIN_SIZE_TEST, "max_size": cfg.INPUT.MAX_SIZE_TEST, "order": cfg.INPUT.FORMAT}
    return build_model(cfg)


def run(model, entry, image):
    """Returns the `KEPT` stages for a uint8 RGB image."""
    # record_detectron2 turns the channels, which a model of RGB undoes.
    stages = record_detectron2.run(model, entry, image[..., ::-1] if entry.get("order") == "RGB" else image)
    return {stage: array for stage, array in stages.items() if stage in KEPT}


if __name__ == "__main__":
    versions = {"detectron2": f"{detectron2.__version__} {record_detectron2.COMMIT}", "torch": torch.__version__}
    versions |= {"numpy": np.__version__, "pillow": PIL.__version__}
    chosen = sys.argv[1:] or CONFIGS
    records = {name: {name: ENTRIES[name]} for name in chosen}
    recording.record_all("detectron2", versions, records, build, run)
