"""COCO's figures of a finished detector, with either backend: what an evaluation costs beside the detecting."""

import json
import pathlib
import tempfile

from mrcnn_tf.benchmark import worker
from mrcnn_tf.benchmark.coco_like import coco_like
from mrcnn_tf.evaluation.average_precision import check_backend
from mrcnn_tf.evaluation.average_precision import evaluate_detections
from mrcnn_tf.evaluation.instance_ground_truth import read_instance_ground_truth


def prepare(backend, images=5000, detections=30):
    """Times reading a json of `images` images, and all box and mask figures of `detections` found in each of them.

    The facts hold the numbers of images, objects and detections, and the figures as `CocoResults` has them.
    """
    check_backend(backend)
    data, results = coco_like(images, detections)
    folder = tempfile.TemporaryDirectory()
    path = pathlib.Path(folder.name) / "instances.json"
    path.write_text(json.dumps(data))
    facts = {"images": images, "objects": len(data["annotations"]), "detections": len(results)}

    def run():
        found = {}
        read = worker.seconds(lambda: found.update(truth=read_instance_ground_truth(path)))
        truth = found["truth"]
        evaluate = worker.seconds(lambda: facts.update(figures=_figures(results, truth, backend)))
        return {"read": read, "evaluate": evaluate}

    task = worker.Task(run, facts)
    task.folder = folder  # it goes when the process ends
    return task


def _figures(results, truth, backend):
    found = evaluate_detections(results, truth, backend=backend)
    return {"bbox": found.bbox, "segm": found.segm}


if __name__ == "__main__":
    worker.serve(prepare)
