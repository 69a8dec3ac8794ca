"""The commands of the benchmarks in the documents exist, as those of `mrcnn-tf` do by tests/test_docs.py."""

import pathlib
import re
import shlex

import pytest
import typer

from benchmarks import __main__ as command
from benchmarks.ablation_tables import TABLES
from benchmarks.cases import MEASUREMENTS

ROOT = pathlib.Path(command.__file__).parents[1]
COMMAND = re.compile(r"python -m benchmarks ([^`\n]+)")
LINES = {line for path in ROOT.glob("docs/*.md") for line in COMMAND.findall(path.read_text(encoding="utf-8"))}


def test_there_is_something_to_check():
    assert len(LINES) > 8


@pytest.mark.parametrize("line", sorted(LINES))
def test_the_command_is_accepted(line):
    name, *arguments = shlex.split(line, comments=True)
    subcommand = typer.main.get_command(command.app).commands[name]
    if not arguments:
        return  # the command is only mentioned
    context = subcommand.make_context(name, arguments)
    if name == "ablate":
        assert context.params["table"] in {*TABLES, "TABLE"}
    elif name == "compare":
        assert set((context.params["only"] or "roofline").split(",")) <= set(MEASUREMENTS)
