"""ImageNet weights of keras.applications in a backbone: Keras's own features, from its own pixel scale."""

import keras
import numpy as np
import pytest
from tiny import tiny_config

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import BackboneConfig
from mrcnn_tf.model.backbones.application import stable_names
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights.applications import convert, download, pixel_scale
from mrcnn_tf.weights.source import Source

TAPS = {
    "MobileNetV3Small": [
        "expanded_conv_project_bn", "expanded_conv_2_add", "expanded_conv_7_add", "expanded_conv_10_add",
    ],
    "EfficientNetB0": ["block2b_add", "block3b_add", "block5c_add", "block7a_project_bn"],
    "VGG16": ["block3_conv3", "block4_conv3", "block5_conv3", "block5_pool"],
    "ConvNeXtTiny": ["add_2", "add_5", "add_14", "add_17"],
}  # fmt: skip


@pytest.fixture
def offline(monkeypatch):
    """Keras makes its networks for ImageNet weights and leaves them random, batch norms and statistics too."""
    random = np.random.default_rng(0)

    def load_weights(network, *args, **kwargs):
        for weight in network.weights:
            if weight.name in ("beta", "moving_mean", "mean"):
                weight.assign(random.normal(0, 0.2, weight.shape))
            elif weight.name in ("gamma", "moving_variance", "variance") or weight.path.count("layer_scale"):
                weight.assign(random.uniform(0.5, 1.5, weight.shape))
        for layer in network.layers:
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *args, **kwargs: "nowhere.h5")
    monkeypatch.setattr(keras.Model, "load_weights", load_weights)


@pytest.mark.parametrize("application", TAPS)
def test_the_backbone_gives_kerass_features(offline, application):
    config = tiny_config("frozen_bn")
    config.backbone = BackboneConfig(application=application, taps=TAPS[application])
    network, model = download(application), MaskRCNN(config)
    report = model.load_pretrained(
        Source("imagenet", "", convert(network, application, TAPS[application])), verbose=False
    )
    in_backbone = {path for path in report.loaded if path.startswith("backbone/")}
    assert len(in_backbone) == len(model.backbone.weights)

    mean, std, bgr = pixel_scale(application)
    pixels = np.random.default_rng(1).uniform(0, 255, (1, 32, 64, 3)).astype(np.float32)
    ours = model.backbone((pixels - np.float32(mean)) / np.float32(std))
    names = stable_names(network)
    outputs = {names[operation.name]: operation.output for operation in network.operations}
    plain = keras.Model(network.input, [outputs[tap] for tap in TAPS[application]])
    scaled = pixels[..., ::-1] - np.float32(mean[::-1]) if bgr else (pixels - np.float32(mean)) / np.float32(std)
    for features, expected in zip(ours, plain(scaled), strict=True):
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    "application, expected",
    [
        ("MobileNetV3Small", ([127.5] * 3, [127.5] * 3, False)),
        ("MobileNetV2", ([127.5] * 3, [127.5] * 3, False)),
        ("EfficientNetB0", ([0.0] * 3, [1.0] * 3, False)),
        ("DenseNet121", ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], False)),
        ("VGG16", ([123.68, 116.779, 103.939], [1.0] * 3, True)),
    ],
)
def test_pixel_scales_are_those_of_kerass_documentation(application, expected):
    assert tuple(pixel_scale(application)) == expected


def test_what_lies_beyond_c5_is_skipped(offline):
    found = convert(download("MobileNetV3Small"), "MobileNetV3Small", TAPS["MobileNetV3Small"])
    assert set(found.skipped.values()) == {"beyond C5"}
    assert {name.split("/")[0] for name in found.skipped} == {"conv_1", "conv_1_bn"}
    assert found.settings["pixel_mean"] == [127.5] * 3


def test_a_failed_download_is_a_sentence(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("URL fetch failure\nand a long story")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    with pytest.raises(UserError, match=r"ImageNet weights of MobileNetV3Small \(URL fetch failure\): go online"):
        download("MobileNetV3Small")


def test_an_unknown_network_is_named_as_such():
    with pytest.raises(UserError, match="no 'MobileNetV4'"):
        download("MobileNetV4")
