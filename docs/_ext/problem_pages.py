"""The directive `problem-kinds`: what mrcnn_tf/datasets/doctor/kinds.py says of each kind of problem."""

import re

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from mrcnn_tf.datasets.doctor import kinds
from mrcnn_tf.datasets.doctor.record_kinds import SEVERITIES


def setup(app):
    app.add_directive("problem-kinds", ProblemKinds)
    return {"parallel_read_safe": True}


class ProblemKinds(SphinxDirective):
    """A section for each severity, and in it the kinds in their order."""

    def run(self):
        return [self._section(severity) for severity in SEVERITIES]

    def _section(self, severity):
        title = f"{severity.capitalize()}s"
        section = nodes.section("", nodes.title("", title), ids=[nodes.make_id(title)])
        chosen = [(name, kind) for name, kind in kinds.KINDS.items() if kind.severity == severity]
        section += nodes.definition_list("", *[_item(name, kind) for name, kind in chosen])
        self.state.document.note_implicit_target(section)
        return section


def _item(name, kind):
    term = nodes.term("", "", nodes.literal("", name), nodes.Text(f" {kind.unit} "), *_words(kind.title))
    remedy = [*_words(kind.remedy[0].upper() + kind.remedy[1:]), nodes.Text(".")]
    mended = [nodes.Text(" "), nodes.literal("", "--fix"), nodes.Text(": "), *_words(kind.mended), nodes.Text(".")]
    body = nodes.paragraph("", "", *remedy, *(mended if kind.mended else []))
    return nodes.definition_list_item("", term, nodes.definition("", body))


def _words(text):
    """Text nodes; what stands in backticks is code."""
    parts = re.split(r"`([^`]*)`", text)
    return [nodes.literal("", part) if place % 2 else nodes.Text(part) for place, part in enumerate(parts)]
