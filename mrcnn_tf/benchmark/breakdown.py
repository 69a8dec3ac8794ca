"""Where the time of detection goes: each part of the model by itself, on what the part before it gives."""

import tensorflow as tf

from mrcnn_tf.benchmark import inputs, worker
from mrcnn_tf.benchmark.models import benchmark_config, benchmark_model


def prepare(config, overrides, height, width, precision):
    """Times the parts of `MaskRCNN.detect`, each compiled by itself for this size, and the `whole`.

    One contains another: `rpn` has `rpn_head` in it.
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
    features = part("fpn", lambda m: model.fpn(m), maps) if model.fpn else maps[-1:]
    if model.rpn:
        _instances(model, part, features, size)
    if model.semantic_head:
        part("semantic_head", lambda f: model.semantic_head(f), model.semantic_maps(features))
    return worker.Task(worker.timed(**parts, whole=lambda: model.detect(image)))


def _instances(model, part, features, size):
    """Times the parts that find boxes, masks and keypoints on the maps of an image of `size`."""
    part("rpn_head", lambda f: model.rpn.head(f), features)
    proposals = part("rpn", lambda f, s: model.rpn(f, s), features, size)
    box_head = model.box_head
    pooled = part("box_features", lambda f, p: model.box_features(f, p), features, proposals.boxes)
    logits, deltas = part("box_head", lambda p: box_head(p), pooled)
    found = part("detections", lambda x, d, p, s: box_head.detect(x, d, p, s), logits, deltas, proposals, size)
    if model.mask_head:
        pooled = part("mask_features", lambda f, b: model.mask_features(f, b), features, found.boxes)
        part("mask_head", lambda p, c: model.mask_head(p, c), pooled, found.classes)
    if model.keypoint_head:
        pooled = part("keypoint_features", lambda f, b: model.keypoint_features(f, b), features, found.boxes)
        heatmaps = part("keypoint_head", lambda p, c: model.keypoint_head(p, c), pooled, found.classes)
        part("keypoints", lambda h, d: model.keypoint_head.detect(h, d.boxes, d.classes), heatmaps, found)


if __name__ == "__main__":
    worker.serve(prepare)
