"""The TensorFlow Model Garden's Mask R-CNN, through the module that it exports models for serving with."""

import json
import time

import tensorflow as tf
import tf_keras
from official.core import config_definitions
from official.vision.configs import maskrcnn
from official.vision.serving.detection import DetectionModule

from benchmarks.processes import timed
from mrcnn_tf.cli.benchmark_measurements import random_image
from mrcnn_tf.cli.benchmark_processes import Task, serve, start_program

IMPORTED = time.time()
STARTUP = """
import json, sys
from benchmarks.peers.model_garden import finish_startup
finish_startup(**json.loads(sys.argv[1]))
"""
CLASSES = 81  # with background


def inference(height, width, precision):
    """Time the serving function on one image; its masks stay 28x28 inside their boxes."""
    module = _make_module(height, width, precision)
    image = tf.constant(random_image(height, width)[None])
    facts = {}

    def detect():
        outputs = {name: value.numpy() for name, value in module.inference_from_image_tensors(image).items()}
        facts["detections"] = int(outputs["num_detections"][0])

    return Task(timed(detect=detect), facts)


def startup(height, width):
    """Time the stages from the start of a process to its first detection, each time in a new one."""
    return Task(lambda: start_program(STARTUP, height=height, width=width))


def finish_startup(started, height, width):
    """Build a model, detect once and print the seconds of all stages."""
    model = _make_module(height, width, "float32")
    built = time.time()
    outputs = model.inference_from_image_tensors(tf.constant(random_image(height, width)[None]))
    outputs["num_detections"].numpy()
    done = time.time()
    stages = {"peer_import": IMPORTED - started, "build": built - IMPORTED, "first_detection": done - built}
    print(json.dumps(stages | {"start_to_detection": done - started}))


def _make_module(height, width, precision):
    """R50-FPN with the paper's box head (the garden's own default has four convolutions more) and a threshold of 0.

    The garden pads images to multiples of 64 pixels.
    """
    if precision == "bfloat16":
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = maskrcnn.MaskRCNN(num_classes=CLASSES, input_size=[height, width, 3])
    model.detection_head.num_convs, model.detection_head.num_fcs = 0, 2
    model.detection_generator.pre_nms_score_threshold = 0.0
    model.norm_activation.use_sync_bn = False
    params = config_definitions.ExperimentConfig(task=maskrcnn.MaskRCNNTask(model=model))
    return DetectionModule(params, batch_size=1, input_image_size=[height, width])


if __name__ == "__main__":
    serve(inference, startup)
