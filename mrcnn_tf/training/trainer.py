"""A training run from a config: data, model, `model.fit`, and the files it leaves."""

import dataclasses
import fnmatch
import pathlib
import time

import keras
import tensorflow as tf
import yaml

from mrcnn_tf.common.errors import NonFiniteLoss, UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.config.settings import Config
from mrcnn_tf.data.pipeline import TrainingData
from mrcnn_tf.datasets.read_coco import source_name
from mrcnn_tf.evaluation.evaluate_model import main_metric
from mrcnn_tf.evaluation.ground_truth import explain_missing_ground_truth
from mrcnn_tf.evaluation.results import CocoResults
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.model.precision import dtype_policy
from mrcnn_tf.ops.replicas import worker_rank_and_count
from mrcnn_tf.training.callbacks import (
    EarlyStopping,
    EvaluateAveragedWeights,
    Interrupted,
    SaveBest,
    SaveCheckpoints,
    SaveHistory,
    StopAfterStep,
    should_stop_early,
)
from mrcnn_tf.training.checkpoints import Checkpoints, read_checkpoint
from mrcnn_tf.training.logs import LogFile, LogMetrics
from mrcnn_tf.training.optimizer import averaged_weights, make_optimizer
from mrcnn_tf.training.plan import TimeLeft, plan_lines
from mrcnn_tf.training.snapshot import RestoreLosses, check_same_config, describe_version_change, restore
from mrcnn_tf.training.strategy import describe_lost_worker, distribute_batches, is_chief, make_strategy
from mrcnn_tf.training.tensorboard import EventFile, ShowPredictions


@dataclasses.dataclass
class TrainingRun:
    """The outcome of a run.

    Attributes:
        model: with the last weights, or their averages (train.ema).
        folder: holds `config.yaml`, `model.keras` (those weights), `best.keras` (best by `main_metric`),
            `history.json` (metrics of each epoch), `log.jsonl` (of each few steps), `tensorboard/` and `checkpoints/`.
        seconds: wall time of the training steps of this process, without evaluation and saving.
        history: a list over epochs of the losses and metrics by name.
        results: the `CocoResults` after the last epoch; None without data.val.
    """

    model: MaskRCNN
    folder: pathlib.Path
    seconds: float
    history: list[dict]
    results: CocoResults | None


def train(config: Config, folder, weights=None, resume=False, force=False, verbose="auto"):
    """Train a model as the config says; returns a `TrainingRun`.

    An epoch is `train.epoch_steps` steps, or once through the data, and `train.steps` is rounded up to whole epochs.
    After each one the model is evaluated on data.val, if that is set, and the best is saved; the last at the end.

    A run that was interrupted or killed goes on from its last checkpoint with `resume`, as if nothing had happened:
    what it computes follows from the config and the step. Where TF_CONFIG names several workers, each of them calls
    this with the same config and the same folder, which all of them must see; the first one writes.

    Args:
        config: from `load_config`.
        folder: where the files go; made if missing.
        weights: what to start from, as `MaskRCNN.load_pretrained` takes it; train.weights of the config if None.
        resume: go on from the last checkpoint in the folder, if there is one.
        force: go on even with another config than the checkpoint's.
        verbose: as in keras.Model.fit.

    Raises:
        UserError: nothing to train on, a frozen backbone without weights, weights that don't fit, checkpoints in the
            folder without `resume`, or with another config and without `force`; data that can't be read any more, a
            worker that is gone, or a full disk, after all of which the run can be resumed.
        NonFiniteLoss: a loss became infinite or NaN; `model.keras` holds the weights of the step before.
        Interrupted: SIGINT or SIGTERM came; there is a checkpoint of the step that ran.
    """
    weights = weights or config.train.weights
    _check_data(config)
    strategy = make_strategy(config.train.strategy)
    keras.utils.set_random_seed(config.train.seed)
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    chief = is_chief(strategy)
    folder, verbose = pathlib.Path(folder), verbose if chief else 0
    model = _make_model(config, strategy)
    _check_startable(model, config, weights)
    monitor = main_metric(model, config.data.val)
    checkpoints = Checkpoints(folder / "checkpoints", config.train.keep_checkpoints, monitor, writes=chief)
    arrays, facts = _load_last_checkpoint(checkpoints, config, resume, force)
    data = TrainingData(config.data.train)
    _prepare_model(model, config, None if arrays else weights, verbose)
    if arrays:
        restore(model, arrays, f"The checkpoint of step {facts['step']} in {checkpoints.folder}")
    trainer = Trainer(config, folder, model, data, checkpoints, arrays, facts)
    trainer.fit(verbose)
    return TrainingRun(model, folder, trainer.timer.seconds, trainer.history.epochs, trainer.evaluator.results)


def _check_data(config):
    if not (source_name(config.data.train) or config.data.train.sources):
        raise UserError("The config names no data to train on: set data.train.annotations and data.train.images.")


def _check_startable(model, config, weights):
    """Refuse a model that can't train, or data that it has no use for, before hours are spent on it."""
    train, val = config.data.train, config.data.val
    if model.gives("boxes") and not (train.annotations or train.panoptic or train.records or train.sources):
        raise UserError(
            f"{train.semantic_maps} has classes of pixels and no instances to learn from: set data.train.annotations "
            "too, or train the semantic head alone (model.box_head=null and model.mask_head=null)."
        )
    if source_name(val) and not model.gives("boxes") and not (val.panoptic or val.semantic_maps):
        raise UserError(explain_missing_ground_truth(val, classifies_pixels=True))
    if not weights and getattr(model.features, "needs_weights", False):
        raise UserError(
            "The config freezes a part of the backbone, which would stay random: give weights to start from "
            "(train.weights), or set model.backbone.norm=gn and model.backbone.freeze_at=0 to train from scratch."
        )


def _load_last_checkpoint(checkpoints, config, resume, force):
    """(arrays, facts) to go on from; both empty for a new run."""
    latest = checkpoints.latest()
    if latest is None:
        return {}, {}
    if not resume:
        raise UserError(
            f"{checkpoints.folder.parent} holds a run that got as far as {latest.name}: go on with it by --resume, or "
            "train in another folder (--out)."
        )
    arrays, facts = read_checkpoint(latest)
    for difference in check_same_config(facts, dataclasses.asdict(config), force):
        print(f"Changed since: {difference}")
    if note := describe_version_change(facts):
        print(note)
    return arrays, facts


def _make_model(config, strategy):
    with strategy.scope():
        return MaskRCNN.from_settings(config.model, seed=config.train.seed, dtype=dtype_policy(config.train.precision))


def _prepare_model(model, config, weights, verbose):
    """Load weights, if there are any to start from, and compile."""
    train = config.train
    with model.distribute_strategy.scope():
        if weights:
            model.load_pretrained(weights, map_classes=train.map_classes, verbose=verbose != 0)
        freeze(model, train.freeze)
        model.compile(make_optimizer(config), accumulate=train.accumulate, jit_compile=train.jit_compile)
        model.optimizer.build(model.trainable_weights)


def freeze(model, patterns):
    """Take the weights whose path matches one of the patterns out of training, in a model that isn't compiled yet.

    Patterns such as "backbone/*" or "*/bias" match as a shell matches file names; paths are those inside the model.
    UserError if one matches no weight that is trained.
    """
    weights = {weight.path: weight for weight in model.trainable_weights}
    for pattern in patterns:
        matching = fnmatch.filter(weights, pattern)
        if not matching:
            parts = ", ".join(dict.fromkeys(path.split("/")[0] for path in weights))
            raise UserError(
                f"train.freeze has {pattern!r}, which matches no trained weight: those of {parts} there are."
            )
        for path in matching:
            weights[path].trainable = False


class Trainer:
    """Runs `model.fit` from one step of a run to its end in one process, and writes and prints what belongs to it.

    Every process of a run on several hosts evaluates and gets the same metrics, since that takes all of them; only the
    first one writes. `timer.seconds` is the wall time of the steps, `evaluator.results` are of the last evaluation.

    Args:
        config, folder: the `Config`, and the pathlib.Path of the run's files.
        model: compiled, in the state of the step to go on from.
        data, checkpoints: the `TrainingData` and `Checkpoints`.
        arrays, facts: the checkpoint to go on from, empty for a new run.
    """

    def __init__(self, config, folder, model, data, checkpoints, arrays, facts):
        self.config, self.folder, self.model, self.data = config, folder, model, data
        self.checkpoints, self.arrays, self.facts = checkpoints, arrays, facts
        self.strategy = model.distribute_strategy
        self.chief = is_chief(self.strategy)
        self.step = facts.get("step", 0)
        self.epoch_steps = min(config.train.epoch_steps or data.steps_per_pass, config.train.steps)
        self.epochs = -(-config.train.steps // self.epoch_steps)
        self.timer, self.stop = _Timer(), StopAfterStep()
        self.history = SaveHistory(folder / "history.json" if self.chief else None, facts.get("history", ()))
        self.evaluator = EvaluateAveragedWeights(config.data.val, verbose=int(self.chief))

    def fit(self, verbose):
        """Train to the last step and write the model; errors as in `train`, `verbose` 0 on all hosts but the first."""
        if self.chief:
            with atomic_write(self.folder / "config.yaml") as file:
                settings = dataclasses.asdict(self.config)
                file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        if verbose:
            replicas = self.strategy.num_replicas_in_sync
            for line in plan_lines(self.model, self.config, self.data.images, replicas, self.step):
                print(line)
        self.saver, callbacks = self._make_callbacks(verbose)
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
            user_error = self._explain(error)
            if user_error is None:
                raise
            raise user_error from error
        self._save_model()
        self.checkpoints.close()

    def _fit(self, callbacks, verbose):
        """Fit from the step on; the rest of an epoch is a `fit` of its own, as Keras's epochs are all of one length."""
        epoch, done = divmod(self.step, self.epoch_steps)
        if epoch > len(self.history.epochs):  # it was interrupted between the epoch's last step and the evaluation
            self.timer.on_epoch_begin(epoch - 1)
            callback_list = keras.callbacks.CallbackList(callbacks, model=self.model)
            callback_list.on_epoch_end(epoch - 1, self.model.get_metrics_result())
        if should_stop_early(self.history.epochs, self.checkpoints.monitor, self.config.train.patience):
            return
        if done:
            self._fit_epochs(epoch, epoch + 1, self.epoch_steps - done, callbacks, verbose)
            epoch += 1
        if epoch < self.epochs and not self.model.stop_training:
            self._fit_epochs(epoch, self.epochs, self.epoch_steps, callbacks, verbose)

    def _fit_epochs(self, first, end, steps, callbacks, verbose):
        start, accumulate = (first + 1) * self.epoch_steps - steps, self.config.train.accumulate
        data = distribute_batches(self.strategy, lambda share: self.data.stream(start, share), accumulate)
        self.model.fit(
            data, initial_epoch=first, epochs=end, steps_per_epoch=steps, callbacks=callbacks, verbose=verbose
        )

    def _make_callbacks(self, verbose):
        """(the callback that saves checkpoints, all callbacks in their order)."""
        train, val, step = self.config.train, self.config.data.val, self.step
        monitor = self.checkpoints.monitor
        writers, events = [], None
        if self.chief:
            events = EventFile(self.folder / "tensorboard", step)
            writers = [LogFile(self.folder / "log.jsonl", step), events]
        logger = LogMetrics(writers, train.log_steps, step, self.facts.get("measure"))
        settings = dataclasses.asdict(self.config)
        saver = SaveCheckpoints(
            self.checkpoints, train.checkpoint_steps, settings, self.history, logger, self.epoch_steps, self.chief
        )
        callbacks = [self.timer]
        if step % self.epoch_steps:
            callbacks.append(RestoreLosses(self.arrays))
        if source_name(val):
            callbacks.append(self.evaluator)
            if self.chief:
                callbacks.append(SaveBest(self.folder / "best.keras", monitor, self.history.epochs))
        callbacks += [self.history, EarlyStopping(self.history, monitor, train.patience), logger]
        if source_name(val) and self.chief:
            callbacks.append(ShowPredictions(events, val, logger))
        if verbose:
            callbacks.append(TimeLeft(self.epochs * self.epoch_steps, step))
        return saver, [*callbacks, saver, self.stop]

    def _save_model(self):
        if not self.chief:
            return
        path = self.folder / "model.keras"
        try:
            with averaged_weights(self.model), atomic_write(path) as file:
                self.model.save(file)
        except OSError as error:
            raise UserError(
                f"{path} couldn't be written ({error.strerror or error}), and the last checkpoint has its weights: "
                "free some space or allow writing there, then run again with --resume."
            ) from error

    def _save_state(self):
        """Save a checkpoint of the last step; not on several hosts, where that would take all of them."""
        if worker_rank_and_count(self.strategy)[1] == 1:
            self.saver.save({})
            self.checkpoints.close()

    def _explain(self, error):
        """The UserError for what went wrong outside of the program, with the state saved; None for any other error."""
        if sentence := describe_lost_worker(error, self.strategy):
            return UserError(sentence)
        if user_error := self.data.input_error(error, self.saver.logger.step):
            self._save_state()
        return user_error


class _Timer(keras.callbacks.Callback):
    """Adds up the wall time of the epochs; as the first callback it stops before the others evaluate and save."""

    def __init__(self):
        super().__init__()
        self.seconds = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter() - self.started
