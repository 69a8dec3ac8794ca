"""A client of a TensorFlow Serving: `ServedModel` detects by requests over REST or gRPC.

What can go wrong on the way is a `ServerFault`, which becomes one sentence for the user.
"""

import base64
import http.client
import json
import random
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.export_labels import ExportLabels, read_labels
from mrcnn_tf.serving.runtime import Runtime

PORTS = {"http": 8501, "https": 443, "grpc": 8500}
RETRIES = 5  # with their pauses, ten to fifteen seconds in all
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds between attempts, doubled each time
MAX_REASON_LENGTH = 300  # characters of a server's answer that are repeated

FAULT_SENTENCES = {
    "busy": "{server} can't be reached or takes no more requests ({reason}): start it, check host and port "
    "(REST is 8501 by default, gRPC 8500), or wait.",
    "late": "{server} didn't answer for '{model}' in {timeout:g} s ({reason}): allow more with timeout=, send fewer "
    "images at once, or give the server more cores.",
    "unknown": "{server} has no model '{model}' ({reason}): give the name and version under which it serves the "
    "export.",
    "unfit": "{server} refuses the request for '{model}' ({reason}): it must serve what mrcnn-tf export saved-model "
    "wrote.",
    "too_large": "{server} refuses so large a request for '{model}' ({reason}): send fewer images at once, or gRPC.",
    "garbled": "{server} doesn't answer like a TensorFlow Serving with '{model}' ({reason}): check host, port and "
    "protocol (REST is 8501 by default, gRPC 8500).",
    "failed": "{server} failed on '{model}' ({reason}): see the server's log.",
}


class ServedModel(Runtime):
    """The `detect` and `detect_batch` of a `MaskRCNN`, by requests to a TensorFlow Serving. Threads may share it.

    Args:
        address: http://HOST:8501 or https://... for REST, grpc://HOST:8500 for gRPC; HOST:PORT alone is REST.
        labels: labels.json of the export, its folder, or its content: the server doesn't give it to clients.
        model: the name under which the server has the model.
        version: its number; None for the latest that the server has.
        timeout: seconds to wait for an answer. It isn't tried again after them.
        retries: further attempts where the server isn't up or takes no more requests, after growing pauses.

    Raises:
        UserError: a malformed address, no labels, or gRPC without its packages. Whether there is a server shows at the
            first request.
    """

    def __init__(self, address, labels, model="mask_rcnn", version=None, timeout=60.0, retries=RETRIES):
        if labels is None:
            raise UserError("A server doesn't tell its model's classes: give the labels.json of the export as labels.")
        super().__init__(labels if isinstance(labels, ExportLabels) else read_labels(labels))
        scheme, host, path = parse_address(address)
        self.address, self.model, self.timeout, self.retries = f"{scheme}://{host}{path}", model, timeout, retries
        client, server = (GrpcClient, host) if scheme == "grpc" else (RestClient, self.address)
        self._client = client(server, model, version, timeout)

    def _run_files(self, files):
        try:
            return with_retries(lambda: self._client.predict(files), self.retries)
        except ServerFault as fault:
            raise UserError(fault.sentence(self.address, self.model, self.timeout)) from fault


def parse_address(address):
    """(scheme, "host:port", path) of an address as `ServedModel` takes it; the path is empty or begins with a slash.

    Raises UserError for another scheme, no host, or a port that isn't a number.
    """
    try:
        parts = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
        port = parts.port or PORTS[parts.scheme]
        if not parts.hostname:
            raise ValueError("no host")
    except (KeyError, ValueError) as error:
        raise UserError(
            f"'{address}' isn't a server's address: give http://HOST:8501 for REST or grpc://HOST:8500 for gRPC."
        ) from error
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, f"{host}:{port}", parts.path.rstrip("/")


class ServerFault(Exception):
    """No answer, or a wrong one: `kind` is a key of FAULT_SENTENCES, `reason` the server's or system's own words."""

    def __init__(self, kind, reason):
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason

    def sentence(self, server, model, timeout):
        """For the user: what happened, with which server and model, and the remedy."""
        reason = " ".join(str(self.reason).split())[:MAX_REASON_LENGTH].rstrip(".:") or "without a reason"
        return FAULT_SENTENCES[self.kind].format(server=server, model=model, timeout=timeout, reason=reason)


def with_retries(call, retries):
    """The result of `call()`; after a "busy" `ServerFault` up to `retries` attempts more, with growing pauses between.

    The pauses are random up to a factor of two, so that clients which were refused together don't come back together.
    """
    for attempt in range(retries):
        try:
            return call()
        except ServerFault as fault:
            if fault.kind != "busy":
                raise
        time.sleep(min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1))
    return call()


REST_FAULTS = {400: "unfit", 404: "unknown", 408: "late", 412: "unfit", 413: "too_large", 429: "busy", 502: "busy",
               503: "busy", 504: "late"}  # fmt: skip


class RestClient:
    """Asks `serving_default` of one model for the outputs of image files, by REST. Threads may share it.

    The url is such as http://localhost:8501, without a path unless a proxy wants one; the timeout is of seconds without
    any answer.
    """

    def __init__(self, url, model, version, timeout):
        version_path = "" if version is None else f"/versions/{version}"
        self.url = f"{url}/v1/models/{urllib.parse.quote(model, safe='')}{version_path}:predict"
        self.timeout = timeout

    def predict(self, files):
        """List of bytes -> list of dictionaries of arrays, or bytes, one for each file; raises ServerFault."""
        # Instances, not inputs: the server answers them by image, and writes the numbers of columns a line each.
        instances = [{"b64": base64.b64encode(file).decode("ascii")} for file in files]
        answer = self._post(json.dumps({"signature_name": "serving_default", "instances": instances}).encode())
        try:
            predictions = json.loads(answer)["predictions"]
            if not all(isinstance(outputs, dict) for outputs in predictions):
                raise ServerFault("unfit", "it has one output without a name")
            predictions = [{name: _to_array(value) for name, value in outputs.items()} for outputs in predictions]
        except (ValueError, KeyError, TypeError) as error:
            raise ServerFault("garbled", f"{type(error).__name__} in {answer[:80]!r}") from error
        if len(predictions) != len(files):
            raise ServerFault("garbled", f"{len(predictions)} rows for {len(files)} images")
        return predictions

    def _post(self, body):
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            raise ServerFault(REST_FAULTS.get(error.code, "failed"), f"{error.code}: {_read_reason(error)}") from error
        except TimeoutError as error:
            raise ServerFault("late", "no answer") from error
        except urllib.error.URLError as error:
            # A connection that wasn't made counts as busy: there is nobody yet, or nobody any more.
            kinds = {TimeoutError: "late", ssl.SSLError: "garbled"}
            kind = next((kind for cause, kind in kinds.items() if isinstance(error.reason, cause)), "busy")
            raise ServerFault(kind, error.reason) from error
        except ConnectionError as error:
            raise ServerFault("busy", error) from error
        except http.client.HTTPException as error:
            raise ServerFault("garbled", repr(error)) from error


def _to_array(value):
    """A number, or nested lists, or a list of {"b64": ...} as an array; one {"b64": ...} as bytes."""
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.array([base64.b64decode(item["b64"], validate=True) for item in value], object)
    array = np.asarray(value)
    if array.dtype.kind not in "bif":
        raise TypeError(f"{array.dtype} isn't a number")
    return array


def _read_reason(error):
    """The text of an HTTP error, which is {"error": "..."} where the server is TensorFlow Serving."""
    try:
        body = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return error.reason
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body or error.reason


# gRPC's own limit of 4 MiB is what the masks of a dozen images take. Its pauses before it connects again grow to two
# minutes, in which a server that has come up would still seem to be away.
GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
GRPC_FAULTS = {
    "UNAVAILABLE": "busy",
    "RESOURCE_EXHAUSTED": "busy",
    "DEADLINE_EXCEEDED": "late",
    "NOT_FOUND": "unknown",
    "INVALID_ARGUMENT": "unfit",
    "FAILED_PRECONDITION": "unfit",
    "UNIMPLEMENTED": "garbled",
}


class GrpcClient:
    """As `RestClient` by gRPC, at HOST:PORT; the timeout is of seconds until the whole answer is there.

    Raises UserError if grpcio or tensorflow-serving-api is missing.
    """

    def __init__(self, address, model, version, timeout):
        try:
            import grpc
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        except ImportError as error:
            raise UserError(
                f"gRPC takes packages that aren't there ({error}): pip install 'mrcnn-tf[serving]', or use REST, "
                "http://HOST:8501."
            ) from error
        self._grpc, self._request = grpc, predict_pb2.PredictRequest
        self._model, self._version, self.timeout = model, version, timeout
        self._channel = grpc.insecure_channel(address, GRPC_OPTIONS)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, files):
        """As `RestClient.predict`."""
        request = self._request()
        request.model_spec.name, request.model_spec.signature_name = self._model, "serving_default"
        if self._version is not None:
            request.model_spec.version.value = self._version
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files, tf.string, [len(files)]))
        try:
            response = self._service.Predict(request, self.timeout)
        except self._grpc.RpcError as error:
            too_large = "larger than max" in error.details()  # a proxy's limit, or a server's
            kind = "too_large" if too_large else GRPC_FAULTS.get(error.code().name, "failed")
            raise ServerFault(kind, f"{error.code().name}: {error.details()}") from error
        arrays = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
        lengths = {name: array.shape[:1] for name, array in arrays.items()}
        if not arrays or set(lengths.values()) != {(len(files),)}:
            raise ServerFault("garbled", f"rows {lengths} for {len(files)} images")
        return [{name: array[index] for name, array in arrays.items()} for index in range(len(files))]
