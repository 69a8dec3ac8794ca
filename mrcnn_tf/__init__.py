"""Mask R-CNN for TensorFlow and Keras 3: the public names.

A name loads the module behind it at its first use, so that `import mrcnn_tf`, `mrcnn-tf --help` and the parts that
need no TensorFlow don't wait for it. Keras learns of the model's classes as soon as both packages are imported, in
either order.
"""

import importlib

from mrcnn_tf.common.environment import __version__, check_environment
from mrcnn_tf.common.errors import NonFiniteLoss, UserError
from mrcnn_tf.common.keras_registration import import_with_keras

_SUBMODULES = ("ops", "parts")
_MODULES = {
    "CocoAP": "mrcnn_tf.evaluation.evaluate_model",
    "Config": "mrcnn_tf.config.settings",
    "Detections": "mrcnn_tf.results.detections",
    "MaskRCNN": "mrcnn_tf.model.mask_rcnn",
    "coco_dataset": "mrcnn_tf.data.pipeline",
    "diagnose": "mrcnn_tf.explain.diagnosis.diagnose",
    "evaluate": "mrcnn_tf.evaluation.evaluate_model",
    "export_saved_model": "mrcnn_tf.serving.saved_model_export",
    "export_tflite": "mrcnn_tf.serving.tflite_export",
    "list_presets": "mrcnn_tf.weights.presets",
    "load_config": "mrcnn_tf.config.load",
    "load_model": "mrcnn_tf.model.mask_rcnn",
    "make_optimizer": "mrcnn_tf.training.optimizer",
    "show_batch": "mrcnn_tf.explain.show_batch",
    "train": "mrcnn_tf.training.trainer",
}
__all__ = ["NonFiniteLoss", "UserError", "__version__", *_SUBMODULES, *_MODULES]

check_environment()
import_with_keras("mrcnn_tf.model", "mrcnn_tf.training.optimizer")


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"mrcnn_tf.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'mrcnn_tf' has no attribute '{name}'")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
