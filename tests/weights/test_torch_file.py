import pathlib
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch_writer import (
    STORAGES,
    integers,
    name_of,
    pickled,
    read_first,
    save_torch,
    storage,
    tensor,
    text,
    write_zip,
)

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.weight_file import read_weight_file

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoints"
BASE = np.arange(6, dtype=np.float32)


@pytest.fixture(scope="module")
def expected():
    return dict(np.load(GOLDEN / "expected.npz"))


def of(expected, group):
    return {name.removeprefix(f"{group}/"): value for name, value in expected.items() if name.startswith(f"{group}/")}


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("tensors_zip.pth", "tensors"),
        ("tensors_legacy.pth", "tensors"),
        ("state_dict_zip.pth", "state_dict"),
        ("state_dict_legacy.pth", "state_dict"),
        ("parallel.pth", "state_dict"),
        ("training.pth", "training"),
    ],
)
def test_files_written_by_torch_give_torchs_values(expected, file, group):
    checkpoint = read_weight_file(GOLDEN / file)
    assert checkpoint.container == "torch"
    tensors = next(iter(checkpoint.candidates.values()))
    tensors = tensors.without_prefix("module." if file == "parallel.pth" else "")
    assert set(tensors) == set(of(expected, group))
    for name, value in of(expected, group).items():
        found = tensors[name]
        assert found.dtype == value.dtype and found.shape == value.shape, name
        np.testing.assert_array_equal(found, value, err_msg=name)


def test_tensors_are_views_of_the_file_and_share_it():
    tensors = read_first(GOLDEN / "tensors_zip.pth")
    assert np.shares_memory(tensors["plain"], tensors["shared"])
    assert np.shares_memory(tensors["plain"], tensors["transposed"])
    assert not tensors["plain"].flags.writeable and not tensors["plain"].flags.owndata


def test_a_dtype_without_storage_class_is_read():
    tensors = read_first(GOLDEN / "untyped_storage.pth")
    assert tensors["a"].dtype == np.uint16 and tensors["a"].tolist() == [1, 2, 40000]


def test_a_namespace_beside_the_weights_is_inert():
    file = read_weight_file(GOLDEN / "namespace.pth")
    assert list(file.candidates) == ["model"]
    [inert] = file.metadata.values()
    assert inert.name == "argparse.Namespace" and type(inert.state) is dict


def test_a_whole_module_is_refused_by_its_class_with_the_remedy():
    module = r"whole pickled module, a torch.nn.modules.container.Sequential"
    remedy = r"torch.save\(torch.load\(FILE, weights_only=False\).state_dict\(\), 'weights.pth'\)"
    with pytest.raises(UserError, match=rf"whole_model.pth can't be imported: .*{module}.*{remedy}"):
        read_weight_file(GOLDEN / "whole_model.pth")
    with pytest.raises(UserError, match="its 'a' is a torch.storage._load_from_bytes, which is no tensor"):
        read_weight_file(GOLDEN / "plain_pickle_of_tensor.pkl")


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", exclude_characters="/"), min_size=1, max_size=20).filter(
            lambda name: name.isprintable() and not name.startswith("module.")
        ),
        st.sampled_from([name for name in STORAGES if name != "bfloat16"]).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
        ),
        min_size=1,
    )
)
def test_reads_back_what_was_written(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("torch") / "x.pth"
    save_torch(path, tensors)
    found = read_first(path)
    assert list(found) == list(tensors)
    for name, value in tensors.items():
        with np.errstate(over="ignore", invalid="ignore"):
            value = value.astype(np.float32) if value.dtype.kind == "f" else value
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_bfloat16_is_widened_exactly(tmp_path):
    value = np.array([1.5, -0.0, np.inf, 3e38, 1e-40], ml_dtypes.bfloat16)
    save_torch(tmp_path / "x.pth", {"a": value})
    found = read_first(tmp_path / "x.pth")["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), value.astype(np.float32).view(np.uint32))


def write_one(path, call, data=BASE, byteorder=b"little"):
    write_zip(path, pickled(b"}", text("a"), call, b"s"), {"0": data.tobytes()}, byteorder=byteorder)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=3),
)
def test_strides_give_the_elements_they_name_or_are_refused(tmp_path_factory, offset, layout):
    path = tmp_path_factory.mktemp("torch") / "x.pth"
    shape, strides = [length for length, _ in layout], [step for _, step in layout]
    write_one(path, tensor(BASE, "0", offset, shape, strides))
    indices = np.array([offset + np.dot(index, strides) for index in np.ndindex(*shape)], int).reshape(shape)
    if indices.size > BASE.size or (indices.size and indices.max() >= BASE.size):
        with pytest.raises(UserError, match="'a' .*beyond its storage of 6 elements"):
            read_first(path)
    else:
        np.testing.assert_array_equal(read_first(path)["a"], BASE[indices])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shape": [10**12], "strides": [0]}, "absurd|beyond"),
        ({"shape": [7], "strides": [0]}, "beyond its storage of 6"),
        ({"shape": [2**40, 2**40], "strides": [1, 1]}, "absurd"),
        ({"shape": [0, 2**62, 2**62], "strides": [1, 1, 1]}, "absurd"),
        ({"shape": [-1], "strides": [1]}, "whole number"),
        ({"shape": [2], "strides": [-1]}, "whole number"),
        ({"offset": -4}, "whole number"),
        ({"offset": 2**70}, "beyond"),
        ({"shape": [2, 3], "strides": [1]}, "2 dimensions and 1 strides"),
        ({"shape": [1] * 40, "strides": [1] * 40}, "40 dimensions"),
        ({"size": 7}, "fewer than its tensors expect"),
        ({"size": 2**300}, "fewer than its tensors expect"),
        ({"size": -1}, "damaged"),
    ],
)
def test_absurd_tensors_are_refused(tmp_path, options, sentence):
    write_one(tmp_path / "x.pth", tensor(BASE, "0", **options))
    with pytest.raises(UserError, match=sentence):
        read_first(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "call",
    [
        storage("FloatStorage", "0", 6) + pickle.POP + text("x") + pickle.BINPERSID,
        b"(" + text("module") + text("a") + text("b") + text("c") + text("d") + b"tQ",
        name_of("torch", "FloatStorage") + pickle.EMPTY_TUPLE + pickle.REDUCE,
        name_of("torch._utils", "_rebuild_tensor_v2") + b"(" + text("a") + integers([]) + integers([]) + b"tR",
        name_of("torch._utils", "_rebuild_tensor_v2") + pickle.EMPTY_TUPLE + pickle.REDUCE,
        tensor(BASE, "0") + pickle.EMPTY_DICT + pickle.BUILD,
        tensor(BASE, "../data.pkl"),
        tensor(BASE, "1"),
    ],
)
def test_misused_constructors_are_refused(tmp_path, call):
    write_one(tmp_path / "x.pth", call)
    with pytest.raises(UserError, match="can't be imported"):
        read_first(tmp_path / "x.pth")


def test_half_precision_that_shares_its_storage_too_widely_is_refused(tmp_path):
    half = np.ones(20_000, np.float16)
    calls = b"".join(text(f"t{number}") + tensor(half, "0") for number in range(100))
    write_zip(tmp_path / "x.pth", pickled(b"}(", calls, b"u"), {"0": half.tobytes()})
    with pytest.raises(UserError, match="share their contents so widely"):
        read_first(tmp_path / "x.pth")


def test_parameters_of_the_first_torch_versions(tmp_path):
    # torch 0.3 called the class and then set (requires_grad, volatile, hooks).
    call = name_of("torch.nn.parameter", "Parameter") + tensor(BASE, "0") + pickle.TUPLE1 + pickle.REDUCE
    write_one(tmp_path / "x.pth", call + b"(\x88\x89}tb")
    np.testing.assert_array_equal(read_first(tmp_path / "x.pth")["a"], BASE)


def test_big_endian_files_are_refused(tmp_path):
    write_one(tmp_path / "x.pth", tensor(BASE, "0"), byteorder=b"big")
    with pytest.raises(UserError, match="big-endian"):
        read_first(tmp_path / "x.pth")
    legacy = (GOLDEN / "state_dict_legacy.pth").read_bytes()
    at = legacy.index(b"little_endian") + len(b"little_endian")
    assert legacy[at : at + 3] == b"q\x02\x88"
    (tmp_path / "x.pth").write_bytes(legacy[: at + 2] + pickle.NEWFALSE + legacy[at + 3 :])
    with pytest.raises(UserError, match="big-endian"):
        read_first(tmp_path / "x.pth")


def test_other_zip_files_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=BASE)
    with pytest.raises(UserError, match="not one of torch.save"):
        read_first(tmp_path / "x.npz")


def test_a_legacy_file_whose_storage_sizes_lie_is_refused(tmp_path):
    legacy = (GOLDEN / "state_dict_legacy.pth").read_bytes()
    at = legacy.rindex(struct.pack("<Q", 108))
    for size in (109, 2**62):
        (tmp_path / "x.pth").write_bytes(legacy[:at] + struct.pack("<Q", size) + legacy[at + 8 :])
        with pytest.raises(UserError, match="isn't of the size"):
            read_first(tmp_path / "x.pth")


def test_a_legacy_file_cut_anywhere_is_refused(tmp_path):
    legacy = (GOLDEN / "state_dict_legacy.pth").read_bytes()
    for end in range(1, len(legacy), 7):
        (tmp_path / "x.pth").write_bytes(legacy[:end])
        with pytest.raises(UserError):
            read_first(tmp_path / "x.pth")
