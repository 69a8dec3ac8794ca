"""Records outputs of detectron2's detectors with made-up weights; recording.py says what the files hold.

The files in this folder were made with Python 3.11, torch 2.13.0 (CPU), torchvision 0.28.0, numpy 2.4.6, Pillow 12.0.0
and detectron2 0.6, built for the CPU from commit 02b5c4e295e990042a714712c21dc79b731e8833, by

    PYTHONPATH=tests python tests/golden/record_detectron2.py

Images are made in RGB and given to detectron2 in its own order BGR: `preprocessed` is BGR, less the mean. The state
dict of this version holds neither cell anchors nor pixel statistics; files of the model zoo, written by older versions,
may carry `proposal_generator.anchor_generator.cell_anchors.{0..4}`, `pixel_mean` and `pixel_std` besides.
"""

from unittest import mock

import detectron2
import numpy as np
import PIL
import torch
from detectron2 import model_zoo
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Instances
from golden import recording
from torchvision.ops import boxes as box_ops

COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
SMALL = {"min_size": 240, "max_size": 400}
# Resized to 240x296 and 370x240, where sides of 295.5 and 369.6 are rounded, to 111x400 by the limit on the long side,
# and to 240x292, an enlargement.
FOUR = [[320, 394, 20], [385, 250, 31], [150, 539, 12], [176, 214, 13]]
CONFIGS = {
    "mask_rcnn_R_50_FPN_3x": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    "mask_rcnn_R_101_FPN_3x": "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml",
    "faster_rcnn_R_50_FPN_3x": "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml",
    "mask_rcnn_R_50_C4_3x": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x.yaml",
    "mask_rcnn_R_50_DC5_3x": "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x.yaml",
    "mask_rcnn_X_101_32x8d_FPN_3x": "COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x.yaml",
    "keypoint_rcnn_R_50_FPN_3x": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml",
    "panoptic_fpn_R_50_3x": "COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml",
    "panoptic_fpn_R_101_3x": "COCO-PanopticSegmentation/panoptic_fpn_R_101_3x.yaml",
}
RECORDS = {
    "mask_rcnn_R_50_FPN_3x": {
        "detectron2_mask_rcnn_R_50_seed1": {"seed": 11, "background": 15, **SMALL, "images": FOUR},
        "detectron2_mask_rcnn_R_50_seed2": {"seed": 12, "background": 14, **SMALL, "images": FOUR},
    },
    "mask_rcnn_R_101_FPN_3x": {
        "detectron2_mask_rcnn_R_101": {"seed": 16, "background": 17, **SMALL, "images": FOUR},
    },
    "faster_rcnn_R_50_FPN_3x": {
        "detectron2_faster_rcnn_R_50": {"seed": 14, "background": 18.5, **SMALL, "images": FOUR[::3]},
    },
    "mask_rcnn_R_50_C4_3x": {
        # res5, and below the first fully connected layer on it, take long for each proposal.
        "detectron2_mask_rcnn_R_50_C4": {
            "seed": 17, "background": 9, **SMALL, "proposals": 100, "images": FOUR[1:3],
        },
    },
    "mask_rcnn_R_50_DC5_3x": {
        "detectron2_mask_rcnn_R_50_DC5": {"seed": 18, "background": 11, **SMALL, "proposals": 300, "images": FOUR[1:3]},
    },
    "mask_rcnn_X_101_32x8d_FPN_3x": {
        "detectron2_mask_rcnn_X_101": {
            "seed": 19, "background": 26, **SMALL, "normalized": True, "images": FOUR[:1],
        },
    },
    "keypoint_rcnn_R_50_FPN_3x": {
        "detectron2_keypoint_rcnn_R_50": {"seed": 20, "background": 9.5, **SMALL, "detections": 40, "images": FOUR[:2]},
    },
    "panoptic_fpn_R_50_3x": {
        "detectron2_panoptic_fpn_R_50": {
            "seed": 21, "background": 14, **SMALL, "stuff_area": 400, "fused_score": 0.3, "images": FOUR,
        },
    },
    "panoptic_fpn_R_101_3x": {
        "detectron2_panoptic_fpn_R_101": {
            "seed": 22, "background": 14, **SMALL, "stuff_area": 400, "fused_score": 0.3, "images": FOUR[:2],
        },
    },
}  # fmt: skip


def build(architecture, entry):
    cfg = model_zoo.get_config(CONFIGS[architecture])
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = entry.get("proposals", cfg.MODEL.RPN.POST_NMS_TOPK_TEST)
    cfg.TEST.DETECTIONS_PER_IMAGE = entry.get("detections", cfg.TEST.DETECTIONS_PER_IMAGE)
    cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = entry.get("stuff_area", 4096)
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = entry.get("fused_score", 0.5)
    return build_model(cfg)


def float32_nms(boxes, scores, *rest, batched_nms=box_ops.batched_nms):
    """detectron2 casts the boxes to float32 but not their scores, and so fails in float64."""
    return batched_nms(boxes, scores.float(), *rest)


@mock.patch.object(box_ops, "batched_nms", float32_nms)
def run(model, entry, image):
    """Returns {stage: array} for a uint8 RGB image, running the parts of GeneralizedRCNN.inference one by one."""
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    resized = ResizeShortestEdge([entry["min_size"]] * 2, entry["max_size"]).get_transform(bgr).apply_image(bgr)
    pixels = torch.from_numpy(resized.astype(np.float32).transpose(2, 0, 1))
    images = model.preprocess_image([{"image": pixels}])
    size = images.image_sizes[0]
    features = model.backbone(images.tensor)
    names = model.proposal_generator.in_features
    logits, deltas = model.proposal_generator.rpn_head([features[name] for name in names])
    stages = {
        "size": np.array(size),
        "padded_size": np.array(images.tensor.shape[2:]),
        "resized": resized[:, :, ::-1],
        "preprocessed": recording.hwc(images.tensor)[: size[0], : size[1]],
    }
    stages |= body_maps(getattr(model.backbone, "bottom_up", model.backbone), images.tensor)
    stages |= {f"P{name[1]}": recording.hwc(features[name]) for name in names if name[0] == "p"}
    for name, level_logits, level_deltas in zip(names, logits, deltas, strict=True):
        stages[f"rpn_logits{name[-1]}"] = recording.anchors_last(level_logits, 1)[..., 0]
        stages[f"rpn_deltas{name[-1]}"] = recording.anchors_last(level_deltas, 4)
    proposals, _ = model.proposal_generator(images, features)
    boxes = proposals[0].proposal_boxes
    stages["proposal_boxes"] = boxes.tensor.numpy()
    stages["proposal_scores"] = proposals[0].objectness_logits.numpy()
    class_logits, box_deltas = predict(model.roi_heads, features, boxes)
    stages |= {"class_logits": class_logits.numpy(), "box_deltas": box_deltas.numpy()}
    found, _ = model.roi_heads(images, features, proposals)
    stages |= finish(found[0], image.shape[:2])
    return stages | panoptic(model, features, found[0], size, image.shape[:2])


def panoptic(model, features, found, size, original):
    """Returns the semantic head's logits and map and the fused segments; nothing without such a head.

    `size` (height, width) is the resized image's, `original` its own; `found` are the detections in the former.
    """
    if not hasattr(model, "sem_seg_head"):
        return {}
    enlarged, _ = model.sem_seg_head(features, None)
    semantic = sem_seg_postprocess(enlarged[0], size, *original).argmax(dim=0)
    fused, segments = combine_semantic_and_instance_outputs(
        detector_postprocess(found, *original),
        semantic,
        model.combine_overlap_thresh,
        model.combine_stuff_area_thresh,
        model.combine_instances_score_thresh,
    )
    return {
        "semantic_logits": recording.hwc(model.sem_seg_head.layers(features)),
        "semantic_map": semantic.numpy(),
        "segment_map": fused.numpy(),
        "segment_things": np.array([segment["isthing"] for segment in segments]),
        "segment_labels": np.array([segment["category_id"] for segment in segments]),
    }


def body_maps(resnet, images):
    """Returns {"C2": [H, W, C], ...} of every stage, whether or not the model reads it itself."""
    maps, outputs = {}, resnet.stem(images)
    for name in resnet.stage_names:
        outputs = getattr(resnet, name)(outputs)
        maps[f"C{name[-1]}"] = recording.hwc(outputs)
    return maps


def predict(heads, features, boxes):
    """Returns class logits [N, K + 1] and box deltas [N, 4 K] of N proposals."""
    if hasattr(heads, "res5"):
        shared = heads._shared_roi_transform([features[name] for name in heads.in_features], [boxes])
        return heads.box_predictor(shared.mean(dim=[2, 3]))
    pooled = heads.box_pooler([features[name] for name in heads.box_in_features], [boxes])
    return heads.box_predictor(heads.box_head(pooled))


def finish(found, size):
    """Returns the final detections before and after they are scaled to the image's own size (height, width).

    The mask probabilities travel under a name of their own, so that they are filtered with the boxes but not pasted;
    the keypoints under theirs, so that they are scaled.
    """
    carried = Instances(found.image_size, pred_boxes=found.pred_boxes.clone(), scores=found.scores)
    carried.resized_boxes, carried.labels = found.pred_boxes.tensor, found.pred_classes
    if found.has("pred_masks"):
        carried.probabilities = found.pred_masks[:, 0]
    if found.has("pred_keypoints"):
        carried.pred_keypoints, carried.heatmaps = found.pred_keypoints, found.pred_keypoint_heatmaps
    final = detector_postprocess(carried, *size)
    stages = {"boxes": final.pred_boxes.tensor.numpy(), "resized_boxes": final.resized_boxes.numpy()}
    stages |= {"scores": final.scores.numpy(), "labels": final.labels.numpy()}
    if final.has("probabilities"):
        stages["masks"] = final.probabilities.numpy()
    if final.has("pred_keypoints"):
        stages |= {"keypoints": final.pred_keypoints.numpy(), "keypoint_logits": final.heatmaps.numpy()}
    return stages


if __name__ == "__main__":
    versions = {"detectron2": f"{detectron2.__version__} {COMMIT}", "torch": torch.__version__}
    versions |= {"numpy": np.__version__, "pillow": PIL.__version__}
    recording.record_all("detectron2", versions, RECORDS, build, run)
