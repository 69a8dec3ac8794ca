"""YAML files of other programs as plain values: no objects are constructed, and what aliases expand to is bounded."""

import dataclasses
import os
import pathlib

import yaml

from mrcnn_tf.common.errors import UserError

MOST_BYTES = 4_000_000  # of any config; some name thousands of classes
MOST_CHARACTERS = 200_000  # of YAML, which is read slowly; detectron2's whole tree of settings takes 15,000
MOST_VALUES = 50_000  # of YAML, where an alias counts as often as it stands for its values
PYTHON_TAG = "tag:yaml.org,2002:python/"
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str")}
_LISTS = {"tag:yaml.org,2002:seq", f"{PYTHON_TAG}tuple"}
_DICTS = {"tag:yaml.org,2002:map"}


@dataclasses.dataclass(frozen=True)
class NotPlain:
    """What stands where a Python object would be constructed: its tag, such as python/name:module.function."""

    tag: str


def read_text(path):
    """The text of a config file; UserError if it isn't there, is too large for one, or isn't text."""
    path = pathlib.Path(path)
    if not os.path.isfile(path):
        raise UserError(
            f"There is no config {path}: give the path of the file that training wrote or was started with."
        )
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{path} has {size:,} bytes, too many for a config: give the config of the model.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} isn't text in UTF-8 and so is no config: give the config of the model.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): give a config that can be.") from error


def parse_yaml(text, name):
    """The plain values of a YAML text: dict, list (a tuple too), str, int, float, bool and None, else `NotPlain`.

    UserError if it isn't valid, is nested too deeply, or its aliases stand for too much; `name` is the file's.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{name} has {len(text):,} characters, too many for a config: give the config of the model.")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return None if node is None else _Values(loader, name).of(node)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{name} isn't valid YAML ({error.problem}{line}): give the file as it was written.") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name} isn't valid YAML, or nested too deeply: give the file as it was written.") from error


class _Values:
    def __init__(self, loader, name):
        self.loader, self.name, self.count = loader, name, 0

    def of(self, node):
        self.count += 1
        if self.count > MOST_VALUES:
            raise UserError(
                f"{self.name} stands for more than {MOST_VALUES:,} values, too many for a config: give the config of "
                "the model."
            )
        if isinstance(node, yaml.MappingNode) and node.tag in _DICTS:
            return {self._key(key): self.of(value) for key, value in node.value}
        if isinstance(node, yaml.SequenceNode) and node.tag in _LISTS:
            return [self.of(value) for value in node.value]
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
            return self.loader.construct_object(node)
        if isinstance(node, yaml.ScalarNode) and not node.tag.startswith(PYTHON_TAG):  # such as a date
            return node.value
        return NotPlain(node.tag.removeprefix("tag:yaml.org,2002:"))

    def _key(self, node):
        if node.tag == "tag:yaml.org,2002:merge":
            raise UserError(f"{self.name} merges sections by '<<', which isn't read: write the keys out.")
        return node.value if isinstance(node, yaml.ScalarNode) else "?"
