import pytest
from made_up import Folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def faces(folder):
    """Category 7 has three keypoints and 3 two; 9 has none."""
    folder.categories = [
        {"id": 7, "name": "face", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2]]},
        {"id": 3, "name": "stick", "keypoints": ["left", "right"]},
        {"id": 9, "name": "ball"},
    ]
    return folder
