import argparse
import collections
import datetime
import functools
import inspect
import pathlib
import pickle
import struct
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_writer import integer, name_of, ordered_dict, pickled, text

from mrcnn_tf.weights.stored_tensor import WeightFileError
from mrcnn_tf.weights.unpickler import CONTAINERS, MAX_STEPS, MAX_TEXT_BYTES, Inert, LongText, Unpickler


def load(stream, **options):
    return Unpickler(memoryview(stream), CONTAINERS, **options).load()


names = st.text(max_size=MAX_TEXT_BYTES // 4)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | names,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(names | st.integers(-(2**40), 2**40), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(plain, st.integers(2, 5))
def test_reads_plain_containers_as_pickle_does(value, protocol):
    assert load(pickle.dumps(value, protocol)) == value


def test_reads_one_pickle_after_another():
    unpickler = Unpickler(memoryview(pickle.dumps([1], 2) + pickle.dumps("two", 4) + b"rest"), CONTAINERS)
    assert [unpickler.load(), unpickler.load()] == [[1], "two"]
    assert unpickler.position == len(pickle.dumps([1], 2) + pickle.dumps("two", 4))


def test_shared_and_cyclic_containers_keep_their_identity():
    inner = [1]
    inner.append(inner)
    first, second = load(pickle.dumps([inner, inner], 4))
    assert first is second is first[1]


def test_python_2_text_is_latin_1_and_its_ordered_dict_a_list_of_pairs():
    assert load(pickled(pickle.SHORT_BINSTRING + b"\x02\xe9x")) == "éx"
    items = b"](](" + text("b") + integer(1) + b"e](" + text("a") + integer(2) + b"ee"
    loaded = load(pickled(name_of("collections", "OrderedDict"), items + pickle.TUPLE1 + pickle.REDUCE))
    assert list(loaded.items()) == [("b", 1), ("a", 2)]
    assert load(pickled(pickle.INT + b"3000000000\n")) == 3_000_000_000


def test_long_bytes_are_views_and_long_text_stays_undecoded():
    contents = bytes(range(256)) * 8
    stream = pickle.dumps(contents, 4)
    view = load(stream)
    assert isinstance(view, memoryview) and view.obj is stream and view == contents
    assert load(pickle.dumps(contents, 2)) == contents
    assert isinstance(load(pickle.dumps("x" * (MAX_TEXT_BYTES + 1), 2)), LongText)


def test_asking_again_for_the_same_long_bytes_makes_no_second_copy():
    call = name_of("_codecs", "encode") + b"(" + text("é" * 1000) + b"q\0" + text("latin1") + b"tR"
    again = name_of("_codecs", "encode") + b"(h\0" + text("latin1") + b"tR"
    first, second = load(pickled(b"](" + call + again + b"e"))
    assert first is second and first == b"\xe9" * 1000


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("__builtin__", "eval"),
        ("builtins", "__import__"),
        ("importlib", "import_module"),
        ("operator", "attrgetter"),
        ("copyreg", "_reconstructor"),
        ("copyreg", "__newobj__"),
        ("functools", "partial"),
        ("pickle", "loads"),
        ("numpy", "load"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.hub", "load"),
        ("collections", "OrderedDict.__init__"),
        ("_codecs", "lookup"),
        ("_codecs", "encode.__self__"),
        ("mrcnn_tf.weights.unpickler", "Constructor"),
    ],
)
def test_any_other_global_is_a_name_and_nothing_else(module, name):
    """Whatever a pickle does with it is kept beside the name: called, it is what it was before."""
    use = b"(" + text("1") + b"tR" + text("state") + pickle.BUILD + text("k") + pickle.NONE + pickle.SETITEM
    for lookup in (name_of(module, name), text(module) + text(name) + pickle.STACK_GLOBAL):
        found = load(pickled(lookup))
        assert type(found) is Inert and (found.name, found.arguments) == (f"{module}.{name}", None)
        used = load(pickled(lookup, use, pickle.NONE + pickle.APPEND))
        assert type(used) is Inert and used.name == f"{module}.{name}"
        assert (used.arguments, used.state, used.entries, used.elements) == (("1",), "state", {"k": None}, [None])
        called_again = load(pickled(lookup, use, pickle.EMPTY_TUPLE + pickle.REDUCE))
        assert type(called_again) is Inert and called_again.name == f"{module}.{name}"


def test_an_inert_value_is_printed_without_upsetting_a_terminal():
    found = load(pickled(text("\x1b[2J") + text("\n" * 200) + pickle.STACK_GLOBAL))
    assert found.name.isprintable() and len(found.name) <= 100 and repr(found).isprintable()


class Labels(dict):
    pass


class Point:
    def __init__(self, x=0):
        self.x = x

    def __getnewargs_ex__(self):
        return (1,), {"x": 2}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_writers_keep_beside_weights_becomes_inert_or_plain(protocol):
    labels = Labels(a=1)
    labels.note = "x" * 300
    value = {
        "space": argparse.Namespace(lr=0.1),
        "labels": labels,
        "history": collections.deque([1, 2], maxlen=2),
        "when": datetime.datetime(2026, 1, 1),
        "path": pathlib.PurePosixPath("a/b"),
        "partial": functools.partial(int, base=2),
        "kind": inspect.Parameter.empty,
        "parameter": inspect.Parameter.POSITIONAL_ONLY,
        "set": {3},
        "frozen": frozenset([4]),
        "default": collections.defaultdict(list, {"a": [5]}),
        "counter": collections.Counter({7: 1}),
        "point": Point(),
        "complex": 1j,
        (1, 2): "tuple",
        None: 0.5,
        1.5: "float",
        Point: "class",
        "k" * 300: "long",
    }
    loaded = load(pickle.dumps(value, protocol))
    names = {key: found.name for key, found in loaded.items() if type(found) is Inert}
    assert names.keys() == {
        "space", "labels", "history", "when", "path", "partial", "kind", "parameter", "point", "complex"
    }  # fmt: skip
    assert names["space"] == "argparse.Namespace" and loaded["space"].state == {"lr": 0.1}
    assert loaded["labels"].entries == {"a": 1} and "note" in loaded["labels"].state
    assert loaded["history"].elements == [1, 2]
    assert loaded["set"] == [3] and loaded["frozen"] == [4]
    assert loaded["default"] == {"a": [5]} and loaded["counter"] == {7: 1}
    assert loaded[None] == 0.5 and loaded[1.5] == "float" and loaded["k" * 300] == "long"
    keys = {key.name: (key.arguments, found) for key, found in loaded.items() if type(key) is Inert}
    assert keys.pop("tuple") == (((1, 2),), "tuple")
    assert list(keys.values()) == [(None, "class")]


@pytest.mark.parametrize(
    "code",
    ["INST", "OBJ", "EXT1", "EXT2", "EXT4", "DUP", "PERSID", "LONG", "LONG4", "FLOAT", "STRING", "UNICODE"]
    + ["PUT", "GET", "NEXT_BUFFER", "READONLY_BUFFER"],
)
def test_instructions_that_no_checkpoint_needs_are_refused(code):
    arguments = b"(" + text("os") + text("system") + getattr(pickle, code) + b"os\nsystem\n"
    with pytest.raises(WeightFileError, match="which no checkpoint needs"):
        load(pickled(arguments))


@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        ("a call of text", text("eval") + pickle.EMPTY_TUPLE + pickle.REDUCE),
        ("a call of a list", pickle.EMPTY_LIST + pickle.EMPTY_TUPLE + pickle.NEWOBJ),
        ("arguments that are no tuple", name_of("collections", "OrderedDict") + pickle.EMPTY_LIST + pickle.REDUCE),
        ("too many arguments", name_of("collections", "OrderedDict") + b"(" + b"N" * 100 + b"tR"),
        ("a state for a list", pickle.EMPTY_LIST + pickle.EMPTY_DICT + pickle.BUILD),
        ("a set of text", name_of("builtins", "set") + text("a" * 200) + pickle.TUPLE1 + pickle.REDUCE),
        ("a set of bytes", name_of("builtins", "set") + b"B\4\0\0\0abcd" + pickle.TUPLE1 + pickle.REDUCE),
        ("names for a constructor", name_of("collections", "OrderedDict") + b")}" + pickle.NEWOBJ_EX),
        ("arguments of a class that are no tuple", name_of("a", "B") + pickle.EMPTY_LIST + pickle.REDUCE),
        ("a state for a constructor", name_of("_codecs", "encode") + pickle.EMPTY_DICT + pickle.BUILD),
        ("an item for a list", pickle.EMPTY_LIST + text("a") + pickle.NONE + pickle.SETITEM),
        ("an element for a dictionary", pickle.EMPTY_DICT + pickle.NONE + pickle.APPEND),
        ("a name without value", pickle.EMPTY_DICT + b"(" + text("a") + pickle.SETITEMS),
        ("nothing memorised", pickle.BINGET + b"\x05"),
        ("an empty stack", pickle.POP),
        ("nothing to return", b""),
        ("a mark never set", pickle.TUPLE),
        ("a persistent id", text("x") + pickle.BINPERSID),
        ("broken text", pickle.SHORT_BINUNICODE + b"\x01\xff"),
        ("a global that isn't text", pickle.NONE + pickle.NONE + pickle.STACK_GLOBAL),
        ("a global without end", pickle.GLOBAL + b"a" * 10_000),
        ("bytes by the gigabyte", name_of("__builtin__", "bytes") + b"(" + integer(2**31) + b"tR"),
        ("an unknown encoding", name_of("_codecs", "encode") + b"(" + text("x") + text("zip") + b"tR"),
    ],
)
def test_what_a_writer_never_does_is_refused(fault, stream):
    with pytest.raises(WeightFileError):
        load(pickled(stream))


@pytest.mark.parametrize(
    "stream",
    [
        pickle.EMPTY_LIST + pickle.LONG_BINPUT + b"\xff\xff\xff\xff" + pickle.BINGET + b"\0",
        pickle.BINUNICODE8 + struct.pack("<Q", 2**62),
        pickle.BINBYTES8 + struct.pack("<Q", 2**64 - 1),
        pickle.BYTEARRAY8 + struct.pack("<Q", 2**40),
        pickle.BINSTRING + struct.pack("<I", 2**32 - 1),
        pickle.FRAME + struct.pack("<Q", 2**63) + pickle.POP,
    ],
)
def test_huge_announcements_take_no_memory(stream):
    tracemalloc.start()
    try:
        with pytest.raises(WeightFileError):
            load(pickled(stream))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_pickle_cut_anywhere_is_refused():
    stream = pickle.dumps({"a": [1, 2.5, "x" * 300, b"y" * 300], 7: (None, True)}, 4)
    for end in range(len(stream)):
        with pytest.raises(WeightFileError):
            load(stream[:end])


def test_deep_nesting_is_harmless():
    depth = 200_000
    value = load(pickled(pickle.EMPTY_LIST * depth, pickle.APPEND * (depth - 1)))
    for _ in range(depth - 1):
        [value] = value
    assert value == []


def test_doubling_tuples_are_built_without_being_walked():
    value = load(pickled(pickle.EMPTY_TUPLE, *[b"q\0h\0" + pickle.TUPLE2] * 500))
    assert len(value) == 2


def test_endless_work_ends():
    started = time.process_time()
    with pytest.raises(WeightFileError, match="steps"):
        load(pickled(pickle.EMPTY_LIST * (MAX_STEPS + 1)))
    # One list of pairs, handed to a constructor time and again.
    pairs = b"](" + (b"](" + text("a") + b"Ne") * 10_000 + b"e" + pickle.TUPLE1 + b"q\0"
    call = name_of("collections", "OrderedDict") + b"q\x010" + pairs + b"0" + (b"h\x01h\0R0" * 100_000)
    with pytest.raises(WeightFileError, match="steps"):
        load(pickled(call))
    assert time.process_time() - started < 20


def test_inert_values_hold_what_they_are_given_without_walking_or_copying_it():
    # A list of 10,000 numbers, as the arguments and the state of 1,000 objects.
    stream = b"](" + b"K\1" * 10_000 + b"eq\0\x85q\1" + name_of("a", "B") + b"q\2" + b"h\2h\1\x81h\1b" * 1_000
    tracemalloc.start()
    try:
        found = load(pickled(stream))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert found.arguments is found.state and len(found.arguments[0]) == 10_000


def test_a_state_dicts_attributes_are_ignored():
    attributes = b"}" + text("_metadata") + b"}s"
    items = ordered_dict() + text("a") + integer(1) + pickle.SETITEM + attributes + pickle.BUILD
    assert load(pickled(items)) == {"a": 1}
