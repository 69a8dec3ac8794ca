import pytest
from made_up import Folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)
