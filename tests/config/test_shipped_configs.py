"""Every shipped config at small size: it builds, learns, detects, and is the same after saving and loading.

Widths, pixels and counts shrink, and a stage of bottlenecks has one of them or two; branches, features, RoI layers,
groups and conventions stay. Configs that shrink to the same model share its trial.
"""

import dataclasses
import functools
import json
import pathlib
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_batch

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.load import list_config_names, load_config
from mrcnn_tf.config.settings import RESNET_BLOCKS, FPNConfig
from mrcnn_tf.model.mask_rcnn import MaskRCNN

KEYPOINTS = ["nose", "left_eye", "right_eye"]
INPUTS = ("image", "image_size", "original_size")


@dataclasses.dataclass
class Trial:
    """What one step and one inference gave: losses by name, weights that nothing reached, outputs by name; and the
    settings that the parts say they were made of, before and after saving."""

    losses: dict
    unreached: list
    outputs: dict
    reloaded: dict
    settings: list


@pytest.mark.parametrize("name", list_config_names())
def test_a_config_builds_learns_detects_saves_and_loads(name, monkeypatch):
    monkeypatch.setitem(RESNET_BLOCKS, 50, (1, 2, 1, 1))  # with all of them, making the layers would take minutes
    config = _shrunk(load_config(name).model)
    trial = _trial(json.dumps(dataclasses.asdict(config), sort_keys=True))
    branches = {"masks": config.mask_head, "keypoints": config.keypoint_head, "semantic_logits": config.semantic_head}
    names = {"masks": "loss_mask", "keypoints": "loss_keypoint", "semantic_logits": "loss_semantic"}
    expected = {"loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box"}
    expected |= {names[branch] for branch, head in branches.items() if head}
    assert set(trial.losses) - {"loss", "images_per_second", "input_wait"} == expected
    for loss in expected:
        assert np.isfinite(trial.losses[loss]) and trial.losses[loss] > 0, loss
    assert trial.unreached == []
    assert trial.outputs["num_detections"].min() > 0
    assert {branch for branch in branches if branch in trial.outputs} == {b for b, head in branches.items() if head}
    if config.features != "FPN":
        config.fpn = FPNConfig()  # there is none
    assert trial.settings == [config, config]
    for output, value in trial.outputs.items():
        assert np.isfinite(value).all(), output
        np.testing.assert_allclose(trial.reloaded[output], value, rtol=1e-5, atol=1e-5, err_msg=output)


@functools.cache
def _trial(tree):
    """The `Trial` of a model config as json. All of it runs eagerly: tracing would take several times as long."""
    keras.utils.set_random_seed(0)
    config = load_config({"model": json.loads(tree)}).model
    model = MaskRCNN.from_settings(config)
    for weight in model.weights:
        if weight.path.endswith("conv3/gamma"):
            weight.assign(0.3 * weight)  # residual blocks without statistics would add up to huge scores
    batch = {name: tf.constant(value) for name, value in _batch(config).items()}
    gradients = _recorded(model, keras.optimizers.SGD(1e-6))
    losses = {name: float(value) for name, value in model.train_step(batch).items()}
    paths = [variable.path for variable in model.trainable_variables]
    reached = [np.isfinite(array).all() and array.any() for array in map(np.asarray, gradients)]
    unreached = [path for path, found in zip(paths, reached, strict=True) if not found]
    inputs = {name: batch[name] for name in INPUTS}
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.keras"
        model.save(file)
        loaded = keras.saving.load_model(file)
    outputs, again = ({name: value.numpy() for name, value in each(inputs).items()} for each in (model, loaded))
    return Trial(losses, unreached, outputs, again, [model.settings, loaded.settings])


def _recorded(model, optimizer):
    """Compiles the model; the list that is returned holds the gradients of the next step."""
    found, apply = [], optimizer.apply

    def record(gradients, variables):
        found.extend(tf.convert_to_tensor(gradient) for gradient in gradients)
        return apply(gradients, variables)

    optimizer.apply = record
    model.compile(optimizer=optimizer)
    return found


def _batch(config):
    batch = tiny_batch()
    if config.semantic_head:
        labels = np.random.default_rng(0).integers(0, 1 + len(config.stuff), batch["image"].shape[:3])
        batch["semantic"] = labels.astype(np.uint8)
    if config.keypoint_head:
        batch["keypoints"] = np.zeros((*batch["classes"].shape, len(KEYPOINTS), 3), np.float32)
        batch["keypoints"][0, 0] = [[10, 8, 2], [16, 20, 1], [0, 0, 0]]
        batch["keypoints"][0, 1] = [[30, 40, 2], [50, 60, 2], [25, 35, 1]]
    return batch


def _shrunk(config):
    config.categories = [Category(3, "person", KEYPOINTS if config.keypoint_head else []), Category(17, "chair")]
    if not config.backbone.application:
        config.pixel_mean, config.pixel_std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    config.resize.min_size, config.resize.max_size = 64, 96
    backbone, rpn = config.backbone, config.rpn
    if backbone.depth >= 50 and not backbone.application:
        backbone.depth, backbone.width_per_group = 50, 32 if backbone.groups == 1 else backbone.width_per_group // 4
    config.fpn.channels, config.rois.batch_per_image = 32, 8
    rpn.anchor_sizes, rpn.channels = [size / 8 for size in rpn.anchor_sizes], 32
    rpn.batch_per_image, rpn.pre_nms_train, rpn.pre_nms_test, rpn.post_nms_train, rpn.post_nms_test = 64, 40, 40, 20, 10
    config.box_head.channels, config.box_head.conv_channels = 16, 32
    for head in (config.mask_head, config.keypoint_head, config.semantic_head):
        if head:
            head.channels = 32
    if config.semantic_head:
        config.stuff = [Category(101, "sky"), Category(140, "sea")]
    config.detections.max_per_image, config.detections.score_threshold = 5, 0.01
    return config
