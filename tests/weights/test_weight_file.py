"""Files of weights, told by their content: what is read of them, and what is refused."""

import json
import os
import pathlib
import pickle
import struct

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch_writer import first, name_of, pickled, read_first, save_torch, text, write_zip

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.torch_file import LEGACY_MAGIC
from mrcnn_tf.weights.unpickler import Inert
from mrcnn_tf.weights.weight_file import read_weight_file

A = np.arange(3, dtype=np.float32)


def save(path, value):
    path.write_bytes(pickle.dumps(value, 4))
    return path


def test_the_content_and_not_the_suffix_decides(tmp_path):
    save_torch(tmp_path / "torch.h5", {"a": A})
    save(tmp_path / "pickle.safetensors", {"a": A})
    with h5py.File(tmp_path / "hdf5.pth", "w") as file:
        file["a"] = A
    for name in ("torch.h5", "pickle.safetensors", "hdf5.pth"):
        checkpoint = read_weight_file(str(tmp_path / name))
        assert (checkpoint.path, checkpoint.container) == (str(tmp_path / name), name.split(".")[0])
        np.testing.assert_array_equal(first(checkpoint)["a"], A)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict", "state_dict_ema", "blobs"])
def test_weights_beside_other_things(tmp_path, wrapper):
    value = {wrapper: {"a": A, "note": "x"}, "optimizer": {"momentum": A}, "best": np.float64(1), "epoch": 3}
    assert list(read_first(save(tmp_path / "x", value))) == ["a"]


def test_a_wrapper_without_tensors_is_passed_over(tmp_path):
    value = {"model": {"name": "R50"}, "state_dict": {"a": A}}
    assert list(read_first(save(tmp_path / "x", value))) == ["a"]
    assert list(read_first(save(tmp_path / "x", {"model": "R50", "a": A}))) == ["a"]


@pytest.mark.parametrize("name", ["a\n", "\x1b[2J", "\ud800"])
def test_names_that_would_upset_a_terminal_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"control characters in its name\.$") as caught:
        read_first(save(tmp_path / "x", {name: A}))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", [{}, [{"a": A}], A, 3, "x", {3: A}, {"a": {"b": 1}}, {"best": np.float64(1)}])
def test_a_file_without_tensors_is_refused(tmp_path, value):
    with pytest.raises(UserError, match=r"x can't be imported: it holds .*save model.state_dict\(\)\.$"):
        read_first(save(tmp_path / "x", value))


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\x80",
        b"\x80\x02",
        b"<!DOCTYPE html>",
        b"version https://git-lfs",
        b"PK\x05\x06" + bytes(18),
        b"\x80\x01N.",
    ],
)
def test_other_files_are_refused(tmp_path, contents):
    (tmp_path / "x").write_bytes(contents)
    with pytest.raises(UserError, match="x can't be imported: .*\\.$"):
        read_first(tmp_path / "x")


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="there is no such file"):
            read_first(path)


NO_STORAGES = pickle.dumps([], 2)


def zip_container(path, stream):
    write_zip(path, stream, {})


def legacy_container(path, stream):
    machine = {"protocol_version": 1001, "little_endian": True}
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, 1001, machine)) + stream + NO_STORAGES)


def plain_container(path, stream):
    path.write_bytes(stream)


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("container", [zip_container, legacy_container, plain_container])
def test_no_container_runs_code(tmp_path, container):
    """No name is looked up, whichever it is: the reader keeps the name and what stands beside it, and calls nothing."""
    target = tmp_path / "ran"
    payloads = [
        Call(os.system, f"touch {target}"),
        Call(eval, f"open({str(target)!r}, 'w')"),
        Call(open, str(target), "w"),
        Call(getattr, Call(__import__, "os"), "system"),
        Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {target}"))),
        Call(os.mkdir, str(target)),
    ]
    for payload in payloads:
        for protocol in (2, 3, 4, 5):
            # Among the tensors there must be nothing else.
            container(tmp_path / "x", pickle.dumps({"model": {"a": A, "b": payload}}, protocol))
            with pytest.raises(UserError, match=r"its 'b', among the tensors of its 'model', is a .* isn't looked up"):
                read_first(tmp_path / "x")
            # Elsewhere it is a name with arguments.
            stream = pickle.dumps({"model": {"a": A}, "b": payload}, protocol)
            container(tmp_path / "x", stream)
            file = read_weight_file(tmp_path / "x")
            np.testing.assert_array_equal(first(file)["a"], A)
            assert type(file.metadata["b"]) is Inert and type(file.metadata["b"].arguments) is tuple
            assert not target.exists()
    # The payload does run where a pickle is trusted.
    pickle.loads(stream)
    assert target.exists()


@pytest.mark.parametrize("container", [zip_container, legacy_container, plain_container])
def test_a_chain_of_allowed_names_leads_nowhere(tmp_path, container):
    chain = name_of("collections", "OrderedDict") + text("__init__") + pickle.TUPLE2 + pickle.REDUCE
    container(tmp_path / "x", pickled(chain, b"}(" + text("__class__") + name_of("torch", "Size") + b"ub"))
    with pytest.raises(UserError, match="damaged near byte"):
        read_first(tmp_path / "x")


GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoints"
VALUE = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_keras_2_files_give_each_variables_full_path():
    expected = np.load(GOLDEN / "expected.npz")
    checkpoint = read_weight_file(GOLDEN / "keras_2.h5")
    assert checkpoint.container == "hdf5"
    names = ["conv1/conv1/kernel:0", "conv1/conv1/bias:0", "bn_conv1/bn_conv1/gamma:0"]
    assert sorted(first(checkpoint)) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(first(checkpoint)[name], expected[f"keras_2/{name}"])
        assert not first(checkpoint)[name].flags.writeable


def test_a_whole_saved_model_gives_its_weights_alone(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["model_weights/conv/conv/kernel:0"] = VALUE
        file["optimizer_weights/step"] = 3
    tensors = read_first(tmp_path / "x.h5")
    assert list(tensors) == ["conv/conv/kernel:0"]


def test_element_types(tmp_path):
    values = {"half": VALUE.astype("f2"), "double": VALUE.astype("f8"), "step": np.int64(3), "none": VALUE[:0]}
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        for name, value in values.items():
            file[name] = value
    tensors = read_first(tmp_path / "x.h5")
    assert {name: tensor.dtype.name for name, tensor in tensors.items()} == {
        "half": "float32",
        "double": "float32",
        "step": "int64",
        "none": "float32",
    }
    for name, value in values.items():
        np.testing.assert_array_equal(tensors[name], value)


def soft_link(file):
    file["a"] = h5py.SoftLink("/b")


def external_link(file):
    file["a"] = h5py.ExternalLink("other.h5", "/b")


def external_storage(file):
    secret = pathlib.Path(file.filename).with_name("secret")
    secret.write_bytes(bytes(24))
    file.create_dataset("a", (6,), "f4", external=[(str(secret), 0, 24)])


def virtual(file):
    layout = h5py.VirtualLayout((6,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "b", (6,))
    file.create_virtual_dataset("a", layout)


def compressed(file):
    file.create_dataset("a", (10**7,), "f4", data=np.zeros(10**7, "f4"), compression="gzip")


def never_written(file):
    file.create_dataset("a", (10**12,), "f4")


def chunks_never_written(file):
    file.create_dataset("a", (10**12,), "f4", chunks=(100,))


def cycle(file):
    file["group/again"] = file.create_group("group")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (soft_link, "'a' is a link to somewhere else"),
        (external_link, "'a' is a link to somewhere else"),
        (external_storage, "'a' isn't stored in one plain piece"),
        (virtual, "'a' isn't stored in one plain piece"),
        (compressed, "'a' isn't stored in one plain piece; rewrite the file with `h5repack"),
        (chunks_never_written, "'a' isn't stored in one plain piece"),
        (never_written, "'a' has no contents"),
        (cycle, "contain each other"),
        (lambda file: file.create_dataset("a", data=VALUE.astype(">f4")), "'a' has the type '>f4'"),
        (lambda file: file.create_dataset("a", data=["text"]), "'a' has the type"),
        (lambda file: file.create_dataset("a", data=np.zeros(2, "f4,i4")), "'a' has the type"),
        (lambda file: file.create_group("a"), "holds no tensors"),
    ],
)
def test_anything_but_plain_weights_is_refused(tmp_path, make, sentence):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        make(file)
    with pytest.raises(UserError, match=f"x.h5 can't be imported: .*{sentence}"):
        read_first(tmp_path / "x.h5")


def test_a_file_cut_short_is_refused(tmp_path):
    whole = (GOLDEN / "keras_2.h5").read_bytes()
    for end in range(8, len(whole), 97):
        (tmp_path / "x.h5").write_bytes(whole[:end])
        with pytest.raises(UserError):
            read_first(tmp_path / "x.h5")


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
    assert checkpoint.container == "safetensors" and set(first(checkpoint)) == set(tensors)
    for name, value in tensors.items():
        with np.errstate(over="ignore", invalid="ignore"):
            value = value.astype(np.float32) if value.dtype.kind == "f" else value
        assert first(checkpoint)[name].dtype == value.dtype
        np.testing.assert_array_equal(first(checkpoint)[name], value)


def test_bfloat16_is_widened_exactly(tmp_path):
    value = np.array([[1.5, -2.25], [np.inf, 1e-40]], ml_dtypes.bfloat16)
    path = write(tmp_path / "x", {"a": entry("BF16", [2, 2], 0, 8)}, value.tobytes())
    np.testing.assert_array_equal(read_first(path)["a"], value.astype(np.float32))


def test_arrays_are_views_of_the_file(tmp_path):
    path = write(tmp_path / "x", {"a": entry("F32", [4], 0, 16)}, bytes(16))
    found = read_first(path)["a"]
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
        read_first(write(tmp_path / "x", header, bytes(size)))


@pytest.mark.parametrize("size", [2**63, 10**7, 3])
def test_a_header_longer_than_the_file_is_refused(tmp_path, size):
    (tmp_path / "x").write_bytes(struct.pack("<Q", size) + b"{}")
    with pytest.raises(UserError, match="longer than the file"):
        read_first(tmp_path / "x")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = write(tmp_path / "x", {"a": F32}, bytes(8)).read_bytes()
    for end in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:end])
        with pytest.raises(UserError):
            read_first(tmp_path / "x")
