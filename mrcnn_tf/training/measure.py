"""What a run tells of itself on the way: losses, learning rate, speed and figures of evaluations by step."""

import time

import keras

from mrcnn_tf.common.problems import CONSOLE
from mrcnn_tf.model.metrics import ImagesPerSecond, InputWait


class Measure(keras.callbacks.Callback):
    """Makes a record every `log_steps` steps and after each epoch, and hands it to the writers.

    A record has `step`, `epoch` (from 1), `time` (seconds since 1970) and, over the steps since the record before, the
    mean of each loss, `images_per_second` and `input_wait` (the share of the time that went into waiting for batches);
    `learning_rate` is that of the next step. The one after an epoch has besides what other callbacks put into the
    epoch's logs, such as CocoAP's figures, so they must come before this one; it has no losses if the step before it
    was recorded.

    Only the first of several hosts needs it: on a writer's OSError it warns once and training goes on.

    Args:
        writers: objects with `write(record)`.
        log_steps: steps between records.
        step: how many steps the run has behind it.
        state: the `state` of the run that goes on, from the checkpoint of that step. The sums behind the losses have
            to be restored, too, after Keras has cleared them (see `snapshot.RestoreLosses`).

    Attributes:
        state: what a checkpoint has to keep for the next records to come out as without an interruption, as json.
        last: the last record.
    """

    def __init__(self, writers, log_steps=20, step=0, state=None):
        super().__init__()
        self.writers, self.log_steps, self.step = list(writers), log_steps, step
        self.state = dict(state or {})  # {name: (sum, weight) since the epoch's begin, at the last record}
        self.last = {}
        self._epoch, self._pending, self._failed = 0, 0, set()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1
        # The clocks start anew in a resumed epoch, and all sums do where the run was stopped at an epoch's last step.
        now = {name: _sums(tracker) for name, tracker in _trackers(self.model).items()}
        self.state = {name: sums for name, sums in self.state.items() if name in now and sums[1] <= now[name][1]}

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self._pending += 1
        if self.step % self.log_steps == 0:
            self._record({})

    def on_epoch_end(self, epoch, logs=None):
        known = _trackers(self.model)
        figures = {name: float(value) for name, value in (logs or {}).items() if name not in known}
        if figures or self._pending:
            self._record(figures)
        self.state = {}  # Keras clears the sums before the next epoch

    def _record(self, figures):
        record = {"step": self.step, "epoch": self._epoch, "time": round(time.time(), 3)}
        if self._pending:
            rate = float(f"{float(self.model.optimizer.learning_rate):.7g}")  # 0.005 and not 0.004999999888
            record |= self._since_last() | {"learning_rate": rate}
        self._pending, self.last = 0, record | figures
        for writer in self.writers:
            try:
                writer.write(self.last)
            except OSError as error:
                self._warn(writer, error)

    def _since_last(self):
        """Means since the last record, as differences of the sums since the epoch's begin."""
        means = {}
        for name, tracker in _trackers(self.model).items():
            total, weight = _sums(tracker)
            before = self.state.get(name, (0.0, 0.0))
            if weight > before[1]:
                means[name] = (total - before[0]) / (weight - before[1])
            self.state[name] = (total, weight)
        return means

    def _warn(self, writer, error):
        if type(writer) not in self._failed:
            self._failed.add(type(writer))
            CONSOLE.print(
                f"Warning: {error.filename or 'The log'} couldn't be written ({error.strerror or error}), and training "
                "goes on without those lines: free some space or allow writing there.",
                markup=False,
                soft_wrap=True,
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
