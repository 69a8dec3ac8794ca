"""A whole training run from a config: data, model, `model.fit`, and the files it leaves."""

import dataclasses
import fnmatch
import pathlib

import keras
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import Config
from mrcnn_tf.data.pipeline import TrainingData
from mrcnn_tf.datasets.read_coco import source_name
from mrcnn_tf.evaluation.callback import main_figure
from mrcnn_tf.evaluation.results import CocoResults
from mrcnn_tf.evaluation.truth import nothing_to_evaluate
from mrcnn_tf.model.assembly import dtype_policy
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.training.checkpoint import Checkpoints
from mrcnn_tf.training.optimizer import make_optimizer
from mrcnn_tf.training.run import Run
from mrcnn_tf.training.snapshot import check_same_run, restore, version_note
from mrcnn_tf.training.strategy import is_chief, make_strategy

# Weights that a run leaves as they are, by name.
#

def freeze(model, patterns):
    """Takes the weights whose path matches one of the patterns out of training.

    Args:
        model: not compiled yet.
        patterns: such as "backbone/*" or "*/bias", as a shell matches file names; paths are those inside the model.

    Raises:
        UserError: a pattern matches no weight that is trained.
    """
    weights = {weight.path.split("/", 1)[1]: weight for weight in model.trainable_weights}
    for pattern in patterns:
        matching = fnmatch.filter(weights, pattern)
        if not matching:
            parts = ", ".join(dict.fromkeys(path.split("/")[0] for path in weights))
            raise UserError(
                f"train.freeze has {pattern!r}, which matches no trained weight: those of {parts} there are."
            )
        for path in matching:
            weights[path].trainable = False


@dataclasses.dataclass
class TrainingRun:
    """What a run left.

    Attributes:
        model: with the last weights, or their averages (train.ema).
        folder: holds `config.yaml`, `model.keras` (those weights), `best.keras` (best by `callback.main_figure`),
            `history.json` (figures of each epoch), `log.jsonl` (of each few steps), `tensorboard/` and `checkpoints/`.
        seconds: wall time of the training steps of this process, without evaluation and saving.
        history: a list over epochs of the losses and figures by name.
        results: the `CocoResults` after the last epoch; None without data.val.
    """

    model: MaskRCNN
    folder: pathlib.Path
    seconds: float
    history: list[dict]
    results: CocoResults | None


def train(config: Config, folder, weights=None, resume=False, force=False, verbose="auto"):
    """Trains a model as the config says and returns a `TrainingRun`.

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
        NonFiniteLoss: a loss left the numbers; `model.keras` holds the weights of the step before.
        Interrupted: SIGINT or SIGTERM came; there is a checkpoint of the step that ran.
    """
    weights = weights or config.train.weights
    _check_startable(config, weights)
    strategy = make_strategy(config.train.strategy)
    keras.utils.set_random_seed(config.train.seed)
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    chief = is_chief(strategy)
    folder, verbose = pathlib.Path(folder), verbose if chief else 0
    figure = main_figure(config.model, config.data.val)
    checkpoints = Checkpoints(folder / "checkpoints", config.train.keep_checkpoints, figure, writes=chief)
    arrays, facts = _last_checkpoint(checkpoints, config, resume, force)
    data = TrainingData(config.data.train)
    model = _make_model(config, strategy, None if arrays else weights, verbose)
    if arrays:
        restore(model, arrays, f"The checkpoint of step {facts['step']} in {checkpoints.folder}")
    run = Run(config, folder, model, data, checkpoints, arrays, facts)
    run.fit(verbose)
    return TrainingRun(model, folder, run.clock.seconds, run.history.epochs, run.judge.results)


def _check_startable(config, weights):
    _check_data(config.model, config.data.train, config.data.val)
    backbone = config.model.backbone
    if not weights and (backbone.freeze_at or backbone.norm == "frozen_bn"):
        raise UserError(
            "The config freezes a part of the backbone, which would stay random: give weights to start from "
            "(train.weights), or set model.backbone.norm=gn and model.backbone.freeze_at=0 to train from scratch."
        )


def _check_data(model, train, val):
    """Refuses data that the model has no use for, before hours are spent on it."""
    if not (source_name(train) or train.sources):
        raise UserError("The config names no data to train on: set data.train.annotations and data.train.images.")
    if model.box_head and not (train.annotations or train.panoptic or train.records or train.sources):
        raise UserError(
            f"{train.semantic_maps} has classes of pixels and no instances to learn from: set data.train.annotations "
            "too, or train the semantic head alone (model.box_head=null and model.mask_head=null)."
        )
    if source_name(val) and not model.box_head and not (val.panoptic or val.semantic_maps):
        raise UserError(nothing_to_evaluate(val, pixels=True))


def _last_checkpoint(checkpoints, config, resume, force):
    """(arrays, facts) to go on from; both empty for a new run."""
    latest = checkpoints.latest()
    if latest is None:
        return {}, {}
    if not resume:
        raise UserError(
            f"{checkpoints.folder.parent} holds a run that got as far as {latest.name}: go on with it by --resume, or "
            "train in another folder (--out)."
        )
    arrays, facts = checkpoints.load(latest)
    for difference in check_same_run(facts, dataclasses.asdict(config), force):
        print(f"Changed since: {difference}")
    note = version_note(facts)
    if note:
        print(note)
    return arrays, facts


def _make_model(config, strategy, weights, verbose):
    train = config.train
    with strategy.scope():
        model = MaskRCNN(config.model, seed=train.seed, dtype=dtype_policy(train.precision))
        if weights:
            model.load_pretrained(weights, map_classes=train.map_classes, verbose=verbose != 0)
        freeze(model, train.freeze)
        model.compile(make_optimizer(config), accumulate=train.accumulate, jit_compile=train.jit_compile)
        model.optimizer.build(model.trainable_weights)
    return model


def load_model(path):
    """The `MaskRCNN` that `model.save` or `mrcnn-tf train` wrote.

    Raises:
        UserError: no such file, or not a saved Mask R-CNN.
    """
    if not pathlib.Path(path).is_file():
        raise UserError(f"There is no file {path}: give the .keras file that training wrote.")
    try:
        model = keras.saving.load_model(path)
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} isn't a model saved by mrcnn_tf ({str(error).splitlines()[0].split('. ')[0]}): give a .keras file."
        ) from error
    if not isinstance(model, MaskRCNN):
        raise UserError(f"{path} holds a {type(model).__name__}: give the .keras file of a MaskRCNN.")
    return model
