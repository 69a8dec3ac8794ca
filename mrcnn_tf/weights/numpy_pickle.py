"""Stand-ins for what numpy's arrays call when they're unpickled."""

from mrcnn_tf.weights.refusal import Refusal
from mrcnn_tf.weights.stored_tensor import DTYPES, StoredTensor, contiguous
from mrcnn_tf.weights.unpickler import Constructor

_NAMES = {dtype.str[1:]: name for name, dtype in DTYPES.items() if name not in ("bfloat16", "bool")} | {"b1": "bool"}


class NumpyType:
    """Stands for a dtype; `name` is a key of `DTYPES`."""

    def __init__(self, code, *_):
        if code not in _NAMES:
            raise Refusal(f"it holds an array of type {str(code)[:20]!r}, and weights are plain numbers")
        self.name = _NAMES[code]

    def set_state(self, state):
        """Takes dtype's state: (version, byte order, subtype, names, fields, size, alignment, flags, ...)."""
        if state[1] not in ("<", "|", "=") or any(part is not None for part in state[2:5]):
            raise Refusal("it holds an array that is big-endian or a record; save it as little-endian numbers")


class NumpyArray:
    """Stands for an array; `tensor` is None until `set_state` has given it its contents."""

    def __init__(self):
        self.tensor = None

    def set_state(self, state):
        """Takes ndarray's state: (version, shape, dtype, Fortran order, contents)."""
        _, shape, dtype, fortran, contents = state
        self.tensor = contiguous(dtype.name, _raw(contents), shape, "F" if fortran else "C")


def _raw(contents):
    # Python 2's strings are text here and bytes there; the unpickler gives the short ones as text.
    return memoryview(contents.encode("latin-1") if isinstance(contents, str) else contents)


def _from_buffer(contents, dtype, shape, order, axes=None):
    """Protocol 5; with order "K" the contents are in C order for `shape`, whose axes are permuted afterwards."""
    array = NumpyArray()
    tensor = contiguous(dtype.name, _raw(contents), shape, "F" if order == "F" else "C")
    if order == "K" and axes is not None:
        if sorted(axes) != list(range(len(shape))):
            raise ValueError
        shape, strides = (tuple(values[axis] for axis in axes) for values in (tensor.shape, tensor.strides))
        tensor = StoredTensor(tensor.storage, tensor.dtype, 0, shape, strides)
    array.tensor = tensor
    return array


def _scalar(dtype, contents):
    array = NumpyArray()
    array.tensor = contiguous(dtype.name, _raw(contents), ())
    return array


def _both_eras(module, name, value):
    """numpy 2 moved numpy.core to numpy._core."""
    return {(f"numpy.{core}.{module}", name): value for core in ("core", "_core")}


NUMPY = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): Constructor(NumpyType),
    **_both_eras("multiarray", "_reconstruct", Constructor(lambda kind, shape, code: NumpyArray())),
    **_both_eras("multiarray", "scalar", Constructor(_scalar)),
    **_both_eras("numeric", "_frombuffer", Constructor(_from_buffer)),
}
