"""The classes that a user lists in a file, in the order and with the numbers that they are to have."""

import dataclasses
import json
import pathlib

import yaml

from mrcnn_tf.common.errors import UserError

# What labelme's lists begin with: pixels and shapes of no class. A background has the number 0.
IGNORED = "__ignore__"
BACKGROUNDS = ("_background_", "background")


@dataclasses.dataclass
class ClassNames:
    """Classes and the two kinds of number they go by.

    Attributes:
        categories: list of (id in COCO's json, name).
        numbers: dict number in the dataset's own files -> name; empty where the list is a COCO json.
    """

    categories: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    numbers: dict[int, str] = dataclasses.field(default_factory=dict)


def read_names(path, first=0):
    """Classes from a file.

    Args:
        path: a text file with a name on each line, a yaml or json file with a list or {number: name} (also under
            "names", as in YOLO's data.yaml), or a COCO json, whose ids are kept. None gives None.
        first: the number of the first name in a list.

    Returns:
        ClassNames; ids count from 1 in the order of the file unless it is a COCO json.

    Raises:
        UserError: the file is missing, unreadable, empty or gives a name twice.
    """
    if path is None:
        return None
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = _parse(text, path.suffix.lower())
    except FileNotFoundError:
        raise UserError(f"There is no file {path}: give --names a list of class names.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read as a list of class names ({_first_line(error)}).") from error
    if isinstance(content, dict) and "categories" in content:
        return _of_coco(content["categories"], path)
    return numbered_names(content, path, first)


def numbered_names(content, path, first=0):
    """ClassNames of a list or {number: name}, which was found in `path`; raises UserError as `read_names`."""
    if isinstance(content, dict) and "names" in content:
        content = content["names"]
    if isinstance(content, list):
        content = [name for name in content if name != IGNORED]
        background = bool(content) and content[0] in BACKGROUNDS
        content = dict(enumerate(content[1:], 1)) if background else dict(enumerate(content, first))
    try:
        numbers = {int(number): str(name).strip() for number, name in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path} isn't a list of class names: give one name on each line.") from None
    names = list(numbers.values())
    if not names or "" in names:
        raise UserError(f"{path} has {'an empty class name' if names else 'no class names'}: give one on each line.")
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise UserError(f"{path} has the class {twice[0]!r} twice: give each class a name of its own.")
    return ClassNames(list(enumerate(names, 1)), numbers)


def _parse(text, suffix):
    if suffix == ".json":
        return json.loads(text)
    if suffix in (".yaml", ".yml"):
        return yaml.safe_load(text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _of_coco(records, path):
    try:
        return ClassNames([(int(record["id"]), str(record["name"])) for record in records])
    except (TypeError, KeyError, ValueError):
        raise UserError(f"{path} has categories without id or name: correct them.") from None


def _first_line(error):
    return str(error).splitlines()[0] if str(error) else type(error).__name__
