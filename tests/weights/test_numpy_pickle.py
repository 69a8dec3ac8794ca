import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch_writer import first, integers, name_of, pickled, read_first, text

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.weight_file import read_weight_file


def save(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    ),
    st.integers(2, 5),
    st.permutations(range(4)),
)
def test_reads_arrays_of_every_protocol_type_and_order(tmp_path_factory, value, protocol, axes):
    value = value.transpose([axis for axis in axes if axis < value.ndim])
    path = save(tmp_path_factory.mktemp("pickle") / "x.pkl", {"model": {"a": value}, "__author__": "x"}, protocol)
    checkpoint = read_weight_file(path)
    assert checkpoint.container == "pickle"
    found = first(checkpoint)["a"]
    with np.errstate(over="ignore", invalid="ignore"):
        value = value.astype(np.float32) if value.dtype.kind == "f" else value
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_module_names_of_numpy_1_and_2(tmp_path, protocol):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    stream = pickle.dumps({"a": value, "b": value[0, 1]}, protocol)
    if protocol < 4:
        old, new = stream.replace(b"numpy._core.", b"numpy.core."), stream.replace(b"numpy.core.", b"numpy._core.")
    else:
        # From protocol 4 on, a module's name follows its length.
        old = stream.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
        old = old.replace(b"\x13numpy._core.numeric", b"\x12numpy.core.numeric")
        new = stream.replace(b"\x15numpy.core.multiarray", b"\x16numpy._core.multiarray")
        new = new.replace(b"\x12numpy.core.numeric", b"\x13numpy._core.numeric")
    assert b"numpy.core" in old and b"numpy._core" in new
    for stream in (old, new):
        (tmp_path / "x.pkl").write_bytes(stream)
        tensors = read_first(tmp_path / "x.pkl")
        np.testing.assert_array_equal(tensors["a"], value)
        assert tensors["b"].shape == () and tensors["b"] == 1


def python_2_text(value):
    return pickle.BINSTRING + struct.pack("<I", len(value)) + value


def python_2_array(value, fortran=False, byteorder=b"<", kind=b"f4", extra=pickle.NONE, shape=None):
    """An array as Python 2's numpy pickled it: the contents are a string."""
    return b"".join(
        [
            name_of("numpy.core.multiarray", "_reconstruct") + b"(" + name_of("numpy", "ndarray"),
            integers([0]) + python_2_text(b"b") + b"tR",
            b"(" + pickle.BININT1 + b"\x01" + integers(value.shape if shape is None else shape),
            name_of("numpy", "dtype")
            + b"("
            + python_2_text(kind)
            + pickle.BININT1
            + b"\0"
            + pickle.BININT1
            + b"\x01tR",
            b"(" + pickle.BININT1 + b"\x03" + python_2_text(byteorder) + extra + b"NN",
            pickle.BININT + struct.pack("<i", -1) + pickle.BININT + struct.pack("<i", -1) + pickle.BININT1 + b"\0tb",
            (pickle.NEWTRUE if fortran else pickle.NEWFALSE),
            python_2_text(value.tobytes("F" if fortran else "C")) + b"tb",
        ]
    )


@pytest.mark.parametrize("wrapped", [True, False])
def test_caffe2_blobs_of_python_2(tmp_path, wrapped):
    large = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    small = np.array([-1.5, 3e38], np.float32)
    blobs = b"}("
    for name, array in (("conv1_w", python_2_array(large)), ("conv1_b", python_2_array(small))):
        blobs += python_2_text(name.encode()) + array + python_2_text(name.encode() + b"_momentum") + array
    blobs += python_2_text(b"fortran") + python_2_array(large, fortran=True) + b"u"
    whole = b"}(" + python_2_text(b"cfg") + python_2_text(b"\xe9" * 999) + python_2_text(b"blobs") + blobs + b"u"
    (tmp_path / "x.pkl").write_bytes(pickled(whole if wrapped else blobs))
    assert not wrapped or "cfg" in pickle.loads(pickled(whole), encoding="latin1")
    file = read_weight_file(tmp_path / "x.pkl")
    # Bytes there, text here.
    assert file.metadata == ({"cfg": "é" * 999} if wrapped else {})
    tensors = first(file)
    assert list(tensors) == ["conv1_w", "conv1_b", "fortran"]
    for name, value in (("conv1_w", large), ("conv1_b", small), ("fortran", large)):
        np.testing.assert_array_equal(tensors[name], value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"byteorder": b">"}, "big-endian"),
        ({"extra": integers([1])}, "a record"),
        ({"kind": b"O8"}, "'O8', and weights are plain numbers"),
        ({"kind": b"V16"}, "'V16'"),
        ({"kind": b"f8"}, "doesn't fit into its 24 bytes"),
        ({"shape": [7]}, "doesn't fit into its 24 bytes"),
        ({"shape": [-2, -3]}, "impossible shape"),
        ({"shape": [2**200] * 31}, "doesn't fit"),
        ({"shape": [1] * 33 + [6]}, "impossible shape"),
    ],
)
def test_arrays_that_cannot_be_are_refused(tmp_path, options, sentence):
    array = python_2_array(np.arange(6, dtype=np.float32), **options)
    (tmp_path / "x.pkl").write_bytes(pickled(b"}", text("a"), array, b"s"))
    with pytest.raises(UserError, match=sentence):
        read_first(tmp_path / "x.pkl")


@pytest.mark.parametrize("value", [np.array([{}], object), np.zeros(2, "f4,i4"), np.array(["a"]), np.zeros(2, ">f4")])
def test_arrays_of_objects_records_text_and_other_byte_orders_are_refused(tmp_path, value):
    for protocol in (2, 4, 5):
        with pytest.raises(UserError, match="can't be imported"):
            read_first(save(tmp_path / "x.pkl", {"a": value}, protocol))


def test_an_array_without_contents_is_no_tensor(tmp_path):
    call = name_of("numpy.core.multiarray", "_reconstruct") + b"(NNNtR"
    (tmp_path / "x.pkl").write_bytes(pickled(b"}", text("a"), call, b"s"))
    with pytest.raises(UserError, match="holds no tensors"):
        read_first(tmp_path / "x.pkl")


def test_contents_outside_the_pickle_are_refused(tmp_path):
    stream = pickle.dumps({"a": np.ones(3)}, 5, buffer_callback=lambda buffer: None)
    (tmp_path / "x.pkl").write_bytes(stream)
    with pytest.raises(UserError, match="no checkpoint needs"):
        read_first(tmp_path / "x.pkl")


def test_arrays_are_views_of_the_file(tmp_path):
    tensors = read_first(save(tmp_path / "x.pkl", {"a": np.ones(1000, np.float32)}))
    assert not tensors["a"].flags.writeable and not tensors["a"].flags.owndata
