"""What is stored of a notebook, and that the checks of it can fail."""

import base64
import io

import nbformat
import numpy as np
import psutil
import pytest
from nbclient.exceptions import CellExecutionError
from notebook_form import METADATA, form_faults, stored_form
from notebook_pictures import KEPT, PICTURE, gives_picture, is_empty, opened, picture_faults, png_outputs
from notebook_runner import NOTEBOOKS, SETTINGS, read_notebook, run, tags, with_values
from PIL import Image

MOST_BYTES = 1_500_000
MOST_LINES = 20  # of a cell; a longer one is work for the package
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)


def notebook_of(*cells):
    return nbformat.v4.new_notebook(cells=list(cells), metadata=METADATA)


def code(source, *tag_names, outputs=()):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tag_names)}, outputs=list(outputs))


def shown(pixels):
    return nbformat.v4.new_output("execute_result", data={"image/png": png(pixels), "text/plain": "<Image>"})


@each_notebook
def test_stored_notebooks_hold_pictures_alone(path):
    assert form_faults(read_notebook(path)) == []
    assert path.stat().st_size < MOST_BYTES


@each_notebook
def test_kept_pictures_are_there(path):
    notebook = read_notebook(path)
    kept = [cell for cell in notebook.cells if KEPT in tags(cell)]
    assert kept and all(len(png_outputs(cell)) == 1 for cell in kept)
    assert not any(is_empty(opened(data)) for cell in kept for data in png_outputs(cell))


@each_notebook
def test_a_caption_stands_above_each_picture(path):
    cells = read_notebook(path).cells
    for above, cell in zip(cells, cells[1:], strict=False):
        if cell.cell_type == "code" and gives_picture(cell):
            assert above.cell_type == "markdown" and "*Below" in above.source, cell.source


@each_notebook
def test_cells_are_short(path):
    for cell in read_notebook(path).cells:
        if cell.cell_type == "code" and cell.id != "install":
            assert len(cell.source.splitlines()) <= MOST_LINES, cell.source


def test_the_stored_form_keeps_pictures_of_tagged_cells_and_nothing_else():
    text = nbformat.v4.new_output("stream", name="stdout", text="hello")
    notebook = notebook_of(
        code("a", KEPT, outputs=[shown(noise()), text]), code("b", PICTURE, outputs=[shown(noise())]), code("c")
    )
    notebook.cells[0].execution_count = 3
    notebook.cells[2].metadata["editor"] = {"collapsed": True}
    notebook.metadata["widgets"] = {}
    assert len(form_faults(notebook)) == 7  # metadata twice, a count, two cells' outputs and what these are
    stored = stored_form(notebook)
    assert form_faults(stored) == []
    assert [len(cell.outputs) for cell in stored.cells] == [1, 0, 0]
    difference = np.asarray(opened(png_outputs(stored.cells[0])[0]).convert("RGB"), float) - noise()
    assert np.abs(difference).mean() < 40  # a palette of 256 colours for noise
    assert stored_form(stored) == stored


def test_flat_pictures_are_empty():
    flat = np.full((40, 60, 3), 200, np.uint8)
    assert is_empty(Image.fromarray(flat))
    flat[3, 3] = 0  # a speck is no picture
    assert is_empty(Image.fromarray(flat))
    assert is_empty(Image.fromarray((noise() % 4).astype(np.uint8)))
    assert not is_empty(Image.fromarray(noise()))


def test_missing_and_empty_pictures_are_faults():
    flat = np.zeros((40, 60, 3), np.uint8)
    cells = [
        code("good", PICTURE, outputs=[shown(noise())]),
        code("missing", KEPT),
        code("empty", PICTURE, outputs=[shown(flat)]),
        code("not asked", outputs=[shown(flat)]),
    ]
    faults = picture_faults(notebook_of(*cells))
    assert len(faults) == 2
    assert "'missing'" in faults[0] and "'empty'" in faults[1]


def test_a_run_gives_outputs_and_stops_at_errors(tmp_path):
    cells = [
        code("side = 3", SETTINGS),
        code("from PIL import Image\nImage.effect_noise((16 * side, 40), 90)", PICTURE),
        code("open('here.txt', 'w').write('x' * side)"),
    ]
    done = run(notebook_of(*cells), tmp_path, {"side": 2})
    assert [cell.source for cell in done.cells] == [cell.source for cell in cells]
    assert opened(png_outputs(done.cells[1])[0]).size == (32, 40) and picture_faults(done) == []
    assert (tmp_path / "here.txt").read_text() == "xx"
    with pytest.raises(CellExecutionError, match="must run without network"):
        run(
            notebook_of(cells[0], code("import urllib.request\nurllib.request.urlopen('http://example.org')")), tmp_path
        )
    lines = [" ".join(child.cmdline()) for child in psutil.Process().children() if child.is_running()]
    assert not any("ipykernel" in line for line in lines)  # each would keep gigabytes


def test_settings_must_be_those_of_the_notebook():
    notebook = notebook_of(code("steps = 3", SETTINGS))
    assert with_values(notebook, {"steps": 1}).cells[1].source == "steps = 1"
    with pytest.raises(ValueError, match="doesn't assign step"):
        with_values(notebook, {"step": 1})
    with pytest.raises(ValueError, match="0 cells are tagged"):
        with_values(notebook_of(), {})
