"""The TensorFlow Model Garden's Mask R-CNN, through the module that it exports models for serving with."""

import time

import tensorflow as tf
import tf_keras
from official.core import config_definitions
from official.vision.configs import maskrcnn
from official.vision.serving.detection import DetectionModule

from mrcnn_tf.benchmark import inputs, worker

IMPORTED = time.time()
CLASSES = 81  # with background


def prepare(task, **arguments):
    """The `Task` of a measurement: inference or startup."""
    return TASKS[task](**arguments)


def inference(height, width, precision):
    """The serving function on one image; its masks stay 28x28 inside their boxes."""
    module = _module(height, width, precision)
    image = tf.constant(inputs.image(height, width)[None])
    facts = {}

    def detect():
        found = {name: value.numpy() for name, value in module.inference_from_image_tensors(image).items()}
        facts["detections"] = int(found["num_detections"][0])

    return worker.Task(worker.timed(detect=detect), facts)


def startup(started, height, width):
    """From the start of the process to its first detection."""

    def run():
        module = _module(height, width, "float32")
        built = time.time()
        found = module.inference_from_image_tensors(tf.constant(inputs.image(height, width)[None]))
        found["num_detections"].numpy()
        done = time.time()
        stages = {"peer_import": IMPORTED - started, "build": built - IMPORTED, "first_detection": done - built}
        return stages | {"start_to_detection": done - started}

    return worker.Task(run)


def _module(height, width, precision):
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


TASKS = {"inference": inference, "startup": startup}

if __name__ == "__main__":
    worker.serve(prepare)
