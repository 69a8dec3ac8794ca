"""Reads a large json object's arrays or members one by one, without holding the file or its tree."""

import contextlib
import json

from mrcnn_tf.common.errors import UserError

CHUNK = 1 << 22  # characters read at a time

_DECODER = json.JSONDecoder()
_WHITESPACE = " \t\n\r"


def stream_arrays(path, names, on_progress=None, on_other=None):
    """Yields (name, element) for each element of the top-level arrays called `names`, in the file's order.

    Args:
        path: a json file whose top level is an object.
        names: the arrays wanted; each must be there. Everything else is read over.
        on_progress: called with the number of bytes read so far, once per chunk.
        on_other: called with the name and the value of everything else at the top, which it holds as a whole.

    Raises:
        UserError: the file is missing or unreadable, isn't json, isn't an object, or lacks one of the arrays or has it
            twice.
    """
    with _reading(path, on_progress, "set data.*.annotations to a COCO json") as window:
        yield from _top_level(window, path, names, on_other)


def stream_members(path, opened=(), on_progress=None):
    """Yields (name, value) for each member of the object at the top, in the file's order.

    Of members called as in `opened` the elements of their arrays, or the values of their objects, are yielded one by
    one as (name, element). Where the top is an array, its elements are yielded as (None, element).

    Args:
        path: a json file.
        on_progress: called with the number of bytes read so far, once per chunk.

    Raises:
        UserError: the file is missing or unreadable, isn't json, or is neither an object nor an array.
    """
    with _reading(path, on_progress, "give a json file") as window:
        if window.peek() == "[":
            yield from ((None, element) for element in _elements(window))
        elif window.peek() == "{":
            for name in _names(window):
                if name in opened and window.peek() == "[":
                    yield from ((name, element) for element in _elements(window))
                elif name in opened and window.peek() == "{":
                    yield from ((name, window.value()) for _ in _names(window))
                else:
                    yield name, window.value()
        else:
            window.value()
            raise UserError(f"{path} holds no json object at its top.")
        _expect_end(window)


@contextlib.contextmanager
def _reading(path, on_progress, remedy):
    """Gives the _Window of a file; what goes wrong with it becomes a UserError."""
    window = _Window(on_progress)
    try:
        with open(path, encoding="utf-8-sig") as window.file:
            yield window
    except FileNotFoundError:
        raise UserError(f"There is no file {path}: {remedy}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} isn't UTF-8 text: save it as UTF-8, or {remedy}.") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {remedy}.") from None
    except json.JSONDecodeError as error:
        where = f"{error.msg} at character {window.dropped + error.pos}, line {window.line + error.lineno - 1}"
        raise UserError(f"{path} isn't valid json ({where}): export it again, it may have been cut off.") from None
    except UserError:
        raise
    except (RecursionError, ValueError) as error:  # the latter of Python's int
        is_deep = isinstance(error, RecursionError)
        what = "lists in lists thousands deep" if is_deep else "a number of thousands of digits"
        raise UserError(f"{path} has {what} near line {window.line}: export it again.") from None


def _top_level(window, path, names, on_other):
    missing = list(names)
    if window.peek() != "{":
        # A list or a number is valid json and still no COCO file; anything else fails here with its reason.
        window.value()
        raise UserError(f"{path} holds no json object at its top: a COCO file is one with {_quote(names)}.")
    for name in _names(window):
        if name in names and name not in missing:
            raise UserError(f'{path} has "{name}" twice, of which other programs read one: join both lists.')
        if window.peek() == "[" and name in names:
            for element in _elements(window):
                yield name, element
        elif window.peek() == "[" and not on_other:
            for _ in _elements(window):
                pass
        else:
            value = window.value()
            if name in names:
                raise UserError(f'"{name}" in {path} is a {type(value).__name__}: make it a list of COCO records.')
            if on_other:
                on_other(name, value)
        if name in missing:
            missing.remove(name)
    _expect_end(window)
    if missing:
        raise UserError(f"{path} has no {_quote(missing)}: a COCO file needs {_quote(names)}.")


def _names(window):
    """Yields the name of each member of an object; whoever takes it reads the value that follows."""
    window.skip("{")
    while window.peek() != "}":
        if window.peek() != '"':
            raise json.JSONDecodeError("Expecting a name in double quotes", window.text, window.position)
        name = window.value()
        window.skip(":")
        yield name
        window.separator("}")
    window.skip("}")


def _expect_end(window):
    if window.peek():
        raise json.JSONDecodeError("Extra data", window.text, window.position)


def _elements(window):
    window.skip("[")
    while window.peek() != "]":
        yield window.value()
        window.separator("]")
    window.skip("]")


def _quote(names):
    return ", ".join(f'"{name}"' for name in names)


class _Window:
    """The part of a file's text that is in memory, and the position in it of the next character to parse."""

    def __init__(self, on_progress):
        self.file, self.on_progress = None, on_progress
        self.text, self.position = "", 0
        self.dropped = 0  # characters of the file before the text
        self.line = 1  # of the file, where the text begins

    def load(self, characters):
        """Reads on and drops what was parsed; False at the end of the file."""
        more = self.file.read(characters)
        if more and self.on_progress:
            self.on_progress(self.file.buffer.tell())
        self.dropped += self.position
        self.line += self.text.count("\n", 0, self.position)
        self.text = self.text[self.position :] + more
        self.position = 0
        return bool(more)

    def peek(self):
        """The next character that isn't white space, or "" at the end."""
        while True:
            while self.position < len(self.text):
                if self.text[self.position] not in _WHITESPACE:
                    return self.text[self.position]
                self.position += 1
            if not self.load(CHUNK):
                return ""

    def skip(self, character):
        if self.peek() != character:
            raise json.JSONDecodeError(f"Expecting '{character}'", self.text, self.position)
        self.position += 1

    def separator(self, end):
        """Reads over a comma and makes sure that more follows it; stops before `end`."""
        if self.peek() == ",":
            self.position += 1
            if self.peek() == end:
                raise json.JSONDecodeError("Trailing comma", self.text, self.position)
        elif self.peek() != end:
            raise json.JSONDecodeError(f"Expecting ',' or '{end}'", self.text, self.position)

    def value(self):
        """The next json value. One that the window cuts off is tried again with twice as much text each time."""
        self.peek()
        characters, complete = CHUNK, False
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
                # A number that ends with the window may go on after it.
                if end < len(self.text) or complete:
                    self.position = end
                    return value
            except json.JSONDecodeError:
                if complete:
                    raise
            complete = not self.load(characters)
            characters *= 2
