"""What `torch.save` and numpy's pickles hold, read without running a line of it.

torch has two containers: a zip file, and before torch 1.6 a sequence of pickles and raw storages. What a pickle asks
for is looked up in `ALLOWED`, whose stand-ins build nothing but `StoredTensor`s; anything else becomes an `Inert`.
"""

import struct

from mrcnn_tf.weights.stored_tensor import DTYPES, NUMPY_DTYPES, Storage, StoredTensor, WeightFileError, contiguous
from mrcnn_tf.weights.unpickler import CONTAINERS, Constructor, Inert, LongText, Unpickler, listed

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


def read_torch_zip(data):
    """Read the object in a torch zip file, its tensors as `StoredTensor`, with storages that are views of `data`.

    Source: torch/serialization.py: `NAME/data.pkl` refers to `NAME/data/KEY`, `NAME/byteorder` says "little".
    """
    entries = read_zip_entries(data, _check_zip_names)
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightFileError("it's a zip file, but not one of torch.save, which holds one data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if bytes(entries.get(folder + "byteorder", b"little")[:16]) != b"little":
        raise WeightFileError("it was written on a big-endian machine, so save it again on a common one")

    def find_storage(key, dtype, size):
        record = entries.get(f"{folder}data/{key}")
        if record is None:
            raise WeightFileError(f"it lacks the record of storage {key[:40]!r}")
        return Storage(dtype, _first_elements(record, dtype, size))

    return Unpickler(entries[pickles[0]], ALLOWED, _storage_loader(find_storage)).load()


def _check_zip_names(names):
    """Refuse a program by its kind, before its compressed entries are met."""
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        kind, weights = "TorchScript program, of torch.jit.save,", "torch.jit.load(FILE).state_dict()"
    elif "archive_format" in inner:
        kind, weights = "program of torch.export.save", "torch.export.load(FILE).state_dict"
    else:
        return
    raise WeightFileError(
        f"it's a {kind} and no file of weights: save these, with torch.save({weights}, 'weights.pth'), and import that"
    )


def read_pickle(data):
    """("torch", the object in torch's older container, as `read_torch_zip`) or ("pickle", that of any other pickle)."""
    unpickler = Unpickler(data, ALLOWED)
    contents = unpickler.load()
    if type(contents) is int and contents == LEGACY_MAGIC:
        return "torch", _read_torch_legacy(data, unpickler.position)
    return "pickle", contents


def _read_torch_legacy(data, start):
    """As `read_torch_zip` for the older container; `start` is where the pickle of the magic number ends.

    Source: torch/serialization.py: pickles of version, machine, object and storage keys, then the storages.
    """
    storages = {}

    def find_storage(key, dtype, size):
        if key not in storages:
            storages[key] = (Storage(dtype, None), size)
        storage, first_size = storages[key]
        if (storage.dtype, first_size) != (dtype, size):
            raise WeightFileError(f"it describes storage {key[:40]!r} in two ways")
        return storage

    unpickler = Unpickler(data, ALLOWED, _storage_loader(find_storage), start)
    version, machine = unpickler.load(), unpickler.load()
    if version != _LEGACY_VERSION or type(machine) is not dict:
        raise WeightFileError("it's of an unknown version of torch's legacy format")
    if machine.get("little_endian") is not True:
        raise WeightFileError("it was written on a big-endian machine, so save it again on a common one")
    result, keys = unpickler.load(), unpickler.load()
    if type(keys) is list and len(keys) > len(storages):
        raise WeightFileError("it has storages of a type other than plain numbers; save its weights alone, as float32")
    if type(keys) is not list or len(keys) != len(storages):
        raise WeightFileError("its list of storages doesn't fit its tensors")
    position = unpickler.position
    for key in keys:
        if type(key) is not str or key not in storages or storages[key][0].data is not None:
            raise WeightFileError("its list of storages doesn't fit its tensors")
        storage, size = storages[key]
        if int.from_bytes(data[position : position + 8], "little") != size:
            raise WeightFileError(
                f"its storage {key[:40]!r} isn't of the size that its tensors expect, so copy it again"
            )
        storage.data = _first_elements(data[position + 8 :], storage.dtype, size)
        position += 8 + len(storage.data)
    return result


def _storage_loader(find_storage):
    """The function that turns a persistent id, ("storage", type, key, device, size, ...), into a `Storage`."""

    def load(identity):
        if type(identity) is not tuple or not identity:
            raise TypeError
        # Before torch 1.6 a module's class was stored together with its source.
        if identity[0] == "module" and len(identity) == 4 and type(identity[1]) is Inert:
            return identity[1]
        if len(identity) not in (5, 6) or identity[0] != "storage":
            raise WeightFileError("its pickle refers to something other than a storage")
        if identity[5:] not in ((), (None,)):
            raise WeightFileError(
                "it has storages inside storages, as before torch 0.4, so save it again with a later torch"
            )
        _, storage_type, key, _, size = identity[:5]
        if type(storage_type) is Inert:
            return storage_type  # of complex or quantised numbers, say
        if not isinstance(storage_type, TorchDtype) or type(key) is not str or type(size) is not int or size < 0:
            raise TypeError
        return find_storage(key, storage_type.dtype, size)

    return load


def _first_elements(record, dtype, size):
    """The bytes of the first `size` elements of a record."""
    needed = size * DTYPES[dtype].itemsize
    if needed > len(record):
        raise WeightFileError(
            f"it has a storage of {len(record)} bytes, fewer than its tensors expect, so copy it again"
        )
    return record[:needed]


# Stand-ins for what torch's tensors call.

# The classes DoubleStorage, FloatStorage, ...
_STORAGE_DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Bool": "bool",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
}  # fmt: skip


class TorchDtype:
    """Stands for a storage class or a dtype; `dtype` is a key of `DTYPES`."""

    def __init__(self, dtype):
        self.dtype = dtype


class TorchParameter:
    """Stands for torch.nn.Parameter; torch before 0.4 gave it a state that says nothing of its value."""

    def __init__(self, tensor=None, *_):
        self.tensor = tensor.tensor if isinstance(tensor, TorchParameter) else tensor

    def set_state(self, state):
        """Takes (requires_grad, volatile, hooks), or, from the first versions, a tuple of five led by the tensor."""
        if len(state) == 5:
            self.tensor = state[0]


def _rebuild_tensor(storage, offset, shape, strides, *_):
    if type(storage) is Inert:
        return storage
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise TypeError
    return StoredTensor(storage, storage.dtype, offset, shape, strides)


def _rebuild_tensor_of_dtype(storage, offset, shape, strides, requires_grad, hooks, dtype, *_):
    """For types without a storage class of their own: the storage is bytes."""
    if type(dtype) is Inert:
        return dtype
    tensor = _rebuild_tensor(storage, offset, shape, strides)
    tensor.dtype = dtype.dtype
    return tensor


def _rebuild_from_type(rebuild, kind, arguments, state=None):
    """A tensor with attributes, or one of a class of its own."""
    if rebuild not in (TORCH["torch._utils", f"_rebuild_{name}"] for name in ("tensor_v2", "tensor_v3", "parameter")):
        raise TypeError
    return rebuild.build(*arguments)


TORCH = {
    **{("torch", f"{name}Storage"): TorchDtype(dtype) for name, dtype in _STORAGE_DTYPES.items()},
    **{("torch", name): TorchDtype(name) for name in DTYPES},
    ("torch.storage", "UntypedStorage"): TorchDtype("uint8"),
    ("torch", "Size"): Constructor(lambda lengths=(): tuple(listed(lengths))),
    ("torch", "device"): Constructor(lambda *_: None),
    ("torch._utils", "_rebuild_tensor"): Constructor(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Constructor(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Constructor(_rebuild_tensor_of_dtype),
    ("torch._utils", "_rebuild_parameter"): Constructor(TorchParameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Constructor(TorchParameter),
    ("torch.nn.parameter", "Parameter"): Constructor(TorchParameter),
    ("torch._tensor", "_rebuild_from_type_v2"): Constructor(_rebuild_from_type),
}


# Stand-ins for what numpy's arrays call when they're unpickled.

_NUMPY_CODES = {dtype.str[1:]: name for name, dtype in NUMPY_DTYPES.items()} | {"b1": "bool"}


class NumpyDtype:
    """Stands for a dtype.

    Attributes:
        name: a key of `DTYPES`.
        fault: why an array of this dtype can't be read, a `WeightFileError`'s clause; None if it can.
    """

    def __init__(self, code, *_):
        self.name, self.fault = _NUMPY_CODES.get(code), None
        if self.name is None:
            self.fault = f"is an array of type {str(code)[:20]!r}, and weights are plain numbers"

    def set_state(self, state):
        """Takes dtype's state: (version, byte order, subtype, names, fields, size, alignment, flags, ...)."""
        if state[1] not in ("<", "|", "=") or any(part is not None for part in state[2:5]):
            self.fault = self.fault or "is an array that is big-endian or a record; save it as little-endian numbers"


class NumpyArray:
    """Stands for an array; `tensor` is None until `set_state` has given it its contents, or `fault` says why not."""

    def __init__(self, tensor=None, fault="is an array without contents"):
        self.tensor, self.fault = tensor, fault if tensor is None else None

    def set_state(self, state):
        """Takes ndarray's state: (version, shape, dtype, Fortran order, contents)."""
        _, shape, dtype, fortran, contents = state
        self.fault = dtype.fault
        if not dtype.fault:
            self.tensor = contiguous(dtype.name, _as_bytes(contents), shape, "F" if fortran else "C")


class NumpyScalar(NumpyArray):
    """Stands for a single number."""


def _as_bytes(contents):
    # Python 2's strings are text here and bytes there; the unpickler gives the short ones as text.
    if isinstance(contents, LongText):
        contents = contents.latin1
    return memoryview(contents.encode("latin-1") if isinstance(contents, str) else contents)


def _from_buffer(contents, dtype, shape, order, axes=None):
    """Protocol 5; with order "K" the contents are in C order for `shape`, whose axes are permuted afterwards."""
    if dtype.fault:
        return NumpyArray(fault=dtype.fault)
    tensor = contiguous(dtype.name, _as_bytes(contents), shape, "F" if order == "F" else "C")
    if order == "K" and axes is not None:
        if sorted(axes) != list(range(len(shape))):
            raise ValueError
        shape, strides = (tuple(values[axis] for axis in axes) for values in (tensor.shape, tensor.strides))
        tensor = StoredTensor(tensor.storage, tensor.dtype, 0, shape, strides)
    return NumpyArray(tensor)


def _scalar(dtype, contents):
    if dtype.fault:
        return NumpyScalar(fault=dtype.fault)
    return NumpyScalar(contiguous(dtype.name, _as_bytes(contents), ()))


def _numpy_1_and_2(module, name, value):
    """numpy 2 moved numpy.core to numpy._core."""
    return {(f"numpy.{core}.{module}", name): value for core in ("core", "_core")}


NUMPY = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): Constructor(NumpyDtype),
    **_numpy_1_and_2("multiarray", "_reconstruct", Constructor(lambda kind, shape, code: NumpyArray())),
    **_numpy_1_and_2("multiarray", "scalar", Constructor(_scalar)),
    **_numpy_1_and_2("numeric", "_frombuffer", Constructor(_from_buffer)),
}

ALLOWED = {**CONTAINERS, **NUMPY, **TORCH}


# Zip files stored without compression.

MAX_ENTRIES = 100_000
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_IN_EXTRA = 0xFFFFFFFF
_LONGEST_COMMENT = 0xFFFF


def read_zip_entries(data, check_names=lambda names: None):
    """Read name -> memoryview of every entry of the zip file in `data` (memoryview).

    WeightFileError if it is truncated or damaged, or an entry compressed, encrypted, a duplicate or outside the file.
    `check_names` is called with the names of all entries before that.
    """
    directory = list(_read_directory(data))
    check_names([name for name, *_ in directory])
    entries = {}
    for name, raw_name, plain, start, size in directory:
        if not plain:
            raise WeightFileError(
                f"its entry {name[:80]!r} is compressed or encrypted, so write it anew with torch.save"
            )
        if name in entries:
            raise WeightFileError(f"it has two entries named {name[:80]!r}")
        entries[name] = _contents(data, start, size, raw_name)
    return entries


def _read_directory(data):
    """(name, its bytes, whether it is stored as it is, where it begins, its size in bytes) of each entry."""
    count, position = _directory(data)
    if count > MAX_ENTRIES:
        raise WeightFileError(f"it claims to hold {count} entries")
    for _ in range(count):
        fields = _read(_ENTRY, data, position, b"PK\x01\x02")
        _, _, _, flags, method, _, _, _, packed, size, name_size, extra_size, comment_size, _, _, _, start = fields
        position += _ENTRY.size
        raw_name = bytes(data[position : position + name_size])
        extra = bytes(data[position + name_size : position + name_size + extra_size])
        position += name_size + extra_size + comment_size
        size, packed, start = _zip64_values(extra, size, packed, start)
        plain = method == 0 and not flags & 1 and size == packed
        yield raw_name.decode("utf-8", "backslashreplace"), raw_name, plain, start, size


def _directory(data):
    """The number of entries and where the directory begins."""
    tail_start = max(0, len(data) - _END.size - _LONGEST_COMMENT)
    end_start = bytes(data[tail_start:]).rfind(b"PK\x05\x06")
    if end_start < 0:
        raise WeightFileError("it's a zip file without its end, so download or copy it again")
    end = tail_start + end_start
    fields = _read(_END, data, end, b"PK\x05\x06")
    if end < _END64_LOCATOR.size or bytes(data[end - _END64_LOCATOR.size :][:4]) != b"PK\x06\x07":
        return fields[4], fields[6]
    locator = _read(_END64_LOCATOR, data, end - _END64_LOCATOR.size, b"PK\x06\x07")
    fields = _read(_END64, data, locator[2], b"PK\x06\x06")
    return fields[7], fields[9]


def _zip64_values(extra, *values):
    """Size, packed size and offset, those beyond 32 bits from the entry's zip64 field."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{min(size, len(extra) - 4) // 8}Q", extra, 4))
            return [next(numbers, value) if value == _IN_EXTRA else value for value in values]
        extra = extra[4 + size :]
    return values


def _contents(data, start, size, raw_name):
    fields = _read(_LOCAL, data, start, b"PK\x03\x04")
    name_at = start + _LOCAL.size
    begin = name_at + fields[9] + fields[10]
    if bytes(data[name_at : name_at + fields[9]]) != raw_name:
        raise WeightFileError("its zip directory and entries disagree")
    if begin + size > len(data):
        raise WeightFileError("it has an entry that goes on beyond the file's end, so download or copy it again")
    return data[begin : begin + size]


def _read(structure, data, position, signature):
    if position + structure.size > len(data):
        raise WeightFileError("its zip directory points outside the file, so download or copy it again")
    fields = structure.unpack_from(data, position)
    if fields[0] != signature:
        raise WeightFileError("its zip directory is damaged, so download or copy it again")
    return fields
