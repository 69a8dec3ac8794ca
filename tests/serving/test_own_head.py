"""A head from outside the package goes through exports and runtimes as its outputs are declared."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from panoptic_model import panoptic_config
from PIL import Image
from tiny import tiny_config

from mrcnn_tf import MaskRCNN, UserError
from mrcnn_tf.config.settings import OwnHeadConfig
from mrcnn_tf.parts import BoxHead, Head, OutputSpec
from mrcnn_tf.serving.export_labels import labels_document, read_labels
from mrcnn_tf.serving.export_setup import inference_copy
from mrcnn_tf.serving.runtime import SavedModelRuntime
from mrcnn_tf.serving.saved_model_export import export_saved_model
from mrcnn_tf.serving.served_graph import ServedGraph
from mrcnn_tf.serving.tflite_export import NetworkLayers, export_tflite
from mrcnn_tf.serving.tflite_graph import exported_outputs
from mrcnn_tf.serving.tflite_model import TFLiteModel

SIZES = ((50, 70), (64, 48))


@keras.saving.register_keras_serializable("test_own_head")
class TiltHead(Head):
    """Of each detection a number and a point, of the image three numbers."""

    float_layers = ("tilt",)
    outputs = (
        OutputSpec("tilt", (), "degrees"),
        OutputSpec("tip", (1, 3), "(x, y, a weight), pixels of the image", coordinates="points"),
        OutputSpec("light", (3,), "how bright the image is", per_detection=False),
    )

    def __init__(self, pooling, units=8, **kwargs):
        super().__init__(**kwargs)
        self.pooling, self.units = pooling, units
        self.hidden = keras.layers.Dense(units, "relu", dtype=self.dtype_policy, name="hidden")
        self.tilt = keras.layers.Dense(1, dtype="float32", name="tilt")

    def build(self, input_shape):
        self.hidden.build((None, input_shape[-1]))
        self.tilt.build((None, self.units))

    def call(self, roi_features):
        hidden = self.hidden(tf.reshape(tf.reduce_mean(roi_features, [2, 3]), [-1, roi_features.shape[-1]]))
        return 90 * tf.reshape(self.tilt(hidden), [-1, roi_features.shape[1]])

    def detect(self, features, regions):
        tilt = self(self.pooling(regions.boxes, features=features))
        x1, y1, x2, _ = tf.unstack(regions.boxes, axis=-1)
        coarsest = [*features.maps.values()][-1]
        return {
            "tilt": tilt,
            "tip": tf.stack([(x1 + x2) / 2, y1, tilt / 90], -1)[:, :, None],
            "light": tf.reduce_max(tf.nn.relu(coarsest), [1, 2])[:, :3],
            "undeclared": tilt,
        }


@keras.saving.register_keras_serializable("test_own_head")
class OwnBoxHead(BoxHead):
    """A box head that no section of a config stands for."""

    section = ""

    def sections(self):
        return {}


def make_config():
    config = tiny_config()
    config.own_heads = [OwnHeadConfig(f"{__name__}:TiltHead", "tilt_head", {"pool_size": 5})]
    return config


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return MaskRCNN.from_settings(make_config())


@pytest.fixture(scope="module")
def images():
    return [np.random.default_rng(7).integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def files(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture(scope="module")
def report(model, files, tmp_path_factory):
    # More than it finds, so that there is padding.
    folder = tmp_path_factory.mktemp("export") / "1"
    return export_saved_model(model, folder, max_detections=60, check_images=files, gpu=True)


def check_same(found, expected):
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.tilt, expected.tilt, atol=0.05)
    np.testing.assert_allclose(found.tip, expected.tip, atol=0.01)
    assert found.tip.shape == (len(found), 1, 3) and len(np.unique(found.tilt)) > 1
    assert not hasattr(found, "light") and not hasattr(found, "undeclared")


def test_the_labels_list_what_the_signatures_give(report):
    listed = json.loads((report.folder / "assets" / "labels.json").read_text())["outputs"]
    assert {"name": "tip", "shape": [1, 3], "dtype": "float32", "per_detection": True, "coordinates": "points"} | {
        "meaning": "(x, y, a weight), pixels of the image"
    } in listed
    outputs = tf.saved_model.load(str(report.folder)).signatures["serving_default"].structured_outputs
    assert {each["name"] for each in listed} == set(outputs)
    for each in listed:
        rows = [60] if each["per_detection"] else []
        spec = outputs[each["name"]]
        assert (spec.shape.as_list(), spec.dtype.name) == ([None, *rows, *each["shape"]], each["dtype"]), each
    labels = read_labels(report.folder)
    assert labels.gives("boxes", "masks", "tilt", "tip", "light") and not labels.gives("undeclared")


def test_the_check_compares_them(report):
    assert 0 <= report.differences.extra <= 0.01 and report.differences.matched > 0


def test_a_saved_model_gives_them(report, model, images, files):
    runtime, whole = SavedModelRuntime(report.folder), inference_copy(model, max_detections=60)
    for image, file in zip(images, files, strict=True):
        check_same(runtime.detect(image), whole.detect(image))
        check_same(runtime.detect_file(file), whole.detect(image))


def test_padding_and_images_that_fail_are_zeros(report, model, images, files):
    functions = tf.saved_model.load(str(report.folder)).signatures
    outputs = functions["serving_default"](image_bytes=tf.constant([files[0].read_bytes(), b"text"]))
    outputs = {name: value.numpy() for name, value in outputs.items()}
    count = outputs["num_detections"][0]
    assert outputs["tilt"].shape == (2, 60) and 0 < count < 60 and outputs["tilt"][0, :count].any()
    assert not outputs["tilt"][0, count:].any() and not outputs["tip"][0, count:].any()
    expected = model(model.preprocess(tf.constant(images[0])), training=False)["light"]
    np.testing.assert_allclose(outputs["light"][:1], expected, atol=1e-4)
    assert outputs["light"][0].any()
    assert not any(outputs[name][1].any() for name in ("tilt", "tip", "light"))


def test_points_follow_an_image_to_another_size_and_numbers_stay(report, images):
    runtime, (height, width) = SavedModelRuntime(report.folder), SIZES[1]
    batch = {"image": np.float32(images[1][None]), "image_size": [[height, width]]}
    (found,) = runtime.detect_batch(batch | {"original_size": [[3 * height, 2 * width]]})
    small = runtime.detect(images[1])
    np.testing.assert_allclose(found.tip, small.tip * np.float32([2, 3, 1]), rtol=1e-5)
    np.testing.assert_array_equal(found.tilt, small.tilt)


def test_other_digits_and_limits_leave_the_head_as_it_is(model):
    made = inference_copy(model, "bfloat16", max_detections=3)
    own = made.heads[-1]
    assert type(own) is TiltHead and own.units == 8 and own.name == "tilt_head"
    assert (own.hidden.dtype_policy.name, own.tilt.dtype_policy.name) == ("mixed_bfloat16", "float32")
    np.testing.assert_array_equal(own.tilt.kernel, model.heads[-1].tilt.kernel)
    assert model.heads[-1].hidden.dtype_policy.name == "float32" and made.heads[0].detections.max_per_image == 3
    outputs = ServedGraph(made).signatures["image"].structured_outputs
    assert outputs["light"].dtype == outputs["tilt"].dtype == tf.float32 and outputs["tilt"].shape[1] == 3


@pytest.mark.parametrize("quantize, split", [("float32", True), ("int8", False)])
def test_tflite_gives_them(model, images, files, tmp_path, quantize, split):
    pytest.importorskip("ai_edge_litert")
    from serving.tflite_operations import contents, operations

    path = tmp_path / "model.tflite"
    report = export_tflite(model, path, quantize, images, input_size=64, split=split, check_images=files)
    runtime = TFLiteModel(report.files[0])
    assert runtime.gives("boxes", "masks", "tilt", "tip", "light") and not runtime.gives("keypoints")
    assert {each["name"] for each in runtime.document["outputs"]} == set(runtime._runner.get_output_details())
    batch = {"image_size": np.int32([SIZES[1]]), "original_size": np.int32([[640, 480]])}
    batch["image"] = np.pad(np.float32(images[1][None]), [(0, 0), (0, 0), (0, 16), (0, 0)])
    (found,) = runtime.detect_batch(batch)
    centres = (found.boxes[:, 0] + found.boxes[:, 2]) / 2
    np.testing.assert_allclose(found.tip[:, 0, 0], centres, atol=0.05)
    np.testing.assert_allclose(found.tip[:, 0, 1], found.boxes[:, 1], atol=0.05)
    np.testing.assert_allclose(found.tip[:, 0, 2] * 90, found.tilt, atol=0.01)
    assert report.differences.matched > 0 and report.differences.extra is not None
    if quantize == "float32":
        assert report.differences.extra <= 0.1
        (expected,) = model.detect_batch(batch)
        np.testing.assert_allclose(found.tilt, expected.tilt, atol=0.5)
        return
    kinds = {}
    for name, scope, inputs, _ in operations(contents(path)):
        layer = re.search(r"/tilt_head(?:_\d+)?/(hidden|tilt)(_\d+)?/", scope)
        if layer and name == "FULLY_CONNECTED":
            kinds[layer[1]] = inputs[:2]
    assert kinds == {"hidden": ["INT8", "INT8"], "tilt": ["FLOAT32", "FLOAT32"]}


def test_which_layers_are_bytes(model):
    layers = NetworkLayers.of(model)
    assert layers.trunk == {"fpn"} and {"head", "box_head", "mask_head", "tilt_head"} <= layers.heads
    assert layers.floats == {"stem", "objectness_logits", "anchor_deltas", "class_logits", "box_deltas", "tilt"}
    assert not any(name.endswith("_rois") for name in layers.heads)  # they have no weights


def test_pixels_classes_stand_beside_them(model):
    config = panoptic_config()
    config.own_heads = make_config().own_heads
    panoptic = MaskRCNN.from_settings(config)
    names = {spec.name for spec in exported_outputs(panoptic, (64, 96))}
    assert names == {spec.name for spec in model.output_specs} | {"semantic"}


def test_limits_of_a_box_head_of_ones_own():
    config = panoptic_config()
    config.box_head.callable = f"{__name__}:OwnBoxHead"
    made = inference_copy(MaskRCNN.from_settings(config), max_detections=4)
    assert type(made.heads[0]) is OwnBoxHead and made.heads[0].detections.max_per_image == 4
    graph, document = ServedGraph(made), labels_document(made, {})
    assert (document["max_detections"], document["score_threshold"]) == (4, 0.01)
    (table,) = (spec for spec in graph.outputs if spec.name == "segment_areas")
    assert table.shape == (4 + 3,) == tuple(graph.signatures["image"].structured_outputs["segment_areas"].shape[1:])


def test_limits_that_no_head_has():
    config = panoptic_config(instances=False)
    with pytest.raises(UserError, match="No head of the model has limits"):
        inference_copy(MaskRCNN.from_settings(config), max_detections=5)
