"""torchvision's RoIAlign, Mask R-CNN and input pipeline, from the same inputs and with the same settings as ours."""

import contextlib
import json
import random
import tempfile
import time

import numpy as np
import torch
import torchvision
from pycocotools import mask as coco_mask
from torchvision.datasets import CocoDetection
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from benchmarks.inputs import (
    DETECTION_SIZES,
    PIXEL_STD,
    ROI_BINS,
    ROI_SAMPLES,
    ROI_SIZES,
    ROI_STRIDE,
    make_jpeg_dataset,
    mask_probabilities,
    random_features,
)
from benchmarks.processes import timed
from mrcnn_tf.cli.benchmark_measurements import ellipses, random_boxes, random_image, training_objects
from mrcnn_tf.cli.benchmark_processes import Task, seconds, serve, start_program
from mrcnn_tf.common.environment import available_cores

IMPORTED = time.time()
STARTUP = """
import json, sys
from benchmarks.peers.torchvision import finish_startup
finish_startup(**json.loads(sys.argv[1]))
"""
CLASSES = 81  # with background
# By the names of the family: the detector, its classes with background, and the name of the time; masks come pasted.
DETECTORS = {
    "Faster R50-FPN": (FasterRCNN, CLASSES, "detect"),
    "Mask R50-FPN": (MaskRCNN, CLASSES, "detect_full"),
    "Keypoint R50-FPN": (KeypointRCNN, 2, "detect"),
}
COPIES = 20  # of each object among the proposals: with seven objects more than 128
LOADER_PROCESSES = 2
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def roi_align(height, width, rois=512, channels=256):
    """Time RoIAlign of our RoIs on our map, in the layout that torchvision works in."""
    features = torch.from_numpy(random_features(height, width, channels)).permute(0, 3, 1, 2).contiguous()
    features.requires_grad_(True)
    upstream = torch.ones(rois, channels, ROI_BINS, ROI_BINS)
    functions = {}
    for name, size in ROI_SIZES.items():
        functions |= _make_roi_align_calls(name, features, upstream, size)
    return Task(timed(**functions))


def _make_roi_align_calls(name, features, upstream, size):
    rois, height, width = upstream.shape[0], *features.shape[2:]
    boxes = torch.from_numpy(random_boxes(rois, ROI_STRIDE * height, ROI_STRIDE * width, *size))

    def forward():
        return torchvision.ops.roi_align(features, [boxes], ROI_BINS, 1 / ROI_STRIDE, ROI_SAMPLES, True)

    pooled = forward()

    def backward():
        return torch.autograd.grad(pooled, features, upstream, retain_graph=True)

    return {f"forward_{name}": forward, f"backward_{name}": backward}


def inference(height, width, precision):
    """Time the model in evaluation; its masks come pasted into the whole image, so only that time is comparable."""
    return _time_detection(_make_model(height, width), height, width, precision, "detect_full")


def family(model, height, width, precision):
    """Time any of `DETECTORS` likewise; keypoints come decoded, as ours do."""
    deviation = PIXEL_STD / 255  # it normalises pixels of 0 to 1
    detector = _make_model(height, width, model, image_std=[deviation] * 3)
    return _time_detection(detector, height, width, precision, DETECTORS[model][-1])


def _time_detection(model, height, width, precision, name):
    model.eval()
    pixels = random_image(height, width)
    facts = {}

    def run():
        start = time.perf_counter()
        with torch.inference_mode(), _precision(precision):
            outputs = model([_to_tensor(pixels)])[0]
        facts["detections"] = len(outputs["boxes"])
        return {name: time.perf_counter() - start}

    return Task(run, facts)


def training(height, width, precision, positives):
    """Time a step of SGD with momentum; stem and first stage are frozen, and so is all batch norm, as in ours.

    Its mask head runs on the proposals that hit an object: without training hardly more than the objects themselves.
    With `positives` enough proposals hit for the mask head to run on as many RoIs as ours always does, 128.
    """
    model = _make_model(height, width).train()
    if positives:
        model.roi_heads.add_gt_proposals = _add_near_objects
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-9, momentum=0.9, weight_decay=1e-4)
    pixels = _to_tensor(random_image(height, width))
    boxes, classes = training_objects(height, width, CLASSES - 1)
    masks = torch.from_numpy(ellipses(boxes, height, width))
    target = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(classes), "masks": masks}
    facts = {}

    def step():
        optimizer.zero_grad()
        with _precision(precision):
            losses = model([pixels], [target])
        sum(losses.values()).backward()
        optimizer.step()
        facts.update({name: float(value.detach()) for name, value in losses.items()})

    return Task(timed(step=step), facts)


def startup(height, width):
    """Time the stages from the start of a process to its first detection, each time in a new one."""
    return Task(lambda: start_program(STARTUP, height=height, width=width))


def finish_startup(started, height, width):
    """Build a model, detect once and print the seconds of all stages."""
    torch.set_num_threads(available_cores())
    model = _make_model(height, width).eval()
    built = time.time()
    with torch.inference_mode():
        model([_to_tensor(random_image(height, width))])
    done = time.time()
    stages = {"peer_import": IMPORTED - started, "build": built - IMPORTED, "first_detection": done - built}
    print(json.dumps(stages | {"start_to_detection": done - started}))


def postprocessing(height, width, count=100):
    """Time pasting and cutting at one half, and encoding the result as torchvision's own evaluation script does."""
    boxes = torch.from_numpy(random_boxes(count, height, width, *DETECTION_SIZES))
    masks = torch.from_numpy(mask_probabilities(count))[:, None]

    def paste():
        return paste_masks_in_image(masks, boxes, (height, width)) > 0.5

    def encode():
        return [coco_mask.encode(np.asfortranarray(mask[0].numpy().astype(np.uint8))) for mask in paste()]

    return Task(timed(paste=paste, rle=encode))


def pipeline(images=48, batch=2):
    """Time `images` images through its reference dataset and transforms in two loader processes: seconds for each."""
    folder = tempfile.TemporaryDirectory()
    data = TrainingImages(folder.name, make_jpeg_dataset(folder.name), 10**4)
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True, num_workers=LOADER_PROCESSES, collate_fn=list)
    batches = iter(loader)

    def run():
        elapsed = seconds(lambda: [next(batches) for _ in range(images // batch)])
        return {"image": elapsed / (images // batch * batch)}

    return Task(run, folder=folder)


class TrainingImages(CocoDetection):
    """What its detection reference trains on: boxes, full-size masks, mirrored images, and the resize to 800 pixels.

    There the model does the resize; in the loader's processes it can run in parallel, which is to torchvision's favour.
    """

    def __init__(self, folder, annotations, repetitions):
        super().__init__(folder, annotations)
        self.ids = self.ids * repetitions
        self.resize = GeneralizedRCNNTransform(800, 1333, MEAN, DEVIATION)

    def __getitem__(self, index):
        from torchvision.transforms import v2  # here, or it would be a part of the start-up

        image, objects = super().__getitem__(index)
        width, height = image.size
        boxes = torch.tensor([annotation["bbox"] for annotation in objects]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2].clamp_(0, width)
        boxes[:, 1::2].clamp_(0, height)
        masks = torch.stack([_decode_mask(annotation["segmentation"], height, width) for annotation in objects])
        if random.random() < 0.5:
            image = v2.functional.horizontal_flip(image)
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
            masks = masks.flip(-1)
        pixels = v2.functional.to_dtype(v2.functional.pil_to_tensor(image), torch.float32, scale=True)
        labels = torch.tensor([annotation["category_id"] for annotation in objects])
        images, targets = self.resize([pixels], [{"boxes": boxes, "labels": labels, "masks": masks}])
        return images.tensors[0], targets[0]


def _make_model(height, width, name="Mask R50-FPN", **settings):
    """R50-FPN, with random weights but the frozen batch norm that published weights come with."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    sizes = {"min_size": min(height, width), "max_size": max(height, width)}
    detector, classes, _ = DETECTORS[name]
    return detector(backbone, classes, box_score_thresh=0.0, **sizes, **settings)


def _add_near_objects(proposals, objects):
    """Each image's proposals, its objects, and copies of these shifted by up to a tenth of their sides: IoU > 0.6."""
    generator, extended = torch.Generator().manual_seed(0), []
    for boxes, truth in zip(proposals, objects, strict=True):
        copies = truth.repeat(COPIES, 1)
        sides = (copies[:, 2:] - copies[:, :2]).repeat(1, 2)
        shifts = (torch.rand(len(copies), 2, generator=generator) - 0.5).repeat(1, 2) / 5
        extended.append(torch.cat([boxes, truth, copies + shifts * sides]))
    return extended


def _to_tensor(pixels):
    """uint8 [H, W, 3] as float32 [3, H, W] of 0 to 1."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _precision(name):
    return torch.autocast("cpu", dtype=torch.bfloat16) if name == "bfloat16" else contextlib.nullcontext()


def _decode_mask(polygons, height, width):
    return torch.from_numpy(coco_mask.decode(coco_mask.frPyObjects(polygons, height, width))).any(dim=2).to(torch.uint8)


if __name__ == "__main__":
    torch.set_num_threads(available_cores())
    torch.manual_seed(0)
    serve(roi_align, inference, family, training, startup, postprocessing, pipeline)
