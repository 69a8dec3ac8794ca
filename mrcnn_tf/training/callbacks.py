"""The Keras callbacks of a run: they evaluate, end training early or upon a signal, and write history and weights."""

import contextlib
import math
import os
import pathlib
import signal
import threading

import keras

from mrcnn_tf.common.files import atomic_write, write_json
from mrcnn_tf.common.problems import print_line
from mrcnn_tf.evaluation.evaluate_model import CocoAP
from mrcnn_tf.training.optimizer import averaged_weights
from mrcnn_tf.training.snapshot import library_versions, snapshot

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what clusters send before they end a job
STOPPING = b"\nStopping when this step or evaluation is done; once more to stop at once.\n"


class EvaluateAveragedWeights(CocoAP):
    """CocoAP of the averages of the weights, where the optimizer keeps them."""

    def on_epoch_end(self, epoch, logs=None):
        with averaged_weights(self.model):
            super().on_epoch_end(epoch, logs)


class SaveHistory(keras.callbacks.Callback):
    """Keeps losses and metrics by name for each epoch, with "epoch" from 1, in the list `epochs`; writes it after each.

    Args:
        path: of the json file; None writes none.
        earlier: the epochs before this process, from the checkpoint that it goes on from.
    """

    def __init__(self, path, earlier=()):
        super().__init__()
        self.path, self.epochs = path and pathlib.Path(path), list(earlier)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({"epoch": epoch + 1} | {name: float(value) for name, value in (logs or {}).items()})
        if self.path is None:
            return
        try:
            write_json(self.epochs, self.path, indent=1)
        except OSError as error:
            print_line(
                f"Warning: {self.path} couldn't be written ({error.strerror or error}), the next epoch tries again: "
                "free some space or allow writing there."
            )


def should_stop_early(history, monitor, patience):
    """Whether the last `patience` evaluations (None: never) have all missed the best value before them.

    It follows from the history, a dictionary of metrics for each epoch, alone, so a run that was interrupted decides as
    one that wasn't. Epochs without the metric `monitor`, which should rise, weren't evaluated and don't count.
    """
    values = [epoch[monitor] for epoch in history if epoch.get(monitor) is not None]
    if patience is None or not values:
        return False
    return len(values) - 1 - values.index(max(values)) >= patience


class EarlyStopping(keras.callbacks.Callback):
    """Ends `fit` after an epoch for which `should_stop_early` says so; the `SaveHistory` must come before it."""

    def __init__(self, history, monitor, patience):
        super().__init__()
        self.history, self.monitor, self.patience = history, monitor, patience

    def on_epoch_end(self, epoch, logs=None):
        if should_stop_early(self.history.epochs, self.monitor, self.patience):
            self.model.stop_training = True


class SaveBest(keras.callbacks.Callback):
    """Saves the model, or its averaged weights, after an epoch in which a metric beat its best; never half a file.

    Args:
        path: ends in .keras.
        monitor: a metric of the logs that should be high, such as "val_segm_AP".
        earlier: the metrics of the epochs before this process, as in `SaveHistory.epochs`.
    """

    def __init__(self, path, monitor, earlier=()):
        super().__init__()
        self.path, self.monitor = pathlib.Path(path), monitor
        self.best = max((epoch.get(monitor, -math.inf) for epoch in earlier), default=-math.inf)

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.monitor)
        if value is None or value <= self.best:
            return
        self.best = value
        try:
            with averaged_weights(self.model), atomic_write(self.path) as temporary:
                self.model.save(temporary)
        except OSError as error:
            print_line(
                f"Warning: {self.path} couldn't be written ({error.strerror or error}) and training goes on; the best "
                "checkpoint has the same weights: free some space or allow writing there."
            )


class SaveCheckpoints(keras.callbacks.Callback):
    """Hands a checkpoint to `Checkpoints` every so many steps and after each epoch; the last callback but the stop.

    Args:
        checkpoints: a `Checkpoints`.
        every: steps between two.
        config: of the run, a nested dictionary.
        history, logger: the run's `SaveHistory` and `LogMetrics`, which counts the steps and must come before this.
        epoch_steps: steps of an epoch.
        writes: whether this process is the one that writes; the state must be read by all of them.
    """

    def __init__(self, checkpoints, every, config, history, logger, epoch_steps, writes=True):
        super().__init__()
        self.checkpoints, self.every, self.config, self.history = checkpoints, every, config, history
        self.logger, self.epoch_steps, self.writes = logger, epoch_steps, writes
        self.saved_step = logger.step

    def on_train_batch_end(self, batch, logs=None):
        # An epoch's last step is saved after the evaluation, whose metrics belong to it.
        if self.logger.step % self.every == 0 and self.logger.step % self.epoch_steps:
            self.save({})

    def on_epoch_end(self, epoch, logs=None):
        of_training = {metric.name for metric in self.model.metrics}
        self.save({name: float(value) for name, value in (logs or {}).items() if name not in of_training})

    def save(self, metrics):
        """Save the state after the last step, a second time only with `metrics`, those of these weights by name."""
        if self.saved_step == self.logger.step and not metrics:
            return
        self.saved_step, arrays = self.logger.step, snapshot(self.model, self.checkpoints.reclaim())
        if not self.writes:
            return
        facts = {
            "step": self.saved_step,
            "version": library_versions(),
            "config": self.config,
            "figures": metrics,
            "history": list(self.history.epochs),
            "measure": dict(self.logger.state),
        }
        self.checkpoints.save(arrays, facts)


class Interrupted(Exception):
    """Training was asked to stop and stands between two steps.

    Attributes:
        signal_name: such as "SIGINT".
        exit_code: what a program that was ended by this signal returns: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, signal_number):
        self.signal_name = signal.Signals(signal_number).name
        self.exit_code = 128 + signal_number
        super().__init__(f"{self.signal_name} asked training to stop.")


class StopAfterStep(keras.callbacks.Callback):
    """Raises `Interrupted` out of `fit` after the step in which a signal came; to be used inside `signals()`.

    It has to be the last callback: those after it would miss the end of that step.
    """

    def __init__(self):
        super().__init__()
        self.received = None

    def on_train_batch_end(self, batch, logs=None):
        if self.received is not None:
            raise Interrupted(self.received)

    on_epoch_end = on_train_batch_end  # a signal may come during the evaluation, too

    @contextlib.contextmanager
    def signals(self):
        """Catch SIGINT and SIGTERM in the block; the second of them has its usual effect.

        Outside of the main thread, where Python can't catch signals, it does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.getsignal(number) for number in SIGNALS}

        def restore_handlers():
            for number, handler in handlers.items():
                signal.signal(number, handler)

        def receive(number, frame):
            self.received = number
            restore_handlers()
            os.write(2, STOPPING)  # print could be what the signal interrupted

        for number in SIGNALS:
            signal.signal(number, receive)
        try:
            yield
        finally:
            restore_handlers()
