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
from detectron2.modeling.postprocessing import detector_postprocess
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
}


def build(architecture, entry):
    cfg = model_zoo.get_config(CONFIGS[architecture])
    cfg.MODEL.DEVICE = "cpu"
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
    body = model.backbone.bottom_up(images.tensor)
    pyramid = model.backbone(images.tensor)
    logits, deltas = model.proposal_generator.rpn_head([pyramid[f"p{level}"] for level in range(2, 7)])
    stages = {
        "size": np.array(size),
        "padded_size": np.array(images.tensor.shape[2:]),
        "resized": resized[:, :, ::-1],
        "preprocessed": recording.hwc(images.tensor)[: size[0], : size[1]],
    }
    stages |= {f"C{level}": recording.hwc(body[f"res{level}"]) for level in range(2, 6)}
    stages |= {f"P{level}": recording.hwc(pyramid[f"p{level}"]) for level in range(2, 7)}
    stages |= {f"rpn_logits{level}": recording.anchors_last(value, 1)[..., 0] for level, value in enumerate(logits, 2)}
    stages |= {f"rpn_deltas{level}": recording.anchors_last(value, 4) for level, value in enumerate(deltas, 2)}
    proposals, _ = model.proposal_generator(images, pyramid)
    stages["proposal_boxes"] = proposals[0].proposal_boxes.tensor.numpy()
    stages["proposal_scores"] = proposals[0].objectness_logits.numpy()
    heads = model.roi_heads
    pooled = heads.box_pooler([pyramid[name] for name in heads.box_in_features], [proposals[0].proposal_boxes])
    class_logits, box_deltas = heads.box_predictor(heads.box_head(pooled))
    stages |= {"class_logits": class_logits.numpy(), "box_deltas": box_deltas.numpy()}
    found, _ = heads(images, pyramid, proposals)
    return stages | finish(found[0], image.shape[:2])


def finish(found, size):
    """Returns the final detections before and after they are scaled to the image's own size (height, width).

    The mask probabilities travel under a name of their own, so that they are filtered with the boxes but not pasted.
    """
    carried = Instances(found.image_size, pred_boxes=found.pred_boxes.clone(), scores=found.scores)
    carried.resized_boxes, carried.labels = found.pred_boxes.tensor, found.pred_classes
    if found.has("pred_masks"):
        carried.probabilities = found.pred_masks[:, 0]
    final = detector_postprocess(carried, *size)
    stages = {"boxes": final.pred_boxes.tensor.numpy(), "resized_boxes": final.resized_boxes.numpy()}
    stages |= {"scores": final.scores.numpy(), "labels": final.labels.numpy()}
    if final.has("probabilities"):
        stages["masks"] = final.probabilities.numpy()
    return stages


if __name__ == "__main__":
    versions = {"detectron2": f"{detectron2.__version__} {COMMIT}", "torch": torch.__version__}
    versions |= {"numpy": np.__version__, "pillow": PIL.__version__}
    recording.record_all("detectron2", versions, RECORDS, build, run)
