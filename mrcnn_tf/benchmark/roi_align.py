"""RoIAlign alone, forward and backward."""

import tensorflow as tf

from mrcnn_tf.benchmark import inputs, worker
from mrcnn_tf.benchmark.inputs import ROI_BINS, ROI_SAMPLES, ROI_SIZES, ROI_STRIDE
from mrcnn_tf.ops.roi_align import roi_align


def prepare(implementation, height, width, rois=512, channels=256):
    """Times RoIAlign of `rois` boxes on a map of height x width cells, aligned, and its gradient.

    The UserError on an implementation that isn't there must come out as it is: no autograph.
    """
    features = tf.constant(inputs.features(height, width, channels))
    image = tf.zeros([rois], tf.int32)
    upstream = tf.ones([rois, ROI_BINS, ROI_BINS, channels])

    @tf.function(autograph=False)
    def forward(features, boxes):
        return roi_align(features, boxes, image, 1 / ROI_STRIDE, ROI_BINS, ROI_SAMPLES, True, implementation)

    @tf.function(autograph=False)
    def backward(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = forward(features, boxes)
        return tape.gradient(pooled, features, upstream)

    functions = {}
    for name, size in ROI_SIZES.items():
        boxes = tf.constant(inputs.boxes(rois, ROI_STRIDE * height, ROI_STRIDE * width, *size))
        functions[f"forward_{name}"] = lambda boxes=boxes: forward(features, boxes)
        functions[f"backward_{name}"] = lambda boxes=boxes: backward(features, boxes)
    return worker.Task(worker.timed(**functions))


if __name__ == "__main__":
    worker.serve(prepare)
