"""Records of a run by step: losses, learning rate, speed and the metrics of evaluations; and their log file."""

import json
import math
import pathlib
import time

import keras

from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.problems import print_line
from mrcnn_tf.model.trainable import ImagesPerSecond, InputWait


class LogMetrics(keras.callbacks.Callback):
    """Makes a record every `log_steps` steps and after each epoch, and hands it to the writers.

    A record has `step`, `epoch` (from 1), `time` (seconds since 1970) and, over the steps since the record before, the
    mean of each loss, `images_per_second` and `input_wait` (the share of the time that went into waiting for batches);
    `learning_rate` is that of the next step. The one after an epoch has besides what other callbacks put into the
    epoch's logs, such as CocoAP's metrics, so they must come before this one; it has no losses if the step before it
    was recorded.

    Only the first of several hosts needs it: on a writer's OSError it warns once and training goes on.

    Args:
        writers: objects with `write(record)`.
        log_steps: steps between records.
        step: how many steps the run has done.
        state: the `state` of the run that goes on, from the checkpoint of that step. The sums behind the losses have
            to be restored, too, after Keras has cleared them (see `RestoreLosses`).

    Attributes:
        state: what a checkpoint has to keep for the next records to come out as without an interruption, as json.
    """

    def __init__(self, writers, log_steps=20, step=0, state=None):
        super().__init__()
        self.writers, self.log_steps, self.step = list(writers), log_steps, step
        self.state = dict(state or {})  # {name: (sum, weight) since the epoch's begin, at the last record}
        self._epoch, self._steps_since_record, self._failed = 0, 0, set()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1
        # The clocks start anew in a resumed epoch, and all sums do where the run was stopped at an epoch's last step.
        now = {name: _sums(tracker) for name, tracker in _trackers(self.model).items()}
        self.state = {name: sums for name, sums in self.state.items() if name in now and sums[1] <= now[name][1]}

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self._steps_since_record += 1
        if self.step % self.log_steps == 0:
            self._record({})

    def on_epoch_end(self, epoch, logs=None):
        tracked = _trackers(self.model)
        metrics = {name: float(value) for name, value in (logs or {}).items() if name not in tracked}
        if metrics or self._steps_since_record:
            self._record(metrics)
        self.state = {}  # Keras clears the sums before the next epoch

    def _record(self, metrics):
        record = {"step": self.step, "epoch": self._epoch, "time": round(time.time(), 3)}
        if self._steps_since_record:
            rate = float(f"{float(self.model.optimizer.learning_rate):.7g}")  # 0.005 and not 0.004999999888
            record |= self._means_since_last() | {"learning_rate": rate}
        self._steps_since_record = 0
        for writer in self.writers:
            try:
                writer.write(record | metrics)
            except OSError as error:
                self._warn(writer, error)

    def _means_since_last(self):
        """Means since the last record, as differences of the sums since the epoch's begin."""
        means = {}
        for name, tracker in _trackers(self.model).items():
            total, weight = _sums(tracker)
            last_total, last_weight = self.state.get(name, (0.0, 0.0))
            if weight > last_weight:
                means[name] = (total - last_total) / (weight - last_weight)
            self.state[name] = (total, weight)
        return means

    def _warn(self, writer, error):
        if type(writer) not in self._failed:
            self._failed.add(type(writer))
            print_line(
                f"Warning: {error.filename or 'The log'} couldn't be written ({error.strerror or error}), and training "
                "goes on without those lines: free some space or allow writing there."
            )


def _trackers(model):
    """The metrics by name whose means are recorded."""
    clocks = {metric.name: metric for metric in model.metrics if isinstance(metric, (ImagesPerSecond, InputWait))}
    return model.loss_trackers | clocks


def _sums(metric):
    """(sum, weight) since the epoch's begin: of a loss and steps, or of what a clock counts and seconds."""
    if isinstance(metric, keras.metrics.Mean):
        return float(metric.total.value.numpy()), float(metric.count.value.numpy())
    return float(metric.count.value.numpy()), float(metric.now.value.numpy() - metric.start.value.numpy())


class LogFile:
    """A file such as log.jsonl with a line of json for each record, each handed to the system before `write` returns.

    Lines of steps later than `step`, the last that the run has done, are cut away (all of them where it is 0), as is
    one that a killed run left unfinished.
    """

    def __init__(self, path, step=0):
        self.path, self._torn = pathlib.Path(path), False
        if self.path.exists():
            with atomic_write(self.path) as temporary, open(temporary, "w", encoding="utf-8") as file:
                file.writelines(line for line, record in _records(self.path) if record["step"] <= step)

    def write(self, record):
        """Append a record, a dictionary of numbers; those that aren't finite become null."""
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = "\n" * self._torn + json.dumps(finite) + "\n"
        self._torn = True  # until all of it is written
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line)
        self._torn = False


def read_log(path):
    """Read the records of a log file, without a line that a killed run left unfinished."""
    return [record for _, record in _records(path)]


def _records(path):
    """(line, record) of each complete line."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "step" in record:
                yield line, record
