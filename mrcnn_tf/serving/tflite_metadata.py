"""The facts that travel inside a .tflite file: a zip archive at its end, as TFLite's own metadata keeps its files.

The flatbuffer's reader stops before the archive and a zip's reader starts at its end, so both read one file:
`unzip model.tflite` gives labels.txt and mrcnn_tf.json.
"""

import io
import json
import zipfile
import zlib

from mrcnn_tf.common.errors import UserError

LABELS, FACTS = "labels.txt", "mrcnn_tf.json"
IDENTIFIER = b"TFL3"  # bytes 4 to 7 of every TFLite flatbuffer
EXPORT = "mrcnn-tf export tflite"


def with_metadata(flatbuffer, document, labels):
    """The content of a .tflite file: the converter's flatbuffer and behind it the facts. The same bytes each time.

    Args:
        flatbuffer: bytes.
        document: the content of mrcnn_tf.json, a dictionary of plain JSON (see `export.assets.labels_document`).
        labels: the content of labels.txt, line n the name of class n.

    Returns:
        bytes.
    """
    file = io.BytesIO(flatbuffer)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in ((LABELS, labels), (FACTS, json.dumps(document, indent=1, ensure_ascii=False) + "\n")):
            archive.writestr(zipfile.ZipInfo(name), text)  # without a time of its own, and not compressed
    return file.getvalue()


def read_metadata(path):
    """The dictionary that `with_metadata` stored in a .tflite file.

    Raises:
        UserError: not a TFLite file, one that was cut off, or one that has no such facts.
    """
    try:
        with open(path, "rb") as file:
            if file.read(8)[4:] != IDENTIFIER:
                raise UserError(f"{path} isn't a TFLite file: give one that {EXPORT} wrote.")
            content = _stored(file)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): give a file that {EXPORT} wrote.") from error
    try:
        document = json.loads(content or b"null")
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UserError(
            f"{path} doesn't end in the labels that {EXPORT} adds: it was cut off or made by something else, so copy "
            "or export it anew."
        )
    return document


def _stored(file):
    """The bytes of mrcnn_tf.json; None if the file doesn't end in a whole archive with it."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.read(FACTS)
    # RuntimeError: encrypted, or of a kind that zipfile doesn't know. The others are what it makes of random bytes.
    except (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, ValueError, EOFError):
        return None
