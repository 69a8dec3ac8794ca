"""`mrcnn-tf --import`: modules of the user's own, which are there before the command runs."""

import sys

import pytest
from command import call


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with two modules."""
    (tmp_path / "first_parts.py").write_text("print('first')\n")
    (tmp_path / "second_parts.py").write_text("import first_parts\nprint('second')\n")
    (tmp_path / "broken_parts.py").write_text("import nowhere_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    for name in ("first_parts", "second_parts"):
        sys.modules.pop(name, None)


def test_modules_of_the_current_folder_are_imported_before_the_command_in_their_order(folder, capsys):
    text = call("--import", "first_parts", "--import", "second_parts", "predict", "x.png", status=2)
    assert text.split() == ["first", "second"]
    assert capsys.readouterr().err.startswith("mrcnn-tf: There is no model")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere_parts", "No module named 'nowhere_parts'"),
        ("first_parts.py", "'first_parts' is not a package"),
        ("broken_parts", "No module named 'nowhere_at_all'"),
        (".first_parts", "relative import"),
        ("", "Empty module name"),
    ],
)
def test_a_module_that_is_not_there_is_one_sentence(folder, capsys, name, reason):
    call("--import", name, "predict", "x.png", status=2)
    text = capsys.readouterr().err
    assert text.startswith(f"mrcnn-tf: --import {name} didn't work") and reason in text and "without .py" in text


def test_the_help_says_what_it_is_for(capsys):
    assert "--import" in call("--help")
