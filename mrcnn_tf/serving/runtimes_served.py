"""A model that a TensorFlow Serving serves, somewhere on the network."""

import urllib.parse

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.grpc_client import GrpcClient
from mrcnn_tf.serving.outputs import Facts, read_facts
from mrcnn_tf.serving.rest_client import RestClient
from mrcnn_tf.serving.runtime import Runtime
from mrcnn_tf.serving.server_faults import ServerFault, with_retries

PORTS = {"http": 8501, "https": 443, "grpc": 8500}
RETRIES = 5  # with their pauses, ten to fifteen seconds in all


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
        super().__init__(labels if isinstance(labels, Facts) else read_facts(labels))
        scheme, host, path = parse_address(address)
        self.address, self.model, self.timeout, self.retries = f"{scheme}://{host}{path}", model, timeout, retries
        if scheme == "grpc":
            self._client = GrpcClient(host, model, version, timeout)
        else:
            self._client = RestClient(self.address, model, version, timeout)

    def _answer(self, files):
        try:
            return with_retries(lambda: self._client.predict(files), self.retries)
        except ServerFault as fault:
            raise UserError(fault.sentence(self.address, self.model, self.timeout)) from fault


def parse_address(address):
    """(scheme, "host:port", path) of an address as `ServedModel` takes it; the path is empty or begins with a slash.

    Raises:
        UserError: another scheme, no host, or a port that isn't a number.
    """
    text = address if "://" in address else f"http://{address}"
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port or PORTS[parts.scheme]
        if not parts.hostname:
            raise ValueError("no host")
    except (KeyError, ValueError) as error:
        raise UserError(
            f"'{address}' isn't a server's address: give http://HOST:8501 for REST or grpc://HOST:8500 for gRPC."
        ) from error
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, f"{host}:{port}", parts.path.rstrip("/")
