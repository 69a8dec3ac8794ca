"""A .tflite file finds what the Keras model finds on the same pixels, with builtin operations on fixed shapes."""

import json
import re
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from panoptic_model import panoptic_config
from PIL import Image
from serving.tflite_operations import contents, operations
from tiny import tiny_config

from mrcnn_tf import MaskRCNN
from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.ops.boxes import iou
from mrcnn_tf.ops.panoptic_maps import semantic_map
from mrcnn_tf.serving import tflite_export, tflite_graph
from mrcnn_tf.serving.tflite_export import NetworkLayers, export_tflite, quantize_network
from mrcnn_tf.serving.tflite_model import TFLiteModel

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

# The input and whether it is split, by kind: each has masks, the first a class for each pixel, and the last keypoints.
FILES = {"panoptic": ((96, 96), False), "c4": ((64, 96), False), "keypoints": ((96, 64), True)}
FLOAT_LAYERS = r"/(stem|objectness_logits|anchor_deltas|class_logits|box_deltas|predictor)(_\d+)?/"


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two image files: one of a square, one of a portrait."""
    paths = [tmp_path_factory.mktemp("pictures") / name for name in ("square.png", "portrait.png")]
    for path, size in zip(paths, ((50, 50), (64, 48)), strict=True):
        Image.fromarray(picture(*size)).save(path)
    return paths


@pytest.fixture(scope="module", params=FILES)
def exported(request, tmp_path_factory, pictures):
    """(model, input's size, `TFLiteReport`) of a float32 export."""
    size, split = FILES[request.param]
    keras.utils.set_random_seed(1)
    config = panoptic_config() if request.param == "panoptic" else tiny_config(request.param)
    if request.param != "panoptic":
        config.backbone.norm = "frozen_bn"  # converts sooner
    model = MaskRCNN.from_settings(config)
    path = tmp_path_factory.mktemp(request.param) / "model.tflite"
    return model, size, export_tflite(model, path, input_size=size, split=split, check_images=pictures)


def check_same(reference, outputs):
    """Every detection has one of its class in the other with an IoU of 0.99 and nearly the same values."""
    count = int(reference["num_detections"][0])
    assert count == int(outputs["num_detections"][0]) > 0 and set(outputs) == set(reference)
    reference, outputs = ({name: np.asarray(value)[0] for name, value in one.items()} for one in (reference, outputs))
    overlaps = np.array(iou(reference["boxes"][:count, None], outputs["boxes"][None, :count]))
    overlaps[reference["classes"][:count, None] != outputs["classes"][None, :count]] = 0
    found = overlaps.argmax(axis=1)
    assert len(set(found)) == count and overlaps.max(axis=1).min() >= 0.99
    for name, tolerance in (("scores", 1e-3), ("masks", 1e-2), ("keypoints", 1e-2)):
        if name in reference:
            np.testing.assert_allclose(outputs[name][found], reference[name][:count], atol=tolerance, err_msg=name)
    for name, values in outputs.items():
        assert name == "num_detections" or not values[count:].any(), name


def check_classes(reference, found, size):
    """A map [1, H, W] is that of the model's logits in the picture of this size, and of no class beyond it."""
    height, width = size
    logits, logit_size = (reference[f"semantic_{name}"][0] for name in ("logits", "size"))
    expected = semantic_map(logits, logit_size, size).numpy()
    assert found.dtype == np.uint8 and (found[0, :height, :width] == expected).mean() >= 0.999
    assert len(np.unique(expected)) > 1 and (found[0, height:] == 255).all() and (found[0, :, width:] == 255).all()


@pytest.mark.parametrize("filled", [True, False], ids=["filled", "letterboxed"])
def test_the_file_finds_what_the_model_finds(exported, filled):
    model, size, report = exported
    height, width = size if filled else (64, 48)
    canvas = np.zeros((1, *size, 3), np.uint8)
    canvas[0, :height, :width] = picture(height, width)
    image_size = np.int32([[height, width]])
    inputs = {"image": tf.cast(canvas, tf.float32), "image_size": image_size, "original_size": image_size}
    reference = model(inputs, training=False)
    canvas[0, height:], canvas[0, :, width:] = 255, 77  # ignored
    for path in report.files:  # either half of a split export loads both
        outputs = TFLiteModel(path)._runner(image=canvas, image_size=image_size)
        if model.gives("semantic_logits"):
            check_classes(reference, outputs.pop("semantic"), (height, width))
        check_same({name: value for name, value in reference.items() if "semantic" not in name}, outputs)
        assert outputs["boxes"].dtype == outputs["scores"].dtype == outputs["masks"].dtype == np.float32
        assert outputs["classes"].dtype == outputs["num_detections"].dtype == np.int32
        assert outputs["boxes"].shape == (1, 10, 4) and outputs["num_detections"].shape == (1,)


def test_images_of_any_size_are_detected_in(exported):
    model, size, report = exported
    runtime = TFLiteModel(report.files[0])
    assert runtime.input_size == size and runtime.categories == model.categories
    for shape in ((33, 200), (64, 48)):
        found = runtime.detect(picture(*shape))
        assert len(found) == 10 and found.image_size == shape and found.masks.shape == (10, *shape)
        assert (found.keypoints is not None) == model.gives("keypoints")
        assert (found.panoptic is not None) == model.gives("semantic_logits") == runtime.gives("semantic_logits")
        assert (found.boxes >= 0).all() and (found.boxes[:, 2:] <= np.float32(shape[::-1]) + 1e-3).all()


def test_operations_are_builtin_and_shapes_fixed(exported):
    for path in exported[2].files:
        flatbuffer = contents(path)
        names = {name for name, *_ in operations(flatbuffer)}
        assert "CONV_2D" in names and names.isdisjoint({"CUSTOM", "DELEGATE", "READ_VARIABLE"})
        root = schema.Model.GetRootAsModel(flatbuffer, 0)
        for graph in map(root.Subgraphs, range(root.SubgraphsLength())):
            for tensor in map(graph.Tensors, range(graph.TensorsLength())):
                open_sides = tensor.ShapeSignatureLength() and (tensor.ShapeSignatureAsNumpy() < 0).any()
                assert not open_sides, tensor.Name()


def test_the_report_and_the_files_facts(exported):
    model, size, report = exported
    assert (report.input_size, report.quantization) == (size, "float32")
    differences = report.differences
    assert differences.images == 2 and differences.matched == differences.reference == 20
    maps = (differences.semantic, differences.segments)
    assert min(maps) >= 0.999 if model.gives("semantic_logits") else maps == (None, None)
    names = ["model.tflite"] if len(report.files) == 1 else ["model.backbone.tflite", "model.heads.tflite"]
    assert [path.name for path in report.files] == names
    assert sorted(path.name for path in report.files[0].parent.iterdir()) == names
    for path in report.files:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(archive.read("mrcnn_tf.json"))
            assert archive.read("labels.txt").decode().split() == ["cat", "dog"]
        assert (facts["input_size"], facts["quantization"]) == (list(size), "float32")
        assert facts.get("part") == (path.name.split(".")[1] if len(names) == 2 else None)


def test_the_backbones_half_has_convolutions_and_nothing_that_selects(exported):
    files = exported[2].files
    if len(files) == 1:
        pytest.skip("a whole model")
    selecting = {"NON_MAX_SUPPRESSION_V4", "TOPK_V2", "GATHER", "WHILE", "EXP", "SELECT_V2"}
    backbone, heads = ({name for name, *_ in operations(contents(path))} for path in files)
    assert "CONV_2D" in backbone and not backbone & (selecting - {"SELECT_V2"})
    assert {"NON_MAX_SUPPRESSION_V4", "TOPK_V2", "GATHER", "EXP"} <= heads


def check_bytes(flatbuffer, first):
    """Products of the network have weights of bytes and inputs of type `first`; what selects and places has floats."""
    floats = {"NON_MAX_SUPPRESSION_V4", "TOPK_V2", "EXP", "FLOOR", "SOFTMAX", "LOG", "CEIL"}
    seen = set()
    for name, scope, inputs, _ in operations(flatbuffer):
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            expected = ["FLOAT32", "FLOAT32"] if re.search(FLOAT_LAYERS, scope) else [first, "INT8"]
            assert inputs[:2] == expected, scope
            seen.add((name, expected[0]))
        elif name in floats:
            assert "INT8" not in inputs and inputs[0] in ("FLOAT32", "INT32"), (name, scope)
            seen.add(name)
        elif name == "GATHER":
            assert inputs[0] != "INT8", scope
    assert {("CONV_2D", first), ("CONV_2D", "FLOAT32"), "NON_MAX_SUPPRESSION_V4", "TOPK_V2", "EXP"} <= seen


@pytest.mark.parametrize("kind", ["dynamic", "int8"])
def test_bytes_are_the_networks_and_coordinates_stay_floats(exported, kind):
    pytest.importorskip("ai_edge_quantizer")
    model, size, report = exported
    if not model.gives("semantic_logits"):
        pytest.skip("one kind is enough")
    samples = [{"image": picture(*size, seed)[None], "image_size": np.int32([size])} for seed in range(2)]
    made = quantize_network(contents(report.files[0]), kind, NetworkLayers.of(model), samples)
    assert len(made) < 0.3 * len(contents(report.files[0]))
    check_bytes(made, {"dynamic": "FLOAT32", "int8": "INT8"}[kind])


def edge_model():
    """The shipped edge config with images of 64 pixels and narrow heads."""
    config = load_config("edge_mask_rcnn_mobilenet_v3_fpn").model
    config.categories = [Category(3, "cat"), Category(17, "dog")]
    config.resize.min_size = config.resize.max_size = 64
    config.fpn.channels, config.box_head.channels = 32, 32
    config.mask_head.channels, config.mask_head.convs = 16, 1
    config.rpn.pre_nms_test, config.rpn.post_nms_test = 40, 20
    config.detections.max_per_image, config.detections.score_threshold = 8, 0.01
    keras.utils.set_random_seed(2)
    return MaskRCNN.from_settings(config)


def test_the_edge_config_in_int8(tmp_path, pictures):
    pytest.importorskip("ai_edge_quantizer")
    calibration = [picture(64, 64, seed) for seed in range(3)]
    path = tmp_path / "edge.tflite"
    report = export_tflite(
        edge_model(), path, "int8", calibration, max_detections=5, score_threshold=0.02, check_images=pictures
    )
    assert report.files == [path] and report.quantization == "int8" and report.input_size == (64, 64)
    assert report.differences.score > 1e-6, "This was not computed in bytes."
    check_bytes(contents(path), "INT8")
    found = TFLiteModel(path).detect(picture(40, 64))
    assert len(found) == 5 and found.scores.min() > 0.02


def test_a_semantic_head_by_itself(tmp_path, pictures):
    config = panoptic_config(instances=False)
    config.backbone.norm = "frozen_bn"
    keras.utils.set_random_seed(4)
    model, path = MaskRCNN.from_settings(config), tmp_path / "model.tflite"
    report = export_tflite(model, path, input_size=64, check_images=pictures)
    assert report.differences.reference == 0 and report.differences.semantic >= 0.999
    found = TFLiteModel(path).detect(picture(70, 33))
    assert len(found) == 0 and found.semantic.shape == (70, 33) and 0 < found.semantic.max() <= 3
    assert not any(segment.is_thing for segment in found.panoptic.segments) and len(found.panoptic)
    with pytest.raises(UserError, match="no second half: export without split"):
        export_tflite(model, tmp_path / "split.tflite", input_size=64, split=True)


def test_the_second_half_has_the_semantic_head(exported):
    model, size, report = exported
    if not model.gives("semantic_logits"):
        pytest.skip("a model without one")
    samples = [{"image": picture(*size)[None], "image_size": np.int32([[64, 80]])}]
    backbone = tflite_graph.backbone_graph(model, size)
    (maps,), heads = backbone.run_on(samples), tflite_graph.heads_graph(model, backbone)
    assert "semantic" not in maps and heads.traced.structured_outputs["semantic"].shape == (1, *size)
    (halves,) = heads.run_on([maps | samples[0]])
    whole = TFLiteModel(report.files[0])._runner(**samples[0])
    assert set(halves) == set(whole) and (halves["semantic"] == whole["semantic"]).mean() >= 0.999


def test_classes_are_found_strip_by_strip():
    """As one enlargement of all, by hand: a strip has 16 rows of logits, and its neighbours' count at its edges."""
    logits = np.random.default_rng(0).normal(size=(1, 37, 5, 3)).astype(np.float32)
    places = (np.arange(4 * 37) + 0.5) / 4 - 0.5, (np.arange(4 * 5) + 0.5) / 4 - 0.5
    columns = np.stack([np.interp(places[1], np.arange(5), row[:, c]) for row in logits[0] for c in range(3)])
    columns = columns.reshape(37, 3, 20)
    whole = np.stack(
        [[np.interp(places[0], np.arange(37), columns[:, c, x]) for x in range(20)] for c in range(3)], axis=-1
    )
    found = tflite_graph.letterboxed_map(tf.constant(logits), tf.constant([[140, 18]])).numpy()
    expected = whole.argmax(-1).T
    assert found.shape == (1, 148, 20) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[0, :140, :18], expected[:140, :18])
    assert (found[0, 140:] == 255).all() and (found[0, :, 18:] == 255).all()


def small_model(features="C5"):
    """Boxes only, which convert soonest."""
    config = tiny_config("frozen_bn")
    config.features, config.mask_head = features, None
    keras.utils.set_random_seed(3)
    return MaskRCNN.from_settings(config)


def test_float16_halves_the_weights(tmp_path, pictures):
    model, path = small_model(), tmp_path / "half.tflite"
    report = export_tflite(model, path, "float16", input_size=64, check_images=pictures)
    weights = sum(value.size for value in model.get_weights())
    assert 2 * weights < path.stat().st_size < 3 * weights
    assert report.differences.matched_share >= 0.98 and 1e-8 < report.differences.score <= 0.01
    assert TFLiteModel(path).document["quantization"] == "float16"


def test_halves_in_int8_are_calibrated_one_after_the_other(tmp_path, pictures):
    pytest.importorskip("ai_edge_quantizer")
    calibration = [picture(64, 64, seed) for seed in range(2)]
    path = tmp_path / "model.tflite"
    report = export_tflite(
        small_model(), path, "int8", calibration, input_size=64, split=True, check_images=pictures[:1]
    )
    kinds = [{inputs[0] for name, _, inputs, _ in operations(contents(file)) if "FULLY" in name or "CONV" in name}
             for file in report.files]  # fmt: skip
    assert kinds == [{"INT8", "FLOAT32"}] * 2
    assert len(TFLiteModel(report.files[1]).detect(picture(64, 64))) == 10


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"path": "model.onnx"}, r"model\.onnx doesn't end in \.tflite: give such a path\.$"),
        ({"quantize": "int4"}, r"^There is no quantisation 'int4': choose float32, float16, dynamic, int8\.$"),
        ({"quantize": "int8"}, r"^int8 needs images to find its scales on: give calibration images"),
        ({"quantize": "int8", "calibration": []}, r"^There is not one calibration image: "),
        ({"input_size": 50}, r"^An input of 50x50 doesn't fit the model: give multiples of 32\.$"),
        ({"max_detections": 0}, "give 1 or more"),
        ({"check_images": ["nowhere.png"]}, "nowhere.png"),
    ],
    ids=["suffix", "quantisation", "uncalibrated", "empty", "size", "detections", "image"],
)
def test_options_that_are_refused(tiny_model, tmp_path, monkeypatch, options, sentence):
    monkeypatch.setattr(tflite_export, "_convert", lambda *_: pytest.fail("It was refused after minutes only."))
    options = {"input_size": 64} | options
    path = tmp_path / options.pop("path", "model.tflite")
    with pytest.raises(UserError, match=sentence) as raised:
        export_tflite(tiny_model, path, **options)
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("roi_layer", [{"kind": "pool"}, {"aggregate": "max"}])
@pytest.mark.parametrize("split", [False, True])
def test_pooling_in_bins_of_unlike_sizes_is_refused(tmp_path, roi_layer, split):
    config = tiny_config()
    for name, value in roi_layer.items():
        setattr(config.roi_layer, name, value)
    with pytest.raises(UserError, match=r"^TFLite has no RoIPool, .*model\.roi_layer\.kind=align"):
        export_tflite(MaskRCNN.from_settings(config), tmp_path / "model.tflite", input_size=64, split=split)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def file_of_fpn(exported):
    """The converted model of "panoptic", so that what comes after the conversion needs none of its own."""
    model, size, report = exported
    if not model.gives("semantic_logits"):
        pytest.skip("one kind is enough")
    return model, size, contents(report.files[0])


def test_a_wrong_export_is_not_kept(file_of_fpn, tmp_path, pictures, monkeypatch):
    model, size, flatbuffer = file_of_fpn
    monkeypatch.setattr(tflite_export, "_convert", lambda *_: flatbuffer)
    before = model.get_weights()
    changed = MaskRCNN.from_settings(model.settings)
    changed.set_weights([value * 1.05 if value.ndim > 1 else value for value in before])
    with pytest.raises(UserError, match="report this with the config"):
        export_tflite(changed, tmp_path / "model.tflite", input_size=size, check_images=pictures)
    assert not list(tmp_path.iterdir())  # as with these bytes of its own there is the model, by `exported`


def test_a_missing_quantiser_or_interpreter_is_named(file_of_fpn, tmp_path, monkeypatch):
    model, size, flatbuffer = file_of_fpn
    monkeypatch.setattr(tflite_export, "_convert", lambda _, *arguments: quantize_network(flatbuffer, *arguments))
    for missing, sentence in (
        ("ai_edge_quantizer", r"^Quantising needs ai-edge-quantizer: pip install 'mrcnn-tf\[edge\]'\.$"),
        ("ai_edge_litert.interpreter", r"pip install 'mrcnn-tf\[edge\]'\.$"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)  # None: importing it raises ImportError
            with pytest.raises(UserError, match=sentence):
                export_tflite(model, tmp_path / "model.tflite", "dynamic", input_size=size)
    assert not list(tmp_path.iterdir())
