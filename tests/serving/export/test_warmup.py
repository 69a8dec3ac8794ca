import pytest
import tensorflow as tf

from mrcnn_tf.serving.saved_model_export import encode_prediction_log, write_warmup


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
