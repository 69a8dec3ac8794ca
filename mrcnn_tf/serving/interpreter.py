"""The LiteRT interpreter with a file of ours in it, and the metadata that the file carries.

Imports no TensorFlow, so that a process whose memory is measured holds nothing else.

The metadata are a zip archive behind the flatbuffer, as TFLite's own metadata keeps its files. The flatbuffer's reader
stops before the archive and a zip's reader starts at its end, so both read one file: `unzip model.tflite` gives
labels.txt and mrcnn_tf.json.
"""

import io
import json
import pathlib
import zipfile
import zlib

from mrcnn_tf.common.errors import UserError

CLASS_NAMES_FILE, DOCUMENT_FILE = "labels.txt", "mrcnn_tf.json"  # in the archive
IDENTIFIER = b"TFL3"  # bytes 4 to 7 of every TFLite flatbuffer
EXPORT_COMMAND = "mrcnn-tf export tflite"
SIGNATURE = "serving_default"
INPUTS = {"image", "image_size"}
SPLIT_PARTS = ("backbone", "heads")


def append_metadata(flatbuffer, document, class_names):
    """The bytes of a .tflite file: those of the converter's flatbuffer and behind them the archive.

    `document` is the content of mrcnn_tf.json (`export_labels.labels_document`), `class_names` that of labels.txt
    (`export_labels.labels_text`). They give the same bytes each time.
    """
    file = io.BytesIO(flatbuffer)
    texts = {CLASS_NAMES_FILE: class_names, DOCUMENT_FILE: json.dumps(document, indent=1, ensure_ascii=False) + "\n"}
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # without a time of its own, and not compressed
    return file.getvalue()


def read_metadata(path):
    """The dictionary that `append_metadata` stored in a .tflite file.

    Raises UserError for what is no TFLite file, was cut off, or has no such archive.
    """
    try:
        with open(path, "rb") as file:
            if file.read(8)[4:] != IDENTIFIER:
                raise UserError(f"{path} isn't a TFLite file: give one that {EXPORT_COMMAND} wrote.")
            content = _read_document(file)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): give a file that {EXPORT_COMMAND} wrote.") from error
    try:
        document = json.loads(content or b"null")
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UserError(
            f"{path} doesn't end in the labels that {EXPORT_COMMAND} adds: it was cut off or made by something else, "
            "so copy or export it anew."
        )
    return document


def _read_document(file):
    """The bytes of mrcnn_tf.json; None if the file doesn't end in a whole archive with it."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.read(DOCUMENT_FILE)
    # RuntimeError: encrypted, or of a kind that zipfile doesn't know. The others are what it makes of random bytes.
    except (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, ValueError, EOFError):
        return None


class SplitRunner:
    """The two files of a split export as one function of named arrays."""

    def __init__(self, backbone, heads):
        self._backbone, self._heads = backbone, heads

    def __call__(self, image, image_size):
        maps = self._backbone(image=image, image_size=image_size)
        return self._heads(image_size=image_size, **maps)

    def get_input_details(self):
        return self._backbone.get_input_details()

    def get_output_details(self):
        return self._heads.get_output_details()


def load_detector(path, part, threads, xnnpack):
    """The function from image and image_size to detections that a file holds, or that it and its other half hold.

    `part` says which half the file is, "backbone" or "heads"; None for a whole model. The rest is as in
    `load_signature`. Raises UserError as that does, and where the other half isn't beside the file.
    """
    if part is None:
        return load_signature(path, threads, xnnpack)
    name = pathlib.Path(path).name.removesuffix(f".{part}.tflite")
    files = [pathlib.Path(path).with_name(f"{name}.{half}.tflite") for half in SPLIT_PARTS]
    for file in files:
        if not file.is_file():
            raise UserError(f"{path} is one half of a model: put the other, {file.name}, beside it.")
    return SplitRunner(*(load_signature(file, threads, xnnpack) for file in files))


def load_signature(path, threads, xnnpack):
    """The function of named arrays that the file's one signature is.

    Args:
        path: a .tflite file.
        threads: of the interpreter.
        xnnpack: whether the XNNPACK delegate computes what it can, in place of TFLite's own kernels.

    Raises:
        UserError: ai-edge-litert is missing, the file can't be loaded or detects nothing in an image, or `threads` < 1.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise UserError("TFLite files run in ai-edge-litert: pip install 'mrcnn-tf[edge]'.") from error
    if threads < 1:
        raise UserError(f"An interpreter with {threads} threads can't run: give 1 or more.")
    resolver = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = Interpreter(str(path), num_threads=threads, experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"The TFLite interpreter can't load {path} ({reason}): export or copy it anew.") from error
    if not INPUTS & set(interpreter.get_signature_list().get(SIGNATURE, {}).get("inputs", ())):
        raise UserError(f"{path} has no signature for detection in an image: give a file that {EXPORT_COMMAND} wrote.")
    return interpreter.get_signature_runner(SIGNATURE)
