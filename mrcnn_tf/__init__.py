"""Mask R-CNN for TensorFlow and Keras 3."""

import pathlib
import sys

from mrcnn_tf.common.environment import __version__
from mrcnn_tf.common.environment import check_environment
from mrcnn_tf.common.errors import NonFiniteLoss
from mrcnn_tf.common.errors import UserError

__all__ = [
    "CocoAP",
    "Config",
    "Detections",
    "MaskRCNN",
    "NonFiniteLoss",
    "UserError",
    "__version__",
    "coco_dataset",
    "evaluate",
    "export_saved_model",
    "export_tflite",
    "list_presets",
    "load_config",
    "load_model",
    "make_optimizer",
    "ops",
    "show_batch",
    "train",
]

check_environment()

# In Python everything is imported here, since keras.saving.load_model has to find the classes after `import mrcnn_tf`.
# The command imports what it needs when it needs it: its help and its complaints don't wait for TensorFlow.
if pathlib.Path(sys.argv[0]).stem != "mrcnn-tf":
    from mrcnn_tf import ops
    from mrcnn_tf.config.load import load_config
    from mrcnn_tf.config.settings import Config
    from mrcnn_tf.data.pipeline import coco_dataset
    from mrcnn_tf.evaluation.evaluate_model import CocoAP
    from mrcnn_tf.evaluation.evaluate_model import evaluate
    from mrcnn_tf.explain.show_batch import show_batch
    from mrcnn_tf.model.mask_rcnn import MaskRCNN
    from mrcnn_tf.results.detections import Detections
    from mrcnn_tf.serving.saved_model_export import export_saved_model
    from mrcnn_tf.serving.tflite_export import export_tflite
    from mrcnn_tf.training.optimizer import make_optimizer
    from mrcnn_tf.training.trainer import load_model
    from mrcnn_tf.training.trainer import train
    from mrcnn_tf.weights.presets import list_presets
