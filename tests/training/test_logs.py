"""The records of a run, and the log file they go to."""

import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.trainable import ImagesPerSecond, InputWait
from mrcnn_tf.training.logs import LogFile, LogMetrics, read_log

STEPS = 7  # of an epoch
CLOCKS = ("time", "images_per_second", "input_wait")


class Listener:
    """A writer that keeps what it is given."""

    def __init__(self):
        self.records = []

    def write(self, record):
        self.records.append(record)


class Broken:
    """A writer on a full disk."""

    def write(self, record):
        raise OSError(28, "No space left on device", "log.jsonl")


def loss_of(step):
    """An own one for each step, a multiple of 1/8, so that sums are exact."""
    return (step * 37 % 11) / 8


class Rehearsal:
    """Calls callbacks as `fit` does, with a model whose loss is `loss_of` and whose steps take two seconds."""

    def __init__(self, callbacks, step=0):
        self.loss, self.speed, self.wait = keras.metrics.Mean("loss"), ImagesPerSecond(), InputWait()
        self.step, self.callbacks = step, callbacks
        self.model = types.SimpleNamespace(
            loss_trackers={"loss": self.loss},
            metrics=[self.loss, self.speed, self.wait],
            optimizer=types.SimpleNamespace(learning_rate=tf.constant(0.5)),
            stop_training=False,
        )
        for callback in callbacks:
            callback.set_model(self.model)

    def steps(self, number):
        for _ in range(number):
            self.step += 1
            self.loss.update_state(loss_of(self.step))
            self.speed.update_state(8, 2.0 * self.step)
            self.wait.update_state(0.5, 2.0 * self.step)
            for callback in self.callbacks:
                callback.on_train_batch_end(0)

    def begin(self, epoch):
        for metric in self.model.metrics:
            metric.reset_state()
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch)

    def end(self, epoch, **figures):
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, {"loss": float(self.loss.result())} | figures)

    def epoch(self, epoch):
        self.begin(epoch)
        self.steps(STEPS)
        self.end(epoch, val_segm_AP=0.1 * (epoch + 1))


def without_clocks(records):
    return [{name: value for name, value in record.items() if name not in CLOCKS} for record in records]


def test_records_average_over_the_steps_since_the_one_before():
    listener = Listener()
    rehearsal = Rehearsal([LogMetrics([listener], log_steps=3)])
    rehearsal.epoch(0)
    rehearsal.epoch(1)
    assert [(record["step"], record["epoch"]) for record in listener.records] == [
        (3, 1), (6, 1), (7, 1), (9, 2), (12, 2), (14, 2),
    ]  # fmt: skip
    spans = [(1, 3), (4, 6), (7, 7), (8, 9), (10, 12), (13, 14)]
    for record, (first, last) in zip(listener.records, spans, strict=True):
        assert record["loss"] == np.mean([loss_of(step) for step in range(first, last + 1)])
        assert record["learning_rate"] == 0.5
        assert record["images_per_second"] == pytest.approx(4.0) and record["input_wait"] == pytest.approx(0.25)
    assert [record.get("val_segm_AP") for record in listener.records] == [None, None, 0.1, None, None, 0.2]


def test_an_epoch_that_ends_with_a_record_has_its_figures_besides():
    listener = Listener()
    Rehearsal([LogMetrics([listener], log_steps=STEPS)]).epoch(0)
    assert [sorted(record) for record in listener.records] == [
        ["epoch", "images_per_second", "input_wait", "learning_rate", "loss", "step", "time"],
        ["epoch", "step", "time", "val_segm_AP"],
    ]


@pytest.mark.parametrize("stopped", [STEPS + 1, STEPS + 3, STEPS + 5])
def test_a_run_that_was_cut_has_the_same_records(stopped):
    whole = Listener()
    rehearsal = Rehearsal([LogMetrics([whole], log_steps=3)])
    for epoch in range(3):
        rehearsal.epoch(epoch)

    cut = Listener()
    measure = LogMetrics([cut], log_steps=3)
    rehearsal = Rehearsal([measure])
    rehearsal.epoch(0)
    rehearsal.begin(1)
    rehearsal.steps(stopped - STEPS)
    state = json.loads(json.dumps(measure.state))
    sums = [variable.numpy() for variable in rehearsal.loss.variables]

    class Restored(keras.callbacks.Callback):  # as RestoreLosses does
        def on_epoch_begin(self, epoch, logs=None):
            for variable, value in zip(rehearsal.loss.variables, sums, strict=True):
                variable.assign(value)

    rehearsal = Rehearsal([Restored(), LogMetrics([cut], log_steps=3, step=stopped, state=state)], step=stopped)
    rehearsal.begin(1)
    rehearsal.callbacks.pop(0)
    rehearsal.steps(2 * STEPS - stopped)
    rehearsal.end(1, val_segm_AP=0.2)
    rehearsal.epoch(2)
    assert without_clocks(cut.records) == without_clocks(whole.records)
    # The first step of a process or epoch starts the clocks, and is no time by itself.
    speeds = [record["images_per_second"] for record in cut.records if "images_per_second" in record]
    assert len(speeds) >= 6 and speeds == pytest.approx([4.0] * len(speeds))


def test_a_run_that_was_cut_at_the_last_step_of_an_epoch_begins_the_next_at_nothing():
    first, second = LogMetrics([], log_steps=3), Listener()
    rehearsal = Rehearsal([first])
    rehearsal.begin(0)
    rehearsal.steps(STEPS)  # and no end
    Rehearsal([LogMetrics([second], log_steps=3, step=STEPS, state=first.state)], step=STEPS).epoch(1)
    assert second.records[0]["loss"] == np.mean([loss_of(8), loss_of(9)])


def test_a_writer_that_fails_is_named_once(capsys):
    listener = Listener()
    Rehearsal([LogMetrics([Broken(), listener], log_steps=1)]).epoch(0)
    assert len(listener.records) == STEPS + 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "log.jsonl" in said and "No space left on device" in said


def test_a_log_file_is_cut_where_the_run_goes_on(tmp_path):
    path = tmp_path / "run" / "log.jsonl"
    log = LogFile(path)
    for step in range(1, 6):
        log.write({"step": step, "loss": float("inf") if step == 2 else step / 4})
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')
    assert [record["step"] for record in read_log(path)] == [1, 2, 3, 4, 5]
    LogFile(path, 3).write({"step": 4, "loss": 9.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 0.25}, {"step": 2, "loss": None}, {"step": 3, "loss": 0.75}, {"step": 4, "loss": 9.0},
    ]  # fmt: skip
    LogFile(path)
    assert path.read_text() == "" and [entry.name for entry in path.parent.iterdir()] == ["log.jsonl"]


def test_a_line_after_one_that_failed_stands_alone(tmp_path, monkeypatch):
    log = LogFile(tmp_path / "log.jsonl")
    log.write({"step": 1})
    (tmp_path / "log.jsonl").open("a").write('{"step": 2, "lo')  # as far as the disk took it
    monkeypatch.setattr(log, "_torn", True)
    log.write({"step": 3})
    assert [record["step"] for record in read_log(log.path)] == [1, 3]
