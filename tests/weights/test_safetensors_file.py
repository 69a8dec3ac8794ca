import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.weight_file import read_weight_file

DTYPES = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i1": "I8", "u1": "U8", "?": "BOOL"}


def write(path, header, contents):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + contents)
    return path


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


printable = st.text(min_size=1, max_size=10).filter(
    lambda name: name.isprintable() and not name.startswith(("module.", "__metadata__"))
)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        printable,
        st.sampled_from(list(DTYPES)).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        min_size=1,
        max_size=4,
    )
)
def test_reads_back_what_was_written(tmp_path_factory, tensors):
    header, contents = {"__metadata__": {"format": "pt"}}, b""
    for name, value in tensors.items():
        end = len(contents) + value.nbytes
        code = next(code for short, code in DTYPES.items() if np.dtype(short) == value.dtype)
        header[name] = entry(code, list(value.shape), len(contents), end)
        contents += value.tobytes()
    checkpoint = read_weight_file(write(tmp_path_factory.mktemp("safe") / "x", header, contents))
    assert checkpoint.container == "safetensors" and set(checkpoint.tensors) == set(tensors)
    for name, value in tensors.items():
        with np.errstate(over="ignore", invalid="ignore"):
            value = value.astype(np.float32) if value.dtype.kind == "f" else value
        assert checkpoint.tensors[name].dtype == value.dtype
        np.testing.assert_array_equal(checkpoint.tensors[name], value)


def test_bfloat16_is_widened_exactly(tmp_path):
    value = np.array([[1.5, -2.25], [np.inf, 1e-40]], ml_dtypes.bfloat16)
    path = write(tmp_path / "x", {"a": entry("BF16", [2, 2], 0, 8)}, value.tobytes())
    np.testing.assert_array_equal(read_weight_file(path).tensors["a"], value.astype(np.float32))


def test_arrays_are_views_of_the_file(tmp_path):
    path = write(tmp_path / "x", {"a": entry("F32", [4], 0, 16)}, bytes(16))
    found = read_weight_file(path).tensors["a"]
    assert not found.flags.writeable and not found.flags.owndata


F32 = entry("F32", [2], 0, 8)


@pytest.mark.parametrize(
    ("header", "size", "sentence"),
    [
        ({"a": F32, "b": entry("F32", [2], 4, 12)}, 12, "overlap or leave a hole"),
        ({"a": F32, "b": F32}, 8, "overlap or leave a hole"),
        ({"a": F32, "b": entry("F32", [1], 12, 16)}, 16, "overlap or leave a hole"),
        ({"a": F32}, 9, "holds 9 bytes .* describes 8"),
        ({"a": F32}, 7, "describes 'a' wrongly"),
        ({"a": entry("F32", [3], 0, 8)}, 8, "doesn't fit into its 8 bytes"),
        ({"a": entry("F32", [2**62, 4], 0, 8)}, 8, "doesn't fit"),
        ({"a": entry("F32", [-2, -1], 0, 8)}, 8, "impossible shape"),
        ({"a": entry("F32", [2.0], 0, 8)}, 8, "impossible shape"),
        ({"a": entry("F32", [True, 2], 0, 8)}, 8, "impossible shape"),
        ({"a": entry("F32", [2], 8, 0)}, 8, "describes 'a' wrongly"),
        ({"a": entry("F32", [2], -8, 0)}, 8, "describes 'a' wrongly"),
        ({"a": entry("F32", [2], 0, 8.0)}, 8, "describes 'a' wrongly"),
        ({"a": entry("F8_E4M3", [8], 0, 8)}, 8, "type 'F8_E4M3'; save it as F32"),
        ({"a": entry(["F32"], [2], 0, 8)}, 8, "describes 'a' wrongly"),
        ({"a": [F32]}, 8, "describes 'a' wrongly"),
        ({"a": {}}, 8, "describes 'a' wrongly"),
        ({}, 0, "holds no tensors"),
        (b'{"a":' + json.dumps(F32).encode() + b',"a":' + json.dumps(F32).encode() + b"}", 8, "names a tensor twice"),
        (b'{"a":' * 100_000, 8, "isn't the JSON object"),
        (b"{\xff}", 8, "isn't the JSON object"),
        (b'{"a":' + b"9" * 10_000 + b"}", 8, "isn't the JSON object"),
    ],
)
def test_headers_that_cannot_be_are_refused(tmp_path, header, size, sentence):
    with pytest.raises(UserError, match=sentence):
        read_weight_file(write(tmp_path / "x", header, bytes(size)))


@pytest.mark.parametrize("size", [2**63, 10**7, 3])
def test_a_header_longer_than_the_file_is_refused(tmp_path, size):
    (tmp_path / "x").write_bytes(struct.pack("<Q", size) + b"{}")
    with pytest.raises(UserError, match="longer than the file"):
        read_weight_file(tmp_path / "x")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = write(tmp_path / "x", {"a": F32}, bytes(8)).read_bytes()
    for end in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:end])
        with pytest.raises(UserError):
            read_weight_file(tmp_path / "x")
