import os
import pickle

import h5py
import numpy as np
import pytest
from torch_writer import name_of, pickled, save_torch, text, write_zip

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.torch_file import LEGACY_MAGIC
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
        np.testing.assert_array_equal(checkpoint.tensors["a"], A)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict", "state_dict_ema", "blobs"])
def test_weights_beside_other_things(tmp_path, wrapper):
    value = {wrapper: {"a": A, "note": "x"}, "optimizer": {"momentum": A}, "best": np.float64(1), "epoch": 3}
    assert list(read_weight_file(save(tmp_path / "x", value)).tensors) == ["a"]


def test_a_wrapper_without_tensors_is_passed_over(tmp_path):
    value = {"model": {"name": "R50"}, "state_dict": {"a": A}}
    assert list(read_weight_file(save(tmp_path / "x", value)).tensors) == ["a"]
    assert list(read_weight_file(save(tmp_path / "x", {"model": "R50", "a": A})).tensors) == ["a"]


def test_the_prefix_of_data_parallel_training_is_dropped_only_where_all_names_have_it(tmp_path):
    every, some = {"module.a": A, "module.b": A}, {"module.a": A, "b": A}
    assert list(read_weight_file(save(tmp_path / "x", every)).tensors) == ["a", "b"]
    assert list(read_weight_file(save(tmp_path / "x", some)).tensors) == ["module.a", "b"]


@pytest.mark.parametrize("name", ["a\n", "\x1b[2J", "\ud800"])
def test_names_that_would_upset_a_terminal_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"control characters in its name\.$") as caught:
        read_weight_file(save(tmp_path / "x", {name: A}))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", [{}, [A], A, 3, {"deep": {"deeper": {"a": A}}}, {3: A}, {"a": {"b": 1}}])
def test_a_file_without_tensors_is_refused(tmp_path, value):
    with pytest.raises(UserError, match=r"x can't be imported: it holds no .*save model.state_dict\(\)\.$"):
        read_weight_file(save(tmp_path / "x", value))


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
        read_weight_file(tmp_path / "x")


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="there is no such file"):
            read_weight_file(path)


def zip_container(path, stream):
    write_zip(path, stream, {})


def legacy_container(path, stream):
    machine = {"protocol_version": 1001, "little_endian": True}
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, 1001, machine)) + stream)


def plain_container(path, stream):
    path.write_bytes(stream)


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("container", [zip_container, legacy_container, plain_container])
def test_no_container_runs_code(tmp_path, container):
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
            stream = pickle.dumps({"model": {"a": A, "b": payload}}, protocol)
            container(tmp_path / "x", stream)
            with pytest.raises(UserError, match=r"which is neither a tensor nor a plain container"):
                read_weight_file(tmp_path / "x")
            assert not target.exists()
    # The payload does run where a pickle is trusted.
    pickle.loads(stream)
    assert target.exists()


@pytest.mark.parametrize("container", [zip_container, legacy_container, plain_container])
def test_a_chain_of_allowed_names_leads_nowhere(tmp_path, container):
    chain = name_of("collections", "OrderedDict") + text("__init__") + pickle.TUPLE2 + pickle.REDUCE
    container(tmp_path / "x", pickled(chain, b"}(" + text("__class__") + name_of("torch", "Size") + b"ub"))
    with pytest.raises(UserError, match="damaged near byte"):
        read_weight_file(tmp_path / "x")
