import pytest
from sound_dataset import Dataset


@pytest.fixture
def dataset(tmp_path):
    return Dataset(tmp_path)
