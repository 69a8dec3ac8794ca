"""Networks of keras.applications and their ImageNet weights: Keras's own features, from its own pixel scale."""

import keras
import numpy as np
import pytest
from tiny import tiny_config

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import BackboneConfig
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights.keras_applications import (
    convert_network,
    download_network,
    feature_network,
    make_network,
    pixel_scale,
    stable_layer_names,
)
from mrcnn_tf.weights.pretrained import PretrainedWeights

TAPS = {
    "MobileNetV3Small": [
        "expanded_conv_project_bn", "expanded_conv_2_add", "expanded_conv_7_add", "expanded_conv_10_add",
    ],
    "EfficientNetB0": ["block2b_add", "block3b_add", "block5c_add", "block7a_project_bn"],
    "VGG16": ["block3_conv3", "block4_conv3", "block5_conv3", "block5_pool"],
    "ConvNeXtTiny": ["add_2", "add_5", "add_14", "add_17"],
}  # fmt: skip
SMALL = "MobileNetV3Small"


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
    network, model = download_network(application), MaskRCNN(config)
    report = model.load_pretrained(
        PretrainedWeights("imagenet", "", convert_network(network, application, TAPS[application])), verbose=False
    )
    in_backbone = {path for path in report.loaded if path.startswith("backbone/")}
    assert len(in_backbone) == len(model.backbone.weights)

    mean, std, bgr = pixel_scale(application)
    pixels = np.random.default_rng(1).uniform(0, 255, (1, 32, 64, 3)).astype(np.float32)
    ours = model.backbone((pixels - np.float32(mean)) / np.float32(std))
    names = stable_layer_names(network)
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
    found = convert_network(download_network("MobileNetV3Small"), "MobileNetV3Small", TAPS["MobileNetV3Small"])
    assert set(found.skipped.values()) == {"beyond C5"}
    assert {name.split("/")[0] for name in found.skipped} == {"conv_1", "conv_1_bn"}
    assert found.settings["pixel_mean"] == [127.5] * 3


def test_a_failed_download_is_a_sentence(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("URL fetch failure\nand a long story")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    with pytest.raises(UserError, match=r"ImageNet weights of MobileNetV3Small \(URL fetch failure\): go online"):
        download_network("MobileNetV3Small")


def test_an_unknown_network_is_named_as_such():
    with pytest.raises(UserError, match="no 'MobileNetV4'"):
        download_network("MobileNetV4")


def test_names_dont_depend_on_the_networks_before():
    keras.utils.clear_session()
    first, second = make_network(SMALL), make_network(SMALL)
    assert [layer.name for layer in first.layers] != [layer.name for layer in second.layers]
    assert all(name == own for name, own in stable_layer_names(first).items())
    assert list(stable_layer_names(second).values()) == list(stable_layer_names(first).values())


def test_unknown_networks_and_layers_are_named_with_similar_ones():
    with pytest.raises(UserError, match="no 'MobileNetV3small'.*MobileNetV3Small"):
        make_network("MobileNetV3small")
    network = make_network(SMALL)
    wrong = {
        "no layer 'expanded_conv_2_ad'.*expanded_conv_2_add": ["expanded_conv_project_bn", "expanded_conv_2_ad"],
        "'expanded_conv_2_add' of MobileNetV3Small has stride 8, and C2 needs stride 4": ["expanded_conv_2_add"],
        "'expanded_conv_squeeze_excite_conv' of MobileNetV3Small has stride 128": ["expanded_conv_squeeze_excite_conv"],
    }
    for message, taps in wrong.items():
        with pytest.raises(UserError, match=message):
            feature_network(network, SMALL, [*taps, *TAPS[SMALL][len(taps) :]])
    with pytest.raises(UserError, match="names 3 layers: name four of MobileNetV3Small, such as"):
        feature_network(network, SMALL, TAPS[SMALL][:3])


def test_the_layers_that_a_message_suggests_work():
    network = make_network(SMALL)
    with pytest.raises(UserError) as caught:
        feature_network(network, SMALL, [])
    suggested = str(caught.value).partition("such as ")[2].rstrip(".").split(", ")
    assert [output.shape[-1] for output in feature_network(network, SMALL, suggested).outputs] == [72, 96, 288, 576]


def test_a_network_that_loses_cells_at_the_borders_is_refused():
    images = keras.Input((None, None, 3))
    valid = keras.layers.Conv2D(4, 3, 2)
    same = keras.layers.Conv2D(4, 3, 2, padding="same")
    for outputs in (valid(images), keras.layers.Add()([valid(images), same(images)])):
        with pytest.raises(UserError, match="No layer of Xception has stride 4 exactly"):
            feature_network(keras.Model(images, outputs), "Xception", TAPS[SMALL])
