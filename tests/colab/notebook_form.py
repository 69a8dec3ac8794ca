"""What a stored notebook holds: no outputs but the pictures to keep, no counts, no editors' metadata."""

import copy

import nbformat
from notebook_pictures import KEPT, PICTURE, png_outputs, stored_png
from notebook_runner import SETTINGS, tags

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TAGS = {SETTINGS, PICTURE, KEPT}


def stored_form(notebook):
    """A copy of a notebook as it is stored; of outputs, the pictures of cells tagged `keep-picture` stay."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        kept = sorted(tags(cell))
        cell.metadata = nbformat.from_dict({"tags": kept} if kept else {})
        if cell.cell_type == "code":
            shown = png_outputs(cell) if KEPT in kept else []
            cell.execution_count = None
            cell.outputs = [
                nbformat.v4.new_output("display_data", data={"image/png": stored_png(data)}) for data in shown
            ]
    return notebook


def form_faults(notebook):
    """A sentence for each thing that a stored notebook must not hold."""
    faults = []
    if dict(notebook.metadata) != METADATA:
        faults.append(f"The notebook's metadata should be {METADATA}.")
    for number, cell in enumerate(notebook.cells, 1):
        if set(cell.metadata) - {"tags"} or tags(cell) - TAGS:
            faults.append(f"Cell {number} has metadata other than the tags {', '.join(sorted(TAGS))}.")
        if cell.cell_type == "code":
            faults += _output_faults(number, cell)
    return faults


def _output_faults(number, cell):
    faults = []
    if cell.execution_count is not None:
        faults.append(f"Cell {number} has an execution count.")
    if cell.outputs and KEPT not in tags(cell):
        faults.append(f"Cell {number} has outputs and isn't tagged {KEPT}.")
    for output in cell.outputs:
        if output.output_type != "display_data" or set(output.data) != {"image/png"} or output.metadata:
            faults.append(f"Cell {number} has an output that isn't just a PNG picture.")
    return faults
