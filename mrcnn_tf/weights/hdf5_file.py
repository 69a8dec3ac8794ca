"""HDF5 files of weights, as Keras 2 writes them: a group per layer, a dataset per variable."""

import h5py

from mrcnn_tf.weights.refusal import Refusal
from mrcnn_tf.weights.stored_tensor import DTYPES, contiguous

MAX_OBJECTS = 20_000
MAX_DEPTH = 32
_NAMES = {dtype.str: name for name, dtype in DTYPES.items() if name not in ("bfloat16", "bool")}
_REPACK = "rewrite the file with `h5repack -l CONTI -f NONE`"


def read_hdf5(path, data):
    """Name to `StoredTensor`; the name is the dataset's path in the file, such as "conv1/conv1/kernel:0".

    A whole saved Keras model gives the weights in its group "model_weights". The library is asked only where each
    dataset lies; the values are views of `data` (memoryview of the file), so no filter or external file is run.

    Raises:
        Refusal: the file is damaged; a link that isn't a plain one; a dataset that is compressed, chunked, virtual,
            stored elsewhere, big-endian or not numeric.
    """
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if _is_group(file, "model_weights") else file
            return _tensors(root, data)
    # What the library raises on a damaged file depends on which of its calls met the damage.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError, AttributeError) as error:
        raise Refusal("it's damaged as an HDF5 file, so download or copy it again") from error


def _is_group(file, name):
    return isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Group)


def _tensors(root, data):
    tensors, waiting, seen = {}, [("", root, 0)], 0
    while waiting:
        prefix, group, depth = waiting.pop()
        for name in group:
            seen += 1
            if seen > MAX_OBJECTS or depth > MAX_DEPTH:
                raise Refusal("its groups contain each other or are too many")
            path = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refusal(f"its {path[:100]!r} is a link to somewhere else; store the weights themselves")
            entry = group[name]
            if isinstance(entry, h5py.Group):
                waiting.append((f"{path}/", entry, depth + 1))
            elif isinstance(entry, h5py.Dataset):
                tensors[path] = _tensor(path, entry, data)
    return tensors


def _tensor(path, dataset, data):
    settings = dataset.id.get_create_plist()
    if settings.get_layout() != h5py.h5d.CONTIGUOUS or settings.get_nfilters() or settings.get_external_count():
        raise Refusal(f"its dataset {path[:100]!r} isn't stored in one plain piece; {_REPACK}")
    dtype = dataset.dtype.str
    if dtype not in _NAMES:
        raise Refusal(f"its dataset {path[:100]!r} has the type {dtype[:20]!r}, and weights are little-endian numbers")
    shape, begin, size = dataset.shape, dataset.id.get_offset(), dataset.id.get_storage_size()
    if 0 in shape:
        begin = size = 0
    if begin is None or begin + size > len(data):
        raise Refusal(f"its dataset {path[:100]!r} has no contents inside the file, so download or copy it again")
    return contiguous(_NAMES[dtype], data[begin : begin + size], shape)
