"""The directive `problem-kinds`: what mrcnn_tf/datasets/doctor/problem_kinds.yaml says of each kind of problem."""

import re

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from mrcnn_tf.datasets.doctor.findings import PROBLEM_KINDS, SEVERITIES


def setup(app):
    app.add_directive("problem-kinds", ProblemKindsDirective)
    return {"parallel_read_safe": True}


class ProblemKindsDirective(SphinxDirective):
    """A section for each severity, and in it the kinds in the file's order."""

    def run(self):
        return [self._section(severity) for severity in SEVERITIES]

    def _section(self, severity):
        title = f"{severity.capitalize()}s"
        section = nodes.section("", nodes.title("", title), ids=[nodes.make_id(title)])
        kinds = [(name, kind) for name, kind in PROBLEM_KINDS.items() if kind.severity == severity]
        section += nodes.definition_list("", *[_list_item(name, kind) for name, kind in kinds])
        self.state.document.note_implicit_target(section)
        return section


def _list_item(name, kind):
    term = nodes.term("", "", nodes.literal("", name), nodes.Text(f" {kind.unit} "), *_text_nodes(kind.title))
    remedy = [*_text_nodes(kind.remedy[0].upper() + kind.remedy[1:]), nodes.Text(".")]
    fix = [nodes.Text(" "), nodes.literal("", "--fix"), nodes.Text(": "), *_text_nodes(kind.fix), nodes.Text(".")]
    body = nodes.paragraph("", "", *remedy, *(fix if kind.fix else []))
    return nodes.definition_list_item("", term, nodes.definition("", body))


def _text_nodes(text):
    """Text nodes; what stands in backticks is code."""
    parts = re.split(r"`([^`]*)`", text)
    return [nodes.literal("", part) if index % 2 else nodes.Text(part) for index, part in enumerate(parts)]
