"""The callbacks of a run that evaluate, and that write weights: as best.keras, and as checkpoints."""

import contextlib
import json
import math
import os
import pathlib
import signal
import threading

import keras

from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.problems import CONSOLE
from mrcnn_tf.evaluation.evaluate_model import CocoAP
from mrcnn_tf.training.snapshot import library_versions
from mrcnn_tf.training.snapshot import snapshot

# The running averages of the weights (`train.ema`) in the place of the weights, for evaluation and saving.
#
# Averages over the last steps generalise better than any one of them (Polyak and Juditsky 1992); training itself goes
# on from the weights.
#

@contextlib.contextmanager
def averaged_weights(model):
    """Within it, the model's trained weights are their averages; nothing happens where the optimizer keeps none."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    averages = getattr(optimizer, "averages", [])
    weights = model.trainable_weights if averages else []
    kept = [weight.numpy() for weight in weights]
    for weight, average in zip(weights, averages, strict=True):
        weight.assign(average.numpy())
    try:
        yield
    finally:
        for weight, value in zip(weights, kept, strict=True):
            weight.assign(value)


class EvaluateAveragedWeights(CocoAP):
    """CocoAP of the averages of the weights, where the optimizer keeps them."""

    def on_epoch_end(self, epoch, logs=None):
        with averaged_weights(self.model):
            super().on_epoch_end(epoch, logs)


class SaveBest(keras.callbacks.Callback):
    """Saves the model after an epoch in which a figure beat its best so far; a file is never half written.

    Averages of the weights are what is saved, where the optimizer keeps them.

    Args:
        path: ends in .keras.
        monitor: a figure of the logs that should be high, such as "val_segm_AP".
        earlier: the figures of the epochs before this process, as in `History.epochs`.
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
            CONSOLE.print(
                f"Warning: {self.path} couldn't be written ({error.strerror or error}) and training goes on; the best "
                "checkpoint has the same weights: free some space or allow writing there.",
                markup=False,
                soft_wrap=True,
            )


class SaveCheckpoints(keras.callbacks.Callback):
    """Hands a checkpoint to `Checkpoints` every so many steps and after each epoch; the last of the callbacks.

    Args:
        checkpoints: a `Checkpoints`.
        every: steps between two.
        config: of the run, a nested dictionary.
        history: the run's `History`.
        measure: the run's `Measure`.
        step: how many steps the run has behind it.
        epoch_steps: steps of an epoch.
        writes: whether this process is the one that writes. The state must be read by all of them.
    """

    def __init__(self, checkpoints, every, config, history, measure, step, epoch_steps, writes=True):
        super().__init__()
        self.checkpoints, self.every, self.config = checkpoints, every, config
        self.history, self.measure = history, measure
        self.step, self.epoch_steps, self.writes = step, epoch_steps, writes
        self.saved = step

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        # An epoch's last step is saved after the evaluation, whose figures belong to it.
        if self.step % self.every == 0 and self.step % self.epoch_steps:
            self.save({})

    def on_epoch_end(self, epoch, logs=None):
        names = {metric.name for metric in self.model.metrics}
        self.save({name: float(value) for name, value in (logs or {}).items() if name not in names})

    def save(self, figures):
        """Saves the state after the last step, again only with `figures`, those of these weights by name."""
        if self.saved == self.step and not figures:
            return
        self.saved, arrays = self.step, snapshot(self.model, self.checkpoints.reclaim())
        if not self.writes:
            return
        facts = {
            "step": self.step,
            "version": library_versions(),
            "config": self.config,
            "figures": figures,
            "history": list(self.history.epochs),
            "measure": dict(self.measure.state),
        }
        self.checkpoints.save(arrays, facts)


# Stopping when the figure that matters no longer rises.
#

def should_stop_early(history, figure, patience):
    """Whether the last `patience` evaluations have all missed the best figure before them.

    It follows from the history alone, so a run that was interrupted decides as one that wasn't. Epochs without the
    figure, which weren't evaluated, don't count.

    Args:
        history: a dictionary of figures for each epoch.
        figure: the name of one that should rise, such as "val_segm_AP".
        patience: None never stops.
    """
    values = [epoch[figure] for epoch in history if epoch.get(figure) is not None]
    if patience is None or not values:
        return False
    return len(values) - 1 - values.index(max(values)) >= patience


class EarlyStopping(keras.callbacks.Callback):
    """Ends `fit` after an epoch that `out_of_patience` is sorry for.

    Args:
        history: a `History`, which must come before this callback.
        figure: the name of a figure that should rise.
        patience: evaluations.

    Attributes:
        stopped: whether it did.
    """

    def __init__(self, history, figure, patience):
        super().__init__()
        self.history, self.figure, self.patience = history, figure, patience
        self.stopped = False

    def on_epoch_end(self, epoch, logs=None):
        self.stopped = should_stop_early(self.history.epochs, self.figure, self.patience)
        if self.stopped:
            self.model.stop_training = True


# The figures of all epochs so far, as one json file.
#

class SaveHistory(keras.callbacks.Callback):
    """Keeps a dictionary of losses and figures for each epoch and writes their list after each.

    Args:
        path: of the json file; None writes none.
        earlier: the epochs before this process, from the checkpoint that it goes on from.

    Attributes:
        epochs: a list of dictionaries by name, with "epoch" from 1.
    """

    def __init__(self, path, earlier=()):
        super().__init__()
        self.path, self.epochs = path and pathlib.Path(path), list(earlier)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({"epoch": epoch + 1} | {name: float(value) for name, value in (logs or {}).items()})
        if self.path is None:
            return
        try:
            with atomic_write(self.path) as file:
                file.write_text(json.dumps(self.epochs, indent=1), encoding="utf-8")
        except OSError as error:
            CONSOLE.print(
                f"Warning: {self.path} couldn't be written ({error.strerror or error}), the next epoch tries again: "
                "free some space or allow writing there.",
                markup=False,
                soft_wrap=True,
            )


# Ctrl-C and the termination signal of a cluster: the step that runs is finished, then training ends.
#

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAID = b"\nStopping when this step or evaluation is done; once more to stop at once.\n"


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
        self.check()

    def on_epoch_end(self, epoch, logs=None):
        self.check()

    def check(self):
        """Raises `Interrupted` if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    @contextlib.contextmanager
    def signals(self):
        """Catches SIGINT and SIGTERM in the block; the second of them has its usual effect.

        Outside of the main thread, where Python can't catch signals, it does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number, frame):
            self.received = number
            for each, handler in before.items():
                signal.signal(each, handler)
            os.write(2, SAID)  # print could be what the signal interrupted

        for number in SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
