"""The directives `settings-tree` and `conventions-table`, made of settings.py, and a link at each setting in code."""

import dataclasses
import inspect
import re

import settings_reader
from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from mrcnn_tf.config import settings

PAGE = "configs"
NAMED = re.compile(r"([a-z_]+(?:\.[a-z_0-9]+)+)(=.*)?")


def setup(app):
    app.add_directive("settings-tree", SettingsTree)
    app.add_directive("conventions-table", ConventionsTable)
    app.connect("doctree-resolved", link_settings)
    return {"parallel_read_safe": True}


class SettingsTree(SphinxDirective):
    """All sections of mrcnn_tf/config/settings.py; must stand on the page PAGE."""

    def run(self):
        return [
            _section(section, self.state.document) for section in settings_reader.read_sections() if section.paths[0]
        ]


class ConventionsTable(SphinxDirective):
    """The value of each key of `model.conventions` in each preset."""

    def run(self):
        presets = [settings.Conventions(**changes) for changes in settings.CONVENTIONS.values()]
        rows = [["model.conventions.", *settings.CONVENTIONS]]
        for field in dataclasses.fields(settings.Conventions):
            rows.append([field.name, *(_value(getattr(preset, field.name)) for preset in presets)])
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return self.parse_text_to_nodes("\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]))


def _value(value):
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def link_settings(app, doctree, page):
    """Makes a link of code such as `train.ema` or `train.ema=0.999`, except in headings and links."""
    keys = settings_reader.known_keys()
    for literal in list(doctree.findall(nodes.literal)):
        found = NAMED.fullmatch(literal.astext())
        if not found or found[1] not in keys or isinstance(literal.parent, (nodes.reference, nodes.title)):
            continue
        section, key = keys[found[1]]
        target = _anchor(section, key)
        if page == PAGE and target in _ids_of_parents(literal):
            continue
        literal.replace_self(make_refnode(app.builder, page, PAGE, target, literal.deepcopy()))


def _ids_of_parents(node):
    while node:
        yield from node.get("ids", ())
        node = node.parent


def _anchor(section, key):
    return f"setting-{section}-{key}" if key else f"settings-{section}"


def _section(section, document):
    node = nodes.section(ids=[_anchor(section.name, None)])
    node += nodes.title("", ", ".join(section.paths))
    for paragraph in filter(None, re.split(r"\n\s*\n", inspect.cleandoc(section.text))):
        node += _text(" ".join(paragraph.split()))
    node += nodes.definition_list("", *[_item(section, setting) for setting in section.settings])
    document.note_explicit_target(node)
    return node


def _item(section, setting):
    term = nodes.term("", "", nodes.literal("", setting.name), ids=[_anchor(section.name, setting.name)])
    if setting.section:
        link = nodes.reference("", "", nodes.Text("a section"), refid=_anchor(setting.section, None))
        optional = ", or null" if "None" in setting.type else ""
        listed = "a list, each item " if setting.type.startswith("list") else ""
        term += [nodes.Text(f" {listed}"), link, nodes.Text(optional)]
    else:
        term += nodes.inline("", f" {setting.type} = {setting.default}", classes=["setting-type"])
    body = nodes.definition()
    if setting.text:
        body += _text(setting.text)
    if setting.choices:
        words = ["null" if word is None else str(word) for word in setting.choices]
        body += _text("One of " + ", ".join(f"`{word}`" for word in words) + ".")
    return nodes.definition_list_item("", term, body)


def _text(words):
    """A paragraph; what stands in backticks is code."""
    parts = re.split(r"`([^`]*)`", words)
    made = [nodes.literal("", part) if place % 2 else nodes.Text(part) for place, part in enumerate(parts)]
    return nodes.paragraph("", "", *made)
