"""COCO's evaluation protocol: of result files, of a model, and during training."""

from mrcnn_tf.evaluation.callback import CocoAP
from mrcnn_tf.evaluation.coco import evaluate_detections, write_results
from mrcnn_tf.evaluation.results import CocoResults
from mrcnn_tf.evaluation.runner import evaluate

__all__ = ["CocoAP", "CocoResults", "evaluate", "evaluate_detections", "write_results"]
