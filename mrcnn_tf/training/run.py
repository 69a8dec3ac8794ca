"""`model.fit` from one step of a run to its end, with everything that is written and said on the way."""

import dataclasses
import time

import keras
import tensorflow as tf
import yaml

from mrcnn_tf.common.errors import NonFiniteLoss, UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.datasets.read_coco import source_name
from mrcnn_tf.ops.replicas import workers
from mrcnn_tf.training.callbacks import (
    EarlyStopping,
    EvaluateAverages,
    History,
    Interrupted,
    SaveBest,
    SaveCheckpoints,
    StopAfterStep,
    averaged,
    out_of_patience,
)
from mrcnn_tf.training.logs import EventFile, LogFile, Measure
from mrcnn_tf.training.pictures import Predictions
from mrcnn_tf.training.plan import TimeLeft, plan_lines
from mrcnn_tf.training.snapshot import RestoreLosses
from mrcnn_tf.training.strategy import distributed, is_chief, lost_worker


class Run:
    """What one process does of a run.

    Every process of a run on several hosts evaluates and reads the same figures, since reading them takes all of them;
    only the first one writes.

    Args:
        config: the `Config`.
        folder: pathlib.Path of the run's files.
        model: compiled, in the state of the step to go on from.
        data: a `TrainingData`.
        checkpoints: a `Checkpoints`.
        arrays, facts: the checkpoint to go on from, empty for a new run.

    Attributes:
        clock: its `seconds` are the wall time of the training steps.
        history: the `History`.
        judge: its `results` are of the last evaluation.
    """

    def __init__(self, config, folder, model, data, checkpoints, arrays, facts):
        self.config, self.folder, self.model, self.data = config, folder, model, data
        self.checkpoints, self.arrays, self.facts = checkpoints, arrays, facts
        self.strategy = model.distribute_strategy
        self.chief = is_chief(self.strategy)
        self.step = facts.get("step", 0)
        self.epoch_steps = min(config.train.epoch_steps or data.steps_per_pass, config.train.steps)
        self.epochs = -(-config.train.steps // self.epoch_steps)
        self.clock, self.stop = _Clock(), StopAfterStep()
        self.history = History(folder / "history.json" if self.chief else None, facts.get("history", ()))
        self.judge = EvaluateAverages(config.data.val, verbose=int(self.chief))

    def fit(self, verbose):
        """Trains to the last step and writes the model.

        Args:
            verbose: as in keras.Model.fit.

        Raises: see `trainer.train`.
        """
        if self.chief:
            with atomic_write(self.folder / "config.yaml") as file:
                tree = dataclasses.asdict(self.config)
                file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        if verbose and self.chief:
            replicas = self.strategy.num_replicas_in_sync
            for line in plan_lines(self.model, self.config, self.data.images, replicas, self.step):
                print(line)
        self.saver, callbacks = self._callbacks(verbose)
        try:
            with self.stop.signals():
                self._fit(callbacks, verbose)
        except NonFiniteLoss:
            self._save_model()
            raise
        except Interrupted:
            self._save_state()
            self._save_model()
            raise
        except tf.errors.OpError as error:
            explained = self._explained(error)
            if explained is None:
                raise
            raise explained from error
        self._save_model()
        self.checkpoints.close()

    def _fit(self, callbacks, verbose):
        """Keras's epochs are all of one length, so the rest of one that was begun before is a `fit` of its own."""
        begun, done = divmod(self.step, self.epoch_steps)
        if begun > len(self.history.epochs):  # it was interrupted between the epoch's last step and the evaluation
            ended = keras.callbacks.CallbackList(callbacks, model=self.model)
            self.clock.on_epoch_begin(begun - 1)
            ended.on_epoch_end(begun - 1, self.model.get_metrics_result())
        if out_of_patience(self.history.epochs, self.checkpoints.figure, self.config.train.patience):
            return
        if done:
            self._fit_epochs(begun, begun + 1, self.epoch_steps - done, callbacks, verbose)
            begun += 1
        if begun < self.epochs and not self.model.stop_training:
            self._fit_epochs(begun, self.epochs, self.epoch_steps, callbacks, verbose)

    def _fit_epochs(self, first, end, steps, callbacks, verbose):
        start = (first + 1) * self.epoch_steps - steps
        data = distributed(self.strategy, lambda share: self.data.stream(start, share), self.config.train.accumulate)
        self.model.fit(
            data, initial_epoch=first, epochs=end, steps_per_epoch=steps, callbacks=callbacks, verbose=verbose
        )

    def _callbacks(self, verbose):
        """(the one that saves checkpoints, all of them in their order)."""
        train, val, step = self.config.train, self.config.data.val, self.step
        figure = self.checkpoints.figure
        writers, events = [], None
        if self.chief:
            events = EventFile(self.folder / "tensorboard", step)
            writers = [LogFile(self.folder / "log.jsonl", step), events]
        measure = Measure(writers, train.log_steps, step, self.facts.get("measure"))
        tree = dataclasses.asdict(self.config)
        saver = SaveCheckpoints(
            self.checkpoints, train.checkpoint_steps, tree, self.history, measure, step, self.epoch_steps, self.chief
        )
        callbacks = [self.clock]
        if step % self.epoch_steps:
            callbacks.append(RestoreLosses(self.arrays))
        if source_name(val):
            callbacks.append(self.judge)
            if self.chief:
                callbacks.append(SaveBest(self.folder / "best.keras", figure, self.history.epochs))
        callbacks += [self.history, EarlyStopping(self.history, figure, train.patience), measure]
        if source_name(val) and self.chief:
            callbacks.append(Predictions(events, val, measure))
        if verbose and self.chief:
            callbacks.append(TimeLeft(self.epochs * self.epoch_steps, step))
        return saver, [*callbacks, saver, self.stop]

    def _save_model(self):
        if not self.chief:
            return
        path = self.folder / "model.keras"
        try:
            with averaged(self.model), atomic_write(path) as file:
                self.model.save(file)
        except OSError as error:
            raise UserError(
                f"{path} couldn't be written ({error.strerror or error}), and the last checkpoint has its weights: "
                "free some space or allow writing there, then run again with --resume."
            ) from error

    def _save_state(self):
        """A checkpoint of the last step. On several hosts that would take all of them, so there the last one counts."""
        if workers(self.strategy)[1] == 1:
            self.saver.save({})
            self.checkpoints.close()

    def _explained(self, error):
        """The UserError for what went wrong outside of the program, with the state saved; None for any other error."""
        sentence = lost_worker(error, self.strategy)
        if sentence:
            return UserError(sentence)
        fault = self.data.input_error(error, self.saver.step)
        if fault:
            self._save_state()
        return fault


class _Clock(keras.callbacks.Callback):
    """Adds up the wall time of the epochs; as the first callback it stops before the others evaluate and save."""

    def __init__(self):
        super().__init__()
        self.seconds = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter() - self.started
