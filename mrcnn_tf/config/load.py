"""Reading a config: a YAML file of `configs/` with overrides becomes a checked `Config`, the tree of settings.py.

Unknown keys and values of the wrong type are errors, so a misspelt setting can't be ignored in silence.
"""

import dataclasses
import os
import pathlib
from operator import attrgetter
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mrcnn_tf.common.categories import Category, read_categories, read_panoptic_categories, read_record_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.checks import check_combinations, check_keys, check_values
from mrcnn_tf.config.settings import (
    CONVENTIONS,
    Config,
    DataConfig,
    DataSplits,
    KeypointHeadConfig,
    ModelConfig,
    SemanticHeadConfig,
)

PACKAGE = pathlib.Path(__file__).parents[1]
CONFIG_FOLDERS = (
    PACKAGE / "configs",  # installed
    PACKAGE.parent / "configs",  # a checkout
)
# A path that starts so lies in the installed package's datasets/; these settings may have such paths.
IN_PACKAGE = "package:"
PATH_SETTINGS = ("annotations", "images", "panoptic", "panoptic_maps", "semantic_maps")


def load_config(
    name: str | pathlib.Path | dict[str, Any], overrides: list[str] | tuple[str, ...] = (), source: str = ""
) -> Config:
    """Read a config by the name of a file in `configs/` or by path, then apply overrides.

    Args:
        name: such as "mask_rcnn_r50_fpn", the path of a YAML file, or what such a file holds, as dictionaries. It may
            start from another one with `base: NAME`.
        overrides: "key.path=value" strings, such as "train.images_per_batch=2"; the value is read as YAML.

    Returns:
        The `Config`. What one setting decides for several places is filled in: the data's resize rule and batch, and
        the categories (from the training annotations when `model.categories` is empty).

    Raises:
        UserError: for an unknown config, key or preset, a value of the wrong type or an unreadable annotation file.
    """
    tree = _merge(_read_yaml(name), parse_overrides(overrides))
    return _resolve(_parse(tree, source or str(name)))


def parse_overrides(overrides: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Nested dictionaries of "key.path=value" strings; UserError for one of another form."""
    tree: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise UserError(f"Override '{override}' isn't of the form key.path=value, such as train.steps=1000.")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"The value of override '{override}' isn't valid YAML: quote it.") from error
        tree = _merge(tree, _nest(key, parsed))
    return tree


def list_config_names() -> list[str]:
    """The names of the configs that come with the package, sorted."""
    return sorted(file.stem for folder in CONFIG_FOLDERS if folder.is_dir() for file in folder.glob("*.yaml"))


def _read_yaml(name: str | pathlib.Path | dict[str, Any]) -> dict[str, Any]:
    if isinstance(name, dict):
        base = name.get("base")
        own = {key: value for key, value in name.items() if key != "base"}
        return _merge(_read_yaml(base), own) if base else own
    candidates = [pathlib.Path(name), *(folder / f"{name}.yaml" for folder in CONFIG_FOLDERS)]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        if pathlib.Path(name).suffix or os.sep in str(name):
            raise UserError(f"There is no file {name}: give the path of a config, or the name of one of the package's.")
        raise UserError(
            f"There is no config '{name}': give the path of a YAML file or one of {', '.join(list_config_names())}."
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} isn't valid YAML ({' '.join(str(error).split())}): mend it.") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no settings: it must start with keys such as 'model:' and 'train:'.")
    base = tree.pop("base", None)
    return _merge(_read_yaml(base), tree) if base else tree


def _nest(key: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for the key "a.b"."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _merge(tree: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`tree` with `other` over it. A conventions preset replaces what was there, a single key adds to it."""
    result = dict(tree)
    for key, value in other.items():
        old = result.get(key)
        if key == "conventions":
            value, old = _conventions_section(value), _conventions_section(old)
            old = {} if "preset" in value else old
        result[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _conventions_section(conventions: Any) -> dict[str, Any]:
    """`conventions:` as a dictionary, which may be a preset's name alone."""
    if conventions is None:
        return {}
    return {"preset": conventions} if isinstance(conventions, str) else conventions


def _parse(tree: dict[str, Any], source: str) -> Config:
    """The checked `Config` of a tree of plain dictionaries."""
    tree = _expand_preset(tree)
    all_heads = ModelConfig(keypoint_head=KeypointHeadConfig(), semantic_head=SemanticHeadConfig())  # None by default
    check_keys(tree, OmegaConf.structured(Config(all_heads)), source)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), tree))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{source}: setting '{key}' has a wrong value ({reason}): see docs/configs.md.") from error
    check_values(config, source)
    check_combinations(config, source)
    return config


def _expand_preset(tree: dict[str, Any]) -> dict[str, Any]:
    """Replace a conventions preset by the keys that it stands for."""
    model = tree.get("model")
    if not isinstance(model, dict) or "conventions" not in model:
        return tree
    section = dict(_conventions_section(model["conventions"]))
    preset = section.pop("preset", "default")
    if preset not in CONVENTIONS:
        raise UserError(f"There is no conventions preset '{preset}': choose one of {', '.join(CONVENTIONS)}.")
    return {**tree, "model": {**model, "conventions": {**CONVENTIONS[preset], **section}}}


def _read_data_categories(train: DataConfig) -> tuple[list[Category], list[Category]]:
    """The things and the stuff of the data to train on; of several sources the first one's."""
    first = train.sources[0] if train.sources else train
    if first.records:
        return read_record_categories(first.records), []
    things, stuff = read_panoptic_categories(train.panoptic) if train.panoptic else ([], [])
    return (read_categories(first.annotations) if first.annotations else things), stuff


def _resolve(config: Config) -> Config:
    """The config with everything filled in that follows from other settings or, of categories, from the data."""
    train, val = (_resolve_paths(split) for split in (config.data.train, config.data.val))
    train = dataclasses.replace(train, sources=[_resolve_paths(source) for source in train.sources])
    model = config.model
    if not model.categories or (model.semantic_head and not model.stuff):
        things, stuff = _read_data_categories(train)
        stuff = model.stuff or (stuff if model.semantic_head else [])
        model = dataclasses.replace(model, categories=model.categories or things, stuff=stuff)
    config = dataclasses.replace(config, model=model)
    train, val = (_follow(split, config) for split in (train, val))
    train = dataclasses.replace(train, images_per_batch=train.images_per_batch or config.train.images_per_batch)
    val = dataclasses.replace(val, images_per_batch=val.images_per_batch or 1)
    return dataclasses.replace(config, data=DataSplits(train, val))


def _resolve_paths(split: Any) -> Any:
    """A `DataConfig` or `SourceConfig` whose paths into the package are those of this machine."""
    paths = {name: getattr(split, name, "") for name in PATH_SETTINGS}  # a source has no maps
    inside = {name: path.removeprefix(IN_PACKAGE) for name, path in paths.items() if path.startswith(IN_PACKAGE)}
    return dataclasses.replace(split, **{name: str(PACKAGE / "datasets" / path) for name, path in inside.items()})


def _follow(split: DataConfig, config: Config) -> DataConfig:
    """The split with what it leaves open set as its fields say, see `settings.follows`."""
    values = {}
    for field in dataclasses.fields(split):
        if "follows" in field.metadata and getattr(split, field.name) in (None, []):
            value = attrgetter(field.metadata["follows"])(config)
            values[field.name] = value is not None if field.metadata["presence"] else value
    return dataclasses.replace(split, **values)
