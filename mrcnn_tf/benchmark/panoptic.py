"""What a semantic head, and things and stuff fused, add to Mask R-CNN's detection."""

import dataclasses

from mrcnn_tf.benchmark import inputs
from mrcnn_tf.benchmark import worker
from mrcnn_tf.benchmark.models import benchmark_config
from mrcnn_tf.benchmark.models import benchmark_model
from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import PanopticConfig
from mrcnn_tf.config.settings import SemanticHeadConfig
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.segments import Panoptic
from mrcnn_tf.weights.architecture import COCO_STUFF

FUSION = PanopticConfig(score_threshold=0.0)  # all instances take part, whatever their scores


def prepare(config, overrides, height, width, precision, count=100):
    """Times `MaskRCNN.detect` of one image without and with a semantic head, and with `Detections.panoptic` besides.

    Parts of the latter by themselves: the map of classes, and the fusion of `count` instances with a made-up map.
    """
    settings = benchmark_config(config, overrides, height, width)
    plain = _model(settings, precision, semantic_head=None)
    head = settings.model.semantic_head or SemanticHeadConfig()
    stuff = settings.model.stuff or COCO_STUFF
    panoptic = _model(settings, precision, semantic_head=head, stuff=stuff, panoptic=FUSION)
    image, instances = inputs.image(height, width), _instances(count, height, width)
    labels, facts = inputs.labels(height, width, len(stuff)), {}

    def run():
        kept = {}
        times = {
            "detect": worker.seconds(lambda: plain.detect(image)),
            "detect_semantic": worker.seconds(lambda: kept.update(found=panoptic.detect(image))),
            "map": worker.seconds(lambda: kept["found"].semantic),
            "segments": worker.seconds(lambda: kept["found"].panoptic),
            "fusion": worker.seconds(lambda: Panoptic.fuse(instances, labels, stuff, FUSION)),
        }
        facts["segments"] = len(kept["found"].panoptic)
        return times | {"detect_panoptic": times["detect_semantic"] + times["map"] + times["segments"]}

    return worker.Task(run, facts)


def _model(settings, precision, **changes):
    changed = dataclasses.replace(settings.model, **changes)
    return benchmark_model(dataclasses.replace(settings, model=changed), precision)


def _instances(count, height, width):
    boxes, ones = inputs.boxes(count, height, width, *inputs.DETECTION_SIZES), [1] * count
    return Detections(boxes, ones, ones, (height, width), [Category(1, "thing")], inputs.mask_probabilities(count))


if __name__ == "__main__":
    worker.serve(prepare)
