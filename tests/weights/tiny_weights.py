"""A small Mask R-CNN with weights that are no initial values, and its weights as a file of torchvision's."""

import numpy as np
import torch_writer
from tiny import tiny_config

from mrcnn_tf.common.categories import Category
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights.pretrained import weight_path

NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def make(categories=("cat", "dog"), mask_head=True, **changes):
    """A small Mask R-CNN with frozen norms; `changes` are settings of its config, as in backbone__depth=18."""
    config = tiny_config("frozen_bn")
    config.categories = [
        one if isinstance(one, Category) else Category(index, one) for index, one in enumerate(categories, 1)
    ]
    config.conventions.batch_norm_epsilon = 0.0
    if not mask_head:
        config.mask_head = None
    for key, value in changes.items():
        section, _, field = key.rpartition("__")
        setattr(getattr(config, section) if section else config, field, value)
    model = MaskRCNN.from_settings(config)
    random = np.random.default_rng(0)
    for variable in model.weights:
        low = 0.5 if "variance" in variable.path else -0.1
        variable.assign(random.uniform(low, low + 0.2, variable.shape))
    return model


def head(model, name):
    """The model's head of that name."""
    return next(head for head in model.heads if head.name == name)


def as_torchvision(model):
    """The model's weights under torchvision's names and in its layouts, written out here by hand."""
    tensors = {}
    for variable in model.weights:
        path, array = weight_path(variable), variable.numpy()
        name = _layer_name(path.rsplit("/", 1)[0] if path.count("/") > 1 else path, path)
        kind = path.rsplit("/", 1)[-1]
        if path == "box_head/fc1/kernel":
            array = array.reshape(7, 7, -1, array.shape[1]).transpose(3, 2, 0, 1).reshape(array.shape[1], -1)
        elif path == "mask_head/predictor_kernel":
            array = np.pad(array.T, ((1, 0), (0, 0)))[:, :, None, None]
        elif path == "mask_head/predictor_bias":
            array = np.pad(array, (1, 0))
        elif array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        if path.startswith("box_head/box_deltas"):
            array = np.pad(array, ((4, 0), *[(0, 0)] * (array.ndim - 1)))
        part = NORM.get(kind, "bias" if kind.endswith("bias") else "weight")
        tensors[f"{name}.{part}"] = np.ascontiguousarray(array)
    return tensors


def _layer_name(layer, path):
    parts = layer.split("/")
    norm = path.rsplit("/", 1)[-1] in NORM
    if parts[0] == "backbone":
        if parts[1] == "stem":
            return "backbone.body." + ("bn1" if norm else "conv1")
        stage, block = int(parts[1][3]) - 1, parts[1].split("_")[1]
        if parts[2] == "shortcut":
            return f"backbone.body.layer{stage}.{block}.downsample.{int(norm)}"
        return f"backbone.body.layer{stage}.{block}.{'bn' if norm else 'conv'}{parts[2][-1]}"
    if parts[0] == "fpn":
        return f"backbone.fpn.{'inner' if 'lateral' in parts[1] else 'layer'}_blocks.{int(parts[1][-1]) - 2}.0"
    if parts[0] == "mask_head" and "conv" in parts[1] and "deconv" not in parts[1]:
        return f"roi_heads.mask_head.{int(parts[1][-1]) - 1}.0"
    return {
        "rpn/head/conv": "rpn.head.conv.0.0",
        "rpn/head/objectness_logits": "rpn.head.cls_logits",
        "rpn/head/anchor_deltas": "rpn.head.bbox_pred",
        "box_head/fc1": "roi_heads.box_head.fc6",
        "box_head/fc2": "roi_heads.box_head.fc7",
        "box_head/class_logits": "roi_heads.box_predictor.cls_score",
        "box_head/box_deltas": "roi_heads.box_predictor.bbox_pred",
        "mask_head/deconv_kernel": "roi_heads.mask_predictor.conv5_mask",
        "mask_head/deconv_bias": "roi_heads.mask_predictor.conv5_mask",
        "mask_head/predictor_kernel": "roi_heads.mask_predictor.mask_fcn_logits",
        "mask_head/predictor_bias": "roi_heads.mask_predictor.mask_fcn_logits",
        "keypoint_head/conv1": "roi_heads.keypoint_head.0",
        "keypoint_head/score_kernel": "roi_heads.keypoint_predictor.kps_score_lowres",
        "keypoint_head/score_bias": "roi_heads.keypoint_predictor.kps_score_lowres",
    }[layer]


def write(tmp_path, tensors):
    path = tmp_path / "weights.pth"
    torch_writer.save_torch(path, tensors)
    return path


def values(model):
    return {weight_path(variable): variable.numpy() for variable in model.weights}
