"""Any checkpoint file as a flat dictionary of named arrays, without running a line of what it holds."""

import dataclasses
import mmap
import pathlib

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.hdf5_file import read_hdf5
from mrcnn_tf.weights.numpy_pickle import NumpyArray
from mrcnn_tf.weights.refusal import Refusal
from mrcnn_tf.weights.safetensors_file import read_safetensors
from mrcnn_tf.weights.stored_tensor import StoredTensor
from mrcnn_tf.weights.torch_file import ALLOWED, LEGACY_MAGIC, Parameter, read_torch_legacy, read_torch_zip
from mrcnn_tf.weights.unpickler import Unpickler

# Where training loops put the weights beside optimizer and step; "blobs" is Caffe2's.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "state_dict_ema", "blobs")
# Half precision doubles in memory, and tensors may share a storage; more than this is a bomb.
_MAX_GROWTH = 8


@dataclasses.dataclass
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        path: the file.
        container: "torch", "pickle", "safetensors" or "hdf5".
        tensors: name -> array in the file's own layout. Floating types come as float32, integers and booleans as they
            are. Most arrays are read-only views of the file, so it must stay unchanged while they're in use.
        mapping: the mapped file.
    """

    path: str
    container: str
    tensors: dict[str, np.ndarray]
    mapping: mmap.mmap = dataclasses.field(repr=False)

    def release(self):
        """Gives the memory of what was read back to the system; the tensors are read from disk again when needed."""
        if hasattr(self.mapping, "madvise"):  # not on Windows
            self.mapping.madvise(mmap.MADV_DONTNEED)


def read_checkpoint(path):
    """Reads a checkpoint of torch (zip or legacy), pickled numpy arrays, safetensors or HDF5, told by its content.

    The weights may be the file's top level or stand under "model", "state_dict", "model_state_dict",
    "state_dict_ema" or "blobs"; what else is beside them is ignored. A "module." in front of every name is dropped,
    and so are Caffe2's "_momentum" blobs.

    Args:
        path: the file.

    Returns:
        `Checkpoint`.

    Raises:
        UserError: the file can't be read, holds no tensors, or asks for anything but tensors and plain containers.
    """
    try:
        data = _mapped(path)
        container, contents = _contents(path, data)
        tensors = _weights(contents, container)
        _check(tensors, len(data))
        return Checkpoint(str(path), container, {name: tensor.array() for name, tensor in tensors.items()}, data.obj)
    except Refusal as refusal:
        raise UserError(f"{path} can't be imported: {refusal}.") from refusal


def _mapped(path):
    """The file as a memoryview that reads from disk on demand."""
    try:
        if not pathlib.Path(path).is_file():
            raise Refusal("there is no such file")
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise Refusal("it's empty or can't be opened for reading") from error


def _contents(path, data):
    """The container's name and the object in it, with `StoredTensor`s and the like for tensors."""
    start = bytes(data[:9])
    if start.startswith(b"PK\x03\x04"):
        return "torch", read_torch_zip(data)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5", read_hdf5(path, data)
    if start[8:] == b"{":
        return "safetensors", read_safetensors(data)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        unpickler = Unpickler(data, ALLOWED)
        contents = unpickler.load()
        if type(contents) is int and contents == LEGACY_MAGIC:
            return "torch", read_torch_legacy(data, unpickler.position)
        return "pickle", contents
    raise Refusal(
        f"its first bytes, {start!r}, are not those of a torch, pickle, safetensors or HDF5 file; perhaps a web page "
        "or a pointer was downloaded in its place"
    )


def _weights(contents, container):
    """The dictionary of name to `StoredTensor` inside a file's object."""
    if type(contents) is not dict:
        raise Refusal("it holds no dictionary of tensors; save model.state_dict()")
    inside = [contents.get(name) for name in _WRAPPERS]
    for candidate in [*inside, contents]:
        tensors = _named_tensors(candidate) if type(candidate) is dict else {}
        if tensors:
            break
    else:
        places = ", ".join(_WRAPPERS)
        raise Refusal(f"it holds no tensors at its top level or under {places}; save model.state_dict()")
    if container == "pickle":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("_momentum")}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _named_tensors(entries):
    tensors = {}
    for name, value in entries.items():
        if isinstance(value, NumpyArray | Parameter):
            value = value.tensor
        if isinstance(value, StoredTensor) and type(name) is str:
            tensors[name] = value
    return tensors


def _check(tensors, file_size):
    for name, tensor in tensors.items():
        # Names end up in tables on a terminal.
        if not name.isprintable():
            raise Refusal(f"its tensor {name[:100]!r} has control characters in its name")
        try:
            tensor.check()
        except Refusal as refusal:
            raise Refusal(f"its tensor {name[:100]!r} {refusal}") from None
    growth = sum(tensor.copied_bytes for tensor in tensors.values())
    if growth > _MAX_GROWTH * file_size:
        raise Refusal(f"its tensors share their contents so widely that they would take {growth / 1e9:.1f} GB")
