"""Requests that TensorFlow Serving replays before it answers any, so that the first real one finds a traced graph.

The records are PredictionLog messages of tensorflow_serving/apis/prediction_log.proto, of which four fields of strings
and messages are needed: those few bytes are written here rather than asking for tensorflow-serving-api at export.
"""

import pathlib

import tensorflow as tf

# Field numbers of the messages in tensorflow_serving/apis.
PREDICTION_LOG_PREDICT_LOG = 6
PREDICT_LOG_REQUEST = 1
REQUEST_MODEL_SPEC, REQUEST_INPUTS = 1, 2
MODEL_SPEC_SIGNATURE_NAME = 3
MAP_KEY, MAP_VALUE = 1, 2
LENGTH_DELIMITED = 2  # the wire type of strings and messages


def write_warmup(folder, images):
    """Writes FOLDER/assets.extra/tf_serving_warmup_requests: one request of `serving_default` for each image.

    Args:
        folder: of the version that is being written, such as export/1.
        images: list of bytes, image files as a client would send them. A server reads at most 1000.

    Returns:
        pathlib.Path of the file.
    """
    path = pathlib.Path(folder) / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image in images:
            writer.write(prediction_log("serving_default", {"image_bytes": tf.make_tensor_proto([image])}))
    return path


def prediction_log(signature, inputs):
    """A serialised PredictionLog of one PredictRequest.

    Args:
        signature: the signature's name.
        inputs: name -> TensorProto.

    Returns:
        bytes.
    """
    request = _field(REQUEST_MODEL_SPEC, _field(MODEL_SPEC_SIGNATURE_NAME, signature.encode()))
    for name, tensor in inputs.items():
        entry = _field(MAP_KEY, name.encode()) + _field(MAP_VALUE, tensor.SerializeToString())
        request += _field(REQUEST_INPUTS, entry)
    return _field(PREDICTION_LOG_PREDICT_LOG, _field(PREDICT_LOG_REQUEST, request))


def _field(number, content):
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value):
    """Seven bits a byte, the least first; bit 7 says that a byte follows."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
