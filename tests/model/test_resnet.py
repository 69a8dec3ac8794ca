"""ResNet: shapes, torchvision's parameter counts, freezing, where the stride lies, and indifference to padding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.backbones.resnet import ResidualBlock, ResNet
from mrcnn_tf.model.necks import FPN
from mrcnn_tf.ops.padding import running_batch


def built(depth=18, **settings):
    layer = ResNet(depth, **settings)
    layer.build((None, None, None, 3))
    return layer


def layers_of(network):
    """The stem and the blocks, stage by stage."""
    return [[network.stem], *network.stages]


@pytest.fixture(scope="module")
def frozen_bn_network():
    """ResNet-18 whose frozen statistics are random, so that padding would not stay zero."""
    network, random = built(18), np.random.default_rng(0)
    for weight in network.non_trainable_weights:
        if weight.name in ("beta", "moving_mean"):
            weight.assign(random.normal(size=weight.shape) * 0.3)
        elif weight.name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return network


@pytest.mark.parametrize(
    ("depth", "parameters"), [(10, 4905792), (18, 11176512), (34, 21284672), (50, 23508032), (101, 42500160)]
)
def test_parameters_are_torchvisions(depth, parameters):
    """Without the classifier; gamma and beta count, moving statistics don't."""
    weights = built(depth).weights
    counted = [weight for weight in weights if weight.name in ("kernel", "gamma", "beta")]
    assert sum(int(np.prod(weight.shape)) for weight in counted) == parameters
    assert {weight.name for weight in weights} == {"kernel", "gamma", "beta", "moving_mean", "moving_variance"}
    assert len({weight.path for weight in weights}) == len(weights)


@pytest.mark.parametrize(("norm", "own"), [("gn", 0), ("bn", 2)])
def test_other_norms_have_the_same_learned_parameters(norm, own):
    """`own`: moving statistics for each normalisation."""
    network = built(18, norm=norm, freeze_at=0)
    assert sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) == 11176512
    assert (
        len(network.non_trainable_weights) == own * 20
    )  # convolutions of ResNet-18 without the classifier, shortcuts too


@pytest.mark.parametrize(("depth", "channels"), [(18, [64, 128, 256, 512]), (50, [256, 512, 1024, 2048])])
def test_strides_and_channels(depth, channels):
    network = built(depth)
    maps = network(np.zeros((1, 64, 96, 3), np.float32))
    assert list(maps) == ["C2", "C3", "C4", "C5"]
    assert [tuple(m.shape) for m in maps.values()] == [
        (1, 64 // s, 96 // s, c) for s, c in zip((4, 8, 16, 32), channels, strict=True)
    ]
    shapes = network.compute_output_shape((None, None, None, 3))
    assert {name: shape[-1] for name, shape in shapes.items()} == dict(zip(maps, channels, strict=True))
    assert network.strides == dict(zip(maps, (4, 8, 16, 32), strict=True))


@pytest.mark.parametrize(("in_1x1", "strides"), [(False, [1, 2, 1]), (True, [2, 1, 1])])
def test_stride_in_1x1_moves_the_stride(in_1x1, strides):
    network = built(50, stride_in_1x1=in_1x1)
    for row in network.stages[1:]:
        assert [conv.strides for conv in row[0].convs] == strides
        assert row[0].shortcut.strides == 2
    for block in [*network.stages[0], *(block for row in network.stages for block in row[1:])]:
        assert all(conv.strides == 1 for conv in block.convs)


def test_the_first_block_projects_only_where_it_must():
    assert [row[0].shortcut is not None for row in built(18).stages] == [False, True, True, True]
    assert [row[0].shortcut is not None for row in built(50).stages] == [True] * 4


@pytest.mark.parametrize("norm", ["frozen_bn", "gn", "bn"])
@pytest.mark.parametrize("freeze_at", [0, 1, 2, 5])
def test_freezing_holds_exactly_those_stages(norm, freeze_at):
    network = built(18, norm=norm, freeze_at=freeze_at)
    for position, row in enumerate(layers_of(network)):
        for layer in row:
            learned = [weight.name for weight in layer.trainable_weights]
            if position < freeze_at:
                assert learned == []
            else:
                assert "kernel" in learned and ("gamma" in learned) == (norm != "frozen_bn")


def test_gradients_reach_exactly_what_is_not_frozen():
    network = built(18, freeze_at=2)
    with tf.GradientTape() as tape:
        maps = network(np.ones((1, 32, 32, 3), np.float32), training=True)
        total = tf.add_n([tf.reduce_sum(m**2) for m in maps.values()])
    slopes = tape.gradient(total, network.trainable_weights)
    assert all(slope is not None for slope in slopes)
    paths = {weight.path for weight in network.trainable_weights}
    assert not any("stem" in path or "res2" in path for path in paths)
    assert len(paths) == 15  # 2 x 2 convolutions and a projection in each of res3 to res5


def test_statistics_of_frozen_stages_dont_move_in_training():
    network = built(18, norm="bn", freeze_at=2)
    before = {weight.path: weight.numpy() for weight in network.weights}
    network(np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32), training=True)
    moved = {weight.path for weight in network.weights if not np.array_equal(weight, before[weight.path])}
    assert not any("stem" in path or "res2" in path for path in moved)
    statistics = {w.path for row in layers_of(network)[2:] for block in row for w in block.non_trainable_weights}
    assert moved == statistics


def test_a_block_adds_its_input():
    block = ResidualBlock(4, 4, False, 1, False, False, 1, "frozen_bn", 1e-5)
    block.build((None, None, None, 4))
    block.convs[-1].kernel.assign(tf.zeros_like(block.convs[-1].kernel))
    inputs = np.random.default_rng(0).normal(size=(1, 5, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(block(inputs), np.maximum(inputs, 0))


def test_the_network_equals_the_same_network_of_keras_layers(frozen_bn_network):
    """Convolutions padded by torch's rule, batch norms, and the pooling with its border of one, written out plainly."""
    images = np.random.default_rng(1).normal(size=(1, 64, 32, 3)).astype(np.float32)

    def conv(inputs, layer):
        pad = (layer.kernel_size - 1) // 2
        inputs = tf.pad(inputs, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        outputs = tf.nn.conv2d(inputs, layer.kernel, layer.strides, "VALID")
        norm = [layer.moving_mean, layer.moving_variance, layer.beta, layer.gamma]
        return tf.nn.batch_normalization(outputs, *norm, layer.epsilon)

    outputs = tf.nn.relu(conv(images, frozen_bn_network.stem))
    outputs = tf.pad(outputs, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
    outputs, expected = tf.nn.max_pool2d(outputs, 3, 2, "VALID"), []
    for row in frozen_bn_network.stages:
        for block in row:
            branch = conv(tf.nn.relu(conv(outputs, block.convs[0])), block.convs[1])
            outputs = tf.nn.relu(branch + (conv(outputs, block.shortcut) if block.shortcut else outputs))
        expected.append(outputs)
    for ours, wanted in zip(frozen_bn_network(images).values(), expected, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-4 * float(tf.reduce_max(tf.abs(wanted))))


@pytest.fixture(scope="module", params=["frozen_bn", "gn"])
def pyramid(request, frozen_bn_network):
    network = frozen_bn_network if request.param == "frozen_bn" else built(18, norm="gn")
    fpn = FPN(network, 8)
    fpn.build(None)
    random = np.random.default_rng(2)
    for conv in [*fpn.lateral, *fpn.output_convs]:
        conv.bias.assign(random.normal(size=conv.bias.shape))

    def levels(images, padded_size=None):
        with running_batch(images, padded_size):
            maps = fpn(images)
        return [maps[name] for name in ("P2", "P3", "P4", "P5", "P6")]

    return levels


@pytest.mark.parametrize(
    ("size", "batch"),
    [((32, 32), (64, 96)), ((64, 32), (64, 96)), ((32, 96), (96, 96)), ((96, 64), (128, 64)), ((64, 96), (64, 96))],
)
def test_features_dont_depend_on_the_padding(pyramid, size, batch):
    """An image in a batch of its own, and the same one in a larger batch beside another."""
    random = np.random.default_rng(3)
    own = random.normal(size=(1, *size, 3)).astype(np.float32)
    padded = np.zeros((2, *batch, 3), np.float32)
    padded[0, : size[0], : size[1]], padded[1] = own[0], random.normal(size=(*batch, 3))
    alone, together = pyramid(own), pyramid(padded, tf.constant([size, batch]))
    for level, expected in zip(together, alone, strict=True):
        height, width = expected.shape[1:3]
        scale = float(tf.reduce_max(tf.abs(expected)))
        np.testing.assert_allclose(level[:1, :height, :width], expected, rtol=1e-3, atol=1e-4 * scale)
        beyond = level.numpy()[0]
        beyond[:height, :width] = 0
        assert not beyond.any()
    for level, expected in zip(together, pyramid(padded[1:]), strict=True):
        np.testing.assert_allclose(level[1:], expected, rtol=1e-3, atol=1e-4 * float(tf.reduce_max(tf.abs(expected))))


def test_bfloat16_runs():
    network = built(18, dtype="mixed_bfloat16")
    images = np.ones((1, 32, 32, 3), np.float32)
    with running_batch(images, tf.constant([[32, 32]])):
        maps = network(images)
    assert {m.dtype for m in maps.values()} == {tf.bfloat16}
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in network.weights} == {"float32"}
