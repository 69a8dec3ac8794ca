"""The safetensors container: a JSON header with every tensor's type, shape and place, then the bytes."""

import json

from mrcnn_tf.weights.refusal import Refusal
from mrcnn_tf.weights.stored_tensor import contiguous

MAX_HEADER = 2_000_000
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_safetensors(data):
    """Name to `StoredTensor`, as views of `data` (memoryview of the file).

    Source: the format's specification, which asks that the tensors cover the bytes without hole or overlap.
    """
    size = int.from_bytes(data[:8], "little")
    if size > min(MAX_HEADER, len(data) - 8):
        raise Refusal(f"its safetensors header of {size} bytes is longer than the file or than {MAX_HEADER}")
    header, contents = _header(bytes(data[8 : 8 + size])), data[8 + size :]
    tensors, spans = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, (begin, end) = _entry(name, entry, len(contents))
        spans.append((begin, end))
        tensors[name] = contiguous(dtype, contents[begin:end], shape)
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise Refusal(f"its tensors overlap or leave a hole at byte {begin}")
        reached = end
    if reached != len(contents):
        raise Refusal(f"it holds {len(contents)} bytes of tensors where its header describes {reached}")
    return tensors


def _header(text):
    def unique(pairs):
        if len(dict(pairs)) < len(pairs):
            raise Refusal("its safetensors header names a tensor twice")
        return dict(pairs)

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        header = None
    if type(header) is not dict:
        raise Refusal("its safetensors header isn't the JSON object it should be, so download or copy it again")
    return header


def _entry(name, entry, limit):
    fault = Refusal(f"its safetensors header describes {name[:100]!r} wrongly, so download or copy it again")
    if type(entry) is not dict:
        raise fault
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if type(dtype) is not str or type(shape) is not list or type(offsets) is not list or len(offsets) != 2:
        raise fault
    if any(type(number) is not int for number in offsets) or not 0 <= offsets[0] <= offsets[1] <= limit:
        raise fault
    if dtype not in _DTYPES:
        raise Refusal(f"its tensor {name[:100]!r} has the type {dtype[:20]!r}; save it as F32, F16 or BF16")
    return _DTYPES[dtype], shape, offsets
