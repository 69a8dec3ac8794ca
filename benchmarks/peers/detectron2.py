"""detectron2's Mask R-CNN R50-C4 on the processor, from the same image and with the same settings as ours."""

import contextlib
import time

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.modeling import build_model
from detectron2.modeling.postprocessing import detector_postprocess

from benchmarks.inputs import PIXEL_STD
from mrcnn_tf.cli.benchmark_measurements import random_image
from mrcnn_tf.cli.benchmark_processes import Task, serve
from mrcnn_tf.common.environment import available_cores

CONFIGS = {"Mask R50-C4": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x.yaml"}  # by the names of the family


def family(model, height, width, precision):
    """Time a detection of one of `CONFIGS` with its masks inside their boxes, and with them pasted into the image.

    The image comes in the size that the model works at, so that detectron2's resizing, outside its model, has no part.
    """
    detector = _make_model(CONFIGS[model])
    pixels, facts = random_image(height, width), {}

    def run():
        start = time.perf_counter()
        with torch.inference_mode(), _precision(precision):
            instances = detector.inference([{"image": _to_tensor(pixels)}], do_postprocess=False)[0]
            detected = time.perf_counter() - start
            instances = detector_postprocess(instances, height, width)
        facts["detections"] = len(instances)
        return {"detect": detected, "detect_full": time.perf_counter() - start}

    return Task(run, facts)


def _make_model(name):
    """The config's model with random weights; a threshold of 0 gives as many detections as the config allows."""
    config = model_zoo.get_config(name)
    config.MODEL.DEVICE = "cpu"
    config.MODEL.PIXEL_STD = [PIXEL_STD] * 3
    config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    return build_model(config).eval()


def _to_tensor(pixels):
    """uint8 [H, W, 3] RGB as float32 [3, H, W] BGR."""
    return torch.from_numpy(np.ascontiguousarray(pixels[:, :, ::-1].transpose(2, 0, 1))).float()


def _precision(name):
    return torch.autocast("cpu", dtype=torch.bfloat16) if name == "bfloat16" else contextlib.nullcontext()


if __name__ == "__main__":
    torch.set_num_threads(available_cores())
    torch.manual_seed(0)
    serve(family)
