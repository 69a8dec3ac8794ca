"""Where in a checkpoint the weights may be, and what stands beside them."""

import argparse
import collections
import pickle
import time
import zipfile

import numpy as np
import pytest
from torch_writer import first, name_of, pickled, read_first, text, write_zip

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.candidates import MAX_DEPTH, examples_of, without_shared_prefix
from mrcnn_tf.weights.unpickler import Inert
from mrcnn_tf.weights.weight_file import read_weight_file

A, B = np.arange(3, dtype=np.float32), np.ones((2, 2), np.float32)


def save(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def test_every_dictionary_of_tensors_is_a_candidate_and_averages_and_optimizers_come_last(tmp_path):
    value = {
        "optimizer": {"state": {"layer.weight": {"exp_avg": A}}, "param_groups": [{"lr": 0.1}]},
        "model_ema": {"n_averaged": np.array(5), "module.layer.weight": A},
        "a": {"b": {"layer.weight": A}},
        "net": {"layer.weight": A},
        "state_dict": {"layer.weight": A},
        "model": {"layer.weight": B},
        "loose": A,
        "epoch": np.int64(3),
    }
    file = read_weight_file(save(tmp_path / "x", value))
    places = ["", "model", "state_dict", "net", "a.b", "model_ema", "optimizer.state.layer.weight"]
    assert list(file.candidates) == places
    np.testing.assert_array_equal(file.candidates["model"]["layer.weight"], B)
    # How many steps an average is of is no weight.
    assert list(file.candidates["model_ema"]) == ["module.layer.weight"]
    assert file.metadata == {"optimizer": {"param_groups": [{"lr": 0.1}]}, "epoch": 3}


def test_a_dictionary_of_a_class_of_its_own_is_a_candidate_like_others(tmp_path):
    class_of_its_own = name_of("my.training", "AttributeDict") + pickle.EMPTY_TUPLE + pickle.NEWOBJ
    tensors = pickle.dumps(A, 2)[2:-1]
    items = text("net") + class_of_its_own + text("a") + tensors + pickle.SETITEM + pickle.SETITEM
    (tmp_path / "x").write_bytes(pickled(class_of_its_own, items))
    file = read_weight_file(tmp_path / "x")
    assert list(file.candidates) == ["net"]
    np.testing.assert_array_equal(file.candidates["net"]["a"], A)


@pytest.mark.parametrize(
    ("names", "prefixes"),
    [
        (["module.model.a.weight", "module.model.a.bias"], ["", "module.", "module.model.", "module.model.a."]),
        (["module.a", "b"], [""]),
        (["model.a", "model2.a"], [""]),
        (["model.a"], ["", "model."]),
        ([], [""]),
    ],
)
def test_a_prefix_of_whole_parts_that_all_names_share(names, prefixes):
    assert list(without_shared_prefix(names)) == prefixes
    if names and len(prefixes) > 1:
        assert all(name.startswith(prefixes[-1]) for name in names)


def test_a_name_of_very_many_parts_has_few_prefixes():
    assert len(list(without_shared_prefix(["a." * 100_000 + "b"]))) < 10


def test_tensors_without_a_prefix_are_the_same_ones(tmp_path):
    tensors = read_weight_file(save(tmp_path / "x", {"module.a": A, "module.b": B})).candidates[""]
    stripped = tensors.without_prefix("module.")
    assert list(stripped) == ["a", "b"] and len(stripped) == 2 and "module.a" not in stripped
    np.testing.assert_array_equal(stripped["b"], B)


def test_what_wrappers_put_into_names_is_dropped_wherever_it_stands(tmp_path):
    names = ["backbone._orig_mod.a", "_fsdp_wrapped_module.b", "c._checkpoint_wrapped_module.d", "my_orig_mod.e"]
    found = read_first(save(tmp_path / "x", dict.fromkeys(names, A)))
    assert list(found) == ["backbone.a", "b", "c.d", "my_orig_mod.e"]
    with pytest.raises(UserError, match="a second tensor by the name of 'a'"):
        read_first(save(tmp_path / "x", {"_orig_mod.a": A, "a": B}))


def test_half_precision_is_widened_only_where_it_is_asked_for(tmp_path):
    half = np.ones(1000, np.float16)
    file = read_weight_file(save(tmp_path / "x", {"model": {"a": half, "b": A}, "ema": {"a": half}}))
    tensors = file.candidates["model"]
    assert tensors["a"].dtype == np.float32 and tensors["a"] is not tensors["a"]
    assert not tensors["b"].flags.owndata


def test_damage_matters_only_where_the_weights_are(tmp_path):
    good, bad = pickle.dumps(A, 2)[2:-1], name_of("torch._utils", "_rebuild_sparse_tensor") + b"(tR"
    parts = [text("model") + b"}" + text("a") + good + b"s", text("ema") + b"}(" + text("a") + good]
    (tmp_path / "x").write_bytes(pickled(b"}(", *parts, text("b") + bad, b"uu"))
    file = read_weight_file(tmp_path / "x")
    np.testing.assert_array_equal(file.candidates["model"]["a"], A)
    assert list(file.candidates["ema"]) == ["a"]
    with pytest.raises(UserError, match=r"x can't be imported: its 'b', among the tensors of its 'ema', is a torch\._"):
        file.candidates["ema"]["a"]


def test_metadata_is_plain(tmp_path):
    value = {
        "model": {"a": A, "note": "x"},
        "config": "é" * 1000,
        "args": argparse.Namespace(lr=np.float32(0.5), names=["cat", "dog"]),
        "best": np.float64(0.25),
        "classes": np.array(["cat", "dog"]),
        "history": collections.deque([A], maxlen=5),
        "blob": b"\xff" * 300,
        "tensors": [A, 1],
        "labels": ("a", {"b": None}),
    }
    for protocol in (2, 4):
        metadata = read_weight_file(save(tmp_path / "x", value, protocol)).metadata
        assert metadata["model"] == {"note": "x"} and metadata["config"] == "é" * 1000
        assert type(metadata["best"]) is float and metadata["best"] == 0.25
        assert metadata["args"].name == "argparse.Namespace"
        assert metadata["args"].state == {"lr": 0.5, "names": ["cat", "dog"]}
        assert "classes" not in metadata
        assert metadata["history"].name == "collections.deque" and metadata["history"].elements[0].name == "tensor"
        assert metadata["blob"] == b"\xff" * 300 and metadata["labels"] == ("a", {"b": None})
        assert metadata["tensors"][1] == 1 and type(metadata["tensors"][0]) is Inert


def test_metadata_ends_where_it_is_deep_contains_itself_or_doubles(tmp_path):
    started = time.process_time()
    tensors = text("model") + b"}" + text("a") + pickle.dumps(A, 2)[2:-1] + b"s"
    deep = pickle.EMPTY_LIST * 100_000 + pickle.APPEND * 99_999
    cycle = pickle.EMPTY_LIST + b"q\0h\0a"
    doubling = pickle.EMPTY_TUPLE + b"".join([b"q\0h\0" + pickle.TUPLE2] * 100)
    places = pickle.EMPTY_DICT + b"".join([b"q\0}" + text("k") + b"h\0s"] * 1000)
    entries = [text("deep") + deep, text("cycle") + cycle, text("double") + doubling, text("places") + places]
    (tmp_path / "x").write_bytes(pickled(b"}(", tensors, *entries, b"u"))
    file = read_weight_file(tmp_path / "x")
    np.testing.assert_array_equal(first(file)["a"], A)
    value, depth = file.metadata["deep"], 0
    while type(value) is list:
        [value], depth = value, depth + 1
    assert type(value) is Inert and depth <= MAX_DEPTH + 1
    assert type(file.metadata["cycle"][0]) is Inert
    assert time.process_time() - started < 10


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_programs_are_refused_by_their_kind_with_the_remedy(tmp_path, compression):
    write_zip(tmp_path / "x", pickled(b"}"), {}, compression)
    with zipfile.ZipFile(tmp_path / "x", "a", compression) as archive:
        archive.writestr("archive/constants.pkl", pickled(b")"))
        archive.writestr("archive/code/__torch__/model.py", "def forward(): pass\n" * 100)
    with pytest.raises(UserError, match=r"TorchScript program.*torch\.save\(torch\.jit\.load\(FILE\)\.state_dict\(\)"):
        read_weight_file(tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "x", "w", compression) as archive:
        archive.writestr("x/archive_format", "pt2" * 100)
    with pytest.raises(UserError, match=r"torch\.export\.save.*torch\.save\(torch\.export\.load\(FILE\)\.state_dict, "):
        read_weight_file(tmp_path / "x")


def module(name):
    """A pickled module: its class's name and a state with tensors in it."""
    state = b"}(" + text("_modules") + b"}" + text("_parameters") + b"}u"
    return name_of("my.models", name) + pickle.EMPTY_TUPLE + pickle.NEWOBJ + state + pickle.BUILD


@pytest.mark.parametrize(
    ("stream", "call"),
    [
        (module("Net"), r"weights_only=False\)\.state_dict"),
        (b"}" + text("model") + module("Net") + b"s", r"weights_only=False\)\['model'\]\.state_dict"),
    ],
)
def test_whole_modules_are_refused_by_their_class_with_the_remedy(tmp_path, stream, call):
    (tmp_path / "x").write_bytes(pickled(stream))
    with pytest.raises(UserError, match=rf"a whole pickled module, a my\.models\.Net, .*{call}"):
        read_weight_file(tmp_path / "x")


def test_a_whole_module_beside_tensors_of_something_else_is_named_too(tmp_path):
    tensors = text("rng") + b"}" + text("a") + pickle.dumps(A, 2)[2:-1] + b"s"
    (tmp_path / "x").write_bytes(pickled(b"}(", tensors, text("model") + module("Net") + b"u"))
    named = examples_of(read_weight_file(tmp_path / "x"))
    assert named.startswith("a, ... at its 'rng'; and it holds a whole pickled module, a my.models.Net, ")
    assert "['model'].state_dict()" in named
