"""Necks: the pyramid against the FPN paper's recipe written out plainly, other strides, a single map, and what they
are made of."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from averages import Averages

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.backbones.resnet import ResNet
from mrcnn_tf.model.necks import FPN, FeatureSpec, SingleMap, upsample
from mrcnn_tf.ops.native.library import static_shapes
from mrcnn_tf.ops.padding import running_batch

BACKBONE = {"C2": 4, "C3": 8, "C4": 16, "C5": 32}
STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32, "P6": 64}


@keras.saving.register_keras_serializable("tests")
class Maps(keras.layers.Layer):
    """A backbone whose maps have 3 to 6 channels."""

    strides = BACKBONE

    def call(self, images, training=False):
        pooled = {name: keras.ops.average_pool(images, stride, stride) for name, stride in self.strides.items()}
        return {name: tf.pad(pooled[name], [[0, 0]] * 3 + [[0, extra]]) for extra, name in enumerate(pooled)}


@pytest.fixture(scope="module")
def maps():
    random = np.random.default_rng(0)
    shapes = {name: (2, 64 // s, 96 // s, c) for c, (name, s) in enumerate(BACKBONE.items(), 3)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def fpn():
    layer = FPN(Maps(), 7)
    layer.build(None)
    random = np.random.default_rng(1)
    for conv in [*layer.lateral, *layer.output_convs]:
        conv.bias.assign(random.normal(size=conv.bias.shape))
    return layer


def levels_of(layer, maps, padded_size=None):
    """The levels P2 to P6 of a backbone's maps, in a batch of 64 x 96 pixels."""
    with running_batch(tf.zeros([2, 64, 96, 3]), padded_size):
        found = layer.from_maps(maps)
    assert all(found[name] is features for name, features in maps.items())  # which stay as they are
    return {name: found[name] for name in STRIDES}


def test_upsampling_repeats_each_cell():
    cells = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(upsample(cells), cells.repeat(2, axis=1).repeat(2, axis=2))


def test_upsampling_with_static_shapes_is_the_same_and_so_is_its_gradient():
    random = np.random.default_rng(0)
    cells, upstream = tf.constant(random.normal(size=(2, 3, 5, 4))), random.normal(size=(2, 6, 10, 4))

    def value_and_gradient():
        with tf.GradientTape() as tape:
            tape.watch(cells)
            outputs = upsample(cells)
        return outputs, tape.gradient(outputs, cells, upstream)

    plain = value_and_gradient()
    with static_shapes():
        static = value_and_gradient()
    np.testing.assert_array_equal(static[0], plain[0])
    np.testing.assert_allclose(static[1], plain[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(plain[1], upstream.reshape(2, 3, 2, 5, 2, 4).sum(axis=(2, 4)), atol=1e-12)


def test_levels_are_lateral_plus_upsampled_then_smoothed(fpn, maps):
    def conv(inputs, layer):
        return tf.nn.conv2d(inputs, layer.kernel, 1, "SAME") + layer.bias

    above, expected = None, []
    for features, lateral, output in reversed(list(zip(maps.values(), fpn.lateral, fpn.output_convs, strict=True))):
        merged = conv(features, lateral)
        if above is not None:
            merged += np.repeat(np.repeat(above, 2, axis=1), 2, axis=2)
        above = merged
        expected.insert(0, conv(merged, output))
    levels = levels_of(fpn, maps)
    for name, wanted in zip(["P2", "P3", "P4", "P5"], expected, strict=True):
        np.testing.assert_allclose(levels[name], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(levels["P6"], levels["P5"][:, ::2, ::2])


def test_shapes_of_five_levels(fpn, maps):
    # 96 / 64 is rounded up: C5 is 2x3, its subsample 1x2.
    assert {name: tuple(level.shape) for name, level in levels_of(fpn, maps).items()} == {
        "P2": (2, 16, 24, 7),
        "P3": (2, 8, 12, 7),
        "P4": (2, 4, 6, 7),
        "P5": (2, 2, 3, 7),
        "P6": (2, 1, 2, 7),
    }


def test_levels_are_zero_beyond_each_padded_size(fpn, maps):
    levels = levels_of(fpn, maps, tf.constant([[32, 64], [64, 96]]))
    for name, stride in STRIDES.items():
        first = levels[name].numpy()[0]
        height, width = -(-32 // stride), -(-64 // stride)
        assert first[:height, :width].all()
        first[:height, :width] = 0
        assert not first.any()
        assert levels[name].numpy()[1].all()


def test_beyond_the_padded_size_nothing_has_influence(fpn, maps):
    spoiled = {name: features.copy() for name, features in maps.items()}
    for name, stride in BACKBONE.items():
        spoiled[name][0, 32 // stride :], spoiled[name][0, :, 64 // stride :] = 1e3, -1e3
    cropped = {name: features[:1, : 32 // BACKBONE[name], : 64 // BACKBONE[name]] for name, features in maps.items()}
    found = levels_of(fpn, spoiled, tf.constant([[32, 64], [64, 96]]))
    for name, alone in levels_of(fpn, cropped).items():
        np.testing.assert_allclose(
            found[name][:1, : alone.shape[1], : alone.shape[2]], alone, rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_bfloat16_runs(maps):
    layer = FPN(Maps(), 7, dtype="mixed_bfloat16")
    layer.build(None)
    assert {level.dtype for level in levels_of(layer, maps).values()} == {tf.bfloat16}


def test_images_go_through_backbone_and_neck(fpn):
    images = np.random.default_rng(2).normal(size=(2, 64, 96, 3)).astype(np.float32)
    own = fpn.backbone(images)
    found, expected = fpn(images), levels_of(fpn, own)
    assert list(found) == [*BACKBONE, *STRIDES]
    for name, level in (own | expected).items():
        np.testing.assert_array_equal(found[name], level)


def test_a_pyramid_of_other_strides_names_its_levels_by_them():
    layer = FPN(Averages({"a": 8, "b": 16, "c": 32}, channels=6), 5)
    spec = FeatureSpec.of(layer)
    assert spec.strides == {"P3": 8, "P4": 16, "P5": 32, "P6": 64} and list(spec.strides) == ["P3", "P4", "P5", "P6"]
    assert spec.channels == dict.fromkeys(spec.strides, 5) and spec.roi_maps == ["P3", "P4", "P5"]
    assert [conv.name for conv in layer.lateral] == ["lateral3", "lateral4", "lateral5"]
    found = layer(tf.ones([1, 64, 128, 3]))
    assert {name: tuple(found[name].shape) for name in spec.strides} == {
        "P3": (1, 8, 16, 5),
        "P4": (1, 4, 8, 5),
        "P5": (1, 2, 4, 5),
        "P6": (1, 1, 2, 5),
    }
    # The finest level by hand: each lateral is a product with its kernel, each coarser one repeated, then a 3x3 window.
    merged = 0
    for name, conv, times in zip("cba", layer.lateral[::-1], (4, 2, 1), strict=True):
        lateral = found[name].numpy() @ conv.kernel.numpy()[0, 0] + conv.bias.numpy()
        merged = merged + lateral.repeat(times, axis=1).repeat(times, axis=2)
    smoothed = tf.nn.conv2d(merged, layer.output_convs[0].kernel, 1, "SAME") + layer.output_convs[0].bias
    np.testing.assert_allclose(found["P3"], smoothed, rtol=1e-4, atol=1e-5)


def test_the_order_of_a_backbones_maps_doesnt_matter():
    layer = FPN(Averages({"coarse": 16, "fine": 4, "middle": 8}), 5)
    assert layer.strides == {"P2": 4, "P3": 8, "P4": 16, "P5": 32}
    assert layer(tf.ones([1, 64, 64, 3]))["P2"].shape == (1, 16, 16, 5)


@pytest.mark.parametrize(
    ("strides", "listed"), [((4, 16, 32), "4, 16, 32"), ((8, 8, 16), "8, 8, 16"), ((6, 12, 24), "6, 12, 24")]
)
def test_strides_that_dont_double_are_refused(strides, listed):
    with pytest.raises(UserError, match=f"maps of Averages have the strides {listed}: give it maps whose strides dou"):
        FPN(Averages(dict(zip("abc", strides, strict=True))))


def test_a_single_map_is_the_coarsest_and_zero_beyond_the_padded_size():
    """Sizes needn't be multiples of the stride: the first image ends in the middle of its second column of cells."""
    layer = SingleMap(Averages(BACKBONE))
    images = tf.ones([2, 64, 96, 3])
    with running_batch(images, tf.constant([[32, 41], [64, 96]])):
        found = layer(images)
    assert list(found) == list(BACKBONE) and layer.strides == {"C5": 32}
    expected = np.zeros((2, 2, 3, 3))
    expected[0, :1, :2] = expected[1] = 1
    np.testing.assert_array_equal(found["C5"], expected)
    assert found["C4"].numpy().all()  # nobody reads it


def functional():
    """A plain Keras model of two maps, which says nothing of strides."""
    images = keras.Input((None, None, 3))
    fine = keras.layers.Conv2D(4, 3, strides=8, padding="same")(images)
    coarse = keras.layers.Conv2D(6, 3, strides=2, padding="same")(fine)
    return keras.Model(images, {"coarse": coarse, "fine": fine})


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.layers.Layer):
    """The same as a layer without `build`, whose weights Keras makes when it is called first."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.fine = keras.layers.Conv2D(4, 3, strides=8, padding="same")
        self.coarse = keras.layers.Conv2D(6, 3, strides=2, padding="same")

    def call(self, images):
        fine = self.fine(images)
        return {"coarse": self.coarse(fine), "fine": fine}


@pytest.mark.parametrize("make", [functional, Subclassed])
def test_any_layers_maps_are_found_out(make):
    layer = make()
    spec = FeatureSpec.of(layer)
    assert list(spec.strides.items()) == [("fine", 8), ("coarse", 16)]  # the finest first
    assert list(spec.channels.items()) == [("fine", 4), ("coarse", 6)] and spec.roi_maps == ["fine", "coarse"]
    assert len(layer.weights) == 4


def test_a_layer_may_say_which_maps_are_read_and_pooled_from():
    class Choosy(Averages):
        def call(self, images):
            return super().call(images) | {"not_read": images}

    layer = Choosy({"b": 8, "a": 4}, channels=6)
    layer.roi_maps = ["b"]
    spec = FeatureSpec.of(layer)
    assert spec == FeatureSpec({"a": 6, "b": 6}, {"a": 4, "b": 8}, ["b"]) and list(spec.strides) == ["a", "b"]


def test_the_spec_of_a_resnet():
    assert FeatureSpec.of(ResNet(10)) == FeatureSpec(
        {"C2": 64, "C3": 128, "C4": 256, "C5": 512}, {"C2": 4, "C3": 8, "C4": 16, "C5": 32}, ["C2", "C3", "C4", "C5"]
    )
    assert FeatureSpec.of(ResNet(10, dilated=True)).strides["C5"] == 16
    assert list(FeatureSpec.of(ResNet(10, last_stage=4)).strides) == ["C2", "C3", "C4"]


def test_strides_that_nothing_tells_are_asked_for():
    class Secretive(Averages):
        def compute_output_shape(self, input_shape):
            return {"a": (None, None, None, 3)}

    layer = Secretive({"a": 4})
    layer.strides = {}
    with pytest.raises(UserError, match="strides of Secretive don't follow .* give it an attribute `strides`"):
        FeatureSpec.of(layer)


def test_strides_of_a_network_that_loses_its_border_are_asked_for():
    images = keras.Input((None, None, 3))
    network = keras.Model(images, {"a": keras.layers.Conv2D(4, 3, strides=2, padding="valid")(images)})
    with pytest.raises(UserError, match=r"whose sides are \{'a': 255\} for an image of 512 pixels.*`strides`"):
        FeatureSpec.of(network)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(4, 3, padding="same"),  # one map without a name
        keras.layers.Lambda(lambda images: {"average": keras.ops.mean(images, axis=(1, 2))}),  # no map
        {"C2": 4},
        "mask_rcnn_r50_fpn",
    ],
)
def test_what_gives_no_maps_by_name_is_refused(layer):
    with pytest.raises(UserError, match=f"^{type(layer).__name__} doesn't give feature maps: MaskRCNN takes a layer"):
        FeatureSpec.of(layer)
