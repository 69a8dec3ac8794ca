"""Every Markdown file and notebook: links lead somewhere; commands, settings, configs and names exist."""

import ast
import dataclasses
import fnmatch
import importlib
import inspect
import pathlib
import re
import sys

import pytest
import typer
from documents import Document, commands

import mrcnn_tf
from mrcnn_tf.cli import app
from mrcnn_tf.config.load import list_config_names
from mrcnn_tf.explain.diagnosis.lost_objects import DETECTED, STATUSES
from mrcnn_tf.weights.facts import FILE_SETTINGS
from mrcnn_tf.weights.presets import find_preset, list_presets

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
import settings_reader  # noqa: E402

WRITTEN = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/[a-z]*/*.md"), *ROOT.glob("colab/*.ipynb")]
NAMES = {str(path.relative_to(ROOT)): path for path in sorted(WRITTEN)}
DOCUMENTS = {name: Document(path) for name, path in NAMES.items() if name[0] != "."}
every_document = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
KEYS = settings_reader.known_keys()
ROOTS = {"model": mrcnn_tf.MaskRCNN, "dets": mrcnn_tf.Detections, "MaskRCNN": mrcnn_tf.MaskRCNN}
ROOTS |= {"Detections": mrcnn_tf.Detections, "cfg": None, "config": None}
FILE = re.compile(r".*\.(py|md|json|jsonl|keras|tflite|yaml|ipynb|npz|config|jpg|png|cu|cc|h5|pth|pkl|safetensors)")
CONFIG = re.compile(
    r"(mask_rcnn_(r|mobile|eff)|panoptic_r|paper_|nuclei_|edge_|torchvision_|detectron2_|matterport_mask)\w+"
)
DOTTED = re.compile(r"mrcnn_tf(\.\w+)+")
TREE = typer.main.get_command(app)


def test_there_is_something_to_check():
    expected = {"README.md", "CHANGELOG.md", "docs/index.md", "docs/migration/matterport.md"}
    assert expected | {"colab/1_quickstart.ipynb"} <= set(DOCUMENTS)
    assert sum(len(document.commands) for document in DOCUMENTS.values()) > 40


@every_document
def test_links(document):
    for path, anchor in document.relative_links:
        target = path or document.path
        assert target.exists(), f"{target} isn't there"
        if anchor and target.suffix in (".md", ".ipynb"):
            assert anchor in Document(target).anchors, f"{target} has no heading #{anchor}"


def command_at(words):
    """(the click command, its name, the words behind it); AssertionError for a subcommand that doesn't exist."""
    command, name, rest = TREE, "mrcnn-tf", list(words)
    while rest and rest[0] == "--import":
        rest = rest[2:]
    while hasattr(command, "commands"):
        if not rest or rest[0].startswith("-"):
            break
        assert rest[0] in command.commands, f"{name} has no command {rest[0]}: {', '.join(command.commands)}"
        command, name = command.commands[rest[0]], f"{name} {rest[0]}"
        rest = rest[1:]
    return command, name, rest


def check_settings(words):
    for word in words:
        key, equals, _ = word.partition("=")
        if equals and re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", key):
            assert key in KEYS or key in FILE_SETTINGS, f"there is no setting {key}"


@every_document
def test_commands(document):
    for words in document.commands:
        command, name, rest = command_at(words)
        rest = [word for word in rest if word not in ("...", "--help")]
        check_settings(rest)
        if hasattr(command, "commands"):
            continue
        try:
            context = command.make_context(name, list(rest))
        except Exception as error:  # typer brings a click of its own, or uses the one that is installed
            if not hasattr(error, "format_message"):
                raise
            raise AssertionError(f"mrcnn-tf {' '.join(words)}: {error.format_message()}") from error
        config = context.params.get("config")
        if isinstance(config, str) and not config.isupper() and not FILE.fullmatch(config):
            assert config in list_config_names(), f"there is no config {config}"


@every_document
def test_mentioned_commands(document):
    for span in document.spans:
        for words in commands(span):
            command, name, rest = command_at(words)
            options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            for word in rest:
                assert not word.startswith("--") or word.partition("=")[0] in options, f"{name} has no option {word}"
            check_settings(rest)


def is_known(span):
    """Whether code in the text names a setting, a public name, a config, a command, an option or a file."""
    key = span.partition("=")[0]
    head, _, tail = re.sub(r"\(.*", "", key).partition(".")
    if key in KEYS:
        return True
    if head == "mrcnn_tf" and tail:
        return resolved(f"mrcnn_tf.{tail}") is not None
    if head in ROOTS and tail:
        return attribute(ROOTS[head], tail.split(".")[0])
    return span in list_config_names() or find_preset(span) is not None


def attribute(kind, name):
    """Whether objects of a class have an attribute, be it set in `__init__`."""
    if kind is None or hasattr(kind, name):
        return True
    return any(
        f"self.{name}" in inspect.getsource(base) for base in kind.__mro__ if base.__module__.startswith("mrcnn")
    )


def resolved(dotted):
    """What a dotted name stands for; None if it doesn't exist."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(thing, part):
                return None
            thing = getattr(thing, part)
        return thing
    return None


@every_document
def test_names(document):
    for span in document.spans:
        if "migration" in document.path.parts and span in old_names(document):
            continue
        if " " in span or FILE.fullmatch(span) or "*" in span:
            continue
        if re.fullmatch(r"(model|data|train|mrcnn_tf|dets)\.\w[\w.]*([=(].*)?", span):
            assert is_known(span), f"{span} doesn't exist"
        if CONFIG.fullmatch(span):
            assert is_known(span) or is_pattern(span), f"there is no config {span}"


def old_names(document):
    """Code in the columns of tables that say how another system calls it."""
    tables = [table for table in document.tables() if "here" in table[0]]
    cells = [cell for heading, *rows in tables for row in rows for cell in row[: heading.index("here")]]
    return {span for cell in cells for span in re.findall(r"`([^`]+)`", cell)} | {
        span for heading, *_ in tables for span in re.findall(r"`([^`]+)`", heading[0])
    }


def is_pattern(span):
    return bool(fnmatch.filter([*list_config_names(), *(preset.name for preset in list_presets())], f"{span}*"))


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if "migration" in name])
def test_every_new_name_of_a_migration_table_exists(name):
    checked = 0
    for heading, *rows in DOCUMENTS[name].tables():
        column = heading.index("here")
        for row in rows:
            for span in re.findall(r"`([^`]+)`", row[column]):
                if heading[0] or span.startswith(("mrcnn", "dets.", "model.", "data.", "train.")):
                    assert is_known(span) or is_command(span) or is_word(span), f"{span} in {row}"
                    checked += 1
    assert checked > 40


def is_command(span):
    return bool(commands(span)) or span.startswith("--") or FILE.fullmatch(span)


def is_word(span):
    """A value, an environment variable, or a notebook's or output's name, which aren't names of ours to look up."""
    return span in {
        "C4",
        "C5",
        "null",
        "TF_CONFIG",
        "key.path=value",
        "num_detections",
        "classes",
        "masks",
        "image_bytes",
    }


@every_document
def test_python(document):
    for block in document.blocks:
        if block.language not in ("python", "notebook"):
            continue
        code = "\n".join(line for line in block.text.splitlines() if not line.lstrip().startswith(("!", "%")))
        tree = compile(code, str(document.path), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            check_node(node)


def check_node(node):
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mrcnn_tf":
        for alias in node.names:
            assert resolved(f"{node.module}.{alias.name}") is not None, f"{node.module} has no {alias.name}"
    if isinstance(node, ast.Attribute) and DOTTED.fullmatch(ast.unparse(node)):
        assert resolved(ast.unparse(node)) is not None, f"{ast.unparse(node)} doesn't exist"
    if isinstance(node, ast.Call) and DOTTED.fullmatch(ast.unparse(node.func)):
        check_call(resolved(ast.unparse(node.func)), node)


def check_call(function, node):
    names = [keyword.arg for keyword in node.keywords]
    if function is None or None in names or any(isinstance(value, ast.Starred) for value in node.args):
        return
    inspect.signature(function).bind(*node.args, **dict.fromkeys(names))


def test_each_way_to_lose_an_object_is_explained():
    (table,) = (table for table in DOCUMENTS["docs/no_detections.md"].tables() if table[0][0] == "lost by")
    assert {row[0] for row in table[1:]} == set(STATUSES) - {DETECTED}


def test_the_list_of_settings_is_whole():
    from mrcnn_tf.config.load import load_config

    cfg = load_config("mask_rcnn_r50_fpn", ["model.keypoint_head={}"])

    def leaves(value, path):
        if not dataclasses.is_dataclass(value):
            return [path]
        names = [field.name for field in dataclasses.fields(value)]
        return [leaf for name in names for leaf in leaves(getattr(value, name), f"{path}.{name}")]

    expected = {path.lstrip(".") for path in leaves(cfg, "")}
    assert expected - set(KEYS) == set()
    settings = {s.name: s for section in settings_reader.read_sections() for s in section.settings}
    assert settings["rpn_box_beta"].default == "1 / 9"
    assert settings["checkpoint_steps"].text == "between checkpoints; there is one after each evaluation, too"
    assert settings["application"].text.startswith("A network of keras.applications")  # stands above it
    assert settings["strategy"].choices == ("auto", "mirrored", "none")


def test_every_setting_says_what_it_is():
    """By a comment, a docstring of its section that names it, or a setting of the same section that explains both."""
    silent = [f"{one.name}.{s.name}" for one in settings_reader.read_sections() for s in one.settings if not s.text]
    sections = {f"{one.name}.{s.name}" for one in settings_reader.read_sections() for s in one.settings if s.section}
    assert set(silent) - sections == {"ResizeConfig.min_size", "ResizeConfig.max_size"}  # in the section's docstring
