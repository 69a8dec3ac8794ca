"""Signals during training."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from mrcnn_tf.training.callbacks import Interrupted, StopAfterStep

SCRIPT = """
import time
from mrcnn_tf.training.callbacks import StopAfterStep
with StopAfterStep().signals():
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_step_that_runs_is_finished(number, capfd):
    stop, done = StopAfterStep(), []
    with pytest.raises(Interrupted) as caught, stop.signals():
        for step in range(3):
            if step == 1:
                os.kill(os.getpid(), number)
            done.append(step)
            stop.on_train_batch_end(step)
    assert done == [0, 1]
    assert (caught.value.signal_name, caught.value.exit_code) == (number.name, 128 + number)
    assert capfd.readouterr().err.count("once more to stop at once") == 1


@pytest.fixture
def heeded():
    """Processes in the background may start with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_second_interrupt_is_pythons_own(heeded):
    with pytest.raises(KeyboardInterrupt), StopAfterStep().signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_the_second_signal_ends_the_process():
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        while b"once more" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopAfterStep().signals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_no_signal_no_stop():
    stop = StopAfterStep()
    stop.on_train_batch_end(0)
    stop.received = signal.SIGINT
    with pytest.raises(Interrupted):
        stop.on_epoch_end(0)


def test_another_thread_trains_without_it():
    failures = []

    def train():
        try:
            with StopAfterStep().signals():
                pass
        except ValueError as error:  # what signal.signal raises there
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert not failures
