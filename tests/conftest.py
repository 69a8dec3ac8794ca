"""Settings that every test may start from, and the plain Python loop that suppression is held against."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow's own choice on processors with AVX512 VNNI; on others it has no gradient of grouped convolutions without.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import pytest

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import ModelConfig

# Files that take minutes, the longest first: begun last, one of them would keep a single worker busy at the end.
SLOW_FILES = (
    "test_notebooks.py",
    "test_replicas.py",
    "test_tflite_export.py",
    "test_workers.py",
    "test_parity_detectron2.py",
    "test_c_api.py",
    "test_panoptic_command.py",
)


def pytest_collection_modifyitems(items):
    """Slow files first, in their order; xdist hands files out in the order of the tests (--no-loadscope-reorder)."""
    order = {name: position for position, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


# Of these Grappler works on the graphs, as a user's: parity with other libraries, the model as a whole, and what is
# compared to the last bit.
OPTIMIZED = ("test_parity_", "test_model.py", "test_overfit.py", "test_diagnosis_stages.py")


@pytest.fixture(scope="module", autouse=True)
def graphs_as_traced(request):
    """Without Grappler, whose work on a graph takes a fifth of a model's first step. The processes that tests start,
    such as the notebooks', have it too."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or request.path.name.startswith(OPTIMIZED):
        yield
        return
    options = tensorflow.config.optimizer
    options.set_experimental_options({"disable_meta_optimizer": True})
    yield
    options.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture
def eagerly():
    """A step and a few images are done before their functions would be traced."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def tiny_config():
    """`ModelConfig` of a model that builds in seconds: ResNet-10, two classes, sixteen channels. Not to be changed."""
    config = ModelConfig(categories=[Category(7, "cell"), Category(3, "dot")])
    config.backbone.depth, config.fpn.channels = 10, 16
    config.rpn.batch_per_image, config.rpn.pre_nms_test, config.rpn.post_nms_test = 16, 20, 10
    config.rpn.pre_nms_train, config.rpn.post_nms_train = 30, 15
    config.rois.batch_per_image = 8
    config.box_head.channels, config.box_head.pool_size = 12, 3
    config.mask_head.channels, config.mask_head.pool_size, config.mask_head.convs = 6, 4, 2
    config.detections.max_per_image = 5
    return config


def _iou(box, other):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    return shared / union if union > 0 else 0.0


@pytest.fixture(scope="session")
def greedy_nms():
    """A function of boxes [N, 4], scores [N] and groups [N]: the indices that greedy suppression keeps, best first."""

    def keep(boxes, scores, groups, threshold, count):
        boxes, kept = np.float64(boxes), []
        for candidate in np.argsort(-np.float64(scores), kind="stable"):
            rivals = [other for other in kept if groups[other] == groups[candidate]]
            if all(_iou(boxes[candidate], boxes[other]) <= threshold for other in rivals):
                kept.append(int(candidate))
        return kept[:count]

    return keep
