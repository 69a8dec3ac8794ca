"""Writes checkpoints as `torch.save` does, without torch, and reads back what is first in them."""

import pickle
import struct
import zipfile

import numpy as np

from mrcnn_tf.weights.weight_file import read_weight_file

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


def save_torch(path, tensors, meta=None):
    """Writes `tensors`, a dictionary of name to array (bfloat16 by ml_dtypes), as a state dict that `torch.load` reads.

    Every array gets a storage of its own; its entry is stored, not compressed. With `meta`, plain values, it is what
    mmdetection saves: {"meta": meta, "state_dict": tensors}.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    stream = [ordered_dict(), b"("]
    for number, (name, array) in enumerate(arrays.items()):
        stream += [text(name), tensor(array, str(number))]
    storages = {str(number): array.reshape(-1).view(np.uint8) for number, array in enumerate(arrays.values())}
    stream.append(b"u")
    if meta is not None:
        values = pickle.dumps(meta, protocol=2)[2:-1]  # without its own header and stop
        stream = [b"}(", text("meta"), values, text("state_dict"), *stream, b"u"]
    write_zip(path, pickled(*stream), storages)


def write_zip(path, stream, storages, compression=zipfile.ZIP_STORED, byteorder=b"little"):
    """Writes the zip container of `torch.save` around a pickle (bytes) and `storages` (key to a buffer of bytes)."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", stream)
        archive.writestr("archive/byteorder", byteorder)
        for key, buffer in storages.items():
            archive.writestr(f"archive/data/{key}", memoryview(buffer))
        archive.writestr("archive/version", b"3\n")


def first(file):
    """The tensors of the place in a `WeightFile` that is tried first: name to array."""
    return dict(next(iter(file.candidates.values())))


def read_first(path):
    """Those of the file at `path`."""
    return first(read_weight_file(path))


def pickled(*parts):
    """The parts as a pickle of protocol 2."""
    return b"".join([pickle.PROTO, b"\x02", *parts, pickle.STOP])


def text(value):
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def integer(value):
    encoded = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(encoded)]) + encoded


def integers(values):
    return b"(" + b"".join(map(integer, values)) + pickle.TUPLE


def name_of(module, name):
    """The opcode that looks a global up."""
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def ordered_dict():
    return name_of("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE


def storage(kind, key, size):
    """The persistent id of a storage of `size` elements."""
    return b"(" + text("storage") + name_of("torch", kind) + text(key) + text("cpu") + integer(size) + b"tQ"


def tensor(array, key, offset=0, shape=None, strides=None, size=None):
    """The call that rebuilds `array` from storage `key`; what is given besides is written in place of the truth."""
    shape = array.shape if shape is None else shape
    if strides is None:
        strides = tuple(step // array.itemsize for step in array.strides)
    size = array.size if size is None else size
    return b"".join(
        [
            name_of("torch._utils", "_rebuild_tensor_v2"),
            b"(",
            storage(STORAGES[array.dtype.name], key, size),
            integer(offset) + integers(shape) + integers(strides),
            pickle.NEWFALSE + ordered_dict(),
            b"tR",
        ]
    )
