"""A pickle reader that can build nothing but plain containers and the stand-ins it is given.

It never looks up a global, so no code of a file is run; steps and lines are bounded. What a pickle names beside that
becomes an `Inert`.
"""

import dataclasses
import functools
import pickle
import struct
from collections.abc import Callable
from typing import Any

from mrcnn_tf.weights.stored_tensor import WeightFileError

# A state dict of 1000 tensors takes some 60,000 steps, so this bounds time and memory and no checkpoint in use.
MAX_STEPS = 1_000_000
MAX_LINE_BYTES = 256
MAX_TEXT_BYTES = 256
_MAX_ARGUMENTS = 64
_KEYS = range(-(2**63), 2**63)


@dataclasses.dataclass(frozen=True)
class Constructor:
    """What a pickle may call instead of the function it names."""

    build: Callable


@dataclasses.dataclass(eq=False, slots=True, repr=False)
class Inert:
    """Stands for what a pickle names that isn't in `allowed`: a class or function, or what a call of it would give.

    Nothing is looked up, called or built: it only keeps what the pickle says, and is equal to nothing but itself.

    Attributes:
        name: of the class or function, such as "argparse.Namespace", printable and short.
        arguments: the tuple that it would be called with; None for the class or function itself.
        state: what would be set, mostly a dictionary of attributes; None where nothing would be.
        elements, entries: what would be appended, as a list, and set by key, as a dictionary; None likewise.
    """

    name: str
    arguments: tuple | None = None
    state: Any = None
    elements: list | None = None
    entries: dict | None = None

    def __repr__(self):
        return f"Inert({self.name!r})"

    def set_state(self, state):
        """Takes what BUILD gives."""
        self.state = state


class LongText:
    """Text beyond `MAX_TEXT_BYTES`, undecoded: in checkpoints it's mostly the contents of an array.

    `encoding` is "utf-8", or "latin-1" for Python 2's strings, which are bytes.
    """

    def __init__(self, raw, encoding):
        self._raw, self._encoding = raw, encoding

    @functools.cached_property
    def latin1(self):
        """The text in Latin-1, made once however often a pickle asks; Python 2's own bytes."""
        return self._raw if self._encoding == "latin-1" else str(self._raw, "utf-8").encode("latin-1")

    @functools.cached_property
    def text(self):
        """The text itself, likewise."""
        return str(self._raw, self._encoding, "replace")


def _ordered_dict(pairs=()):
    """Python 2 pickles an OrderedDict's items as a list of pairs; Python 3 adds them afterwards."""
    return {_key(name): value for name, value in pairs}


def _encode(text, encoding):
    """The form that Python 3 gives bytes in pickles of protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        raise WeightFileError("its pickle holds bytes in an unknown encoding")
    return text.latin1 if isinstance(text, LongText) else text.encode("latin-1")


def listed(items=()):
    """A list of what is in a list or tuple, whose lengths count as steps; those of text and bytes don't."""
    if type(items) not in (list, tuple):
        raise TypeError
    return list(items)


_SET = Constructor(listed)
CONTAINERS = {
    ("collections", "OrderedDict"): Constructor(_ordered_dict),
    ("collections", "Counter"): Constructor(lambda counts=None: {} if counts is None else counts),
    ("collections", "defaultdict"): Constructor(lambda default=None: {}),
    **{(module, kind): _SET for module in ("__builtin__", "builtins") for kind in ("set", "frozenset")},
    ("_codecs", "encode"): Constructor(_encode),
    # Empty bytes in pickles of protocol 2; with an argument it could ask for any amount.
    ("__builtin__", "bytes"): Constructor(lambda: b""),
}


def _key(value):
    if type(value) is LongText:
        return value.text
    if value is None or type(value) in (str, bool, float, Inert) or (type(value) is int and value in _KEYS):
        return value
    # Other keys could be made to hash slowly or alike; an Inert is told apart by its identity alone.
    return Inert(type(value).__name__, (value,))


def printable(text):
    """The text, shortened, with an escape for whatever would upset a terminal."""
    return ascii(text[:100])[1:-1][:100]


class Unpickler:
    """Reads pickles of protocol 2 to 5, one after another, from `data`.

    No global is ever looked up: `allowed` maps (module, name) to the `Constructor` or inert value that stands for it,
    and any other name becomes an `Inert`. Every opcode that a writer of checkpoints has no use for is refused. Bytes
    come as memoryviews of `data`, sets as lists.

    Args:
        data: memoryview of the file or record.
        allowed: dictionary as `CONTAINERS`.
        persistent: function of a persistent id; without it these are refused.
        start: where the first pickle begins.
    """

    def __init__(self, data, allowed, persistent=None, start=0):
        self._data, self._allowed, self._persistent = data, allowed, persistent
        self.position = start

    def load(self):
        """Read the next pickle's object; WeightFileError if it's damaged, absurd, or asks for what isn't allowed."""
        self._stack, self._marks, self._memo, self._budget = [], [], {}, MAX_STEPS
        start = self.position
        try:
            while True:
                code = self._take(1)[0]
                if code == pickle.STOP[0]:
                    return self._stack.pop()
                if code not in _STEPS:
                    raise WeightFileError(
                        f"its pickle has the instruction {bytes([code])!r}, which no checkpoint needs"
                    )
                self._spend(1)
                _STEPS[code](self)
        # A damaged pickle leaves wrong things on the stack: each step meets them as one of these.
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise WeightFileError(f"its pickle is damaged near byte {self.position} (from {start} on)") from error
        finally:
            del self._stack, self._marks, self._memo

    def _spend(self, steps):
        self._budget -= steps
        if self._budget < 0:
            raise WeightFileError(f"its pickle takes more than {MAX_STEPS} steps, which no set of weights needs")

    def _take(self, count):
        end = self.position + count
        if end > len(self._data):
            raise WeightFileError("it ends in the middle of a pickle, so download or copy it again")
        piece = self._data[self.position : end]
        self.position = end
        return piece

    def _take_number(self, size):
        return int.from_bytes(self._take(size), "little")

    def _take_line(self):
        window = bytes(self._data[self.position : self.position + MAX_LINE_BYTES])
        line = window[: window.index(b"\n")]
        self.position += len(line) + 1
        return line.decode("utf-8")

    def _push(self, value):
        self._stack.append(value)

    def _push_text(self, size):
        raw = self._take(size)
        self._push(str(raw, "utf-8", "surrogatepass") if size <= MAX_TEXT_BYTES else LongText(raw, "utf-8"))

    def _push_python2_text(self, size):
        raw = self._take(size)
        self._push(str(raw, "latin-1") if size <= MAX_TEXT_BYTES else LongText(raw, "latin-1"))

    def _push_integer_line(self):
        line = self._take_line()
        self._push({"00": False, "01": True}[line] if line in ("00", "01") else int(line))

    def _push_tuple(self, size):
        self._push(tuple(reversed([self._stack.pop() for _ in range(size)])))

    def _pop_mark(self):
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _append(self, items):
        target = self._stack[-1]
        if type(target) is Inert:
            target.elements = target = target.elements or []
        if type(target) is not list:
            raise TypeError
        target.extend(items)

    def _set_items(self, items):
        target = self._stack[-1]
        if type(target) is Inert:
            target.entries = target = target.entries or {}
        if type(target) is not dict:
            raise TypeError
        for name, value in zip(items[::2], items[1::2], strict=True):
            target[_key(name)] = value

    def _new_dict(self):
        items = self._pop_mark()
        self._push({})
        self._set_items(items)

    def _put(self, index):
        self._memo[index] = self._stack[-1]

    def _push_global(self, module, name):
        stand_in = self._allowed.get((module, name))
        self._push(Inert(printable(f"{module}.{name}")) if stand_in is None else stand_in)

    def _stack_global(self):
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError
        self._push_global(module, name)

    def _reduce(self):
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is Inert and type(arguments) is tuple:
            self._push(Inert(function.name, arguments))
            return
        if not isinstance(function, Constructor) or type(arguments) is not tuple or len(arguments) > _MAX_ARGUMENTS:
            raise TypeError
        # The same long list may be handed over again and again.
        self._spend(sum(len(argument) for argument in arguments if type(argument) in (list, tuple, dict)))
        self._push(function.build(*arguments))

    def _new_with_names(self):
        names, arguments, kind = self._stack.pop(), self._stack.pop(), self._stack.pop()
        if type(kind) is not Inert or type(arguments) is not tuple or type(names) is not dict:
            raise TypeError
        self._push(Inert(kind.name, (arguments, names)))

    def _build(self):
        state, target = self._stack.pop(), self._stack[-1]
        # A dictionary's state is its attributes, such as a state dict's _metadata.
        if type(target) is not dict:
            target.set_state(state)

    def _load_persistent(self):
        if self._persistent is None:
            raise WeightFileError("its pickle refers to records outside itself")
        self._push(self._persistent(self._stack.pop()))


_STEPS = {
    pickle.PROTO[0]: lambda self: self._take(1),
    pickle.FRAME[0]: lambda self: self._take(8),
    pickle.MARK[0]: lambda self: self._marks.append(len(self._stack)),
    pickle.POP[0]: lambda self: self._stack.pop(),
    pickle.POP_MARK[0]: lambda self: self._pop_mark(),
    pickle.NONE[0]: lambda self: self._push(None),
    pickle.NEWTRUE[0]: lambda self: self._push(True),
    pickle.NEWFALSE[0]: lambda self: self._push(False),
    pickle.INT[0]: Unpickler._push_integer_line,
    pickle.BININT[0]: lambda self: self._push(int.from_bytes(self._take(4), "little", signed=True)),
    pickle.BININT1[0]: lambda self: self._push(self._take_number(1)),
    pickle.BININT2[0]: lambda self: self._push(self._take_number(2)),
    pickle.LONG1[0]: lambda self: self._push(int.from_bytes(self._take(self._take_number(1)), "little", signed=True)),
    pickle.BINFLOAT[0]: lambda self: self._push(struct.unpack(">d", self._take(8))[0]),
    pickle.SHORT_BINSTRING[0]: lambda self: self._push_python2_text(self._take_number(1)),
    pickle.BINSTRING[0]: lambda self: self._push_python2_text(self._take_number(4)),
    pickle.SHORT_BINUNICODE[0]: lambda self: self._push_text(self._take_number(1)),
    pickle.BINUNICODE[0]: lambda self: self._push_text(self._take_number(4)),
    pickle.BINUNICODE8[0]: lambda self: self._push_text(self._take_number(8)),
    pickle.SHORT_BINBYTES[0]: lambda self: self._push(self._take(self._take_number(1))),
    pickle.BINBYTES[0]: lambda self: self._push(self._take(self._take_number(4))),
    pickle.BINBYTES8[0]: lambda self: self._push(self._take(self._take_number(8))),
    pickle.BYTEARRAY8[0]: lambda self: self._push(self._take(self._take_number(8))),
    pickle.EMPTY_TUPLE[0]: lambda self: self._push(()),
    pickle.TUPLE1[0]: lambda self: self._push_tuple(1),
    pickle.TUPLE2[0]: lambda self: self._push_tuple(2),
    pickle.TUPLE3[0]: lambda self: self._push_tuple(3),
    pickle.TUPLE[0]: lambda self: self._push(tuple(self._pop_mark())),
    pickle.EMPTY_LIST[0]: lambda self: self._push([]),
    pickle.LIST[0]: lambda self: self._push(self._pop_mark()),
    pickle.APPEND[0]: lambda self: self._append([self._stack.pop()]),
    pickle.APPENDS[0]: lambda self: self._append(self._pop_mark()),
    pickle.EMPTY_SET[0]: lambda self: self._push([]),
    pickle.ADDITEMS[0]: lambda self: self._append(self._pop_mark()),
    pickle.FROZENSET[0]: lambda self: self._push(self._pop_mark()),
    pickle.EMPTY_DICT[0]: lambda self: self._push({}),
    pickle.DICT[0]: Unpickler._new_dict,
    pickle.SETITEM[0]: lambda self: self._set_items([self._stack.pop(), self._stack.pop()][::-1]),
    pickle.SETITEMS[0]: lambda self: self._set_items(self._pop_mark()),
    pickle.BINPUT[0]: lambda self: self._put(self._take_number(1)),
    pickle.LONG_BINPUT[0]: lambda self: self._put(self._take_number(4)),
    pickle.MEMOIZE[0]: lambda self: self._put(len(self._memo)),
    pickle.BINGET[0]: lambda self: self._push(self._memo[self._take_number(1)]),
    pickle.LONG_BINGET[0]: lambda self: self._push(self._memo[self._take_number(4)]),
    pickle.GLOBAL[0]: lambda self: self._push_global(self._take_line(), self._take_line()),
    pickle.STACK_GLOBAL[0]: Unpickler._stack_global,
    pickle.REDUCE[0]: Unpickler._reduce,
    pickle.NEWOBJ[0]: Unpickler._reduce,
    pickle.NEWOBJ_EX[0]: Unpickler._new_with_names,
    pickle.BUILD[0]: Unpickler._build,
    pickle.BINPERSID[0]: Unpickler._load_persistent,
}
