"""The export behind a server, spoken to in TensorFlow Serving's own messages, without this package's client."""

import base64
import concurrent.futures
import io
import json
import shutil
import unittest.mock
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from serving import serving_process

from mrcnn_tf.serving.export_check import SAVED_MODEL_TOLERANCES, check_detections
from mrcnn_tf.serving.export_labels import read_labels
from mrcnn_tf.serving.outputs import make_detections
from mrcnn_tf.serving.saved_model_export import BATCHING_CONFIG, write_warmup

SIZES = ((64, 64), (48, 90), (71, 40), (64, 64), (30, 30), (100, 64), (20, 25), (64, 200))  # height, width
MODELS = {"roi": "boxes", "rle": "runs"}  # masks -> the model's name on the server
DEADLINE = 120  # seconds


@pytest.fixture(scope="module", params=["stub", "tensorflow_model_server"])
def server(request, tiny_export, tmp_path_factory):
    pytest.importorskip("tensorflow_serving.apis")
    program = serving_process.stub_command() if request.param == "stub" else [shutil.which(request.param)]
    if not program[0]:
        pytest.skip(f"There is no {request.param} here.")
    models = {name: tiny_export(masks).parent for masks, name in MODELS.items()}
    folder = tmp_path_factory.mktemp("server")
    with (
        unittest.mock.patch.object(serving_process, "BATCHING", BATCHING_CONFIG),
        serving_process.serving(program, models, folder) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def pixels():
    generator = np.random.default_rng(6)
    return [generator.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def files(pixels):
    return [png(image) for image in pixels]


@pytest.fixture(scope="module")
def reference(tiny_model, pixels):
    return tiny_model.detect(pixels)


@pytest.fixture
def check(tiny_model, tiny_export, reference):
    """A function that holds the rows of an answer, dictionaries, against the model's detections in images `places`."""

    def compare(rows, places, masks="roi"):
        facts, places = read_labels(tiny_export(masks)), list(places)
        found = [make_detections(row, facts, SIZES[place]) for row, place in zip(rows, places, strict=True)]
        assert [np.asarray(row["image_size"]).tolist() for row in rows] == [list(SIZES[place]) for place in places]
        mine = [reference[place] for place in places]
        differences = check_detections(mine, found, SAVED_MODEL_TOLERANCES, tiny_model.settings.detections)
        assert differences.matched == differences.reference > 0

    return compare


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def predict(server, inputs, model="boxes", signature=None):
    """The rows of the answer to a PredictRequest of `inputs`, name -> TensorProto."""
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    request = PredictRequest()
    request.model_spec.name = model
    if signature:
        request.model_spec.signature_name = signature
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tensor)
    return send(server, request)


def send(server, request):
    import grpc
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    with grpc.insecure_channel(server.grpc.removeprefix("grpc://")) as channel:
        response = PredictionServiceStub(channel).Predict(request, timeout=DEADLINE)
    arrays = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
    return [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]


def post(server, document, model="boxes"):
    url, data = f"{server.rest}/v1/models/{model}:predict", json.dumps(document).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=DEADLINE) as answer:
        return json.load(answer)


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


@pytest.mark.parametrize("count", [1, 8])
def test_grpc(server, files, check, count):
    rows = predict(server, {"image_bytes": tf.make_tensor_proto(files[:count])})
    assert all(row["ok"] for row in rows)
    check(rows, range(count))


def test_grpc_pixels(server, pixels, check):
    """Images of one size as they are, without a file's encoding."""
    images = tf.make_tensor_proto(np.stack([pixels[0], pixels[3]]))
    check(predict(server, {"image": images}, signature="image"), [0, 3])


def test_rest_rows(server, files, check):
    check(post(server, {"instances": [b64(one) for one in files]})["predictions"], range(8))
    named = post(server, {"signature_name": "serving_default", "instances": [{"image_bytes": b64(files[1])}]})
    check(named["predictions"], [1])


def test_rest_columns(server, files, check):
    columns = post(server, {"inputs": {"image_bytes": [b64(one) for one in files[:2]]}})["outputs"]
    check([{name: values[row] for name, values in columns.items()} for row in range(2)], range(2))


def test_rest_pixels(server, pixels, check):
    document = {"signature_name": "image", "instances": [pixels[6].tolist()]}
    check(post(server, document)["predictions"], [6])


def test_encoded_masks(server, files, check):
    inputs = {"image_bytes": tf.make_tensor_proto(files[1:3])}
    check(predict(server, inputs, "runs"), [1, 2], "rle")
    rows = post(server, {"instances": [b64(one) for one in files[1:3]]}, "runs")["predictions"]
    for row in rows:  # an output of bytes is base64 wherever its name ends in _bytes
        row["masks_rle_bytes"] = [base64.b64decode(one["b64"]) for one in row["masks_rle_bytes"]]
    check(rows, [1, 2], "rle")


def test_a_row_that_is_no_image_leaves_the_others(server, files, check):
    for rows in (
        predict(server, {"image_bytes": tf.make_tensor_proto([files[1], b"no image", b"", files[2]])}),
        post(server, {"instances": [b64(one) for one in (files[1], b"no image", b"", files[2])]})["predictions"],
    ):
        assert [bool(row["ok"]) for row in rows] == [True, False, False, True]
        for row in rows[1:3]:
            assert row["num_detections"] == 0 and not np.any(row["scores"]) and not np.any(row["image_size"])
        check([rows[0], rows[3]], [1, 2])


def test_requests_that_wait_are_answered_by_one_run(server, files, check):
    places = list(range(8)) * 2
    with concurrent.futures.ThreadPoolExecutor(len(places)) as threads:
        inputs = [{"image_bytes": tf.make_tensor_proto([files[place]])} for place in places]
        answers = list(threads.map(lambda one: predict(server, one), inputs))
    check([rows[0] for rows in answers], places)
    said = server.log.read_text()
    if "batch of" in said:  # the stand-in tells
        assert any(f"in {count} requests" in said for count in range(2, 17))


def test_warmup_requests_are_answered(server, files, check, tmp_path):
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    for place, record in enumerate(tf.data.TFRecordDataset(str(write_warmup(tmp_path, files[:2])))):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        request.model_spec.name = "boxes"  # the server asks itself
        check(send(server, request), [place])


def test_a_wrong_request_is_refused(server, files, check):
    import grpc

    with pytest.raises(grpc.RpcError) as raised:
        predict(server, {"image_bytes": tf.make_tensor_proto([files[:2]])})
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    for document in ({"instances": [[1, 2]]}, {"instances": []}, {"signature_name": "image", "instances": [[[1]]]}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(server, document)
        assert refused.value.code == 400
    check(predict(server, {"image_bytes": tf.make_tensor_proto(files[:1])}), [0])
