"""What keeps padding out of a network, and what tells whether it is out."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from averages import Averages

from mrcnn_tf.model.backbones.application import ApplicationBackbone, copy_without_padding
from mrcnn_tf.model.backbones.padding_layers import ClearPadding, ImageAveragePooling, padding_leaks, sees_neighbours
from mrcnn_tf.model.backbones.resnet import ResNet
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.model.necks import FPN, FeatureSpec, SingleMap

TAPS = ["conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"]


def randomize(layer):
    """Statistics and shifts that aren't neutral, so that padding wouldn't stay zero."""
    FeatureSpec.of(layer)  # makes the weights
    random = np.random.default_rng(0)
    for weight in layer.weights:
        if weight.name in ("beta", "bias", "moving_mean"):
            weight.assign(random.normal(0, 0.3, weight.shape))
        elif weight.name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return layer


def stack(clear=lambda features: features):
    """A Keras model of convolutions with padding "same": two that lead to C2, one more to C3."""
    images = features = keras.Input((None, None, 3))
    for filters, strides in ((4, 2), (6, 2)):
        features = keras.layers.Conv2D(filters, 3, strides, padding="same", activation="relu")(clear(features))
    c3 = keras.layers.Conv2D(8, 3, 2, padding="same")(clear(features))
    return keras.Model(images, {"C2": features, "C3": c3})


def pooled(pooling):
    """A Keras model whose cells are weighed by an average over the whole map."""
    images = keras.Input((None, None, 3))
    cells = keras.layers.AveragePooling2D(4)(images)
    return keras.Model(images, {"C2": cells, "C2 weighed": cells * (1 + pooling(keepdims=True)(cells))})


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **k: ResNet(10, **k),
        lambda **k: ResNet(10, norm="gn", **k),
        lambda **k: FPN(ResNet(10, **k), 32, **k),
        lambda **k: SingleMap(ResNet(10, **k), **k),
        lambda **k: ApplicationBackbone("MobileNet", TAPS, **k),
        lambda **k: FPN(ApplicationBackbone("MobileNet", TAPS, **k), 32, norm="frozen_bn", **k),
    ],
    ids=["resnet", "group norm", "fpn", "single map", "application", "fpn on application"],
)
def test_no_part_of_the_package_leaks(make, policy):
    assert padding_leaks(randomize(make(dtype=policy))) == {}


def test_convolutions_over_the_edge_leak_and_the_maps_are_named():
    """Also while all biases are 0 and a trained model's padding would be told from a new one's."""
    for network in (randomize(stack()), stack()):
        leaks = padding_leaks(network)
        assert set(leaks) == {"C2", "C3"} and all(0.01 < leak < 10 for leak in leaks.values())


def test_cleared_before_each_convolution_they_dont():
    assert padding_leaks(randomize(stack(lambda features: ClearPadding()(features)))) == {}


def test_a_copy_without_padding_doesnt_leak_and_has_the_same_features():
    network = randomize(stack())
    flat = keras.Model(network.input, [network.output["C2"], network.output["C3"]])
    copied = copy_without_padding(flat, {}, keras.dtype_policies.get("float32"))
    copied.set_weights(flat.get_weights())
    named = keras.Model(copied.input, dict(zip(("C2", "C3"), copied.outputs, strict=True)))
    assert padding_leaks(named) == {}
    images = np.random.default_rng(1).normal(size=(1, 64, 96, 3)).astype(np.float32)
    for ours, expected in zip(copied(images), flat(images), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_an_average_over_a_map_leaks_unless_it_is_the_images_own():
    assert set(padding_leaks(pooled(keras.layers.GlobalAveragePooling2D))) == {"C2 weighed"}
    assert padding_leaks(pooled(ImageAveragePooling)) == {}


def test_the_leak_is_a_share_of_the_maps_largest_value():
    """A map of ones, of which the batch's width takes away what a quarter of its height is: 192 / 4 - 128 / 4 of it."""

    class Wide(keras.layers.Layer):
        strides = {"even": 4, "wide": 4}

        def call(self, images):
            even = tf.ones_like(images[:, ::4, ::4])
            return {"even": even, "wide": 10 * even - tf.cast(tf.shape(even)[2] - 32, tf.float32) / 4}

    assert padding_leaks(Wide()) == {"wide": pytest.approx(4 / 10)}


def test_a_map_that_isnt_finite_leaks():
    class Bad(Averages):
        def call(self, images):
            return {name: cells / 0 for name, cells in super().call(images).items()}

    assert set(padding_leaks(Bad({"C2": 4}))) == {"C2"}


def test_a_model_warns_of_a_backbone_that_leaks_and_of_no_other():
    with pytest.warns(
        UserWarning, match=r"depend on the padding .*\(C3 by .*%, C4 by .*P3 by .*put mrcnn_tf.parts.Clear"
    ):
        MaskRCNN(FPN(eighth_and_sixteenth(), 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MaskRCNN(FPN(eighth_and_sixteenth(lambda features: ClearPadding()(features)), 8))
        MaskRCNN(FPN(ResNet(10), 8))


def eighth_and_sixteenth(clear=lambda features: features):
    """As `stack`, with strides of 8 and 16."""
    images = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(4, 3, 4, padding="same")(clear(images))
    c3 = keras.layers.Conv2D(4, 3, 2, padding="same")(clear(features))
    return keras.Model(images, {"C3": c3, "C4": keras.layers.Conv2D(4, 3, 2, padding="same")(clear(c3))})


@pytest.mark.parametrize(
    ("layer", "sees"),
    [
        (keras.layers.Conv2D(1, 3, padding="same"), True),
        (keras.layers.Conv2D(1, 3, 2, padding="same"), True),
        (keras.layers.DepthwiseConv2D(5, padding="same"), True),
        (keras.layers.Conv2D(1, 1, padding="same"), False),
        (keras.layers.Conv2D(1, 1, 2, padding="same"), False),
        (keras.layers.Conv2D(1, 4, 4, padding="same"), False),
        (keras.layers.Conv2D(1, 3, 2), False),  # what stands before it pads
        (keras.layers.ZeroPadding2D(1), True),
        (keras.layers.ReLU(), False),
    ],
)
def test_windows_see_neighbours_where_they_overlap(layer, sees):
    assert sees_neighbours(layer) == sees
