"""The backbone importer against keras.applications itself: the same feature maps from the same pixels."""

import h5py
import keras
import numpy as np
import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.backbones.resnet import ResNet
from mrcnn_tf.weights import keras_applications

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
    return keras_applications.convert(tensors)


def test_equal_feature_maps(classifier, converted):
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 96, 128, 3)).astype(np.float32)
    theirs = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(96, 128, 3))
    theirs.set_weights(classifier.get_weights()[:-2])
    taps = keras.Model(theirs.input, [theirs.get_layer(name).output for name in STAGES])
    expected = taps(keras.applications.resnet50.preprocess_input(pixels.copy()))
    settings = converted.settings
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
    for found, wanted in zip(maps, expected, strict=True):
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
    _assert_same(keras_applications.convert(found), converted)


def test_file_of_keras_2(tensors, converted):
    found = {}
    for name, array in tensors.items():
        layer, weight = name.split("/")
        found[f"{layer}/{layer}/{weight}:0"] = array
    assert keras_applications.matches(found)
    _assert_same(keras_applications.convert(found), converted)


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
    old = keras_applications.convert(found)
    assert old.settings["conventions"]["batch_norm_epsilon"] == 1e-3
    _assert_same(old, converted, settings=False)


def _assert_same(found, wanted, settings=True):
    assert found.arrays.keys() == wanted.arrays.keys()
    for path, array in found.arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, wanted.arrays[path], err_msg=path)
    assert found.unknown == [] and len(found.skipped) == 2
    assert not settings or found.settings == wanted.settings


@pytest.mark.parametrize("depth, blocks", [(101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))])
def test_depths(depth, blocks):
    layers = [(stage, block + 1) for stage, count in enumerate(blocks, start=2) for block in range(count)]
    tensors = {f"conv{stage}_block{block}_3_conv/kernel:0": np.zeros((1, 1, 1, 1)) for stage, block in layers}
    assert keras_applications.convert(tensors).settings["backbone"]["depth"] == depth


def test_half_a_network_is_refused(tensors):
    half = {name: array for name, array in tensors.items() if not name.startswith("conv4")}
    with pytest.raises(UserError, match="3, 4, 0, 3 blocks"):
        keras_applications.convert(half)


def test_nested_model(classifier, tensors):
    outer = keras.Sequential([keras.Input((224, 224, 3)), classifier])
    assert keras_applications.model_tensors(outer).keys() == tensors.keys()


def test_what_is_unknown(tensors):
    extra = {"my_head/my_head/kernel:0": np.zeros(3), "optimizer/vars/3": np.zeros(3)}
    found = keras_applications.convert(tensors | extra)
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
