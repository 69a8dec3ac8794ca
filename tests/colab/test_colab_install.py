"""The install cell, and that the package asks for nothing that Colab's own packages don't satisfy."""

import configparser
import re

import pytest
from notebook_runner import NOTEBOOKS, ROOT, read_notebook
from packaging.requirements import Requirement

# As Colab has them: pip must be content with these. By hand, in an environment with the versions of a row:
# pip install --dry-run --report report.json . ai-edge-litert ai-edge-quantizer
PREINSTALLED = [
    {"tensorflow": "2.19.0", "keras": "3.10.0", "numpy": "2.0.2"},
    {"tensorflow": "2.20.0", "keras": "3.10.0", "numpy": "2.0.2"},
]


def install_cells():
    return [next(cell.source for cell in read_notebook(path).cells if cell.id == "install") for path in NOTEBOOKS]


@pytest.mark.parametrize("versions", PREINSTALLED, ids=lambda versions: versions["tensorflow"])
def test_requirements_accept_what_colab_has(versions):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = [*setup["options"]["install_requires"].split("\n"), *setup["options.extras_require"]["edge"].split("\n")]
    asked = {one.name.lower(): one.specifier for one in map(Requirement, filter(None, map(str.strip, lines)))}
    assert set(versions) <= set(asked)
    for name, version in versions.items():
        assert asked[name].contains(version), name


def test_the_install_cell_is_the_same_everywhere():
    needed = re.compile(r"^needed = \{.*?\}$", re.MULTILINE | re.DOTALL)
    assert len({needed.sub("", cell) for cell in install_cells()}) == 1
    assert all('"mrcnn_tf": SOURCE' in needed.search(cell)[0] for cell in install_cells())


def run_install_cell(monkeypatch, installed, replaces=False):
    """Runs the cell where `mrcnn_tf` is importable or not; gives the arguments of each `%pip install`."""
    asked, versions = [], {"tensorflow": "2.19.0", "keras": "3.10.0", "numpy": "2.0.2"}

    def pip(line):
        asked.append(line.split())
        versions["numpy"] = "2.4.6" if replaces else versions["numpy"]

    monkeypatch.setattr("importlib.util.find_spec", lambda name: "there" if installed else None)
    monkeypatch.setattr("importlib.metadata.version", versions.__getitem__)
    source = install_cells()[0]
    magic = re.search(r"%pip install (.*)", source)[1]
    exec(source.replace(f"%pip install {magic}", f"pip(f'''{magic}''')"), {"pip": pip})
    return asked


def test_what_is_there_is_not_installed(monkeypatch):
    assert run_install_cell(monkeypatch, installed=True) == []


def test_pip_is_told_to_keep_what_colab_has(monkeypatch):
    (asked,) = run_install_cell(monkeypatch, installed=False)
    assert asked == ["-q", "..", "tensorflow==2.19.0", "keras==3.10.0", "numpy==2.0.2"]


def test_a_replaced_package_is_an_error(monkeypatch):
    with pytest.raises(AssertionError, match="pip replaced a package"):
        run_install_cell(monkeypatch, installed=False, replaces=True)
