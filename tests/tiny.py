"""A Mask R-CNN small enough for tests, and batches for it."""

import numpy as np

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import CONVENTIONS, Conventions, KeypointHeadConfig, ModelConfig

CATEGORIES = [Category(3, "cat"), Category(17, "dog")]
SMALL_OVERRIDES = [  # of any config, for what builds its model by name
    "model.backbone.depth=10",
    "model.fpn.channels=32",
    "model.box_head.channels=32",
    "model.mask_head={channels: 16, convs: 1}",
    "model.rois.batch_per_image=8",
    "model.rpn.post_nms_train=20",
    "model.rpn.post_nms_test=20",
    "model.detections.max_per_image=5",
]
KINDS = ("gn", "frozen_bn", "c4", "keypoints")


def tiny_config(kind="frozen_bn", size=64):
    """ResNet-10 with narrow heads, two classes with sparse ids, few proposals.

    `kind` is the norm, "frozen_bn" whose graphs are traced soonest or "gn", or with frozen batch norm "c4"
    (detectron2's conventions, without padding) or "keypoints" (C5; two keypoints of a cat and three of a dog).
    """
    config = ModelConfig(categories=list(CATEGORIES))
    norm = "gn" if kind == "gn" else "frozen_bn"
    config.backbone.depth, config.backbone.norm, config.backbone.freeze_at = 10, norm, 0
    config.resize.min_size, config.resize.max_size = size, 2 * size
    config.fpn.channels, config.box_head.channels = 32, 32
    config.mask_head.channels, config.mask_head.convs = 16, 2
    config.rpn.anchor_sizes = [8.0, 16.0, 32.0, 64.0, 128.0]
    config.rpn.pre_nms_train = config.rpn.pre_nms_test = 60
    config.rpn.post_nms_train = config.rpn.post_nms_test = 30
    config.rpn.batch_per_image = 32
    config.rois.batch_per_image = 16
    config.detections.max_per_image, config.detections.score_threshold = 10, 0.01
    if kind == "c4":
        config.features, config.conventions = "C4", Conventions(**CONVENTIONS["detectron2"])
        config.box_head.pool_size, config.box_head.fcs = 14, 0
        config.mask_head.convs, config.mask_head.pool_size = 0, 7
    if kind == "keypoints":
        config.features, config.keypoint_head = "C5", KeypointHeadConfig(pool_size=7, convs=2, channels=32)
        config.categories = [Category(3, "cat", ["ear", "tail"]), Category(17, "dog", ["nose", "paw", "tail"])]
    return config


def tiny_batch(sizes=((64, 64), (64, 48)), canvas=(64, 64), instances=4, seed=0):
    """A batch of the data contract: two objects in the first image, one and a crowd region in the second."""
    generator = np.random.default_rng(seed)
    images = np.zeros((len(sizes), *canvas, 3), np.float32)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:height, :width] = generator.uniform(0, 255, (height, width, 3))
    boxes = np.zeros((len(sizes), instances, 4), np.float32)
    classes = np.zeros((len(sizes), instances), np.int32)
    crowd = np.zeros((len(sizes), instances), bool)
    boxes[0, :2], classes[0, :2] = [[4, 4, 30, 28], [20, 30, 60, 62]], [1, 2]
    boxes[1:, 0], classes[1:, 0] = [8, 10, 40, 44], 2
    boxes[1:, 1], classes[1:, 1], crowd[1:, 1] = [0, 40, 48, 64], 1, True
    sizes = np.array(sizes, np.int32)
    keypoints = np.zeros((len(sizes), instances, 3, 3), np.float32)
    keypoints[..., :2] = (boxes[:, :, None, :2] + boxes[:, :, None, 2:]) / 2
    keypoints[..., 2] = np.where(crowd | (classes == 0), 0, 2)[..., None]
    keypoints[0, 0, 2] = 0  # a cat has two
    return {
        "image": images,
        "image_size": sizes,
        "original_size": sizes * 2,
        "boxes": boxes,
        "classes": classes,
        "crowd": crowd,
        "masks": np.full((len(sizes), instances, 28, 28), 255, np.uint8),
        "keypoints": keypoints,
        "image_id": np.arange(len(sizes), dtype=np.int64) + 100,
    }
