"""Backbones of keras.applications: Keras's own features, indifference to padding, freezing, saving, and mistakes."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.backbones.application import ApplicationBackbone, HardSwish
from mrcnn_tf.model.backbones.padding_layers import ImageAveragePooling
from mrcnn_tf.ops.native.library import static_shapes
from mrcnn_tf.ops.padding import running_batch

# The last block of each stage before the next halves its map.
TAPS = {
    "MobileNetV3Small": [
        "expanded_conv_project_bn", "expanded_conv_2_add", "expanded_conv_7_add", "expanded_conv_10_add",
    ],
    "MobileNetV3Large": ["expanded_conv_2_add", "expanded_conv_5_add", "expanded_conv_11_add", "expanded_conv_14_add"],
    "EfficientNetB0": ["block2b_add", "block3b_add", "block5c_add", "block7a_project_bn"],
    "EfficientNetV2B0": ["block2b_add", "block3b_add", "block5e_add", "block6h_add"],
    "ResNet50": ["conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"],
    "DenseNet121": ["pool2_relu", "pool3_relu", "pool4_relu", "relu"],
    "ConvNeXtTiny": ["add_2", "add_5", "add_14", "add_17"],
}  # fmt: skip
SMALL, SMALL_TAPS = "MobileNetV3Small", TAPS["MobileNetV3Small"]
PLAIN_TAPS = ["conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"]  # of MobileNet


def built(application=SMALL, taps=SMALL_TAPS, **settings):
    layer = ApplicationBackbone(application, taps, name="backbone", **settings)
    layer.build((None, None, None, 3))
    return layer


def run(backbone, images, padded_size, **options):
    """Its maps by name, as a model that runs on a batch of `images` of `padded_size` gets them."""
    with running_batch(images, padded_size):
        return backbone(images, **options)


def randomize(weights):
    """Statistics and shifts that aren't neutral, so that padding wouldn't stay zero."""
    random = np.random.default_rng(0)
    for weight in weights:
        if weight.name in ("beta", "bias", "mean", "moving_mean"):
            weight.assign(random.normal(0, 0.2, weight.shape))
        elif weight.name in ("gamma", "variance", "moving_variance"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))


def plain_twin(backbone, application, taps):
    """keras.applications' network with the backbone's weights, found by their paths, and the taps as its outputs."""
    keras.utils.clear_session()  # Keras numbers names from the first again
    options = {"include_preprocessing": False} if application.startswith("MobileNetV3") else {}
    network = getattr(keras.applications, application)(
        include_top=False, weights=None, input_shape=(None, None, 3), **options
    )
    weights, layers = {weight.path: weight for weight in backbone.weights}, []
    for layer in network.layers:
        layers += layer.layers if isinstance(layer, keras.Sequential) else [layer]
    for layer in layers:
        for weight in layer.weights:
            kind = "gamma" if layer.name.endswith("layer_scale") else weight.name
            if (path := f"backbone/{layer.name}/{kind}") in weights:
                weight.assign(weights.pop(path))
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    assert not weights
    outputs = {operation.name: operation.output for operation in network.operations}
    return keras.Model(network.input, [outputs[tap] for tap in taps])


def largest(features):
    return float(np.abs(features).max())


def images_of(*shape):
    """Pixels; the networks with preprocessing of their own expect such values."""
    return np.random.default_rng(1).uniform(0, 255, (*shape, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)  # by rare chance all units of a squeeze are dead, and nothing reaches its kernel
    backbone = built(freeze_at=0)
    randomize(backbone.weights)
    return backbone


@pytest.mark.parametrize("application", TAPS)
def test_features_are_kerass_own_and_dont_depend_on_padding(application):
    backbone = built(application, TAPS[application])
    randomize(backbone.weights)
    own = images_of(1, 64, 96)
    alone = backbone(own)
    expected_maps = plain_twin(backbone, application, TAPS[application])(own)
    assert list(alone) == ["C2", "C3", "C4", "C5"] == list(backbone.strides)
    for ours, expected, stride in zip(alone.values(), expected_maps, (4, 8, 16, 32), strict=True):
        assert ours.shape[1:3] == (64 // stride, 96 // stride)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * largest(expected))
    shapes = {name: (None, None, None, features.shape[-1]) for name, features in alone.items()}
    assert backbone.compute_output_shape((None, None, None, 3)) == shapes

    batch = images_of(2, 128, 128)  # other pixels stand in the first image's padding
    batch[0, :64, :96] = own[0]
    together = run(backbone, batch, tf.constant([[64, 96], [128, 128]]))
    for name, expected in alone.items():
        padded = together[name]
        height, width = expected.shape[1:3]
        np.testing.assert_allclose(padded[:1, :height, :width], expected, rtol=1e-3, atol=1e-5 * largest(expected))


def test_an_image_that_fills_the_batch_stays_as_it_is(small):
    images = images_of(2, 64, 64)
    together = run(small, images, tf.constant([[32, 64], [64, 64]]))
    for name, expected in small(images[1:]).items():
        np.testing.assert_allclose(together[name][1:], expected, rtol=1e-3, atol=1e-5 * largest(expected))


def test_without_padded_sizes_the_padding_would_matter(small):
    own, batch = images_of(1, 32, 32), np.zeros((1, 64, 64, 3), np.float32)
    batch[:, :32, :32] = own
    alone, padded = small(own)["C2"], small(batch)["C2"][:, :8, :8]
    assert largest(alone - padded) > 0.01 * largest(alone)


@pytest.mark.parametrize("keepdims", [False, True])
def test_the_average_is_that_of_the_valid_cells(keepdims):
    features = np.random.default_rng(2).normal(size=(2, 4, 6, 3)).astype(np.float32)
    pooling = ImageAveragePooling(keepdims=keepdims)
    with running_batch(tf.zeros([2, 64, 96, 3]), tf.constant([[32, 96], [64, 48]])):
        found = pooling(features)
    expected = [features[0, :2].mean((0, 1)), features[1, :, :3].mean((0, 1))]
    np.testing.assert_allclose(found, np.reshape(expected, (2, 1, 1, 3) if keepdims else (2, 3)), rtol=1e-5)
    np.testing.assert_allclose(np.reshape(pooling(features), (2, 3)), features.mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("freeze_at, first", [(0, 0), (1, 1), (2, 4), (3, 6), (5, 14)])
def test_freezing_holds_what_leads_to_a_level(freeze_at, first):
    """MobileNet is a convolution and 13 pairs of depthwise and pointwise ones; level n is after pair 3, 5, 11, 13."""
    learned = [weight.path for weight in built("MobileNet", PLAIN_TAPS, freeze_at=freeze_at).trainable_weights]
    expected = ["backbone/conv1/kernel"] if first == 0 else []
    for pair in range(max(first, 1), 14):
        expected += [f"backbone/conv_dw_{pair}/kernel", f"backbone/conv_pw_{pair}/kernel"]
    assert learned == expected


def test_gradients_reach_every_convolution(small):
    with tf.GradientTape() as tape:
        maps = run(small, images_of(1, 64, 64) / 255, tf.constant([[32, 64]]), training=True)
        total = tf.add_n([tf.reduce_sum(features**2) for features in maps.values()])
    slopes = tape.gradient(total, small.trainable_weights)
    assert small.trainable_weights[0].path == "backbone/conv/kernel"
    assert all(slope is not None and np.isfinite(slope).all() and np.any(slope) for slope in slopes)


def test_training_changes_nothing_but_what_is_learned(small):
    images = images_of(1, 32, 32)
    before = [weight.numpy() for weight in small.weights]
    trained = small(images, training=True)
    for name, plain in small(images).items():
        np.testing.assert_array_equal(trained[name], plain)
    for weight, value in zip(small.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_saved_model_gives_the_same_features(small, tmp_path):
    images = keras.Input((None, None, 3))
    model = keras.Model(images, small(images))
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    pixels = images_of(1, 32, 32)
    found, wanted = copy(pixels), model(pixels)
    assert found.keys() == wanted.keys()
    for name, expected in wanted.items():
        np.testing.assert_array_equal(found[name], expected)
    (layer,) = (layer for layer in copy.layers if isinstance(layer, ApplicationBackbone))
    assert layer.get_config() == small.get_config()
    assert [weight.path for weight in layer.weights] == [weight.path for weight in small.weights]


def test_bfloat16_runs(small):
    network = built(dtype="mixed_bfloat16")
    network.set_weights(small.get_weights())
    images = images_of(1, 64, 64) / 127.5 - 1
    padded_size = tf.constant([[32, 64]])
    maps, exact = (run(each, images, padded_size) for each in (network, small))
    assert {features.dtype for features in maps.values()} == {tf.bfloat16}
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in network.weights} == {"float32"}
    for name, expected in exact.items():
        np.testing.assert_allclose(tf.cast(maps[name], tf.float32), expected, rtol=0, atol=0.1 * largest(expected))


def test_a_traced_function_takes_images_of_any_size(small):
    function = tf.function(
        lambda images, padded_size: run(small, images, padded_size),
        input_signature=[tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, 2], tf.int32)],
    )
    for size in (32, 64):
        images, padded_size = images_of(2, 64, size), tf.constant([[32, 32], [64, size]])
        traced = function(images, padded_size)
        for name, eager in run(small, images, padded_size).items():
            np.testing.assert_allclose(traced[name], eager, rtol=1e-4, atol=1e-5 * largest(eager))


def test_hard_swish_is_kerass_and_by_hand():
    points = np.float32([-9, -3, -1.5, 0, 1, 3, 7])
    expected = [0, 0, -1.5 * 1.5 / 6, 0, 4 / 6, 3, 7]
    many = np.linspace(-5, 5, 1001, dtype=np.float32)
    for context in (contextlib.nullcontext, static_shapes):
        with context():
            np.testing.assert_allclose(HardSwish()(points), expected, rtol=1e-6)
            np.testing.assert_allclose(HardSwish()(many), keras.activations.hard_silu(many), rtol=1e-6, atol=1e-6)


def test_a_copied_network_has_the_hard_swish_that_exports(small):
    assert any(isinstance(one, HardSwish) for one in small._flatten_layers())
    assert not any(getattr(one, "activation", None) is keras.activations.hard_silu for one in small._flatten_layers())
