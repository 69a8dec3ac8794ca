"""Every notebook, from top to bottom at small scale: no cell fails, and no picture is missing or empty."""

import pytest
from notebook_pictures import picture_faults
from notebook_runner import NOTEBOOKS, read_notebook, run
from small_settings import SMALL

NEEDED = {"5_serve_and_tflite": ("ai_edge_litert", "ai_edge_quantizer")}  # its install cell would fetch them


def test_each_notebook_has_small_settings():
    assert {path.stem for path in NOTEBOOKS} == set(SMALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path):
    for extra in NEEDED.get(path.stem, ()):
        pytest.importorskip(extra)
    done = run(read_notebook(path), tmp_path, SMALL[path.stem])
    assert picture_faults(done) == []
