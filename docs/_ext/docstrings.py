"""Docstrings as they are written in this package, as reStructuredText.

They are Google's in form, with Markdown's single backticks for code, and indented blocks without a double colon.
"""

import dataclasses
import inspect
import re

from sphinx.util.nodes import make_refnode

from mrcnn_tf.config import settings

# Dataclasses of settings, which configs.md lists; the whole has a page of its own.
SECTIONS = {name for name, thing in vars(settings).items() if dataclasses.is_dataclass(thing)} - {"Category", "Config"}


def setup(app):
    """Before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-process-signature", _constructor)
    app.connect("missing-reference", _public_or_code)
    app.config.default_role = "py:obj"  # a name that a page describes becomes a link, any other just code
    return {"parallel_read_safe": True}


def _process(app, what, name, thing, options, lines):
    lines[:] = as_rst(lines)


def _constructor(app, what, name, thing, options, signature, returns):
    """What a class is shown to be made of: Keras hides it behind a `__new__`; dataclasses here are mostly results."""
    if dataclasses.is_dataclass(thing):
        return "", None
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    own = inspect.signature(thing.__init__)
    return str(own.replace(parameters=list(own.parameters.values())[1:])), returns


def as_rst(lines):
    """The lines of a docstring as reStructuredText reads them."""
    attributes = False
    for place, line in enumerate(lines):
        attributes = line == "Attributes:" or attributes and (not line or line.startswith(" "))
        if attributes:  # of "box_ap, mask_ap: percent" Sphinx takes the first name for a type
            lines[place] = re.sub(r"^( +\w+(?:, \w+)+):", lambda found: found[0].replace(", ", "/"), line)
    return [_inline(line) + ":" * _opens_block(lines, place) for place, line in enumerate(lines)]


def _inline(line):
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
    return re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", "".join(parts))  # `Category`s


def _opens_block(lines, place):
    """Whether the line ends in a colon, and an indented block follows an empty line."""
    rest = lines[place + 1 :]
    if not lines[place].endswith(":") or lines[place].endswith("::") or not rest or rest[0].strip():
        return False
    following = next((line for line in rest if line.strip()), "")
    return _indent(following) > _indent(lines[place])


def _indent(line):
    return len(line) - len(line.lstrip())


def _public_or_code(app, env, node, content):
    """Where a name leads that isn't described under it: to a section of the settings, a class elsewhere, or nowhere."""
    target = node.get("reftarget", "")
    name = target.rpartition(".")[2]
    if name in SECTIONS and target in (name, f"mrcnn_tf.config.settings.{name}"):
        return make_refnode(app.builder, node["refdoc"], "configs", f"settings-{name}", content)
    domain = env.domains.python_domain
    if node.get("reftype") == "obj":
        found = [full for full in domain.objects if full.rpartition(".")[2] == target and target[:1].isupper()]
        if len(found) != 1:
            return content
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, content)
    if not target.startswith("mrcnn_tf."):
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], f"mrcnn_tf.{name}", node, content)
