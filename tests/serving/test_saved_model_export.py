"""What an export writes, what it refuses, that a wrong export never gets its name, and a server's files."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from PIL import Image
from tiny import tiny_config

from mrcnn_tf import MaskRCNN, UserError
from mrcnn_tf.serving import saved_model_export
from mrcnn_tf.serving.runtime import SavedModelRuntime
from mrcnn_tf.serving.saved_model_export import (
    encode_prediction_log,
    export_saved_model,
    write_server_configs,
    write_warmup,
)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return MaskRCNN.from_settings(tiny_config())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / "one.png", folder / "two.jpg"]
    for path, size in zip(paths, ((40, 60), (70, 30)), strict=True):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return paths


def test_an_export_has_all_that_a_server_needs(model, images, tmp_path):
    folder = tmp_path / "cats" / "7"
    report = export_saved_model(model, folder, max_detections=4, score_threshold=0.02, check_images=images)
    assert {path.name for path in folder.parent.iterdir()} == {"7", "models.config", "batching.config"}
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files >= {"saved_model.pb", "assets/labels.json", "assets.extra/tf_serving_warmup_requests"}
    assert 'name: "cats"' in (folder.parent / "models.config").read_text()
    facts = json.loads((folder / "assets" / "labels.json").read_text())
    assert (facts["precision"], facts["input_size"], facts["masks"], facts["xla"], facts["custom_ops"]) == (
        "float32",
        None,
        "roi",
        False,
        False,
    )
    assert (report.folder, report.precision, report.input_size) == (folder, "float32", None)
    assert report.size == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    differences = report.differences
    assert differences.images == 4 and differences.matched == differences.reference == 4 * 4
    assert differences.box <= 1e-3 and differences.score <= 1e-5
    found = SavedModelRuntime(folder.parent).detect_file(images[1])
    assert len(found) == 4 and found.image_size == (70, 30) and found.scores.min() > 0.02


def test_half_precision_on_a_canvas_is_checked_with_its_own_tolerances(model, images, tmp_path):
    report = export_saved_model(
        model, tmp_path / "1", precision="bfloat16", input_size=(64, 96), custom_ops=False, check_images=images[:1]
    )
    assert (report.precision, report.input_size) == ("bfloat16", (64, 96))
    assert report.differences.score > 1e-7, "This was not computed in bfloat16."
    assert report.differences.tolerances.score == 0.03
    facts = json.loads((tmp_path / "1" / "assets" / "labels.json").read_text())
    assert facts["precision"] == "bfloat16" and facts["input_size"] == [64, 96]


def test_an_export_that_finds_something_else_is_not_kept(model, images, tmp_path, monkeypatch):
    check = saved_model_export.check_detections

    def check_shifted(reference, *arguments):
        for detections in {id(detections): detections for detections in reference}.values():
            detections.boxes += 0.01
        return check(reference, *arguments)

    monkeypatch.setattr(saved_model_export, "check_detections", check_shifted)
    with pytest.raises(UserError, match="box differs from the Keras model's by 0.01"):
        export_saved_model(model, tmp_path / "1", check_images=images[:1])
    assert not list(tmp_path.iterdir())


def test_folders_that_are_refused(model, tmp_path):
    (tmp_path / "3").mkdir()
    with pytest.raises(UserError, match="3 exists: export to the next number"):
        export_saved_model(model, tmp_path / "3")
    for name in ("model", "1.0", "v1", "²"):
        with pytest.raises(UserError, match="isn't named with a version's number"):
            export_saved_model(model, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"masks": "png"}, "There are no masks 'png': choose roi or rle."),
        ({"xla": True}, "give input_size too"),
        ({"xla": True, "input_size": 64, "custom_ops": True}, "choose xla or custom_ops"),
        ({"input_size": 50}, "give multiples of 32"),
        ({"precision": "int8"}, "no precision 'int8'"),
        ({"max_detections": 0}, "give 1 or more"),
    ],
)
def test_options_that_are_refused(model, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        export_saved_model(model, tmp_path / "1", **options)
    assert not list(tmp_path.iterdir())


def test_heads_that_options_need(tmp_path):
    config = tiny_config()
    config.mask_head = None
    with pytest.raises(UserError, match="no mask head"):
        export_saved_model(MaskRCNN.from_settings(config), tmp_path / "1", masks="rle")
    with pytest.raises(UserError, match="export without xla"):
        export_saved_model(MaskRCNN.from_settings(tiny_config("keypoints")), tmp_path / "1", xla=True, input_size=64)


def test_a_check_image_that_is_none(model, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match="text.png isn't a readable image"):
        export_saved_model(model, tmp_path / "1", check_images=[tmp_path / "text.png"])
    assert [path.name for path in tmp_path.iterdir()] == ["text.png"]


@pytest.fixture
def messages():
    return pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")


# The lengths at which a varint grows by a byte, and more than a protobuf's first three.
@pytest.mark.parametrize("length", [0, 1, 60, 127, 128, 129, 16383, 16384, 2**21 + 1])
def test_requests_are_what_tensorflow_serving_writes(tmp_path, messages, length):
    image = bytes(index % 251 for index in range(length))
    path = write_warmup(tmp_path, [image, b"\x00\xff"])
    assert path == tmp_path / "assets.extra/tf_serving_warmup_requests"
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    for record, content in zip(records, [image, b"\x00\xff"], strict=True):
        expected = messages.PredictionLog()
        request = expected.predict_log.request
        request.model_spec.signature_name = "serving_default"
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([content]))
        assert record == expected.SerializeToString(deterministic=True)
        read = messages.PredictionLog.FromString(record).predict_log.request.inputs["image_bytes"]
        assert tf.make_ndarray(read).tolist() == [content]


def test_several_inputs(messages):
    tensors = {"a": tf.make_tensor_proto([1, 2]), "image": tf.make_tensor_proto([[0.5]])}
    request = messages.PredictionLog.FromString(encode_prediction_log("image", tensors)).predict_log.request
    assert request.model_spec.signature_name == "image" and dict(request.inputs) == tensors


@pytest.mark.parametrize("name", ["nuclei", 'a "größer" \\ model'])
def test_server_configs_parse(tmp_path, name):
    messages = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    write_server_configs(tmp_path, name)
    text = (tmp_path / "models.config").read_text(encoding="utf-8")
    (model,) = text_format.Parse(text, messages.ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (name, f"/models/{name}", "tensorflow")


def batching_parameters():
    """BatchingParameters of tensorflow_serving/servables/tensorflow/session_bundle_config.proto, which
    tensorflow-serving-api lacks: the fields' types and numbers are all that a text needs."""
    kind = descriptor_pb2.FieldDescriptorProto
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", package="tensorflow.serving", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    message = file.message_type.add(name="BatchingParameters")
    numbers = {"max_batch_size": 1, "batch_timeout_micros": 2, "max_enqueued_batches": 3, "num_batch_threads": 4}
    numbers |= {"max_execution_batch_size": 9, "enable_large_batch_splitting": 8}
    for name, number in numbers.items():
        wrapper = "BoolValue" if name.startswith("enable") else "Int64Value"
        field = message.field.add(name=name, number=number, type=kind.TYPE_MESSAGE, label=kind.LABEL_OPTIONAL)
        field.type_name = f".google.protobuf.{wrapper}"
    message.field.add(name="allowed_batch_sizes", number=6, type=kind.TYPE_INT64, label=kind.LABEL_REPEATED)
    message.field.add(name="pad_variable_length_inputs", number=7, type=kind.TYPE_BOOL, label=kind.LABEL_OPTIONAL)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters"))()


def test_batching_parameters_parse_and_fit_one_another(tmp_path):
    write_server_configs(tmp_path, "nuclei")
    found = text_format.Parse((tmp_path / "batching.config").read_text(), batching_parameters())
    assert found.enable_large_batch_splitting.value and not found.pad_variable_length_inputs
    assert found.max_batch_size.value >= found.max_execution_batch_size.value == 8  # as the server demands
    assert not found.allowed_batch_sizes
    assert found.num_batch_threads.value and found.batch_timeout_micros.value and found.max_enqueued_batches.value


def test_server_configs_of_the_user_stay(tmp_path):
    (tmp_path / "models.config").write_text("mine")
    write_server_configs(tmp_path, "nuclei")
    assert (tmp_path / "models.config").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batching.config", "models.config"]
