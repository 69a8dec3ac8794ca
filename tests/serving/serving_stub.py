"""A stand-in for tensorflow_model_server, with the same flags: SavedModels on loopback, by gRPC and by REST.

It needs tensorflow and tensorflow-serving-api and nothing of this package. SavedModels are loaded and run by a session,
and requests become tensors, tensors answers and errors status codes by the real server's rules. With --enable_batching
requests that wait are concatenated, run once and cut apart, which takes outputs whose dimension 0 is the batch's. Each
batch is a line on stdout.
"""

import argparse
import base64
import concurrent.futures
import dataclasses
import http.server
import json
import os
import pathlib
import queue
import re
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

HTTP_STATUS = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503}
STATUS = {code.value[0]: code.name for code in grpc.StatusCode}
PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(:predict)?")


class Refused(Exception):
    """A status code's name and a message."""


class Servable:
    """The latest version in a folder."""

    def __init__(self, name, base_path):
        self.name = name
        self.version = max(int(path.name) for path in pathlib.Path(base_path).iterdir() if path.name.isdigit())
        graph = tf.Graph()
        self.session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            folder = f"{base_path}/{self.version}"
            meta_graph = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], folder)
        self.signatures = dict(meta_graph.signature_def)

    def signature(self, name):
        name = name or "serving_default"
        if name not in self.signatures:
            raise Refused("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def run(self, signature, tensors):
        if set(tensors) != set(signature.inputs):
            raise Refused("INVALID_ARGUMENT", f"Inputs expected to be in the set {{{','.join(signature.inputs)}}}.")
        fetches = {name: info.name for name, info in signature.outputs.items()}
        try:
            return self.session.run(fetches, {signature.inputs[name].name: value for name, value in tensors.items()})
        except tf.errors.OpError as error:
            raise Refused(STATUS[error.error_code], error.message) from error
        except (TypeError, ValueError) as error:
            raise Refused("INVALID_ARGUMENT", str(error)) from error


@dataclasses.dataclass
class Waiting:
    signature: object
    tensors: dict
    rows: int
    answer: concurrent.futures.Future


class Batcher:
    """Gathers requests as `batching_parameters_file` says."""

    def __init__(self, servable, parameters):
        self.servable, self.queue = servable, queue.Queue()
        self.most = int(re.search(r"max_batch_size\s*{\s*value:\s*(\d+)", parameters)[1])
        self.wait = int(re.search(r"batch_timeout_micros\s*{\s*value:\s*(\d+)", parameters)[1]) / 1e6
        threading.Thread(target=self._work, daemon=True).start()

    def run(self, signature, tensors):
        rows = len(next(iter(tensors.values())))
        waiting = Waiting(signature, tensors, rows, concurrent.futures.Future())
        self.queue.put(waiting)
        return waiting.answer.result()

    def _work(self):
        held = None
        while True:
            batch = [held or self.queue.get()]
            held, deadline = None, time.monotonic() + self.wait
            while sum(one.rows for one in batch) < self.most:
                try:
                    following = self.queue.get(timeout=max(0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                rows = sum(one.rows for one in batch) + following.rows
                if rows > self.most or following.signature is not batch[0].signature:
                    held = following
                    break
                batch.append(following)
            self._answer(batch)

    def _answer(self, batch):
        rows = [one.rows for one in batch]
        print(f"batch of {sum(rows)} in {len(rows)} requests", flush=True)
        try:
            for shapes in zip(*([value.shape[1:] for value in one.tensors.values()] for one in batch), strict=True):
                if len(set(shapes)) > 1:
                    raise Refused("INVALID_ARGUMENT", "Tensors from different tasks have different shapes.")
            joined = {name: np.concatenate([one.tensors[name] for one in batch]) for name in batch[0].tensors}
            outputs = self.servable.run(batch[0].signature, joined)
            if any(np.shape(value)[:1] != (sum(rows),) for value in outputs.values()):
                raise Refused("FAILED_PRECONDITION", "Batched output tensor's 0th dimension does not equal the sum.")
            parts = {name: np.split(value, np.cumsum(rows)[:-1]) for name, value in outputs.items()}
            for place, one in enumerate(batch):
                one.answer.set_result({name: part[place] for name, part in parts.items()})
        except Exception as error:
            for one in batch:
                one.answer.set_exception(error)


@dataclasses.dataclass
class Model:
    servable: Servable
    run: object


class Models:
    def __init__(self, config, batching):
        self.models = {}
        for name, path in re.findall(r'name:\s*"([^"]+)"\s*base_path:\s*"([^"]+)"', config):
            servable = Servable(name, path)
            self.models[name] = Model(servable, Batcher(servable, batching).run if batching else servable.run)

    def find(self, name, version):
        model = self.models.get(name)
        if model is None or version not in (None, model.servable.version):
            which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise Refused("NOT_FOUND", f"Servable not found for request: {which}")
        return model


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models):
        self.models = models

    def Predict(self, request, context):
        spec = request.model_spec
        try:
            model = self.models.find(spec.name, spec.version.value if spec.HasField("version") else None)
            tensors = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            outputs = model.run(model.servable.signature(spec.signature_name), tensors)
        except Refused as refused:
            context.abort(getattr(grpc.StatusCode, refused.args[0]), refused.args[1])
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.version.value = spec.name, model.servable.version
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


class RestHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    models = None  # set by main

    def do_GET(self):
        self._answer(None)

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body):
        match = PATH.fullmatch(self.path)
        try:
            if not match or bool(match[3]) != (body is not None):
                raise Refused("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")
            model = self.models.find(match[1], match[2] and int(match[2]))
            if body is None:
                state = {"version": str(model.servable.version), "state": "AVAILABLE", "status": {"error_code": "OK"}}
                self._send(200, {"model_version_status": [state]})
            else:
                self._send(200, predict_json(model, body))
        except Refused as refused:
            self._send(HTTP_STATUS.get(refused.args[0], 500), {"error": refused.args[1]})

    def _send(self, status, document):
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def predict_json(model, body):
    try:
        document = json.loads(body)
    except ValueError as error:
        raise Refused("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    signature = model.servable.signature(document.get("signature_name"))
    if ("instances" in document) == ("inputs" in document):
        raise Refused("INVALID_ARGUMENT", "Missing 'inputs' or 'instances' key")
    by_row = "instances" in document
    columns = (from_rows if by_row else from_columns)(document["instances" if by_row else "inputs"], signature.inputs)
    unknown = set(columns) - set(signature.inputs)
    if unknown:
        raise Refused("INVALID_ARGUMENT", f"JSON object: does not have named input: {unknown}")
    outputs = model.run(
        signature, {name: to_tensor(value, signature.inputs[name].dtype) for name, value in columns.items()}
    )
    shown = {name: to_json(name, value) for name, value in outputs.items()}
    if not by_row:
        return {"outputs": shown if len(shown) > 1 else next(iter(shown.values()))}
    if len({np.shape(value)[:1] for value in outputs.values()}) > 1:
        raise Refused("INVALID_ARGUMENT", "Tensor has inconsistent batch size")
    rows = [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]
    return {"predictions": rows if len(shown) > 1 else [next(iter(row.values())) for row in rows]}


def from_rows(rows, inputs):
    """Rows are {input: value}, or the value itself where there is one input."""
    if not isinstance(rows, list) or not rows:
        raise Refused("INVALID_ARGUMENT", "No values in 'instances' array")
    if not isinstance(rows[0], dict) or set(rows[0]) == {"b64"}:
        return {next(iter(inputs)): rows}
    return {name: [row.get(name) for row in rows] for name in rows[0]}


def from_columns(columns, inputs):
    """Columns are {input: values}, or the values themselves where there is one input."""
    return columns if isinstance(columns, dict) and set(columns) != {"b64"} else {next(iter(inputs)): columns}


def to_tensor(value, dtype):
    dtype = tf.dtypes.as_dtype(dtype)

    def leaf(item):
        if isinstance(item, list):
            return [leaf(one) for one in item]
        if dtype == tf.string:
            if isinstance(item, dict) and set(item) == {"b64"}:
                return base64.b64decode(item["b64"])
            if isinstance(item, str):
                return item.encode()
        elif isinstance(item, (int, float)):
            return item
        raise Refused("INVALID_ARGUMENT", f"JSON Value: {json.dumps(item)[:80]} is not of expected type: {dtype.name}")

    try:
        return np.array(leaf(value), object if dtype == tf.string else dtype.as_numpy_dtype)
    except (ValueError, OverflowError) as error:
        raise Refused("INVALID_ARGUMENT", f"Failed to process element: {error}") from error


def to_json(name, array):
    def leaf(value):
        if isinstance(value, list):
            return [leaf(one) for one in value]
        if isinstance(value, bytes):
            text = base64.b64encode(value).decode()
            return {"b64": text} if name.endswith("_bytes") else value.decode()
        return value

    if array.dtype == np.float32:  # the shortest decimals that are this number, not this number as a double
        return np.array([float(str(value)) for value in array.ravel()]).reshape(array.shape).tolist()
    return leaf(array.tolist())


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--port", type=int, required=True)
    flags.add_argument("--rest_api_port", type=int, required=True)
    flags.add_argument("--model_config_file", required=True)
    flags.add_argument("--enable_batching", action="store_true")
    flags.add_argument("--batching_parameters_file")
    chosen = flags.parse_args()
    batching = pathlib.Path(chosen.batching_parameters_file).read_text() if chosen.enable_batching else None
    RestHandler.models = Models(pathlib.Path(chosen.model_config_file).read_text(), batching)
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=unlimited)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(RestHandler.models), server)
    server.add_insecure_port(f"127.0.0.1:{chosen.port}")
    server.start()
    http.server.ThreadingHTTPServer(("127.0.0.1", chosen.rest_api_port), RestHandler).serve_forever()


if __name__ == "__main__":
    main()
