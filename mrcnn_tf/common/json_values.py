"""What numbers look like in other programs' jsons: whole ones as floats, any of them as text, flags as words."""

import array
import json
import math
import numbers
import re

MOST = 1 << 63  # what an id's absolute value has to stay under

_WHOLE = re.compile(r"\s*[+-]?\d+(\.0*)?\s*")
_MOST_DIGITS = 40  # of a whole number as text; more are no number of 64 bits, and Python refuses thousands
_FALSE_TEXTS = ("", "0", "0.0", "false", "f", "no", "n", "none", "null", "nan", "[]", "{}")


def parse_integer(value):
    """The whole number of 64 bits that a value stands for, such as 12, 12.0, "12" or "0012"; None for anything else."""
    if type(value) is not int:
        if isinstance(value, str):
            if len(value) > _MOST_DIGITS or not _WHOLE.fullmatch(value):
                return None
            value = int(value.split(".")[0])
        elif isinstance(value, bool) or not isinstance(value, numbers.Real) or not float(value).is_integer():
            return None
        else:
            value = int(value)
    return value if abs(value) < MOST else None


def parse_number(value):
    """The number that a value stands for, such as 1.5, "1.5" or [1.5], as float; NaN for anything else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    try:
        return math.nan if value is None or isinstance(value, list | dict) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def parse_numbers(values):
    """The numbers of a list as an array of doubles, some or all of them maybe text; None if it is no such list.

    A list that was written as text, as a table's cell is, counts as well.
    """
    if not isinstance(values, list | tuple):
        values = unquote(values)
        if not isinstance(values, list):
            return None
    try:
        return array.array("d", values)
    except (TypeError, OverflowError):
        pass
    try:
        return array.array("d", map(float, values))
    except (TypeError, ValueError, OverflowError):
        return None


def parse_flag(value):
    """Whether a value means yes: 1, true, "1" or "yes"; None, "", "0", "false", "no", NaN, [] and [0] mean no."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return str(value).strip().lower() not in _FALSE_TEXTS


def unquote(value):
    """What a list or object that was written as text holds; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
