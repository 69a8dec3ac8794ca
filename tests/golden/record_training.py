"""Records losses and gradients of other libraries' Mask R-CNN with made-up weights, in training_LIBRARY.json.

The files were made with the versions that they name and Python 3.11 (detectron2 built as for record_detectron2.py) by

    PYTHONPATH=tests python tests/golden/record_training.py torchvision detectron2

One image in its own size has nine objects; all anchors and all RoIs are drawn, so that nothing is left to chance, and
every weight but the frozen batch norms is trained. A file holds, beside what makes weights, image and objects again
(see recording.py) and the settings of the sampling,

    losses      {the library's name: value}
    gradients   {tensor name: [norm of the tensor, norm of the gradient and its product with the tensor, both for the
                sum of all losses but the mask's, and again both for the mask's loss]}

Norms and products don't depend on a library's order of axes, and channels that nothing trains add nothing to them.
"""

import datetime
import importlib.metadata
import json
import sys

import numpy as np
import torch
from golden import made_up, recording

ENTRY = {"seed": 8, "min_size": 256, "max_size": 512, "image": [256, 320, 16], "objects": 9}
SAMPLING = {"proposals": 300, "anchors_drawn": 40920, "rois_drawn": 800}  # twice the anchors, and more than all RoIs
ENTRIES = {
    "torchvision": {"architecture": "maskrcnn_resnet50_fpn", "background": 6},
    "detectron2": {"architecture": "mask_rcnn_R_50_FPN_3x", "background": 6},
}


def torchvision_model():
    from golden.record_torchvision import build

    model = build("maskrcnn_resnet50_fpn", ENTRY).double()
    for part, drawn in ((model.rpn, "anchors_drawn"), (model.roi_heads, "rois_drawn")):
        part.fg_bg_sampler.batch_size_per_image, part.fg_bg_sampler.positive_fraction = SAMPLING[drawn], 0.5
    count = SAMPLING["proposals"]
    model.rpn._pre_nms_top_n["training"], model.rpn._post_nms_top_n["training"] = 4 * count, count
    return model


def torchvision_losses(model, pixels, labels, polygons):
    """Losses by name of pixels uint8 [3, H, W] RGB with their objects."""
    target = {
        "boxes": torch.tensor([made_up.polygon_box(polygon) for polygon in polygons], dtype=torch.float64),
        "labels": torch.tensor(labels),
        "masks": torch.from_numpy(np.stack([inside(polygon, *pixels.shape[1:]) for polygon in polygons])),
    }
    return model([pixels.double() / 255], [target])


def inside(polygon, height, width):
    """uint8 [height, width]: 1 where a pixel's centre is inside a polygon, a list of (x, y)."""
    y, x = np.mgrid[:height, :width] + 0.5
    crossings = np.zeros((height, width), int)
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if y1 != y2:
            crossings += ((y1 <= y) != (y2 <= y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return (crossings % 2).astype(np.uint8)


def detectron2_model():
    """In float32, as its boxes are whatever the weights are."""
    from detectron2 import model_zoo
    from detectron2.modeling import build_model
    from golden.record_detectron2 import CONFIGS

    cfg = model_zoo.get_config(CONFIGS["mask_rcnn_R_50_FPN_3x"])
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.FREEZE_AT = "cpu", 0
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN, cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = (n * SAMPLING["proposals"] for n in (4, 1))
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE, cfg.MODEL.RPN.POSITIVE_FRACTION = SAMPLING["anchors_drawn"], 0.5
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = SAMPLING["rois_drawn"], 0.5
    return build_model(cfg)


def detectron2_losses(model, pixels, labels, polygons):
    """As `torchvision_losses`; labels start at 0 here."""
    from detectron2.structures import Boxes, Instances, PolygonMasks
    from detectron2.utils.events import EventStorage

    truth = Instances(tuple(pixels.shape[1:]))
    truth.gt_boxes = Boxes(torch.tensor([made_up.polygon_box(polygon) for polygon in polygons]))
    truth.gt_classes = torch.tensor(labels) - 1
    truth.gt_masks = PolygonMasks([[np.ravel(polygon).astype(float)] for polygon in polygons])
    with EventStorage():
        return model([{"image": pixels.flip(0).float(), "instances": truth}])


RUNS = {"torchvision": (torchvision_model, torchvision_losses), "detectron2": (detectron2_model, detectron2_losses)}


def record(library):
    """What the library's file holds."""
    entry = ENTRY | ENTRIES[library]
    make_model, compute_losses = RUNS[library]
    model = make_model().train()
    architecture = json.loads((recording.FOLDER / f"{entry['architecture']}.json").read_text())
    weights = made_up.weights(architecture["shapes"], entry["seed"], entry["background"])
    model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    height, width, _ = entry["image"]
    pixels = torch.from_numpy(made_up.image(*entry["image"])).permute(2, 0, 1)
    objects = made_up.objects(height, width, entry["objects"], entry["seed"])
    losses = compute_losses(model, pixels, *objects)
    mask_loss = losses["loss_mask"]
    other = sum(value for name, value in losses.items() if name != "loss_mask")
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    packages = {"torch", "torchvision", "numpy", library}
    return {
        "versions": {name: importlib.metadata.version(name) for name in sorted(packages)},
        "date": str(datetime.date.today()),
        **entry,
        **SAMPLING,
        "weights_crc32": recording.crc32(weights.values()),
        "losses": {name: value.item() for name, value in losses.items()},
        "gradients": summaries(trained, other, mask_loss),
    }


def summaries(trained, *losses):
    """{name: [norm of the tensor, then for each loss the norm of its gradient and its product with the tensor]}"""
    rows = {name: [tensor.norm().item()] for name, tensor in trained.items()}
    for loss in losses:
        gradients = torch.autograd.grad(loss, trained.values(), retain_graph=True, materialize_grads=True)
        for (name, tensor), gradient in zip(trained.items(), gradients, strict=True):
            rows[name] += [gradient.norm().item(), (gradient * tensor).sum().item()]
    return rows


if __name__ == "__main__":
    for library in sys.argv[1:]:
        facts = record(library)
        print(library, facts["losses"])
        gradients = ",\n".join(
            f"{json.dumps(key)}: {json.dumps(value)}" for key, value in facts.pop("gradients").items()
        )
        rows = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items())
        (recording.FOLDER / f"training_{library}.json").write_text(
            f'{{\n{rows},\n"gradients": {{\n{gradients}\n}}\n}}\n'
        )
