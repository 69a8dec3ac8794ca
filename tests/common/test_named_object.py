"""Objects by name, from modules in the current folder and from installed ones."""

import sys

import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.named_object import import_named


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a module into the current folder; those called mine_... are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)

    def save(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    yield save
    for name in [name for name in sys.modules if name.startswith("mine_")]:
        del sys.modules[name]


def test_installed_objects():
    import json.decoder

    assert import_named("json.decoder:JSONDecoder", "Reader") is json.decoder.JSONDecoder


def test_objects_of_the_current_folder(write):
    paths = list(sys.path)
    write("mine_a.py", "import mine_b\nclass Twice(mine_b.Once): pass\n")
    write("mine_b.py", "class Once: pass\n")
    write("mine_package/__init__.py", "")
    write("mine_package/part.py", "def read(): return 7\n")
    assert import_named("mine_a:Twice", "Layer").__bases__[0].__name__ == "Once"
    assert import_named("mine_package.part:read", "Reader")() == 7
    assert sys.path == paths


@pytest.mark.parametrize(
    "name", ["", "read", "mine", "mine.read", "mine:", ":read", "a/b.py:read", "mine:a.b", "a:b:c"]
)
def test_another_form(name):
    with pytest.raises(UserError, match="^Setting 'x' '.*' isn't of the form package.module:Name: give it as my_pack"):
        import_named(name, "Setting 'x'")


def test_no_such_module(write, tmp_path):
    paths = list(sys.path)
    write("mine_c.py", "")
    for name, missing in (("mine_d:read", "mine_d"), ("mine_d.e:read", "mine_d"), ("mine_c.e:read", "mine_c.e")):
        message = f"^Reader '{name}' is in no module that Python finds: there is no '{missing}' in {tmp_path} or among"
        with pytest.raises(UserError, match=message):
            import_named(name, "Reader")
    assert sys.path == paths


def test_what_a_module_fails_to_import_is_its_own_error(write):
    paths = list(sys.path)
    write("mine_f.py", "import pandaz\n")
    with pytest.raises(ModuleNotFoundError, match="pandaz"):
        import_named("mine_f:read", "Reader")
    write("mine_g.py", "from json import lods\n")
    with pytest.raises(ImportError, match="lods"):
        import_named("mine_g:read", "Reader")
    assert sys.path == paths


def test_no_such_name_in_the_module(write, tmp_path):
    write("mine_h.py", "def read_csv(): pass\nread_size = 3\n")
    with pytest.raises(
        UserError, match=f"^Reader 'mine_h:read_cvs' isn't in {tmp_path}/mine_h.py: did you mean 'read_c"
    ):
        import_named("mine_h:read_cvs", "Reader")
    with pytest.raises(UserError, match="^Reader 'mine_h:zebra' isn't in .*: define it there.$"):
        import_named("mine_h:zebra", "Reader")
    with pytest.raises(
        UserError, match="^Reader 'mine_h:read_size' in .*/mine_h.py is of type int: give the name of a"
    ):
        import_named("mine_h:read_size", "Reader")
