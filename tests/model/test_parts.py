"""Models put together from objects, by hand: they learn, and what is saved is the same when it is loaded."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import CATEGORIES, tiny_batch, tiny_config

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import (
    BackboneConfig,
    BoxHeadConfig,
    Conventions,
    DetectionConfig,
    MaskHeadConfig,
    PanopticConfig,
    ResizeConfig,
    RoIConfig,
    RPNConfig,
    SemanticHeadConfig,
)
from mrcnn_tf.model.backbones.padding_layers import ClearPadding
from mrcnn_tf.model.backbones.resnet import ResNet
from mrcnn_tf.model.heads.box import BoxHead
from mrcnn_tf.model.heads.head import Head
from mrcnn_tf.model.heads.mask import MaskHead
from mrcnn_tf.model.heads.semantic import SemanticHead
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.model.necks import FPN, FeatureMaps, FeatureSpec, SingleMap
from mrcnn_tf.model.preprocess import Preprocess
from mrcnn_tf.model.roi_features import Res5, RoILayer
from mrcnn_tf.model.rois import RoISampler
from mrcnn_tf.model.rpn import RPN
from mrcnn_tf.results.output_spec import OutputSpec

POOLED = ["P2", "P3", "P4", "P5"]
SMALL_RPN = RPNConfig(
    [8.0, 16.0, 32.0, 64.0, 128.0], pre_nms_train=60, post_nms_train=30, pre_nms_test=60, post_nms_test=30
)
BOXES, MASKS = BoxHeadConfig(pool_size=5, channels=32), MaskHeadConfig(pool_size=6, convs=1, channels=16)
FEW = DetectionConfig(score_threshold=0.01, max_per_image=10)


def around(heads, **changes):
    """A model of these heads on a small pyramid."""
    arguments = {
        "features": FPN(ResNet(10, freeze_at=0), 32),
        "rpn": RPN(SMALL_RPN),
        "heads": heads,
        "preprocess": Preprocess(resize=ResizeConfig(64, 128)),
        "roi_sampler": RoISampler(RoIConfig(batch_per_image=16)),
        "categories": CATEGORIES,
    }
    return MaskRCNN(**arguments | changes)


def box_head(**arguments):
    return BoxHead(2, RoILayer(5, POOLED), BOXES, FEW, **arguments)


def pictures():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), np.uint8) for size in ((64, 96), (70, 64))]


def train(model, **batch):
    """The losses of one step by name; the weights have changed after it."""
    before = [weight.numpy() for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(0.001))
    history = model.fit(tf.data.Dataset.from_tensors(tiny_batch() | batch), verbose=0).history
    assert not any(np.array_equal(old, new) for old, new in zip(before, model.trainable_weights, strict=True))
    assert all(np.isfinite(values[0]) for values in history.values())
    return {name: values[0] for name, values in history.items() if name.startswith("loss_")}


def saved_and_loaded(model, folder):
    """The model from its file: of the same weights, in the same order, under the same paths."""
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    assert [weight.path for weight in loaded.weights] == [weight.path for weight in model.weights]
    for theirs, ours in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(theirs, ours)
    return loaded


def test_a_model_by_hand_learns_and_its_file_detects_the_same(tmp_path):
    keras.utils.set_random_seed(0)
    masks = MaskHead(2, RoILayer(6, POOLED), MASKS, name="masks")
    model = around([box_head(name="boxes"), masks], seed=7)
    assert set(train(model)) == {"loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box", "loss_mask"}
    loaded = saved_and_loaded(model, tmp_path)
    for ours, theirs in zip(model.detect(pictures()), loaded.detect(pictures()), strict=True):
        assert len(ours) == 10 and ours.masks.shape == theirs.masks.shape
        for name in ("boxes", "scores", "classes", "mask_probabilities"):
            np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))
    assert (loaded.seed, loaded.name, loaded.categories) == (7, model.name, CATEGORIES)
    assert loaded.settings == model.settings
    assert loaded.settings.mask_head == MASKS and loaded.settings.rpn == SMALL_RPN
    batch = {name: tf.constant(value) for name, value in tiny_batch().items()}
    for name, value in model.compute_losses(batch).items():
        np.testing.assert_array_equal(loaded.compute_losses(batch)[name], value)


SECTIONS = ("resize", "fpn", "rpn", "rois", "box_head", "detections")


def test_defaults_are_the_papers():
    model = MaskRCNN(FPN(ResNet(10)), RPN(), [BoxHead(2, RoILayer(7, POOLED))], categories=["cat", "dog"])
    assert model.settings == dataclasses.replace(
        tiny_config(),
        backbone=BackboneConfig(depth=10),
        categories=[Category(1, "cat"), Category(2, "dog")],
        mask_head=None,
        **{name: type(getattr(tiny_config(), name))() for name in SECTIONS},
    )
    assert (model.seed, model.panoptic, model.stuff, model.spec.roi_maps) == (0, PanopticConfig(), [], POOLED)


@pytest.mark.usefixtures("eagerly")
def test_a_head_of_maps_alone_needs_no_rpn(tmp_path):
    keras.utils.set_random_seed(0)
    head = SemanticHead(3, {"P2": 4, "P3": 8, "P4": 16, "P5": 32}, SemanticHeadConfig(channels=32), name="pixels")
    model = around([head], rpn=None, categories=[], stuff=["sky", "sea"])
    labels = np.random.default_rng(1).integers(0, 3, (2, 64, 64)).astype(np.uint8)
    model.compile(keras.optimizers.SGD(0.001))
    history = model.fit(tf.data.Dataset.from_tensors(tiny_batch() | {"semantic": labels}), verbose=0).history
    assert [name for name in history if name.startswith("loss_")] == ["loss_semantic"]
    loaded = saved_and_loaded(model, tmp_path)
    for ours, theirs in zip(model.detect(pictures()), loaded.detect(pictures()), strict=True):
        np.testing.assert_array_equal(theirs.semantic, ours.semantic)
    assert loaded.rpn is None and loaded.settings.box_head is None


def on_c4(pooling, other):
    detectron2 = Conventions(anchor_stride="fixed")
    rpn = RPN(dataclasses.replace(SMALL_RPN, anchor_sizes=[16.0, 32.0, 64.0]), detectron2)
    heads = [
        BoxHead(2, pooling, BoxHeadConfig(pool_size=14, fcs=0), FEW, name="box_head"),
        MaskHead(2, other, MaskHeadConfig(pool_size=7, convs=0, channels=16), name="mask_head"),
    ]
    return around(heads, features=SingleMap(ResNet(10, last_stage=4, freeze_at=0)), rpn=rpn)


def res5():
    return Res5(BackboneConfig(depth=10), RoILayer(14), name="res5")


@pytest.mark.usefixtures("eagerly")
def test_heads_that_share_a_res5_share_it_after_loading(tmp_path):
    keras.utils.set_random_seed(0)
    shared = res5()
    model = on_c4(shared, shared)
    paths = [weight.path for weight in model.weights]
    assert len(set(paths)) == len(paths)
    # A block of two convolutions and a shortcut, each with a kernel and a frozen batch norm.
    assert sum(path.startswith("res5/") for path in paths) == len(shared.weights) == 3 * 5
    train(model)
    loaded = saved_and_loaded(model, tmp_path)
    assert loaded.heads[1].pooling is loaded.heads[0].pooling
    assert len({id(weight) for weight in loaded.weights}) == len(loaded.weights)
    again = MaskRCNN.from_config(loaded.get_config())
    assert again.heads[1].pooling is again.heads[0].pooling
    ours, theirs = model.detect(pictures()[0]), loaded.detect(pictures()[0])
    np.testing.assert_array_equal(theirs.mask_probabilities, ours.mask_probabilities)


@pytest.mark.usefixtures("eagerly")
def test_heads_with_layers_of_their_own_keep_them_even_under_one_name(tmp_path):
    model = on_c4(res5(), res5())
    loaded = saved_and_loaded(model, tmp_path)
    assert loaded.heads[1].pooling is not loaded.heads[0].pooling
    assert sum(weight.path.startswith("res5/") for weight in loaded.weights) == 2 * 3 * 5
    np.testing.assert_array_equal(loaded.detect(pictures()[0]).boxes, model.detect(pictures()[0]).boxes)


@keras.saving.register_keras_serializable("tests")
class Pinhole(keras.layers.Layer):
    """A stranger's backbone: a plain Keras layer of two maps, without strides, `build` or shapes."""

    def __init__(self, width, alike=False, **kwargs):
        super().__init__(**kwargs)
        self.width, self.alike = width, alike
        self.fine = keras.layers.Conv2D(width, 8, 8, activation="relu", name="fine")
        self.clear = ClearPadding()
        coarse = {"filters": width if alike else 2 * width, "kernel_size": 3, "strides": 2, "padding": "same"}
        self.coarse = keras.layers.Conv2D(**coarse, activation="relu", name="coarse")

    def call(self, images):
        fine = self.fine(images)
        return {"fine": fine, "coarse": self.coarse(self.clear(fine))}

    def get_config(self):
        return super().get_config() | {"width": self.width, "alike": self.alike}


@keras.saving.register_keras_serializable("tests")
class Area(Head):
    """A stranger's head: the logarithm of each object's share of the image, from the mean of its features."""

    loss_names = ("loss_area",)
    outputs = (OutputSpec("area", (), "logarithm of the object's share of the image"),)

    def __init__(self, pooling, scale: float = 1.0, settings: ResizeConfig | None = None, **kwargs):
        super().__init__(**kwargs)
        self.pooling, self.scale, self.settings = pooling, scale, settings

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1],), initializer="glorot_normal")

    def call(self, roi_features):
        return self.scale * tf.tensordot(tf.reduce_mean(roi_features, axis=[2, 3]), self.kernel, 1)

    def detect(self, features, regions):
        return {"area": self(self.pooling(regions.boxes, features=features))}

    def compute_losses(self, features, rois, truth):
        rois = rois.positives
        boxes = truth.of_rois(truth.boxes, rois)
        pixels = tf.cast(tf.reduce_prod(features.batch_size), tf.float32)
        area = tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], axis=-1) / pixels
        wanted = tf.math.log(tf.maximum(area, 1e-3))
        error = tf.abs(self(features.pool(self.pooling, rois)) - wanted)
        return {"loss_area": tf.reduce_mean(tf.where(rois.positive, error, 0.0))}


def test_a_strangers_parts_survive_saving_and_loading(tmp_path):
    keras.utils.set_random_seed(0)
    shared = RoILayer(5, ["fine", "coarse"])
    heads = [
        BoxHead(2, shared, BOXES, FEW, name="box_head"),
        Area(shared, 0.5, ResizeConfig(min_size=123), name="area_head"),
    ]
    rpn = RPN(dataclasses.replace(SMALL_RPN, anchor_sizes=[[16.0, 24.0], [32.0, 48.0]]))
    model = around(heads, features=Pinhole(8, alike=True, name="pinhole"), rpn=rpn)
    assert model.spec.strides == {"fine": 8, "coarse": 16} and model.gives("boxes", "area")
    assert train(model)["loss_area"] > 0
    loaded = saved_and_loaded(model, tmp_path)
    assert type(loaded.features) is Pinhole and loaded.features.alike
    head = loaded.heads[1]
    assert type(head) is Area and head.scale == 0.5 and head.settings == ResizeConfig(min_size=123)
    assert head.pooling is loaded.heads[0].pooling
    for ours, theirs in zip(model.detect(pictures()), loaded.detect(pictures()), strict=True):
        np.testing.assert_array_equal(theirs.boxes, ours.boxes)
        np.testing.assert_array_equal(theirs.area, ours.area)
        assert ours.area.shape == (len(ours),) and np.ptp(ours.area) > 0
    # Sections stand for the package's own parts alone.
    assert loaded.settings == model.settings and model.settings.backbone == BackboneConfig()


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float32"])
def test_a_functional_backbone_under_a_pyramid(tmp_path, dtype):
    images = keras.Input((None, None, 3))
    maps, features = {}, keras.layers.Conv2D(4, 4, 4)(images)
    for name in ("C2", "C3", "C4"):
        features = keras.layers.Conv2D(6, 3, 1 if name == "C2" else 2, padding="same")(ClearPadding()(features))
        maps[name] = features
    neck = FPN(keras.Model(images, maps), 16, dtype=dtype)
    rpn = RPN(dataclasses.replace(SMALL_RPN, anchor_sizes=[8.0, 16.0, 32.0, 64.0]), dtype=dtype)
    model = around([BoxHead(2, RoILayer(5, POOLED[:3]), BOXES, FEW, dtype=dtype)], features=neck, rpn=rpn)
    assert model.spec.strides == {"P2": 4, "P3": 8, "P4": 16, "P5": 32}
    train(model)
    loaded = saved_and_loaded(model, tmp_path)
    assert len(model.detect(pictures()[0])) > 0
    np.testing.assert_array_equal(loaded.detect(pictures()[0]).boxes, model.detect(pictures()[0]).boxes)


def test_a_config_in_the_place_of_parts_is_refused():
    with pytest.raises(UserError, match="ModelConfig doesn't give feature maps: .* MaskRCNN.from_settings a config"):
        MaskRCNN(tiny_config())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RPN({"convs": 2}), r"\{'convs': 2\} isn't a RPNConfig: give settings as mrcnn_tf.parts.RPNConfig"),
        (lambda: RPN(RPNConfig(nms_iou=1.5)), "setting 'nms_iou' is 1.5: it must lie between 0 and 1"),
        (lambda: RoILayer(7, settings=MASKS), "isn't a RoILayerConfig"),
        (lambda: Preprocess(resize=ResizeConfig(0)), "'min_size' is 0"),
        (lambda: around([SemanticHead(3, {"P2": 4})], rpn=None, stuff=["sky"]), "has 3 classes, one of all"),
        (lambda: around([box_head()], features=Pinhole(8)), "RPN reads .* channels each, and these have fine 8, coars"),
        (lambda: RoILayer(5).output_shape_of({"a": [8], "b": [16]}), "RoILayer reads .* have a 8, b 16"),
        (lambda: around([BoxHead(2, RoILayer(5, ["C4"]))]), "pooled from C4, and the features are P2, P3, P4, P5, P6"),
    ],
)
def test_settings_and_parts_that_dont_fit_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


@keras.saving.register_keras_serializable("test_parts")
class Brightness(Head):
    """A head of maps alone: the mean of the finest."""

    outputs = (OutputSpec("brightness", (), "a mean", per_detection=False),)

    def detect(self, features, regions):
        return {"brightness": tf.reduce_mean(next(iter(features.maps.values())), axis=[1, 2, 3])}


def test_two_heads_that_pool_nothing_are_loaded(tmp_path):
    model = MaskRCNN(FPN(ResNet(10), 16), heads=[Brightness(name="one"), Brightness(name="two")])
    model.save(tmp_path / "m.keras")
    assert [head.name for head in keras.saving.load_model(tmp_path / "m.keras").heads] == ["one", "two"]


def test_parts_have_the_names_that_weights_are_found_by():
    models = [MaskRCNN(FPN(ResNet(10), 16), heads=[Brightness(name="one")]) for _ in range(2)]
    paths = [[weight.path for weight in model.weights] for model in models]
    assert paths[0] == paths[1] and {path.split("/")[0] for path in paths[0]} == {"backbone", "fpn"}


def test_rois_keep_off_the_map_that_is_for_proposals_alone():
    maps = {f"P{level}": tf.fill([1, 2 ** (9 - level), 2 ** (9 - level), 1], float(level)) for level in range(2, 7)}
    strides = {f"P{level}": 2**level for level in range(2, 7)}
    boxes = tf.constant([[[0.0, 0.0, 500.0, 500.0]]])
    for roi_maps, level in ((["P2", "P3", "P4", "P5"], 5.0), (None, 5.0), (["P2", "P3", "P4"], 4.0)):
        features = FeatureMaps(maps, strides, roi_maps=roi_maps)
        assert float(RoILayer(3)(boxes, features=features)[0, 0, 1, 1, 0]) == level


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Res5(BackboneConfig(), RoILayer(10)), "gives 10: give RoILayer"),
        (
            lambda: MaskRCNN(FPN(ResNet(10), 16), preprocess=Preprocess(divisor=16), heads=[Brightness()]),
            r"double from stride 32: give Preprocess\(divisor=32\)",
        ),
        (lambda: FPN(ResNet(10), 100, norm="gn").build(), "multiple of 32 channels"),
    ],
)
def test_parts_that_cannot_work_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_missing_map_is_named():
    class Wrong(keras.layers.Layer):
        strides = {"C9": 4}  # noqa: RUF012

        def call(self, images):
            return {"C2": keras.ops.average_pool(images, 4)}

    with pytest.raises(UserError, match="Wrong names the map C9 .* gives C2"):
        FeatureSpec.of(Wrong())


def test_keyword_only_arguments_are_saved():
    class Wide(Head):
        def __init__(self, units, *, extra=5, **kwargs):
            super().__init__(**kwargs)
            self.units, self.extra = units, extra

    config = Wide(3, extra=7).get_config()
    assert (config["units"], config["extra"]) == (3, 7) and Wide.from_config(config).extra == 7
