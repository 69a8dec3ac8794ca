"""Two processes on the loopback interface train what one does, and a lost one doesn't leave the other waiting."""

import socket
import time

import numpy as np
import pytest
from runs import finish, last_state, signal_at_step, start

TOLERANCE = 2e-5  # after eight steps, whose batches are summed in another order
BOUND = 150  # seconds; TensorFlow asks after silent workers every half minute, three times


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


@pytest.fixture(scope="module")
def two_workers(run_config, tmp_path_factory):
    """(folder of the first, of the second worker, what the first printed when the second was killed, seconds)."""
    folder = tmp_path_factory.mktemp("workers")
    out = folder / "run"
    cluster = free_addresses(2)
    workers = [start(run_config, out, cluster=cluster, index=index) for index in range(2)]
    signal_at_step(workers[0], out, 5, number=0)
    workers[1].kill()
    killed = time.monotonic()
    printed = finish(workers[0], status=2)
    seconds = time.monotonic() - killed
    workers[1].communicate()
    cluster = free_addresses(2)
    workers = [start(run_config, out, "--resume", cluster=cluster, index=index) for index in range(2)]
    said = [finish(worker) for worker in workers]
    return out, printed, seconds, said


def test_they_end_with_the_weights_and_figures_of_a_single_process(two_workers, uncut):
    arrays, facts = last_state(two_workers[0])
    expected, other = last_state(uncut)
    assert facts["step"] == 8 and arrays.keys() == expected.keys()
    for name, values in expected.items():
        if name.startswith("model/") or name.endswith("_average"):
            np.testing.assert_allclose(arrays[name], values, rtol=1e-5, atol=TOLERANCE, err_msg=name)
    assert facts["figures"] == pytest.approx(other["figures"], abs=1e-3)


def test_the_other_worker_ends_with_a_sentence_when_one_is_killed(two_workers):
    last = two_workers[1].strip().splitlines()[-1]
    assert "is gone" in last and "--resume" in last
    assert two_workers[2] < BOUND


def test_the_first_worker_alone_writes_and_shows_progress(two_workers):
    chief, other = two_workers[3]
    assert "Epoch" in chief and "Epoch" not in other
    assert len(list((two_workers[0] / "tensorboard").iterdir())) == 2  # one of each start
