"""Signals during training, the history of its epochs, and the decision to stop early."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from mrcnn_tf.training.callbacks import EarlyStopping, Interrupted, SaveHistory, StopAfterStep, should_stop_early

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


def test_history_goes_on_from_the_epochs_before(tmp_path):
    history = SaveHistory(tmp_path / "history.json", [{"epoch": 1, "loss": 2.0}])
    history.on_epoch_end(1, {"loss": np.float32(0.5), "val_segm_AP": 0.25})
    assert json.loads((tmp_path / "history.json").read_text()) == [
        {"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 0.5, "val_segm_AP": 0.25},
    ]  # fmt: skip
    quiet = SaveHistory(None)
    quiet.on_epoch_end(0, {"loss": 1.0})
    assert quiet.epochs == [{"epoch": 1, "loss": 1.0}]


def test_a_history_that_cannot_be_written_stops_nothing(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    SaveHistory(tmp_path / "file" / "history.json").on_epoch_end(0, {})
    assert "history.json couldn't be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "patience", "stops"),
    [
        ([0.1, 0.2, 0.2, 0.1], 2, True),  # to equal the best isn't to beat it
        ([0.1, 0.2, 0.2], 2, False),
        ([0.1, 0.3, 0.2, 0.25, 0.31], 3, False),
        ([0.1, 0.3, None, 0.2, None, 0.25], 3, False),
        ([0.1, 0.3, None, 0.2, None, 0.25], 2, True),
        ([0.5, 0.1], None, False),
        ([None, None], 1, False),
        ([], 1, False),
    ],
)
def test_patience_counts_evaluations_since_the_best(values, patience, stops):
    history = [{"epoch": index} | ({} if value is None else {"AP": value}) for index, value in enumerate(values)]
    assert should_stop_early(history, "AP", patience) is stops


def test_early_stopping_knows_the_epochs_of_an_earlier_process():
    history = SaveHistory(None, [{"epoch": 1, "val_segm_AP": 0.5}, {"epoch": 2, "val_segm_AP": 0.4}])
    stopping = EarlyStopping(history, "val_segm_AP", 2)
    stopping.set_model(types.SimpleNamespace(stop_training=False))
    for callback in (history, stopping):
        callback.on_epoch_end(2, {"val_segm_AP": 0.3})
    assert stopping.model.stop_training
