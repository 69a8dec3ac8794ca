"""The callbacks of a run that evaluate, and that write weights: as best.keras, and as checkpoints."""

import math
import pathlib

import keras

from mrcnn_tf.common.files import replaced
from mrcnn_tf.common.problems import CONSOLE
from mrcnn_tf.evaluation.callback import CocoAP
from mrcnn_tf.training.averages import averaged
from mrcnn_tf.training.same_run import code_version
from mrcnn_tf.training.snapshot import snapshot


class EvaluateAverages(CocoAP):
    """CocoAP of the averages of the weights, where the optimizer keeps them."""

    def on_epoch_end(self, epoch, logs=None):
        with averaged(self.model):
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
            with averaged(self.model), replaced(self.path) as temporary:
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
            "version": code_version(),
            "config": self.config,
            "figures": figures,
            "history": list(self.history.epochs),
            "measure": dict(self.measure.state),
        }
        self.checkpoints.save(arrays, facts)
