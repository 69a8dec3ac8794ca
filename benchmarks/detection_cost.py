"""Where the time of a detection goes, and what a semantic head, full-size masks and an export add to it."""

import dataclasses
import json
import pathlib
import tempfile

import tensorflow as tf

from benchmarks.inputs import DETECTION_SIZES, mask_probabilities
from benchmarks.processes import timed
from mrcnn_tf.cli.benchmark_measurements import (
    benchmark_config,
    benchmark_model,
    class_bands,
    random_boxes,
    random_image,
    saved_model,
)
from mrcnn_tf.cli.benchmark_processes import Task, seconds, serve
from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import PanopticConfig, SemanticHeadConfig
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.segments import Panoptic
from mrcnn_tf.serving.export_labels import write_assets
from mrcnn_tf.serving.served_graph import ServedGraph
from mrcnn_tf.weights.architecture import COCO_STUFF

FUSION = PanopticConfig(score_threshold=0.0)  # all instances take part, whatever their scores


def breakdown(config, overrides, height, width, precision):
    """Time the stages of `MaskRCNN.detect`, each compiled by itself for this size, and the `whole`.

    Each works on what the stage before it gives. Heads are under their names; one that has RoI features contains them,
    which are timed once more as NAME_features.
    """
    model = benchmark_model(benchmark_config(config, overrides, height, width), precision)
    image = random_image(height, width)
    times = {}

    def add(name, function, *arguments):
        compiled = tf.function(function, autograph=False)
        times[name] = lambda: compiled(*arguments)
        return compiled(*arguments)

    def stages(inputs, known):
        return model.stages(inputs, fills_batch=True, **known)

    resized = add("resize", lambda pixels: model.preprocess(pixels), tf.constant(image))
    images = add("normalize", lambda inputs: stages(inputs, {}).normalized, resized)
    maps = _add_maps(model.features, add, images)
    regions, known = None, {"maps": maps}
    if model.rpn:
        known["rpn_scores"] = add("rpn_head", lambda inputs, known: stages(inputs, known).rpn_scores, resized, known)
        regions = add("proposals", lambda inputs, known: stages(inputs, known).proposals, resized, known)
    for head in model.heads:
        regions = _add_head(
            head, add, lambda inputs, maps: stages(inputs, {"maps": maps}).features, resized, maps, regions
        )
    return Task(timed(**times, whole=lambda: model.detect(image)))


def _add_maps(features, add, images):
    """The stages of a backbone, or of a neck and its backbone; returns the maps."""
    if not hasattr(features, "from_maps"):
        return add("backbone", lambda images: features(images), images)
    maps = add("backbone", lambda images: features.backbone(images), images)
    return add(features.name, lambda maps: features.from_maps(maps), maps)


def _add_head(head, add, feature_maps, inputs, maps, regions):
    """The stages of a head; returns the regions that those after it get."""

    def pool(inputs, maps, boxes):
        return head.pooling(boxes, features=feature_maps(inputs, maps))

    def detect(inputs, maps, regions):
        features = feature_maps(inputs, maps)
        refined = head.refine(features, regions)
        return refined, head.detect(features, refined)

    if head.pooling:
        add(f"{head.name}_features", pool, inputs, maps, regions.boxes)
    return add(head.name, detect, inputs, maps, regions)[0]


def panoptic(config, overrides, height, width, precision, count=100):
    """Time `MaskRCNN.detect` of one image without and with a semantic head, and with `Detections.panoptic` besides.

    Steps of the latter by themselves: the map of classes, and the fusion of `count` instances with a made-up map.
    """
    settings = benchmark_config(config, overrides, height, width)
    head = settings.model.semantic_head or SemanticHeadConfig()
    stuff = settings.model.stuff or COCO_STUFF
    without = _variant(settings, precision, semantic_head=None)
    model = _variant(settings, precision, semantic_head=head, stuff=stuff, panoptic=FUSION)
    image, instances = random_image(height, width), _random_detections(count, height, width)()
    labels, facts = class_bands(height, width, len(stuff)), {}

    def run():
        times, detected = {"detect": seconds(lambda: without.detect(image))}, []
        times["detect_semantic"] = seconds(lambda: detected.append(model.detect(image)))
        times["map"] = seconds(lambda: detected[0].semantic)
        times["segments"] = seconds(lambda: detected[0].panoptic)
        times["fusion"] = seconds(lambda: Panoptic.fuse(instances, labels, stuff, FUSION))
        facts["segments"] = len(detected[0].panoptic)
        return times | {"detect_panoptic": times["detect_semantic"] + times["map"] + times["segments"]}

    return Task(run, facts)


def _variant(settings, precision, **changes):
    changed = dataclasses.replace(settings, model=dataclasses.replace(settings.model, **changes))
    return benchmark_model(changed, precision)


def _random_detections(count, height, width):
    """A function that makes `count` `Detections`: anew each time, since they keep their full-size masks."""
    boxes, ones = random_boxes(count, height, width, *DETECTION_SIZES), [1] * count
    probabilities = mask_probabilities(count)
    return lambda: Detections(boxes, ones, ones, (height, width), [Category(1, "thing")], probabilities)


def postprocessing(height, width, count=100):
    """Time `Detections.masks` and `Detections.to_coco` of `count` masks in an image of height x width pixels."""
    make_detections = _random_detections(count, height, width)
    return Task(timed(paste=lambda: make_detections().masks, rle=lambda: make_detections().to_coco(1)))


def serving(config, overrides, height, width, precision, custom_ops=False, batches=(1, 8)):
    """Time `serving_default` of the export as `saved_model` does and, as `keras`, `MaskRCNN.detect` of one image.

    With `custom_ops` the export has this package's operations, as for a server in Python. The facts hold the
    `detections` of one image and the bytes of its answer: `grpc_bytes` as tensors of a PredictResponse, `rest_bytes` as
    json.
    """
    model = benchmark_model(benchmark_config(config, overrides, height, width), precision)
    folder = tempfile.TemporaryDirectory()
    version = pathlib.Path(folder.name) / "1"
    # Without the check of export_saved_model: random weights at a threshold of 0 leave ties, which may fall either way.
    ServedGraph(model, custom_ops=custom_ops).save(version)
    write_assets(model, version, {})
    image = random_image(height, width)

    def read_answer(outputs):
        export.facts["detections"] = int(outputs["num_detections"][0])
        export.facts.update(_answer_bytes({name: value[:1] for name, value in outputs.items()}))

    export = saved_model(str(version), height, width, batches, read_answer)
    return Task(lambda: {"keras": seconds(lambda: model.detect(image))} | export.run(), export.facts, folder)


def _answer_bytes(outputs):
    """The size of an answer with these outputs, numpy arrays by name, in each protocol.

    Json has the fewest digits that give back the same float32, as TensorFlow Serving writes it.
    """
    tensors = [tf.make_tensor_proto(value).ByteSize() + len(name) for name, value in outputs.items()]
    answer = {name: _shortest_digits(value[0]) for name, value in outputs.items()}
    return {"grpc_bytes": sum(tensors), "rest_bytes": len(json.dumps({"predictions": [answer]}))}


def _shortest_digits(values):
    is_float = values.dtype.kind == "f"
    return (values.astype(str).astype(float) if is_float else values).tolist()


if __name__ == "__main__":
    serve(breakdown, panoptic, postprocessing, serving)
