"""Training on several replicas is training on one: processes with logical devices, since one process can have one set."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
TOLERANCE = 1e-5
CLOSE = ("plain", "clipped_average", "accumulated", "frozen_bn", "sync_bn", "of_keras")


def run(replicas, scenario, folder):
    """The weights, losses and counts that a scenario of replicas.py ends with."""
    out = folder / f"{scenario}-{replicas}.npz"
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "replicas.py"), str(replicas), scenario, str(out)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(out) as arrays:
        return dict(arrays)


def compare(several, single):
    assert several.keys() == single.keys()
    for name, values in single.items():
        np.testing.assert_allclose(several[name], values, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("scenario", CLOSE)
def test_two_replicas_with_half_a_batch_each_are_one_with_the_whole_batch(scenario, tmp_path):
    single = run(1, scenario, tmp_path)
    assert int(single["steps"]) == 3
    compare(run(2, scenario, tmp_path), single)


def test_so_are_four(tmp_path):
    compare(run(4, "clipped_average", tmp_path), run(1, "clipped_average", tmp_path))


def test_a_step_whose_gradient_is_infinite_on_one_replica_is_skipped_on_all(tmp_path):
    single, several = run(1, "overflow", tmp_path), run(2, "overflow", tmp_path)
    assert int(single["steps"]) == int(several["steps"]) == 2  # of three batches
    assert several["scale"] == 2.0**14  # halved once
    assert all(np.isfinite(values).all() for values in several.values())
    compare(several, single)


def test_float16_trains_on_two_replicas(tmp_path):
    found = run(2, "float16", tmp_path)
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["steps"] >= 1
