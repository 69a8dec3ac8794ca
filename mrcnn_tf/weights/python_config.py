"""A config that is written as Python, as mmdetection's are: its literals by name, read and never run.

Read are constants, lists, tuples, dictionaries, `dict(...)`, arithmetic of numbers, sums of lists and strings, and
names that were bound before. What is none of these becomes `Unreadable`, a mistake only where somebody needs it.
"""

import ast
import json
import operator
import pathlib
import warnings

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.foreign_yaml import parse_yaml, read_text

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 60  # of lists in lists
MAX_VALUES = 100_000  # in a config, where a name's count wherever it stands
MAX_FILES = 30  # that one config is based on
MAX_NUMBER = 1e15
MAX_ITEMS = 10_000  # of a list that is put together
PRINTED = (
    "give the whole text instead, which mmdetection writes to work_dirs/NAME/ beside its checkpoints or "
    "tools/misc/print_config.py prints"
)
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class Unreadable:
    """The value of an expression that is no literal; `line` says where it stands."""

    def __init__(self, line):
        self.line = line

    def __repr__(self):
        return f"<what line {self.line} computes>"


def read_config_file(path):
    """The values by name of a config file (Python, JSON or YAML) and of what it is based on; UserError if it's none."""
    return _read_file(pathlib.Path(path), [])


def read_config_text(text, name, folder=None, files=()):
    """The values by name of a config's Python text.

    UserError, beginning with `name`, if it is no Python, too large, does more than bind names, or is based on files
    that aren't there.

    Args:
        name: of the text, for messages.
        folder: which the files of `_base_` are relative to; None: there are none.
        files: those that have been read so far, of a config that is based on this one; a list that is added to.
    """
    values, sizes = {}, _Sizes()
    for statement in _parse(text, name):
        is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if is_docstring or isinstance(statement, (ast.Import, ast.ImportFrom, ast.Pass)):
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if len(targets) != 1 or not isinstance(targets[0], ast.Name):
            raise UserError(f"{name}: line {statement.lineno} does more than give a name a value: {PRINTED}.")
        value = values[targets[0].id] = _evaluate(statement.value, values, 0)
        if sizes.of(value)[0] > MAX_VALUES or sizes.of(value)[1] > 2 * MAX_DEPTH:
            raise UserError(f"{name} is larger than any config: give the config of the training run.")
    bases = values.pop("_base_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not bases:
        return values
    merged = {}
    for base in bases if isinstance(bases, (list, tuple)) else [bases]:
        merged |= _read_base(base, name, folder, files)
    return _merge(merged, values)


class _Sizes:
    """How many values one stands for, and how deep they are: what names share is looked at once."""

    def __init__(self):
        self._known = {}

    def of(self, value):
        """(count, depth) of a value with all that is in it."""
        if not isinstance(value, (dict, list, tuple)):
            return 1, 0
        if id(value) not in self._known:
            inner = [self.of(each) for each in (value.values() if isinstance(value, dict) else value)]
            size = 1 + sum(count for count, _ in inner), 1 + max((depth for _, depth in inner), default=0)
            self._known[id(value)] = size, value  # kept, so that its identity stays its own
        return self._known[id(value)][0]


def _read_base(base, name, folder, files):
    path = folder / base if isinstance(base, str) and folder else None
    if path is None or not path.is_file():
        raise UserError(f"{name} is based on {base!r}, which isn't there: {PRINTED}.")
    return _read_file(path, files)


def _read_file(path, files):
    files.append(path)
    if len(files) > MAX_FILES:
        raise UserError(f"{files[0]} is based on itself, or on more than {MAX_FILES} files: {PRINTED}.")
    text, name = read_text(path), str(path)
    if path.suffix in (".yaml", ".yml"):
        values = parse_yaml(text, name)
    elif path.suffix == ".json":
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name} is no valid JSON: {PRINTED}.") from error
    else:
        return read_config_text(text, name, path.parent, files)
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings by name: {PRINTED}.")
    return values


def _merge(base, values):
    """A config on top of the one it is based on: dictionaries key by key, unless they say `_delete_`."""
    merged = dict(base)
    for key, value in values.items():
        if isinstance(value, dict):
            value = dict(value)
            below = {} if value.pop("_delete_", False) is True else merged.get(key)
            value = _merge(below if isinstance(below, dict) else {}, value)
        merged[key] = value
    return merged


def _parse(text, name):
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{name} is larger than any config: give the config of the training run.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{name} is no Python text: {PRINTED}.") from error


def _evaluate(node, names, depth):
    """The value of an expression; what is no literal becomes `Unreadable`."""
    unreadable = Unreadable(node.lineno)
    if depth > MAX_DEPTH:
        return unreadable

    def evaluate(part):
        return _evaluate(part, names, depth + 1)

    match node:
        case ast.Constant(value=value):
            return value if isinstance(value, (str, int, float, bool, type(None))) else unreadable
        case ast.Name(id=name):
            return names.get(name, unreadable)
        case ast.List(elts=items):
            return [evaluate(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(evaluate(item) for item in items)
        case ast.Dict(keys=keys, values=values):
            return _dictionary(
                [(key and evaluate(key), evaluate(value)) for key, value in zip(keys, values, strict=True)], unreadable
            )
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return _dictionary([(word.arg, evaluate(word.value)) for word in keywords], unreadable)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = evaluate(operand)
            return (-value if isinstance(sign, ast.USub) else value) if is_number(value) else unreadable
        case ast.BinOp(left=left, op=sign, right=right):
            return _compute(evaluate(left), sign, evaluate(right), unreadable)
    return unreadable


def _dictionary(pairs, unreadable):
    """A dictionary of pairs; a key of None stands for all of its value, as after `**`."""
    values = {}
    for key, value in pairs:
        if key is None and isinstance(value, dict):
            values |= value
        elif isinstance(key, (str, int, float)):
            values[key] = value
        else:
            return unreadable
    return values


def _compute(left, sign, right, unreadable):
    is_sum = isinstance(sign, ast.Add) and type(left) is type(right) and isinstance(left, (str, list, tuple))
    if is_sum and len(left) + len(right) <= MAX_ITEMS:
        return left + right
    if type(sign) in _ARITHMETIC and is_number(left) and is_number(right):
        try:
            return _ARITHMETIC[type(sign)](left, right)
        except ZeroDivisionError:
            return unreadable
    return unreadable


def is_number(value):
    """Whether a value is a number of a usual size."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
