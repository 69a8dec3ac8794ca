"""The two containers of `torch.save`: a zip file, and before torch 1.6 a row of pickles and raw storages."""

from mrcnn_tf.weights.numpy_pickle import NUMPY
from mrcnn_tf.weights.refusal import Refusal
from mrcnn_tf.weights.stored_tensor import DTYPES, Storage, StoredTensor
from mrcnn_tf.weights.unpickler import CONTAINERS, Constructor, Unpickler
from mrcnn_tf.weights.zip_file import stored_entries

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class StorageType:
    """Stands for a storage class or a dtype; `dtype` is a key of `DTYPES`."""

    def __init__(self, dtype):
        self.dtype = dtype


class Parameter:
    """Stands for torch.nn.Parameter; torch before 0.4 gave it a state that says nothing of its value."""

    def __init__(self, tensor=None, *_):
        self.tensor = tensor.tensor if isinstance(tensor, Parameter) else tensor

    def set_state(self, state):
        """Takes (requires_grad, volatile, hooks), or, from the first versions, a tuple of five led by the tensor."""
        if len(state) == 5:
            self.tensor = state[0]


def _tensor(storage, offset, shape, strides, *_):
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise TypeError
    return StoredTensor(storage, storage.dtype, offset, shape, strides)


def _tensor_of_dtype(storage, offset, shape, strides, requires_grad, hooks, dtype, *_):
    """For types without a storage class of their own: the storage is bytes."""
    tensor = _tensor(storage, offset, shape, strides)
    tensor.dtype = dtype.dtype
    return tensor


TORCH = {
    **{("torch", name): StorageType(dtype) for name, dtype in _STORAGES.items()},
    **{("torch", name): StorageType(name) for name in DTYPES},
    ("torch.storage", "UntypedStorage"): StorageType("uint8"),
    ("torch", "Size"): Constructor(lambda lengths=(): tuple(lengths)),
    ("torch", "device"): Constructor(lambda *_: None),
    ("torch._utils", "_rebuild_tensor"): Constructor(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Constructor(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Constructor(_tensor_of_dtype),
    ("torch._utils", "_rebuild_parameter"): Constructor(Parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Constructor(Parameter),
    ("torch.nn.parameter", "Parameter"): Constructor(Parameter),
}
ALLOWED = {**CONTAINERS, **NUMPY, **TORCH}


def read_torch_zip(data):
    """The object in a torch zip file, its tensors as `StoredTensor`, with storages that are views of `data`.

    Source: torch/serialization.py: `NAME/data.pkl` refers to `NAME/data/KEY`, `NAME/byteorder` says "little".
    """
    entries = stored_entries(data)
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refusal("it's a zip file, but not one of torch.save, which holds one data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if bytes(entries.get(folder + "byteorder", b"little")[:16]) != b"little":
        raise Refusal("it was written on a big-endian machine, so save it again on a common one")

    def find(key, dtype, size):
        record = entries.get(f"{folder}data/{key}")
        if record is None:
            raise Refusal(f"it lacks the record of storage {key[:40]!r}")
        return Storage(dtype, _exactly(record, dtype, size))

    return Unpickler(entries[pickles[0]], ALLOWED, _persistent(find)).load()


def read_torch_legacy(data, start):
    """As `read_torch_zip` for the older container; `start` is where the pickle of the magic number ends.

    Source: torch/serialization.py: pickles of version, machine, object and storage keys, then the storages.
    """
    storages = {}

    def find(key, dtype, size):
        if key not in storages:
            storages[key] = (Storage(dtype, None), size)
        storage, known_size = storages[key]
        if (storage.dtype, known_size) != (dtype, size):
            raise Refusal(f"it describes storage {key[:40]!r} in two ways")
        return storage

    unpickler = Unpickler(data, ALLOWED, _persistent(find), start)
    version, machine = unpickler.load(), unpickler.load()
    if version != _LEGACY_VERSION or type(machine) is not dict:
        raise Refusal("it's of an unknown version of torch's legacy format")
    if machine.get("little_endian") is not True:
        raise Refusal("it was written on a big-endian machine, so save it again on a common one")
    result, keys = unpickler.load(), unpickler.load()
    if type(keys) is not list or len(keys) != len(storages):
        raise Refusal("its list of storages doesn't fit its tensors")
    position = unpickler.position
    for key in keys:
        if type(key) is not str or key not in storages or storages[key][0].data is not None:
            raise Refusal("its list of storages doesn't fit its tensors")
        storage, size = storages[key]
        if int.from_bytes(data[position : position + 8], "little") != size:
            raise Refusal(f"its storage {key[:40]!r} isn't of the size that its tensors expect, so copy it again")
        storage.data = _exactly(data[position + 8 :], storage.dtype, size)
        position += 8 + len(storage.data)
    return result


def _persistent(find):
    """The function that turns a persistent id, ("storage", type, key, device, size, ...), into a `Storage`."""

    def load(identity):
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            raise Refusal("its pickle refers to something other than a storage")
        if identity[5:] not in ((), (None,)):
            raise Refusal("it has storages inside storages, as before torch 0.4, so save it again with a later torch")
        _, kind, key, _, size = identity[:5]
        if not isinstance(kind, StorageType) or type(key) is not str or type(size) is not int or size < 0:
            raise TypeError
        return find(key, kind.dtype, size)

    return load


def _exactly(record, dtype, size):
    needed = size * DTYPES[dtype].itemsize
    if needed > len(record):
        raise Refusal(f"it has a storage of {len(record)} bytes, fewer than its tensors expect, so copy it again")
    return record[:needed]
