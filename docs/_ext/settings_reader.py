"""What mrcnn_tf/config/settings.py says of each setting: name, type, default, and the comments beside and above it."""

import ast
import dataclasses
import io
import pathlib
import tokenize
import typing

from mrcnn_tf.config import settings


@dataclasses.dataclass
class Setting:
    """A key. `section` is the dataclass that it opens, or None; `choices` are all values that it may have, or ()."""

    name: str
    type: str
    default: str
    text: str
    section: str | None
    choices: tuple


@dataclasses.dataclass
class Section:
    """A dataclass of settings at the places of the tree where it stands, such as data.train and data.val."""

    name: str
    paths: list[str]
    text: str
    settings: list[Setting]


def read_sections():
    """The list of `Section`s, each after the one that names it first."""
    tree, comments = _parsed()
    sections = {}

    def visit(name, path):
        if name not in sections:
            fields = {field.name for field in dataclasses.fields(getattr(settings, name))}
            items = [item for item in tree[name].body if isinstance(item, ast.AnnAssign) and item.target.id in fields]
            sections[name] = Section(name, [], _docstring(name), [_setting(name, item, comments) for item in items])
        sections[name].paths.append(path)
        for setting in sections[name].settings:
            if setting.section:
                visit(setting.section, f"{path}.{setting.name}".strip("."))

    visit("Config", "")
    return list(sections.values())


def known_keys():
    """Every key path of the settings tree, sections among them -> (dataclass, key); of a section (dataclass, None)."""
    keys = {}
    for section in read_sections():
        for path in filter(None, section.paths):
            keys[path] = (section.name, None)
        for path in section.paths:
            for setting in section.settings:
                if not setting.section:
                    keys[f"{path}.{setting.name}".strip(".")] = (section.name, setting.name)
    return keys


def _parsed():
    source = pathlib.Path(settings.__file__).read_text(encoding="utf-8")
    classes = {item.name: item for item in ast.parse(source).body if isinstance(item, ast.ClassDef)}
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.removeprefix("#").strip()
            comments[token.start[0]] = (text, token.line.lstrip().startswith("#"))
    return classes, comments


def _setting(section, item, comments):
    lines, above = range(item.lineno, item.end_lineno + 1), item.lineno - 1
    texts = [comments[line][0] for line in lines if line in comments]
    while comments.get(above, ("", False))[1]:
        texts.insert(0, comments[above][0])
        above -= 1
    field = next(f for f in dataclasses.fields(getattr(settings, section)) if f.name == item.target.id)
    if follows := field.metadata.get("follows"):
        texts.append(f"({'whether there is' if field.metadata['presence'] else 'that of'} {follows})")
    choices = field.metadata.get("choices", ())
    kind, default = ast.unparse(item.annotation), _default(field, item.value)
    return Setting(field.name, kind, default, " ".join(texts), _section_of(field.type), choices)


def _section_of(kind):
    """The name of the dataclass of settings in a type such as `MaskHeadConfig | None` or `list[SourceConfig]`."""
    for part in (kind, *typing.get_args(kind)):
        if dataclasses.is_dataclass(part) and part.__module__ == settings.__name__:
            return part.__name__
    return None


def _default(field, written):
    """As YAML would have it; a fraction as it is written in the source."""
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if dataclasses.is_dataclass(value):
        return ""
    if isinstance(written, ast.BinOp):
        return ast.unparse(written)
    if value is None or isinstance(value, (str, bool)):
        return {None: "null", True: "true", False: "false", "": '""'}.get(value, value)
    return str(value)


def _docstring(name):
    text = getattr(settings, name).__doc__ or ""
    return "" if text.startswith(f"{name}(") else text  # dataclasses write a signature where there is none
