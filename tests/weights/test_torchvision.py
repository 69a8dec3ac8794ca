"""torchvision's classifiers as backbones give torchvision's feature maps; timm's share the names."""

import json

import numpy as np
import parity
import pytest
from golden import made_up
from torch_writer import read_first

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.load import load_config
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights.facts import Facts
from mrcnn_tf.weights.torchvision import convert

SEED, IMAGE = 31, (96, 128, 32)
SETTINGS = {"resnet18": (18, 1, 64), "resnext50_32x4d": (50, 32, 4), "wide_resnet50_2": (50, 1, 128)}
SMALL_HEADS = ["model.box_head.channels=8", "model.mask_head={channels: 8, convs: 1}"]


@pytest.mark.parametrize("name", SETTINGS)
def test_feature_maps_are_torchvisions(name, tmp_path):
    shapes = json.loads((parity.GOLDEN / "classifiers.json").read_text())[name]
    recorded = np.load(parity.GOLDEN / "classifiers.npz")
    path = tmp_path / "classifier.pth"
    parity.torch_writer.save_torch(path, made_up.weights(shapes, SEED, 0.0))
    found = convert(read_first(path), Facts(), {}).facts
    keys = ("depth", "groups", "width_per_group")
    assert (
        tuple(found.value(f"model.backbone.{key}", default) for key, default in zip(keys, (0, 1, 64), strict=True))
        == SETTINGS[name]
    )
    changes = [f"model.backbone.{key}={value}" for key, value in zip(keys, SETTINGS[name], strict=True)]
    config = load_config("mask_rcnn_r50_fpn", [*changes, *SMALL_HEADS]).model
    config.categories = [Category(1, "thing")]
    model = MaskRCNN.from_settings(config)
    report = model.load_pretrained(path, verbose=False)
    assert {"fc.weight", "fc.bias"} < set(report.skipped)
    image = made_up.image(*IMAGE).astype(np.float32)[None]
    maps = model.features.backbone(model.preprocess.normalize(image, np.array([image.shape[1:3]])))
    stages = {key.split("/")[1]: recorded[key] for key in recorded.files if key.startswith(f"{name}/")}
    assert list(maps) == ["C2", "C3", "C4", "C5"]
    for name, features in maps.items():
        assert parity.difference(name, features.numpy()[0], stages) <= 1e-4
