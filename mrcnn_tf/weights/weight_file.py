"""Any file of weights as dictionaries of named arrays, without running a line of what it holds."""

import dataclasses
import json
import mmap
import pathlib
from typing import Any

import h5py

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.candidates import NamedTensors, find_candidates, no_tensors, plain_values
from mrcnn_tf.weights.stored_tensor import NUMPY_DTYPES, WeightFileError, contiguous
from mrcnn_tf.weights.torch_file import read_pickle, read_torch_zip


@dataclasses.dataclass
class WeightFile:
    """What a file of weights holds.

    Attributes:
        path, mapping: the file, and its map in memory.
        container: "torch", "pickle", "safetensors" or "hdf5".
        candidates: place in the file -> `NamedTensors`, name -> array: every dictionary that holds tensors by name, at
            the top level (""), under "model", or deeper down ("a.b"), in the order in which they should be tried.
            Averages of the weights come after the weights, optimizers' states last. The arrays are mostly views of the
            file, so it must stay unchanged while they're in use.
        metadata: the plain values beside the tensors, by name: text, numbers, lists, tuples and dictionaries; what a
            pickle would build of a class is an `Inert` with that class's name.
    """

    path: str
    container: str
    candidates: dict[str, NamedTensors]
    metadata: dict[str, Any]
    mapping: mmap.mmap = dataclasses.field(repr=False)

    def release(self):
        """Give the memory of what was read back to the system; the tensors are read from disk again when needed."""
        if hasattr(self.mapping, "madvise"):  # not on Windows
            self.mapping.madvise(mmap.MADV_DONTNEED)


def read_weight_file(path):
    """Read the `WeightFile` of torch (zip or legacy), pickled numpy arrays, safetensors or HDF5, told by its content.

    Caffe2's "_momentum" blobs are dropped, and so is what wrappers such as torch.compile put into names.

    UserError if the file can't be read or holds no tensors by name, as a whole module or a program doesn't.
    """
    try:
        data = _map_file(path)
        container, contents = _read_container(path, data)
        metadata = contents.pop("__metadata__", {}) if container == "safetensors" else plain_values(contents)
        candidates = find_candidates(contents, container, str(path), len(data))
        if not candidates:
            raise WeightFileError(no_tensors(contents))
        return WeightFile(str(path), container, candidates, metadata, data.obj)
    except WeightFileError as error:
        raise UserError(f"{path} can't be imported: {error}.") from error


def _map_file(path):
    """The file as a memoryview that reads from disk on demand."""
    try:
        if not pathlib.Path(path).is_file():
            raise WeightFileError("there is no such file")
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise WeightFileError("it's empty or can't be opened for reading") from error


def _read_container(path, data):
    """The container's name and the object in it, with `StoredTensor`s and the like for tensors."""
    start = bytes(data[:9])
    if start.startswith(b"PK\x03\x04"):
        return "torch", read_torch_zip(data)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5", read_hdf5(path, data)
    if start[8:] == b"{":
        return "safetensors", read_safetensors(data)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return read_pickle(data)
    raise WeightFileError(
        f"its first bytes, {start!r}, are not those of a torch, pickle, safetensors or HDF5 file; perhaps a web page "
        "or a pointer was downloaded in its place"
    )


# HDF5, as Keras 2 writes it: a group per layer, a dataset per variable.

MAX_OBJECTS = 20_000
MAX_DEPTH = 32
_HDF5_DTYPES = {dtype.str: name for name, dtype in NUMPY_DTYPES.items()}
_REPACK = "rewrite the file with `h5repack -l CONTI -f NONE`"


def read_hdf5(path, data):
    """Read an HDF5 file as name -> `StoredTensor`; a name is a dataset's path, such as "conv1/conv1/kernel:0".

    Of a saved Keras model these are the weights in its group "model_weights". The library is asked only where each
    dataset lies; the values are views of `data` (memoryview of the file), so no filter or external file is run.
    WeightFileError if the file is damaged, for a link that isn't a plain one, and for a dataset that is compressed,
    chunked, virtual, stored elsewhere, big-endian or not numeric.
    """
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if _is_group(file, "model_weights") else file
            return _hdf5_tensors(root, data)
    # What the library raises on a damaged file depends on which of its calls met the damage.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError, AttributeError) as error:
        raise WeightFileError("it's damaged as an HDF5 file, so download or copy it again") from error


def _is_group(file, name):
    return isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Group)


def _hdf5_tensors(root, data):
    tensors, pending, objects = {}, [("", root, 0)], 0
    while pending:
        prefix, group, depth = pending.pop()
        for name in group:
            objects += 1
            if objects > MAX_OBJECTS or depth > MAX_DEPTH:
                raise WeightFileError("its groups contain each other or are too many")
            path = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise WeightFileError(f"its {path[:100]!r} is a link to somewhere else; store the weights themselves")
            entry = group[name]
            if isinstance(entry, h5py.Group):
                pending.append((f"{path}/", entry, depth + 1))
            elif isinstance(entry, h5py.Dataset):
                tensors[path] = _hdf5_tensor(path, entry, data)
    return tensors


def _hdf5_tensor(path, dataset, data):
    settings = dataset.id.get_create_plist()
    if settings.get_layout() != h5py.h5d.CONTIGUOUS or settings.get_nfilters() or settings.get_external_count():
        raise WeightFileError(f"its dataset {path[:100]!r} isn't stored in one plain piece; {_REPACK}")
    dtype = dataset.dtype.str
    if dtype not in _HDF5_DTYPES:
        raise WeightFileError(
            f"its dataset {path[:100]!r} has the type {dtype[:20]!r}, and weights are little-endian numbers"
        )
    shape, begin, size = dataset.shape, dataset.id.get_offset(), dataset.id.get_storage_size()
    if 0 in shape:
        begin = size = 0
    if begin is None or begin + size > len(data):
        raise WeightFileError(
            f"its dataset {path[:100]!r} has no contents inside the file, so download or copy it again"
        )
    return contiguous(_HDF5_DTYPES[dtype], data[begin : begin + size], shape)


# safetensors: a JSON header with every tensor's type, shape and position, then the bytes.

MAX_HEADER_BYTES = 2_000_000
# "F32" for float32, and so on.
_SAFETENSORS_DTYPES = {f"{dtype.kind.upper()}{8 * dtype.itemsize}": name for name, dtype in NUMPY_DTYPES.items()}
_SAFETENSORS_DTYPES |= {"BF16": "bfloat16", "BOOL": "bool"}


def read_safetensors(data):
    """Read a safetensors file as name -> `StoredTensor`, views of `data` (memoryview of the file).

    "__metadata__" is the dictionary of texts that the writer added, if any.

    Source: the format's specification, which asks that the tensors cover the bytes without hole or overlap.
    """
    size = int.from_bytes(data[:8], "little")
    if size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise WeightFileError(
            f"its safetensors header of {size} bytes is longer than the file or than {MAX_HEADER_BYTES}"
        )
    header, contents = _safetensors_header(bytes(data[8 : 8 + size])), data[8 + size :]
    tensors, spans = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            tensors[name] = entry if type(entry) is dict else {}
            continue
        dtype, shape, (begin, end) = _safetensors_entry(name, entry, len(contents))
        spans.append((begin, end))
        tensors[name] = contiguous(dtype, contents[begin:end], shape)
    covered = 0
    for begin, end in sorted(spans):
        if begin != covered:
            raise WeightFileError(f"its tensors overlap or leave a hole at byte {begin}")
        covered = end
    if covered != len(contents):
        raise WeightFileError(f"it holds {len(contents)} bytes of tensors where its header describes {covered}")
    return tensors


def _safetensors_header(text):
    def unique(pairs):
        if len(dict(pairs)) < len(pairs):
            raise WeightFileError("its safetensors header names a tensor twice")
        return dict(pairs)

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        header = None
    if type(header) is not dict:
        raise WeightFileError("its safetensors header isn't the JSON object it should be, so download or copy it again")
    return header


def _safetensors_entry(name, entry, limit):
    fault = WeightFileError(f"its safetensors header describes {name[:100]!r} wrongly, so download or copy it again")
    if type(entry) is not dict:
        raise fault
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if type(dtype) is not str or type(shape) is not list or type(offsets) is not list or len(offsets) != 2:
        raise fault
    if any(type(number) is not int for number in offsets) or not 0 <= offsets[0] <= offsets[1] <= limit:
        raise fault
    if dtype not in _SAFETENSORS_DTYPES:
        raise WeightFileError(f"its tensor {name[:100]!r} has the type {dtype[:20]!r}; save it as F32, F16 or BF16")
    return _SAFETENSORS_DTYPES[dtype], shape, offsets
