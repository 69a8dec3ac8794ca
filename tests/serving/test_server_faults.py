"""The client against servers that are late, busy, slow, wrong or not there."""

import concurrent.futures
import contextlib
import http.server
import json
import socket
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from served_stand_in import LABELS

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving import server_client
from mrcnn_tf.serving.server_client import ServedModel, ServerFault, with_retries

IMAGE = np.zeros((6, 9, 3), np.uint8)
ROW = {
    "boxes": [[1.5, 2, 8, 5], [0, 0, 0, 0]],
    "scores": [0.5, 0],
    "classes": [1, 0],
    "num_detections": 1,
    "image_size": [6, 9],
    "ok": True,
    "masks_rle_bytes": [{"b64": "ZjE="}, {"b64": ""}],  # "f1": all 54 pixels outside
}
ANSWER = json.dumps({"predictions": [ROW]}).encode()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(server_client, "FIRST_PAUSE", 0.02)


@contextlib.contextmanager
def rest_server(answers, port=0):
    """A server that gives these (status, body) one after the other, the last for ever; a status of 0 is silence."""
    answers, requests = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            requests.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            if status == 0:
                time.sleep(1)
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def grpc_server(predict, port=0):
    """A server whose Predict is a function of (request, context)."""
    grpc = pytest.importorskip("grpc")
    service = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc")

    class Service(service.PredictionServiceServicer):
        def Predict(self, request, context):
            return predict(request, context)

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    service.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def response(**changes):
    from tensorflow_serving.apis import predict_pb2

    values = {name: np.array([value]) for name, value in ROW.items() if name != "masks_rle_bytes"}
    message = predict_pb2.PredictResponse()
    for name, value in (values | changes).items():
        message.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message


def refusing(code, words, times):
    """A Predict that aborts so many times and then answers; its attribute `calls` counts."""

    def predict(request, context):
        import grpc

        predict.calls += 1
        if predict.calls <= times:
            context.abort(getattr(grpc.StatusCode, code), words)
        return response()

    predict.calls = 0
    return predict


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_rest_answers_become_detections():
    with rest_server([(200, ANSWER)]) as (address, requests):
        found = ServedModel(address, LABELS, model="a model", version=3).detect(IMAGE)
    assert (found.category_names, found.boxes.tolist()) == (["wide"], [[1.5, 2, 8, 5]])
    assert found.masks.shape == (1, 6, 9) and not found.masks.any()
    ((path, body),) = requests
    assert path == "/v1/models/a%20model/versions/3:predict"
    assert body["signature_name"] == "serving_default" and set(body["instances"][0]) == {"b64"}


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_busy_rest_server_is_asked_again(status):
    with rest_server([(status, b'{"error": "queue full"}')] * 2 + [(200, ANSWER)]) as (address, requests):
        assert len(ServedModel(address, LABELS).detect(IMAGE)) == 1
    assert len(requests) == 3


def test_a_rest_server_that_stays_busy():
    with rest_server([(503, b'{"error": "queue full"}')]) as (address, requests):
        with pytest.raises(UserError, match=rf"http://{address} .*503: queue full"):
            ServedModel(address, LABELS, retries=3).detect(IMAGE)
        assert len(requests) == 4


def test_a_busy_grpc_server_is_asked_again():
    predict = refusing("UNAVAILABLE", "queue full", 2)
    with grpc_server(predict) as address:
        assert len(ServedModel(address, LABELS).detect(IMAGE)) == 1
    assert predict.calls == 3
    predict = refusing("RESOURCE_EXHAUSTED", "no memory", 9)
    with grpc_server(predict) as address, pytest.raises(UserError, match=rf"{address} .*RESOURCE_EXHAUSTED: no memory"):
        ServedModel(address, LABELS, retries=1).detect(IMAGE)
    assert predict.calls == 2


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_nobody_listens(kind):
    port = free_port()
    with pytest.raises(UserError, match=rf"{kind}://127.0.0.1:{port} can't be reached .*start it"):
        ServedModel(f"{kind}://127.0.0.1:{port}", LABELS, retries=1).detect(IMAGE)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_server_that_comes_up_late(kind, monkeypatch):
    monkeypatch.setattr(server_client, "FIRST_PAUSE", 0.3)
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(1) as threads, contextlib.ExitStack() as stack:
        found = threads.submit(ServedModel(f"{kind}://127.0.0.1:{port}", LABELS).detect, IMAGE)
        time.sleep(0.5)
        stack.enter_context(
            rest_server([(200, ANSWER)], port) if kind == "http" else grpc_server(refusing("", "", 0), port)
        )
        assert len(found.result()) == 1


def test_a_rest_server_that_is_silent_is_not_asked_again():
    with rest_server([(0, b"")]) as (address, requests):
        with pytest.raises(UserError, match=r"didn't answer for 'mask_rcnn' in 0\.2 s .*timeout="):
            ServedModel(address, LABELS, timeout=0.2).detect(IMAGE)
        assert len(requests) == 1


def test_a_grpc_server_that_is_silent_is_not_asked_again():
    calls = []

    def predict(request, context):
        calls.append(request)
        time.sleep(1)
        return response()

    with grpc_server(predict) as address, pytest.raises(UserError, match=r"in 0\.3 s .*timeout="):
        ServedModel(address, LABELS, timeout=0.3).detect(IMAGE)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>It works!</html>", "doesn't answer like a TensorFlow Serving .*port"),
        (200, b"", "doesn't answer like a TensorFlow Serving"),
        (200, b'{"predictions": []}', "0 rows for 1 images"),
        (200, b'{"outputs": {}}', "KeyError"),
        (200, b'{"predictions": [{"boxes": [[1, 2], [3]]}]}', "doesn't answer like"),
        (200, b'{"predictions": [{"boxes": "many"}]}', "TypeError"),
        (200, b'{"predictions": [[0.1, 0.9]]}', "refuses the request .*mrcnn-tf export saved-model"),
        (200, b'{"predictions": [{"scores": [0.1]}]}', "lack ok and image_size"),
        (200, b'{"predictions": [{"ok": true, "image_size": [1, 1], "scores": []}]}', "lack boxes"),
        (400, b'{"error": "input size is not a number"}', "400: input size is not a number"),
        (404, b'{"error": "Servable not found"}', "has no model 'mask_rcnn' .*Servable not found"),
        (413, b"", "so large a request"),
        (500, b"line one\n\nline two", r"failed on 'mask_rcnn' \(500: line one line two\): see the server's log"),
        (504, b'{"error": "Timed out"}', "504: Timed out.*timeout="),
    ],
)
def test_other_rest_answers(status, body, words):
    with rest_server([(status, body)]) as (address, requests):
        with pytest.raises(UserError, match=words) as caught:
            ServedModel(address, LABELS).detect(IMAGE)
        assert len(requests) == 1 and "\n" not in str(caught.value)


def test_rest_against_a_server_of_another_protocol():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00 not http\r\n")

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises(UserError, match="doesn't answer like a TensorFlow Serving .*gRPC 8500"):
            ServedModel(f"127.0.0.1:{listener.getsockname()[1]}", LABELS).detect(IMAGE)


def test_grpc_errors_name_their_cause():
    cases = {
        "NOT_FOUND": "has no model 'mask_rcnn' .*sorry",
        "INVALID_ARGUMENT": "refuses the request .*sorry",
        "INTERNAL": "failed on 'mask_rcnn' .*INTERNAL: sorry",
        "UNIMPLEMENTED": "doesn't answer like a TensorFlow Serving",
    }
    for code, words in cases.items():
        predict = refusing(code, "sorry", 9)
        with grpc_server(predict) as address, pytest.raises(UserError, match=words):
            ServedModel(address, LABELS).detect(IMAGE)
        assert predict.calls == 1
    too_large = refusing("RESOURCE_EXHAUSTED", "Received message larger than max (5 vs. 4)", 9)
    with grpc_server(too_large) as address, pytest.raises(UserError, match="so large a request"):
        ServedModel(address, LABELS).detect(IMAGE)
    assert too_large.calls == 1


def test_grpc_answers_of_other_models():
    for changes, words in (({"scores": np.zeros((2, 2))}, "for 1 images"), ({"extra": np.float32(1)}, "for 1 images")):
        with (
            grpc_server(lambda request, context, c=changes: response(**c)) as address,
            pytest.raises(UserError, match=words),
        ):
            ServedModel(address, LABELS).detect(IMAGE)


def test_grpc_answers_larger_than_its_usual_limit():
    masks = np.zeros((1, 2, 1000, 1000), np.float32)  # 8 MB; gRPC takes 4 unless told otherwise
    with grpc_server(lambda request, context: response(masks=masks)) as address:
        assert ServedModel(address, LABELS).detect(IMAGE).mask_probabilities.shape == (1, 1000, 1000)


@pytest.mark.parametrize("package", ["grpc", "tensorflow_serving.apis"])
def test_grpc_without_its_packages(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'mrcnn-tf\[serving\]', or use REST"):
        ServedModel("grpc://localhost", LABELS)


def test_pauses_grow_up_to_a_limit(monkeypatch):
    pauses = []
    monkeypatch.setattr(server_client, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(server_client.time, "sleep", pauses.append)

    def call():
        raise ServerFault("busy", "again")

    with pytest.raises(ServerFault):
        with_retries(call, 6)
    longest = np.minimum(2.0 ** np.arange(6), server_client.LONGEST_PAUSE)
    assert len(pauses) == 6 and (longest / 2 <= pauses).all() and (pauses <= longest).all()
