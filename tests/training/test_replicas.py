"""Training on several replicas is training on one. In processes of their own: a process has one set of devices."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
TOLERANCE = 1e-5
EQUAL = {"accumulated": 2, "sync_bn": 2, "of_keras": 2, "semantic": 2, "overflow": 4}  # replicas, held against one
# Processes that run at once: replicas and scenarios.
RUNS = ((1, EQUAL), (2, ("accumulated", "sync_bn")), (2, ("of_keras", "semantic", "float16")), (4, ("overflow",)))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{(scenario, replicas): the weights, losses and counts that a scenario of replicas.py ends with}."""
    folder = tmp_path_factory.mktemp("replicas")
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "replicas.py")]
    processes = [
        subprocess.Popen(
            [*command, str(replicas), str(folder), *scenarios],
            env=os.environ | {"PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for replicas, scenarios in RUNS
    ]
    for process in processes:
        complaints = process.communicate()[1]
        assert process.returncode == 0, complaints[-2000:]
    runs = {}
    for replicas, scenarios in RUNS:
        for scenario in scenarios:
            with np.load(folder / f"{scenario}-{replicas}.npz") as arrays:
                runs[scenario, replicas] = dict(arrays)
    return runs


@pytest.mark.parametrize("scenario, replicas", EQUAL.items())
def test_replicas_with_a_part_of_the_batch_each_are_one_with_all_of_it(results, scenario, replicas):
    single, several = results[scenario, 1], results[scenario, replicas]
    assert several.keys() == single.keys()
    assert single["moved"] > 100 * TOLERANCE
    for name, values in single.items():
        np.testing.assert_allclose(several[name], values, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def test_every_step_moves_the_weights_and_an_accumulated_step_takes_two_batches(results):
    assert int(results["accumulated", 1]["steps"]) == int(results["sync_bn", 1]["steps"]) == 3


def test_a_step_whose_gradient_is_infinite_on_one_replica_is_skipped_on_all(results):
    several = results["overflow", 4]
    assert int(several["steps"]) == 2  # of three batches
    assert several["scale"] == 2.0**14  # halved once
    assert all(np.isfinite(values).all() for values in several.values())


def test_three_images_are_detected_in_once_each_on_two_replicas(results):
    names = {name for name in results["accumulated", 2] if name.startswith("boxes/")}
    assert names == {"boxes/0", "boxes/1", "boxes/2"}


def test_float16_trains_on_two_replicas(results):
    halves = results["float16", 2]
    assert all(np.isfinite(values).all() for values in halves.values())
    assert halves["steps"] >= 1
