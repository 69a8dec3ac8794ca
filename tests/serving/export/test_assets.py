import json

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tiny import tiny_config

from mrcnn_tf import MaskRCNN
from mrcnn_tf.common.categories import Category
from mrcnn_tf.serving.export_labels import labels_document, write_assets
from mrcnn_tf.serving.saved_model_export import write_server_configs


def test_labels_say_what_the_classes_are(tmp_path):
    config = tiny_config("keypoints")
    config.categories = [Category(3, "cat"), Category(17, "größer\nDog", ["nose", "paw", "tail"], [[1, 3]])]
    write_assets(MaskRCNN(config), tmp_path / "1", {"precision": "float16", "input_size": [320, 256]})
    document = json.loads((tmp_path / "1/assets/labels.json").read_text(encoding="utf-8"))
    assert document["categories"] == [
        {"class": 1, "id": 3, "name": "cat", "keypoints": [], "skeleton": []},
        {"class": 2, "id": 17, "name": "größer\nDog", "keypoints": ["nose", "paw", "tail"], "skeleton": [[1, 3]]},
    ]
    assert document["mask_rule"] == "torchvision" and document["keypoint_offset"] == 0.5
    assert document["resize"] == {"min_size": 64, "max_size": 128, "rule": "torchvision"}
    assert document["precision"] == "float16" and document["input_size"] == [320, 256]
    assert (tmp_path / "1/assets/labels.txt").read_text(encoding="utf-8") == "cat\ngrößer Dog\n"


def test_labels_follow_the_conventions():
    document = labels_document(MaskRCNN(tiny_config("c4")), {})
    assert document["mask_rule"] == "detectron2" and document["pixel_mean"] == [123.675, 116.28, 103.53]
    assert json.loads(json.dumps(document)) == document


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
