"""Runs notebooks with their own settings and stores them with the pictures that GitHub should show.

python tests/colab/render.py colab/1_quickstart.ipynb        # a few minutes each
python tests/colab/render.py --strip colab/*.ipynb           # runs nothing: puts edited notebooks in order
"""

import argparse
import pathlib
import sys
import tempfile
import time

import nbformat

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from notebook_form import stored_form
from notebook_pictures import picture_faults
from notebook_runner import read_notebook, run


def main():
    parser = argparse.ArgumentParser(description="Run notebooks and store them with the pictures of tagged cells.")
    parser.add_argument("notebooks", nargs="+", type=pathlib.Path)
    parser.add_argument("--strip", action="store_true", help="run nothing; pictures that are there stay")
    options = parser.parse_args()
    for path in options.notebooks:
        notebook, started = read_notebook(path), time.perf_counter()
        if not options.strip:
            with tempfile.TemporaryDirectory() as folder:
                notebook = run(notebook, folder)
            faults = picture_faults(notebook)
            if faults:
                sys.exit(f"{path}: {' '.join(faults)}")
        path.write_text(nbformat.writes(stored_form(notebook)) + "\n", encoding="utf-8")
        print(f"{path}: {path.stat().st_size} bytes, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
