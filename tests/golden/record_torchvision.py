"""Records outputs of torchvision's detectors with made-up weights; recording.py says what the files hold.

The files in this folder were made with Python 3.11, torch 2.13.0 (CPU), torchvision 0.28.0 and numpy 2.4.6 by

    PYTHONPATH=tests python tests/golden/record_torchvision.py

v1 models are built as for the published COCO_V1 weights: frozen batch norms in the backbone, with epsilon 0.
"""

import numpy as np
import torch
import torchvision
from golden import recording
from torchvision.models import detection
from torchvision.ops.misc import FrozenBatchNorm2d

SMALL = {"min_size": 240, "max_size": 400}
DEFAULT = {"min_size": 800, "max_size": 1333}
# Resized to 240x304, 369x240, 111x399 and 239x291: an even scale, a fraction that is cut off, the long side cut to one
# pixel less than its limit of 400, and an enlargement to one pixel less than the short side's limit of 240.
FOUR = [[300, 380, 10], [385, 250, 31], [150, 539, 12], [176, 214, 13]]
RECORDS = {
    "maskrcnn_resnet50_fpn": {
        "torchvision_maskrcnn_seed1": {"seed": 1, "background": 17, **SMALL, "images": FOUR},
        "torchvision_maskrcnn_seed2": {"seed": 2, "background": 16.5, **SMALL, "images": FOUR},
        "torchvision_maskrcnn_default_size": {"seed": 3, "background": 17, **DEFAULT, "images": [[334, 500, 15]]},
    },
    "fasterrcnn_resnet50_fpn": {
        "torchvision_fasterrcnn": {"seed": 4, "background": 15, **SMALL, "images": FOUR[1:3]},
    },
    "maskrcnn_resnet50_fpn_v2": {
        "torchvision_maskrcnn_v2": {"seed": 5, "background": 10.5, **SMALL, "images": FOUR},
    },
    "fasterrcnn_resnet50_fpn_v2": {
        "torchvision_fasterrcnn_v2": {"seed": 6, "background": 9.5, **SMALL, "images": FOUR[2:]},
    },
    "keypointrcnn_resnet50_fpn": {
        "torchvision_keypointrcnn": {"seed": 7, "background": 9.5, **SMALL, "detections": 40, "images": FOUR[1:3]},
    },
}


def build(architecture, entry):
    sizes = {key: entry[key] for key in ("min_size", "max_size")}
    sizes["box_detections_per_img"] = entry.get("detections", 100)
    model = getattr(detection, architecture)(weights=None, weights_backbone=None, **sizes)
    if not architecture.endswith("_v2"):
        freeze(model.backbone.body)
    return model


def freeze(module):
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=0.0))
        else:
            freeze(child)


def run(model, entry, image):
    """Returns {stage: array} for a uint8 RGB image, running the parts of GeneralizedRCNN.forward one by one."""
    pixels = torch.from_numpy(image).permute(2, 0, 1).to(next(model.parameters()).dtype) / 255
    images, _ = model.transform([pixels])
    size = images.image_sizes[0]
    body = model.backbone.body(images.tensors)
    pyramid = model.backbone.fpn(body)
    logits, deltas = model.rpn.head(list(pyramid.values()))
    stages = {
        "size": np.array(size),
        "padded_size": np.array(images.tensors.shape[2:]),
        "preprocessed": recording.hwc(images.tensors)[: size[0], : size[1]],
    }
    stages |= {f"C{level}": recording.hwc(value) for level, value in enumerate(body.values(), 2)}
    stages |= {f"P{level}": recording.hwc(value) for level, value in enumerate(pyramid.values(), 2)}
    stages |= {f"rpn_logits{level}": recording.anchors_last(value, 1)[..., 0] for level, value in enumerate(logits, 2)}
    stages |= {f"rpn_deltas{level}": recording.anchors_last(value, 4) for level, value in enumerate(deltas, 2)}
    proposals, scores = propose(model.rpn, images, pyramid)
    stages |= {"proposal_boxes": proposals[0].numpy(), "proposal_scores": scores[0].numpy()}
    heads = model.roi_heads
    pooled = heads.box_roi_pool(pyramid, proposals, [size])
    class_logits, box_deltas = heads.box_predictor(heads.box_head(pooled))
    stages |= {"class_logits": class_logits.numpy(), "box_deltas": box_deltas.numpy()}
    found = heads(pyramid, proposals, [size])[0]
    stages |= {"resized_boxes": found[0]["boxes"].numpy().copy()}
    if "masks" in found[0]:
        stages |= {"masks": found[0]["masks"][:, 0].numpy().copy()}
    if "keypoints" in found[0]:
        pooled = heads.keypoint_roi_pool(pyramid, [found[0]["boxes"]], [size])
        stages |= {"keypoint_logits": heads.keypoint_predictor(heads.keypoint_head(pooled)).numpy()}
    final = model.transform.postprocess(found, [size], [image.shape[:2]])[0]
    if "keypoints" in final:
        scores = final["keypoints_scores"][..., None]
        stages |= {"keypoints": torch.cat([final["keypoints"][..., :2], scores], dim=-1).numpy()}
    return stages | {key: final[key].numpy() for key in ("boxes", "scores", "labels")}


def propose(rpn, images, pyramid):
    """Returns boxes and scores of the proposals; the module itself gives the boxes alone."""
    kept = []
    choose = type(rpn).filter_proposals
    rpn.filter_proposals = lambda *arguments: kept.append(choose(rpn, *arguments)) or kept[0]
    rpn(images, pyramid)
    del rpn.filter_proposals
    return kept[0]


if __name__ == "__main__":
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "numpy": np.__version__}
    recording.record_all("torchvision", versions, RECORDS, build, run)
