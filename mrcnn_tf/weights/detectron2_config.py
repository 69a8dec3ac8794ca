"""detectron2's configs: the config.yaml that training writes, a zoo's YAML on its bases, and dumped lazy configs.

Its defaults fill in what a file leaves out. Keys that aren't known to be harmless are refused, and so is what no model
of this package can be.
"""

import ast
import os
import pathlib

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.detectron2_keys import DEFAULTS, HARMLESS, Keys
from mrcnn_tf.weights.detectron2_lazy import lazy_keys
from mrcnn_tf.weights.detectron2_settings import classes_of, settings_of
from mrcnn_tf.weights.facts import SourceConfig
from mrcnn_tf.weights.foreign_yaml import parse_yaml, read_text

BASE = "_BASE_"
MOST_BASES = 10  # files that one stands on in all
DECIDING = ("MODEL.", "INPUT.", "TEST.")  # the sections whose unknown keys may change what is detected
# SOLVER, DATALOADER, OUTPUT_DIR, SEED, VIS_PERIOD and what a project adds beside them concern training.


def read_detectron2_config(path):
    """The `SourceConfig` of a YAML file of detectron2.

    UserError if it can't be read, is no config of detectron2, or is of a model that this package can't build.
    """
    tree = parse_yaml(read_text(path), str(path))
    keys = lazy_keys(tree, str(path)) if is_lazy(tree) else _read_keys(tree, pathlib.Path(path))
    settings = settings_of(keys)
    return SourceConfig(
        str(path), "detectron2", settings, classes_of(keys), num_classes=keys.whole("MODEL.ROI_HEADS.NUM_CLASSES", 1)
    )


def is_detectron2(tree):
    """Whether the values of a YAML file are a config of detectron2."""
    return isinstance(tree, dict) and (isinstance(tree.get("MODEL"), dict) or BASE in tree or is_lazy(tree))


def is_lazy(tree):
    """Whether they are a lazy config's: a tree of classes to call."""
    model = tree.get("model") if isinstance(tree, dict) else None
    return isinstance(model, dict) and "_target_" in model


def _read_keys(tree, path):
    if not is_detectron2(tree):
        raise UserError(
            f"{path} is no config of detectron2 (no section MODEL): give the config.yaml that its training wrote."
        )
    values = _on_base(tree, path, [])
    version = values.get("VERSION", 1 if {"MODEL.WEIGHT", "TEST.AUG_ON"} & set(values) else 2)
    if version != 2:
        raise UserError(
            f"{path} is a config of version {version!r}, and version 2 can be read: load it with detectron2 and give "
            "what cfg.dump() says."
        )
    keys = Keys(str(path), values)
    for key in values:
        if key.startswith(DECIDING) and key not in DEFAULTS and not key.startswith(HARMLESS):
            raise UserError(
                f"{path}: {_one_line(key)} is no key of detectron2's own, and what it changes isn't known: if the "
                "model detects the same without it, delete it from a copy of the file and give that."
            )
    return keys


def _on_base(tree, path, bases_read):
    """Key -> value of the tree, over those of the files that it names as its bases, which are added to `bases_read`."""
    bases = tree.pop(BASE, [])
    values = {}
    for base in [bases] if isinstance(bases, str) else bases if isinstance(bases, list) else [None]:
        if not isinstance(base, str) or "://" in base:
            raise UserError(
                f"{path} stands on {base!r} ({BASE}), which is no path: give training's complete config.yaml."
            )
        file = path.parent / os.path.expanduser(base)
        bases_read.append(file)
        if len(bases_read) > MOST_BASES:
            raise UserError(
                f"{path} stands on more than {MOST_BASES} files ({BASE}), or on itself: give a file without."
            )
        if not os.path.isfile(file):
            raise UserError(
                f"{path} stands on {base!r} ({BASE}), and there is no such file beside it: copy it there, or give the "
                "complete config.yaml that training wrote."
            )
        below = parse_yaml(read_text(file), str(file))
        if not isinstance(below, dict):
            raise UserError(f"{file}, on which {path} stands, holds no settings: give the file that belongs there.")
        values |= _on_base(below, file, bases_read)
    return values | dict(_flatten(tree))


def _flatten(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _decode(value)


def _one_line(key):
    return " ".join(key.split())


def _decode(value):
    """The value of a text that is a literal of Python, such as ("coco_2017_train",), as detectron2 reads it."""
    if not isinstance(value, str) or len(value) > 10_000:
        return value
    try:
        return _as_lists(ast.literal_eval(value))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _as_lists(value):
    return [_as_lists(each) for each in value] if isinstance(value, (list, tuple)) else value
