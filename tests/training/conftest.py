"""A run that nothing happens to, which others are held against."""

import pytest
from runs import finish, start, write_config

from mrcnn_tf.datasets.shapes import Look, make_shapes


@pytest.fixture(scope="session")
def run_config(tmp_path_factory):
    """The path of a training run's config: eight steps of four images, two epochs, everything that has a state."""
    folder = tmp_path_factory.mktemp("run_data")
    look = Look(kinds=("cross", "arrow"))
    return write_config(folder, make_shapes(folder / "a", 10, 0, 64, look), make_shapes(folder / "b", 3, 1, 64, look))


@pytest.fixture(scope="session")
def uncut(run_config, tmp_path_factory):
    """The folder of a run from beginning to end in one process."""
    out = tmp_path_factory.mktemp("uncut") / "run"
    finish(start(run_config, out))
    return out
