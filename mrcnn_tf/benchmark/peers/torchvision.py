"""torchvision's RoIAlign and Mask R-CNN, from the same inputs and with the same settings as ours."""

import contextlib
import time

import numpy as np
import torch
import torchvision
from pycocotools import mask as coco_mask
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.roi_heads import paste_masks_in_image

from mrcnn_tf.benchmark import inputs, worker
from mrcnn_tf.benchmark.inputs import ROI_BINS, ROI_SAMPLES, ROI_SIZES, ROI_STRIDE
from mrcnn_tf.benchmark.machine import available_cores

IMPORTED = time.time()
CLASSES = 81  # with background
# By the names of the family: the detector, its classes with background, and the name of the time; masks come pasted.
DETECTORS = {
    "Faster R50-FPN": (FasterRCNN, CLASSES, "detect"),
    "Mask R50-FPN": (MaskRCNN, CLASSES, "detect_full"),
    "Keypoint R50-FPN": (KeypointRCNN, 2, "detect"),
}
COPIES = 20  # of each object among the proposals: with seven objects more than 128


def prepare(task, **arguments):
    """The `Task` of a measurement: roi_align, inference, family, training, startup or postprocessing."""
    torch.set_num_threads(available_cores())
    torch.manual_seed(0)
    return TASKS[task](**arguments)


def roi_align(height, width, rois=512, channels=256):
    """RoIAlign of our RoIs on our map, in the layout that torchvision works in."""
    map_ = torch.from_numpy(inputs.features(height, width, channels)).permute(0, 3, 1, 2).contiguous()
    map_.requires_grad_(True)
    upstream = torch.ones(rois, channels, ROI_BINS, ROI_BINS)
    functions = {}
    for name, size in ROI_SIZES.items():
        functions |= _roi_align_calls(name, map_, upstream, size)
    return worker.Task(worker.timed(**functions))


def _roi_align_calls(name, map_, upstream, size):
    rois, height, width = upstream.shape[0], *map_.shape[2:]
    boxes = torch.from_numpy(inputs.boxes(rois, ROI_STRIDE * height, ROI_STRIDE * width, *size))

    def forward():
        return torchvision.ops.roi_align(map_, [boxes], ROI_BINS, 1 / ROI_STRIDE, ROI_SAMPLES, True)

    pooled = forward()

    def backward():
        return torch.autograd.grad(pooled, map_, upstream, retain_graph=True)

    return {f"forward_{name}": forward, f"backward_{name}": backward}


def inference(height, width, precision):
    """The model in evaluation; its masks come pasted into the whole image, so only that time is comparable."""
    return _detection(_model(height, width), height, width, precision, "detect_full")


def family(model, height, width, precision):
    """The same of any of `DETECTORS`; keypoints come decoded, as ours do."""
    deviation = inputs.PIXEL_STD / 255  # it normalises pixels of 0 to 1
    detector = _model(height, width, model, image_std=[deviation] * 3)
    return _detection(detector, height, width, precision, DETECTORS[model][-1])


def _detection(model, height, width, precision, name):
    model.eval()
    pixels = inputs.image(height, width)
    facts = {}

    def run():
        start = time.perf_counter()
        with torch.inference_mode(), _precision(precision):
            found = model([_as_input(pixels)])[0]
        facts["detections"] = len(found["boxes"])
        return {name: time.perf_counter() - start}

    return worker.Task(run, facts)


def training(height, width, precision, positives):
    """A step of SGD with momentum; stem and first stage are frozen, and so is all batch norm, as in ours.

    Its mask head runs on the proposals that hit an object: without training hardly more than the objects themselves.
    With `positives` enough proposals hit for the mask head to run on as many RoIs as ours always does, 128.
    """
    model = _model(height, width).train()
    if positives:
        model.roi_heads.add_gt_proposals = _add_near_objects
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-9, momentum=0.9, weight_decay=1e-4)
    pixels = _as_input(inputs.image(height, width))
    boxes, classes = inputs.objects(height, width, CLASSES - 1)
    masks = torch.from_numpy(inputs.ellipses(boxes, height, width))
    target = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(classes), "masks": masks}
    facts = {}

    def step():
        optimizer.zero_grad()
        with _precision(precision):
            losses = model([pixels], [target])
        sum(losses.values()).backward()
        optimizer.step()
        facts.update({name: float(value.detach()) for name, value in losses.items()})

    return worker.Task(worker.timed(step=step), facts)


def startup(started, height, width):
    """From the start of the process to its first detection."""

    def run():
        model = _model(height, width).eval()
        built = time.time()
        with torch.inference_mode():
            model([_as_input(inputs.image(height, width))])
        done = time.time()
        stages = {"peer_import": IMPORTED - started, "build": built - IMPORTED, "first_detection": done - built}
        return stages | {"start_to_detection": done - started}

    return worker.Task(run)


def postprocessing(height, width, count=100):
    """Pasting and cutting at one half, and encoding the result as torchvision's own evaluation script does."""
    boxes = torch.from_numpy(inputs.boxes(count, height, width, *inputs.DETECTION_SIZES))
    masks = torch.from_numpy(inputs.mask_probabilities(count))[:, None]

    def paste():
        return paste_masks_in_image(masks, boxes, (height, width)) > 0.5

    def encode():
        return [coco_mask.encode(np.asfortranarray(mask[0].numpy().astype(np.uint8))) for mask in paste()]

    return worker.Task(worker.timed(paste=paste, rle=encode))


def _model(height, width, name="Mask R50-FPN", **settings):
    """R50-FPN, with random weights but the frozen batch norm that published weights come with."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    sizes = {"min_size": min(height, width), "max_size": max(height, width)}
    detector, classes, _ = DETECTORS[name]
    return detector(backbone, classes, box_score_thresh=0.0, **sizes, **settings)


def _add_near_objects(proposals, objects):
    """Adds, for each image, its objects and copies of them shifted by up to a tenth of their sides: IoU above 0.6."""
    generator, found = torch.Generator().manual_seed(0), []
    for boxes, truth in zip(proposals, objects, strict=True):
        copies = truth.repeat(COPIES, 1)
        sides = (copies[:, 2:] - copies[:, :2]).repeat(1, 2)
        shifts = (torch.rand(len(copies), 2, generator=generator) - 0.5).repeat(1, 2) / 5
        found.append(torch.cat([boxes, truth, copies + shifts * sides]))
    return found


def _as_input(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _precision(name):
    return torch.autocast("cpu", dtype=torch.bfloat16) if name == "bfloat16" else contextlib.nullcontext()


def pipeline(images=48, batch=2):
    """Its reference dataset and transforms in two loader processes."""
    from mrcnn_tf.benchmark.peers.torchvision_input import prepare as prepare_input

    return prepare_input(images, batch)


TASKS = {
    "roi_align": roi_align,
    "inference": inference,
    "family": family,
    "training": training,
    "startup": startup,
    "postprocessing": postprocessing,
    "pipeline": pipeline,
}

if __name__ == "__main__":
    worker.serve(prepare)
