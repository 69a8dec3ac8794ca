"""Mask R-CNN for TensorFlow and Keras 3.

The names below are imported when first used, so that `mrcnn-tf --help` doesn't wait for TensorFlow.
"""

import importlib

from mrcnn_tf.compatibility import check_environment
from mrcnn_tf.errors import NonFiniteLoss, UserError

__version__ = "0.1.0"

_HOMES = {
    "Config": "mrcnn_tf.config",
    "load_config": "mrcnn_tf.config",
    "MaskRCNN": "mrcnn_tf.model",
    "load_model": "mrcnn_tf.training.trainer",
    "Detections": "mrcnn_tf.detections",
    "coco_dataset": "mrcnn_tf.data.pipeline",
    "make_optimizer": "mrcnn_tf.training.optimizer",
    "train": "mrcnn_tf.training.trainer",
    "CocoAP": "mrcnn_tf.evaluation.callback",
    "evaluate": "mrcnn_tf.evaluation.runner",
    "ops": None,
}

__all__ = ["NonFiniteLoss", "UserError", *_HOMES]

check_environment()


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'mrcnn_tf' has no attribute '{name}'")
    if _HOMES[name] is None:
        return importlib.import_module(f"mrcnn_tf.{name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted([*globals(), *_HOMES])
