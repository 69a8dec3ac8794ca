"""An exported model in a plain process: image files to named outputs, 1 to 8 in a batch, beside the Keras model."""

import io
import json
import pathlib
import tempfile
import time

import tensorflow as tf
from PIL import Image

from mrcnn_tf.benchmark import inputs, worker
from mrcnn_tf.benchmark.models import benchmark_config, benchmark_model
from mrcnn_tf.serving.export_labels import write_assets
from mrcnn_tf.serving.served_graph import ServedGraph

BATCHES = (1, 8)


def prepare(config, overrides, height, width, precision, custom_ops=False, batches=BATCHES):
    """Times `serving_default` of the export on JPEG files of height x width pixels, and `MaskRCNN.detect` of one image.

    With `custom_ops` the export has this package's operations, as for a server in Python.

    The times are `keras` and `batch_1`, `batch_2` and so on, each of a whole batch. The facts hold the `detections` of
    one image and the bytes of its answer: `grpc_bytes` as tensors of a PredictResponse, `rest_bytes` as json.
    """
    settings = benchmark_config(config, overrides, height, width)
    model = benchmark_model(settings, precision)
    folder = tempfile.TemporaryDirectory()
    version = pathlib.Path(folder.name) / "1"
    # Without the check of export_saved_model: random weights at a threshold of 0 leave ties, which may fall either way.
    ServedGraph(model, custom_ops=custom_ops).save(version)
    write_assets(model, version, {})
    loaded = tf.saved_model.load(str(version))
    image = inputs.image(height, width)
    data = _jpeg(image)
    facts = {"batches": list(batches)}

    def detect(number):
        start = time.perf_counter()
        outputs = loaded.signatures["serving_default"](image_bytes=tf.constant([data] * number))
        outputs = {name: value.numpy() for name, value in outputs.items()}
        return time.perf_counter() - start, outputs

    def run():
        times = {"keras": worker.seconds(lambda: model.detect(image))}
        for number in batches:
            times[f"batch_{number}"], outputs = detect(number)
        facts["detections"] = int(outputs["num_detections"][0])
        facts.update(_answer_bytes({name: value[:1] for name, value in outputs.items()}))
        return times

    task = worker.Task(run, facts)
    task.folder = folder  # it goes when the process ends
    return task


def _jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


def _answer_bytes(outputs):
    """The size of an answer with these outputs, numpy arrays by name, in each protocol.

    Json has the fewest digits that give back the same float32, as TensorFlow Serving writes it.
    """
    tensors = [tf.make_tensor_proto(value).ByteSize() + len(name) for name, value in outputs.items()]
    shown = {name: _shortest(value[0]) for name, value in outputs.items()}
    return {"grpc_bytes": sum(tensors), "rest_bytes": len(json.dumps({"predictions": [shown]}))}


def _shortest(values):
    texts = values.astype(str) if values.dtype.kind == "f" else values
    return texts.astype(float).tolist() if values.dtype.kind == "f" else values.tolist()


if __name__ == "__main__":
    worker.serve(prepare)
