"""Our model as it is measured."""

import dataclasses

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.model.assembly import dtype_policy
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights.structure import COCO_STUFF, PERSON

CLASSES = 80  # COCO's, where the config leaves the classes open


def benchmark_config(name, overrides, height, width):
    """The `Config` of a name and overrides, for images of height x width pixels, with a score threshold of 0.

    Random weights then give as many proposals and detections as the settings allow, the slowest case.
    """
    config = load_config(name, overrides)
    model = config.model
    if not model.categories:
        things = [Category(number, str(number)) for number in range(1, CLASSES + 1)]
        model.categories = [PERSON] if model.keypoint_head else things
    if model.semantic_head and not model.stuff:
        model.stuff = COCO_STUFF
    model.detections = dataclasses.replace(model.detections, score_threshold=0.0)
    model.resize = dataclasses.replace(model.resize, min_size=min(height, width), max_size=max(height, width))
    return config


def benchmark_model(config, precision):
    """The `MaskRCNN` of a config in "float32" or "bfloat16", with random weights.

    Raises:
        UserError: bfloat16 would be emulated here.
    """
    if precision == "bfloat16" and dtype_policy("auto").name != "mixed_bfloat16":
        raise UserError("This processor doesn't multiply bfloat16 natively.")
    return MaskRCNN(config.model, dtype=dtype_policy(precision))
