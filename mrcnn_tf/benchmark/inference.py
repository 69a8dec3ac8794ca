"""Detection in one image, from uint8 pixels to `Detections`."""

import time

from mrcnn_tf.benchmark import inputs, worker
from mrcnn_tf.benchmark.models import benchmark_config, benchmark_model
from mrcnn_tf.benchmark.operations import inference_operations


def prepare(config, overrides, height, width, precision):
    """Times `MaskRCNN.detect` of an image of height x width pixels, and with it the pasting into full-size masks.

    The facts hold the operations of each part of the model and the number of detections.
    """
    settings = benchmark_config(config, overrides, height, width)
    model = benchmark_model(settings, precision)
    image = inputs.image(height, width)
    facts = {"operations": inference_operations(model, height, width)}

    def run():
        start = time.perf_counter()
        found = model.detect(image)
        detected = time.perf_counter() - start
        facts["detections"] = len(found)
        if found.masks is None:
            return {"detect": detected}
        return {"detect": detected, "detect_full": time.perf_counter() - start}

    return worker.Task(run, facts)


if __name__ == "__main__":
    worker.serve(prepare)
