"""Export of a model as a SavedModel that TensorFlow Serving runs, checked before the folder gets its name.

After the export itself: the requests by which a server warms up, and the server's own config files.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.datasets.image_files import UnreadableImage, read_image
from mrcnn_tf.model.precision import POLICIES
from mrcnn_tf.ops.native.library import load_custom_ops
from mrcnn_tf.serving.export_check import TOLERANCES_BY_PRECISION, Differences, check_detections
from mrcnn_tf.serving.export_labels import write_assets
from mrcnn_tf.serving.export_setup import check_image_files, detection_limits, fixed_input_size, inference_copy
from mrcnn_tf.serving.runtime import SavedModelRuntime, read_encoded_image
from mrcnn_tf.serving.served_graph import ServedGraph

MASK_FORMATS = ("roi", "rle")
CUSTOM_OPS_NOTE = """\
This SavedModel has operations of mrcnn_tf, a compiled library. It runs in Python, on a machine that has mrcnn_tf and
has built the library for its own TensorFlow (mrcnn-tf build-ops):

    from mrcnn_tf.serving.runtime import SavedModelRuntime
    model = SavedModelRuntime("this folder")

or, before tf.saved_model.load, mrcnn_tf.ops.native.library.load_custom_ops(). tensorflow_model_server loads no
libraries: for it, export without custom ops.
"""


@dataclasses.dataclass
class SavedModelReport:
    """What an export wrote."""

    folder: pathlib.Path  # of the version
    size: int  # bytes of all its files
    precision: str  # of the convolutions: "float32", "bfloat16" or "float16"
    input_size: tuple[int, int] | None  # fixed (height, width); None where the resize rule gives an image's size
    differences: Differences  # from the Keras model


def export_saved_model(
    model,
    folder,
    *,
    masks="roi",
    precision=None,
    max_detections=None,
    score_threshold=None,
    input_size=None,
    xla=False,
    custom_ops=False,
    gpu=False,
    check_images=None,
):
    """Writes a model as a SavedModel; `ServedGraph` describes its signatures.

    Labels go into the folder's assets, a request to warm up a server into assets.extra, and beside the folder
    models.config and batching.config, unless they are there. The export is loaded again and must detect what the Keras
    model detects, in one batch and one by one; only then the folder gets its name.

    Args:
        model: a `MaskRCNN`, however it was trained.
        folder: its name is the version's number, such as export/1.
        masks: "roi", probabilities inside each box, or "rle", COCO's run lengths of whole masks.
        precision: of the convolutions, "float32", "bfloat16" or "float16"; None for the model's own.
        max_detections, score_threshold: in place of the model's own.
        input_size: a side or (height, width) in pixels: letterbox every image to this size instead of resizing it by
            the model's rule.
        xla: compile the network, anew for each size of a batch. A tensorflow_model_server on a CPU needs
            --xla_cpu_compilation_enabled for it.
        custom_ops: use this package's compiled operations; such a model runs where Python loads their library.
        gpu: the server has one: leave 3x3 convolutions to its library. For a processor they are rearranged.
        check_images: image files for the check; by default three of the demo's.

    Returns:
        A `SavedModelReport`.

    Raises:
        UserError: a folder that exists or isn't named with a number, options that don't go together, an unreadable
            check image, or an export that detects something else than the model.
    """
    folder = pathlib.Path(folder)
    _check_options(model, folder, masks, input_size, xla, custom_ops)
    size = None if input_size is None else fixed_input_size(model, input_size)
    model = inference_copy(model, precision, max_detections, score_threshold)
    graph = ServedGraph(model, masks, size, xla, custom_ops, gpu)
    options = {
        "precision": _precision(model),
        "input_size": None if size is None else list(size),
        "masks": masks if model.gives("masks") else None,
        "xla": xla,
        "custom_ops": custom_ops,
    }
    with _new_folder(folder) as temporary, check_image_files(check_images) as files:
        graph.save(temporary)
        write_assets(model, temporary, options, graph.outputs)
        write_warmup(temporary, [read_encoded_image(files[0])])
        if custom_ops:
            (temporary / "CUSTOM_OPS.txt").write_text(CUSTOM_OPS_NOTE, encoding="utf-8")
        differences = _compare(model, temporary, files, size)
    write_server_configs(folder.parent, folder.resolve().parent.name)
    total_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return SavedModelReport(folder, total_bytes, options["precision"], size, differences)


def _check_options(model, folder, masks, input_size, xla, custom_ops):
    if not (folder.name.isascii() and folder.name.isdigit()):
        raise UserError(f"{folder} isn't named with a version's number: TensorFlow Serving reads folders as export/1.")
    if folder.exists():
        raise UserError(f"{folder} exists: export to the next number, or delete it.")
    if masks not in MASK_FORMATS:
        raise UserError(f"There are no masks '{masks}': choose {' or '.join(MASK_FORMATS)}.")
    if masks == "rle" and not model.gives("masks"):
        raise UserError("The model has no mask head, so nothing to encode: leave masks=rle out.")
    if xla and input_size is None:
        raise UserError("XLA compiles for one size of image: give input_size too.")
    if xla and model.gives("keypoints"):
        raise UserError("Keypoints are decoded in the size of each box, which XLA can't compile: export without xla.")
    if xla and custom_ops:
        raise UserError("XLA compiles stock operations only: choose xla or custom_ops.")
    if custom_ops and load_custom_ops() is None:
        raise UserError("There is no library of custom operations here: run mrcnn-tf build-ops, or leave custom_ops.")


def _precision(model):
    return {policy: precision for precision, policy in POLICIES.items()}.get(model.dtype_policy.name, "float32")


@contextlib.contextmanager
def _new_folder(folder):
    """Gives a temporary folder beside `folder` and renames it when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # No number, so that a server that watches the parent doesn't take it for a version.
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _compare(model, folder, files, size):
    """`Differences` of the written model: its files in one batch and its pixels one by one.

    With a fixed input `size` the Keras model, too, sees the images letterboxed.
    """
    runtime = SavedModelRuntime(folder)
    images = [read_image(file) for file in files]
    if size is None:
        reference = model.detect(images)
    else:
        reference = [model.detect_batch(model.preprocess.letterbox(image, *size))[0] for image in images]
    batched = list(runtime.detect_files(files, batch=len(files)))
    for result in batched:
        if isinstance(result, UnreadableImage):
            raise result
    exported, tolerances = [*batched, *runtime.detect(images)], TOLERANCES_BY_PRECISION[_precision(model)]
    return check_detections(reference * 2, exported, tolerances, detection_limits(model))


# TensorFlow Serving replays these requests first, so that the first real one meets a traced graph: records
# of PredictionLog messages, of which four fields of strings and messages are needed. Those few bytes are written here
# rather than asking for tensorflow-serving-api at export. The field numbers are those of tensorflow_serving/apis.
PREDICTION_LOG_PREDICT_LOG = 6
PREDICT_LOG_REQUEST = 1
REQUEST_MODEL_SPEC, REQUEST_INPUTS = 1, 2
MODEL_SPEC_SIGNATURE_NAME = 3
MAP_KEY, MAP_VALUE = 1, 2
LENGTH_DELIMITED = 2  # the wire type of strings and messages


def write_warmup(folder, images):
    """Writes FOLDER/assets.extra/tf_serving_warmup_requests, one request of `serving_default` for each image.

    `images` are bytes, files as a client would send them; a server reads at most 1000. Returns the file's path.
    """
    path = pathlib.Path(folder) / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image in images:
            writer.write(encode_prediction_log("serving_default", {"image_bytes": tf.make_tensor_proto([image])}))
    return path


def encode_prediction_log(signature, inputs):
    """The bytes of a PredictionLog of one PredictRequest: the signature's name, and its inputs, name -> TensorProto."""
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


MODELS_CONFIG = """\
# For tensorflow_model_server --model_config_file; base_path is where the server sees this folder.
model_config_list {
  config {
    name: %(name)s
    base_path: %(path)s
    model_platform: "tensorflow"
  }
}
"""
BATCHING_CONFIG = """\
# For tensorflow_model_server --enable_batching --batching_parameters_file.
# One request may hold max_batch_size images; the model runs on up to max_execution_batch_size at once, of one request
# or of several that wait together, which they do for batch_timeout_micros at most.
max_batch_size { value: 64 }
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 8 }
batch_timeout_micros { value: 10000 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
# Padding would be looked at as a part of the image: send images of unlike sizes to image_bytes. No allowed_batch_sizes:
# the server would fill a batch up to one of them with copies of an image, and each copy costs as much as an image.
pad_variable_length_inputs: false
"""


def write_server_configs(parent, model_name):
    """Writes PARENT/models.config and PARENT/batching.config for tensorflow_model_server; one that exists stays.

    `parent` is the folder of the versions, which the server sees as /models/MODEL_NAME.
    """
    # A text proto quotes strings as JSON does.
    values = {"name": model_name, "path": f"/models/{model_name}"}
    quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    for name, text in {"models.config": MODELS_CONFIG % quoted, "batching.config": BATCHING_CONFIG}.items():
        path = pathlib.Path(parent) / name
        if not path.exists():
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
