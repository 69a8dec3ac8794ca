"""Backbones in transformers' layout: its own ResNet, and timm's in its wrappers."""

import json

import numpy as np
import parity
import pytest
from golden import made_up
from torch_writer import save_torch

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights import torchvision
from mrcnn_tf.weights.facts import Facts, Origin
from mrcnn_tf.weights.hugging_face import BEYOND, convert, matches
from mrcnn_tf.weights.pretrained import read_pretrained

SEED, IMAGE = 33, (96, 128, 32)
SMALL_HEADS = ["model.fpn.channels=8", "model.box_head.channels=8", "model.mask_head={channels: 8, convs: 1}"]


@pytest.mark.parametrize(
    ("name", "beyond"), [("resnet_50", "classifier.1.weight"), ("detr_resnet_18", "class_labels_classifier.weight")]
)
def test_feature_maps_are_those_of_transformers(name, beyond, tmp_path):
    shapes = json.loads((parity.GOLDEN / "hugging_face.json").read_text())[name]
    recorded = np.load(parity.GOLDEN / "hugging_face.npz")
    save_torch(tmp_path / "x.bin", made_up.weights(shapes, SEED, 0.0))
    depth = name.rpartition("_")[2]
    config = load_config("mask_rcnn_r50_fpn", [f"model.backbone.depth={depth}", *SMALL_HEADS]).model
    config.categories = [Category(1, "thing")]
    model = MaskRCNN.from_settings(config)
    report = model.load_pretrained(tmp_path / "x.bin", verbose=False)
    assert report.skipped[beyond] == BEYOND
    image = made_up.image(*IMAGE).astype(np.float32)[None]
    maps = model.features.backbone(model.preprocess.normalize(image, np.array([image.shape[1:3]])))
    stages = {key.split("/")[1]: recorded[key] for key in recorded.files if key.startswith(f"{name}/")}
    for level, features in maps.items():
        assert parity.difference(level, features.numpy()[0], stages) <= 1e-4


def resnet(prefix=""):
    """The names of timm's ResNet-10, with tensors of one element that are all different."""
    names = ["conv1.weight", *(f"bn1.{part}" for part in ("weight", "bias", "running_mean", "running_var"))]
    for stage in range(1, 5):
        for conv in (1, 2):
            names.append(f"layer{stage}.0.conv{conv}.weight")
            names += [f"layer{stage}.0.bn{conv}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    shape = {name: (1, 1, 1, 1) if "conv" in name else (1,) for name in names}
    return {prefix + name: np.full(shape[name], value, np.float32) for value, name in enumerate(names)}


@pytest.mark.parametrize(
    "prefix",
    ["timm_model.", "_backbone.", "backbone._backbone.", "model.backbone.conv_encoder.model.", "model.backbone.model."],
)
def test_every_wrapper_of_timm_gives_the_same_weights(prefix):
    facts = Facts()
    tensors = resnet(prefix) | {"other.weight": np.zeros(1)}
    assert matches(tensors)
    found, expected = convert(tensors, facts, {}), torchvision.convert(resnet(), Facts(), {})
    assert found.arrays.keys() == expected.arrays.keys() and not found.unknown
    for path, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[path], array)
    assert found.skipped == {"other.weight": BEYOND} and found.config is None
    stride = facts["model.backbone.stride_in_1x1"]
    assert (stride.value, stride.origin) == (False, Origin.LIBRARY)
    assert facts["model.pixel_std"].origin is Origin.ASSUMPTION


@pytest.mark.parametrize(
    "names",
    [
        ["embedder.embedder.convolution.weight"],
        ["timm_model.conv1.0.weight", "timm_model.layer1.0.conv1.weight"],  # a deep stem
        [*resnet("a.timm_model."), *resnet("b.timm_model.")],
        [
            "resnet.embedder.embedder.0.convolution.weight",
            "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
        ],
        ["backbone.conv1.weight", "backbone.layer1.0.conv1.weight"],  # mmdetection's
    ],
)
def test_names_of_other_models_are_not_taken_for_these(names):
    assert not matches(dict.fromkeys(names, np.zeros(1)))


def test_what_a_backbone_has_beside_is_named_as_in_the_file(tmp_path):
    save_torch(
        tmp_path / "x.bin", resnet("timm_model.") | {"timm_model.layer1.0.se.fc1.weight": np.zeros((1, 1, 1, 1))}
    )
    assert read_pretrained(tmp_path / "x.bin").converted.unknown == ["timm_model.layer1.0.se.fc1.weight"]
    save_torch(tmp_path / "x.bin", {"other.a": np.zeros(1), "other.b": np.zeros(1)})
    with pytest.raises(UserError, match=r"its tensors are named other\.a, other\.b, \.\.\. at its top level"):
        read_pretrained(tmp_path / "x.bin")
