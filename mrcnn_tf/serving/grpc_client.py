"""TensorFlow Serving's gRPC interface."""

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.server_faults import ServerFault

# gRPC's own limit of 4 MiB is what the masks of a dozen images take. Its pauses before it connects again grow to two
# minutes, in which a server that has come up would still seem to be away.
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
KINDS = {
    "UNAVAILABLE": "busy",
    "RESOURCE_EXHAUSTED": "busy",
    "DEADLINE_EXCEEDED": "late",
    "NOT_FOUND": "unknown",
    "INVALID_ARGUMENT": "unfit",
    "FAILED_PRECONDITION": "unfit",
    "UNIMPLEMENTED": "garbled",
}


class GrpcClient:
    """Asks `serving_default` of one model for the outputs of image files. Threads may share it.

    Args:
        address: HOST:PORT.
        model, version: which to ask for; None for the latest version.
        timeout: seconds until the whole answer is there.

    Raises:
        UserError: grpcio or tensorflow-serving-api is missing.
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
        self._channel = grpc.insecure_channel(address, OPTIONS)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, files):
        """List of bytes -> list of dictionaries of arrays, or bytes, one for each file.

        Raises:
            ServerFault: no answer, or one that isn't the outputs.
        """
        request = self._request()
        request.model_spec.name, request.model_spec.signature_name = self._model, "serving_default"
        if self._version is not None:
            request.model_spec.version.value = self._version
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files, tf.string, [len(files)]))
        try:
            response = self._service.Predict(request, self.timeout)
        except self._grpc.RpcError as error:
            too_large = "larger than max" in error.details()  # a proxy's limit, or a server's
            kind = "too_large" if too_large else KINDS.get(error.code().name, "failed")
            raise ServerFault(kind, f"{error.code().name}: {error.details()}") from error
        arrays = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
        lengths = {name: array.shape[:1] for name, array in arrays.items()}
        if not arrays or set(lengths.values()) != {(len(files),)}:
            raise ServerFault("garbled", f"rows {lengths} for {len(files)} images")
        return [{name: array[row] for name, array in arrays.items()} for row in range(len(files))]
