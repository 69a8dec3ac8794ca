"""Runs a notebook from top to bottom in a kernel of this Python, away from the network, in a folder of its own."""

import ast
import copy
import os
import pathlib
import sys

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
SETTINGS = "parameters"  # the tag of the one cell that a reader edits
SECONDS_TO_START, SECONDS_PER_CELL = 300, 1800

# Whatever a cell asks of the network fails at once: what CI runs comes with the package.
OFFLINE = """
import sys

def _refuse(event, arguments):
    if event == "socket.getaddrinfo" and arguments[0] not in (None, "localhost", "127.0.0.1", "::1"):
        raise OSError(f"A notebook must run without network and asked for {arguments[0]}.")

sys.addaudithook(_refuse)
"""


class ThisPython(KernelSpecManager):
    """Finds one kernel: ipykernel of the Python that is running, whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name):
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


class OwnKernel(AsyncKernelManager):
    """A kernel of this Python. NotebookClient makes it by itself, and so ends it too, after an error as well."""

    def __init__(self, **kwargs):
        super().__init__(kernel_spec_manager=ThisPython(), **kwargs)


def read_notebook(path):
    """The notebook at `path`; nbformat.ValidationError where it isn't valid."""
    with open(path, encoding="utf-8") as file:
        notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    return notebook


def tags(cell):
    """The set of a cell's tags."""
    return set(cell.metadata.get("tags", ()))


def with_values(notebook, values):
    """A copy of the notebook whose settings are other ones, as if a reader had edited them.

    Args:
        notebook: has one cell tagged `parameters`.
        values: by name; each must be assigned in that cell.

    Raises:
        ValueError: there isn't one such cell, or it doesn't assign a name.
    """
    notebook = copy.deepcopy(notebook)
    places = [place for place, cell in enumerate(notebook.cells) if SETTINGS in tags(cell)]
    if len(places) != 1:
        raise ValueError(f"{len(places)} cells are tagged {SETTINGS}; a notebook has one.")
    unknown = set(values) - assigned(notebook.cells[places[0]].source)
    if unknown:
        raise ValueError(f"The settings cell doesn't assign {', '.join(sorted(unknown))}.")
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    notebook.cells.insert(places[0] + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    return notebook


def assigned(source):
    """The names that the top level of a cell's code assigns."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)}


def run(notebook, folder, values=None):
    """The notebook with the outputs of a run in `folder`, which stays the working directory of all its cells.

    Args:
        notebook: it isn't changed.
        folder: pathlib.Path of an existing folder.
        values: settings to run with, see `with_values`; the notebook's own if None.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the message holds it and its traceback.
    """
    notebook = with_values(notebook, values or {})
    notebook.cells.insert(0, nbformat.v4.new_code_cell(OFFLINE))
    places = [ROOT, *(path for path in sys.path if path)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, places)),
        "PIP_NO_INDEX": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    client = NotebookClient(
        notebook,
        kernel_manager_class=OwnKernel,
        startup_timeout=SECONDS_TO_START,
        timeout=SECONDS_PER_CELL,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment)
    added = {0, [place for place, cell in enumerate(notebook.cells) if SETTINGS in tags(cell)][0] + 1}
    notebook.cells = [cell for place, cell in enumerate(notebook.cells) if place not in added]
    return notebook
