"""Networks of keras.applications as backbones: ResNets' files of all Keras versions, and any network's own features."""

import h5py
import keras
import numpy as np
import pytest
from tiny import tiny_config

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import BackboneConfig
from mrcnn_tf.model.backbones.resnet import ResNet
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights import keras_applications
from mrcnn_tf.weights.facts import Facts, nest
from mrcnn_tf.weights.keras_applications import (
    convert_network,
    download_network,
    feature_network,
    make_network,
    pixel_scale,
    stable_layer_names,
)
from mrcnn_tf.weights.pretrained import PretrainedWeights

STAGES = ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out")


@pytest.fixture(scope="module")
def classifier():
    """keras.applications.ResNet50 with its top, random biases and batch norm statistics."""
    model = keras.applications.ResNet50(weights=None, classes=5, include_top=True)
    rng = np.random.default_rng(3)
    for layer in model.layers:
        for weight in layer.weights:
            low, high = {"gamma": (0.5, 1.0), "moving_variance": (0.5, 2.0)}.get(weight.name, (-0.3, 0.3))
            if weight.name != "kernel":
                weight.assign(rng.uniform(low, high, weight.shape))
    return model


@pytest.fixture(scope="module")
def tensors(classifier):
    return keras_applications.model_tensors(classifier)


@pytest.fixture(scope="module")
def converted(tensors):
    return keras_applications.convert(tensors, Facts(), {})


def test_equal_feature_maps(classifier, converted):
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 96, 128, 3)).astype(np.float32)
    theirs = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(96, 128, 3))
    theirs.set_weights(classifier.get_weights()[:-2])
    taps = keras.Model(theirs.input, [theirs.get_layer(name).output for name in STAGES])
    expected = taps(keras.applications.resnet50.preprocess_input(pixels.copy()))
    settings = nest({name: fact.value for name, fact in converted.facts.items()})["model"]
    ours = ResNet(
        settings["backbone"]["depth"],
        stride_in_1x1=settings["backbone"]["stride_in_1x1"],
        epsilon=settings["conventions"]["batch_norm_epsilon"],
        name="backbone",
    )
    ours.build((None, None, None, 3))
    assert {weight.path for weight in ours.weights} == set(converted.arrays)
    for weight in ours.weights:
        weight.assign(converted.arrays[weight.path])
    maps = ours((pixels - settings["pixel_mean"]) / settings["pixel_std"])
    for found, wanted in zip(maps.values(), expected, strict=True):
        assert np.ptp(wanted) > 0.5
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.max(np.abs(wanted)))


def test_report(converted):
    assert converted.unknown == [] and converted.config is None and converted.categories is None
    assert set(converted.skipped) == {"predictions/kernel", "predictions/bias"}
    assert converted.conversions["backbone/stem/kernel"] == "BGR to RGB"
    assert "bias" in converted.conversions["backbone/res2_0/shortcut/moving_mean"]
    assert len(converted.conversions) == 1 + 53


def _datasets(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None)
    return found


@pytest.mark.parametrize("name", ["model.h5", "model.weights.h5"])
def test_files_of_keras_3(classifier, converted, tmp_path, name):
    save = classifier.save_weights if "weights" in name else classifier.save
    save(tmp_path / name)
    found = _datasets(tmp_path / name)
    assert keras_applications.matches(found)
    _assert_same(keras_applications.convert(found, Facts(), {}), converted)


def test_file_of_keras_2(tensors, converted):
    found = {}
    for name, array in tensors.items():
        layer, weight = name.split("/")
        found[f"{layer}/{layer}/{weight}:0"] = array
    assert keras_applications.matches(found)
    _assert_same(keras_applications.convert(found, Facts(), {}), converted)


def _old_layer(layer):
    """Such as res3b_branch2a for conv3_block2_1_conv."""
    if layer in ("conv1_conv", "conv1_bn", "predictions"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn_conv1", "predictions": "fc1000"}[layer]
    stage, block, branch, kind = layer.split("_")
    branch = {"0": "1", "1": "2a", "2": "2b", "3": "2c"}[branch]
    letter = "abcdef"[int(block.removeprefix("block")) - 1]
    return f"{'res' if kind == 'conv' else 'bn'}{stage.removeprefix('conv')}{letter}_branch{branch}"


KERAS_1 = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}


@pytest.mark.parametrize("first_keras", [True, False])
def test_old_names(tensors, converted, first_keras):
    found = {}
    for name, array in tensors.items():
        layer, weight = name.split("/")
        layer = _old_layer(layer)
        last = f"{layer}_{KERAS_1.get(weight, weight)}_1:0" if first_keras else f"{layer}/{weight}:0"
        found[f"{layer}/{last}"] = array
    assert keras_applications.matches(found)
    old = keras_applications.convert(found, Facts(), {})
    assert old.facts.value("model.conventions.batch_norm_epsilon") == 1e-3
    _assert_same(old, converted, settings=False)


def _assert_same(found, wanted, settings=True):
    assert found.arrays.keys() == wanted.arrays.keys()
    for path, array in found.arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, wanted.arrays[path], err_msg=path)
    assert found.unknown == [] and len(found.skipped) == 2
    assert not settings or found.facts == wanted.facts


@pytest.mark.parametrize("depth, blocks", [(101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))])
def test_depths(depth, blocks):
    layers = [(stage, block + 1) for stage, count in enumerate(blocks, start=2) for block in range(count)]
    tensors = {f"conv{stage}_block{block}_3_conv/kernel:0": np.zeros((1, 1, 1, 1)) for stage, block in layers}
    assert keras_applications.convert(tensors, Facts(), {}).facts.value("model.backbone.depth") == depth


def test_half_a_network_is_refused(tensors):
    half = {name: array for name, array in tensors.items() if not name.startswith("conv4")}
    with pytest.raises(UserError, match="3, 4, 0, 3 blocks"):
        keras_applications.convert(half, Facts(), {})


def test_nested_model(classifier, tensors):
    outer = keras.Sequential([keras.Input((224, 224, 3)), classifier])
    assert keras_applications.model_tensors(outer).keys() == tensors.keys()


def test_what_is_unknown(tensors):
    extra = {"my_head/my_head/kernel:0": np.zeros(3), "optimizer/vars/3": np.zeros(3)}
    found = keras_applications.convert(tensors | extra, Facts(), {})
    assert found.unknown == ["my_head/my_head/kernel:0"]
    assert found.skipped["optimizer/vars/3"] == "the optimizer's state"


@pytest.mark.parametrize(
    "names",
    [
        ["conv1/conv1/kernel:0", "bn_conv1/bn_conv1/gamma:0", "rpn_model/rpn_class_raw/kernel:0"],
        ["conv1/conv1/kernel:0", "bn_conv1/bn_conv1/gamma:0", "mrcnn_bbox_fc/mrcnn_bbox_fc/kernel:0"],
        ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight"],
        ["layers/conv2d/vars/0", "layers/batch_normalization/vars/0"],
        ["conv1_conv/kernel", "post_bn/gamma"],  # ResNet v2 normalises elsewhere
        [],
    ],
)
def test_other_formats_are_not_recognised(names):
    assert not keras_applications.matches({name: np.zeros((3, 3)) for name in names})


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
    network, model = download_network(application), MaskRCNN.from_settings(config)
    report = model.load_pretrained(
        PretrainedWeights("imagenet", "keras.applications", convert_network(network, application, TAPS[application])),
        verbose=False,
    )
    in_backbone = {path for path in report.loaded if path.startswith("backbone/")}
    assert len(in_backbone) == len(model.features.backbone.weights)

    mean, std, bgr = pixel_scale(application)
    pixels = np.random.default_rng(1).uniform(0, 255, (1, 32, 64, 3)).astype(np.float32)
    ours = model.features.backbone((pixels - np.float32(mean)) / np.float32(std))
    names = stable_layer_names(network)
    outputs = {names[operation.name]: operation.output for operation in network.operations}
    plain = keras.Model(network.input, [outputs[tap] for tap in TAPS[application]])
    scaled = pixels[..., ::-1] - np.float32(mean[::-1]) if bgr else (pixels - np.float32(mean)) / np.float32(std)
    for features, expected in zip(ours.values(), plain(scaled), strict=True):
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
    assert found.facts.value("model.pixel_mean") == [127.5] * 3


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
