"""Tensors as files hold them: bytes, an element type, an offset, a shape and strides.

What a file says of a tensor is checked before an array is made of it, so that no array reaches beyond the file.
"""

import dataclasses
import math

import numpy as np


class WeightFileError(Exception):
    """A clause on the fault and its remedy; `read_weight_file` puts the file's name before it, as a `UserError`."""


_NUMBERS = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
NUMPY_DTYPES = {name: np.dtype(name).newbyteorder("<") for name in _NUMBERS}
# numpy has no bfloat16; its bits are the upper half of a float32. A boolean is stored as a byte.
DTYPES = NUMPY_DTYPES | {"bfloat16": np.dtype("<u2"), "bool": np.dtype("u1")}
MAX_RANK = 32
MAX_ELEMENTS = 2**40


@dataclasses.dataclass
class Storage:
    """The bytes that one or more tensors are views of.

    Attributes:
        dtype: a key of `DTYPES`.
        data: its bytes; None while a legacy torch file has yet to reach them.
    """

    dtype: str
    data: memoryview | None


@dataclasses.dataclass
class StoredTensor:
    """A tensor as the file describes it, true or not: `check` comes before all else.

    Attributes:
        storage: what holds the elements.
        dtype: a key of `DTYPES`.
        offset: the first element's index in the storage.
        shape, strides: per dimension, the length and the step, in elements.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def check(self):
        """Raise `WeightFileError` unless every element lies inside the storage, and there are no more than it holds."""
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > MAX_RANK:
            raise WeightFileError(f"has {len(self.shape)} dimensions and {len(self.strides)} strides")
        if any(type(number) is not int or number < 0 for number in numbers):
            raise WeightFileError("has a shape, offset or stride that isn't a whole number from 0 up")
        if math.prod(max(length, 1) for length in self.shape) > MAX_ELEMENTS:
            raise WeightFileError(f"has the absurd shape {_short_shape(self.shape)}")
        stored = len(self.storage.data) // DTYPES[self.dtype].itemsize
        if self.size == 0:
            return
        last = self.offset + sum((length - 1) * step for length, step in zip(self.shape, self.strides, strict=True))
        if self.size > stored or last >= stored:
            shape = _short_shape(self.shape)
            raise WeightFileError(f"of shape {shape} reaches beyond its storage of {stored} elements")

    @property
    def size(self):
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def copied_bytes(self):
        """How much memory `array` takes of its own."""
        if self.dtype in ("float64", "float16", "bfloat16"):
            return 4 * self.size
        return self.size if self.dtype == "bool" else 0

    def array(self):
        """The elements, after `check`: float types as float32, others as they are; a view of the file if possible."""
        dtype = DTYPES[self.dtype]
        if self.size == 0:
            array = np.empty(self.shape, dtype)
        else:
            steps = [step * dtype.itemsize for step in self.strides]
            array = np.ndarray(self.shape, dtype, self.storage.data, self.offset * dtype.itemsize, steps)
        if self.dtype == "bool":
            return array != 0
        if self.dtype == "bfloat16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        if dtype.kind == "f":
            with np.errstate(over="ignore", invalid="ignore"):
                return array.astype(np.float32, copy=False)
        return array


def contiguous(dtype, data, shape, order="C"):
    """Make the `StoredTensor` that fills `data` in C or Fortran order; WeightFileError if it needs more or less."""
    if len(shape) > MAX_RANK or any(type(length) is not int or length < 0 for length in shape):
        raise WeightFileError(f"an array has the impossible shape {_short_shape(shape)}")
    if math.prod(shape) * DTYPES[dtype].itemsize != len(data):
        raise WeightFileError(
            f"an array of type {dtype} and shape {_short_shape(shape)} doesn't fit into its {len(data)} bytes"
        )
    strides, step = [], 1
    for length in shape if order == "F" else reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return StoredTensor(Storage(dtype, data), dtype, 0, tuple(shape), tuple(strides if order == "F" else strides[::-1]))


def _short_shape(shape):
    return "x".join(str(length)[:20] for length in shape[:8]) + ("..." if len(shape) > 8 else "")
