"""From mask probabilities to full-size masks, and to COCO's run lengths."""

from mrcnn_tf.benchmark import inputs, worker
from mrcnn_tf.common.categories import Category
from mrcnn_tf.results.detections import Detections


def prepare(height, width, count=100):
    """Times `Detections.masks` and `Detections.to_coco` of `count` masks in an image of height x width pixels."""
    boxes = inputs.boxes(count, height, width, *inputs.DETECTION_SIZES)
    probabilities = inputs.mask_probabilities(count)
    scores, classes = [1.0] * count, [1] * count

    def found():
        # Made anew each time, since the full-size masks are kept.
        return Detections(boxes, scores, classes, (height, width), [Category(1, "thing")], probabilities)

    return worker.Task(worker.timed(paste=lambda: found().masks, rle=lambda: found().to_coco(1)))


if __name__ == "__main__":
    worker.serve(prepare)
