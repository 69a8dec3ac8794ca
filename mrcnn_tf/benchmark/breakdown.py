"""Where the time of detection goes: each part of the model by itself, on what the part before it gives."""

import tensorflow as tf

from mrcnn_tf.benchmark import inputs, worker
from mrcnn_tf.benchmark.models import benchmark_config, benchmark_model


def prepare(config, overrides, height, width, precision):
    """Times the parts of `MaskRCNN.detect`, each compiled by itself for this size, and the `whole`.

    Three of them contain others: `rpn` has `rpn_head` in it, `box_head` has `box_roi_align`, `mask_head` has
    `mask_roi_align`.
    """
    model = benchmark_model(benchmark_config(config, overrides, height, width), precision)
    image = inputs.image(height, width)
    parts = {}

    def part(name, function, *arguments):
        compiled = tf.function(function)
        parts[name] = lambda: compiled(*arguments)
        return compiled(*arguments)

    ready = part("resize", lambda p: model.preprocess(p), tf.constant(image))
    size = ready["image_size"]
    images = part("normalize", lambda i, s: model.preprocess.normalize(i, s), ready["image"], size)
    maps = part("backbone", lambda i: model.backbone(i), images)
    features = part("fpn", lambda m: model.fpn(m), maps)
    part("rpn_head", lambda f: model.rpn.head(f), features)
    proposals = part("rpn", lambda f, s: model.rpn(f, s), features, size)
    box_head, mask_head = model.box_head, model.mask_head
    part("box_roi_align", lambda f, p: box_head.roi_align(f, p), features, proposals.boxes)
    logits, deltas = part("box_head", lambda f, p: box_head(f, p), features, proposals.boxes)
    found = part("detections", lambda x, d, p, s: box_head.detect(x, d, p, s), logits, deltas, proposals, size)
    if mask_head:
        part("mask_roi_align", lambda f, b: mask_head.roi_align(f, b), features, found.boxes)
        part("mask_head", lambda f, b, c: mask_head(f, b, c), features, found.boxes, found.classes)
    return worker.Task(worker.timed(**parts, whole=lambda: model.detect(image)))


if __name__ == "__main__":
    worker.serve(prepare)
