"""TensorFlow Serving's REST interface."""

import base64
import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request

import numpy as np

from mrcnn_tf.serving.server_faults import ServerFault

KINDS = {400: "unfit", 404: "unknown", 408: "late", 412: "unfit", 413: "too_large", 429: "busy", 502: "busy",
         503: "busy", 504: "late"}  # fmt: skip


class RestClient:
    """Asks `serving_default` of one model for the outputs of image files. Threads may share it.

    Args:
        url: such as http://localhost:8501, without a path unless a proxy wants one.
        model, version: which to ask for; None for the latest version.
        timeout: seconds without any answer.
    """

    def __init__(self, url, model, version, timeout):
        of_version = "" if version is None else f"/versions/{version}"
        self.url = f"{url}/v1/models/{urllib.parse.quote(model, safe='')}{of_version}:predict"
        self.timeout = timeout

    def predict(self, files):
        """List of bytes -> list of dictionaries of arrays, or bytes, one for each file.

        Raises:
            ServerFault: no answer, or one that isn't the outputs.
        """
        # Instances, not inputs: the server answers them by image, and writes the numbers of columns a line each.
        instances = [{"b64": base64.b64encode(file).decode("ascii")} for file in files]
        answer = self._post(json.dumps({"signature_name": "serving_default", "instances": instances}).encode())
        try:
            rows = json.loads(answer)["predictions"]
            if not all(isinstance(row, dict) for row in rows):
                raise ServerFault("unfit", "it has one output without a name")
            rows = [{name: _array(value) for name, value in row.items()} for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise ServerFault("garbled", f"{type(error).__name__} in {answer[:80]!r}") from error
        if len(rows) != len(files):
            raise ServerFault("garbled", f"{len(rows)} rows for {len(files)} images")
        return rows

    def _post(self, body):
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            raise ServerFault(KINDS.get(error.code, "failed"), f"{error.code}: {_words(error)}") from error
        except TimeoutError as error:
            raise ServerFault("late", "no answer") from error
        except urllib.error.URLError as error:
            # A connection that wasn't made counts as busy: there is nobody yet, or nobody any more.
            late = isinstance(error.reason, TimeoutError)
            kind = "late" if late else "garbled" if isinstance(error.reason, ssl.SSLError) else "busy"
            raise ServerFault(kind, error.reason) from error
        except ConnectionError as error:
            raise ServerFault("busy", error) from error
        except http.client.HTTPException as error:
            raise ServerFault("garbled", repr(error)) from error


def _array(value):
    """A number, or nested lists, or a list of {"b64": ...} as an array; one {"b64": ...} as bytes."""
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.array([base64.b64decode(item["b64"], validate=True) for item in value], object)
    array = np.asarray(value)
    if array.dtype.kind not in "bif":
        raise TypeError(f"{array.dtype} isn't a number")
    return array


def _words(error):
    """What the server said, which is {"error": "..."} where it is TensorFlow Serving."""
    try:
        body = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return error.reason
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body or error.reason
