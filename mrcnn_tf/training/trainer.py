"""A whole training run from a config: data, model, `model.fit`, and the files it leaves."""

import dataclasses
import json
import pathlib
import time

import keras
import yaml

from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.errors import UserError
from mrcnn_tf.evaluation.callback import CocoAP
from mrcnn_tf.evaluation.coco import CocoResults
from mrcnn_tf.files import replaced
from mrcnn_tf.model import MaskRCNN
from mrcnn_tf.settings import Config
from mrcnn_tf.training.callbacks import SaveModel
from mrcnn_tf.training.optimizer import make_optimizer
from mrcnn_tf.training.precision import dtype_policy


@dataclasses.dataclass
class TrainingRun:
    """What a run left.

    Attributes:
        model: with the last weights.
        folder: holds `config.yaml`, `model.keras` (last weights), `best.keras` (best mask AP) and `history.json`.
        seconds: wall time of the training steps, without evaluation and saving.
        history: a list over epochs of the losses and figures by name.
        results: the `CocoResults` after the last epoch; None without data.val.
    """

    model: MaskRCNN
    folder: pathlib.Path
    seconds: float
    history: list[dict]
    results: CocoResults | None


def train(config: Config, folder, weights=None, verbose="auto"):
    """Trains a model as the config says and returns a `TrainingRun`.

    An epoch is `train.epoch_steps` steps, or once through the data, and `train.steps` is rounded up to whole epochs.
    After each one the model is evaluated on data.val, if that is set, and the best is saved; the last at the end, also
    when the run is interrupted.

    Args:
        config: from `load_config`.
        folder: where the files go; made if missing.
        weights: what to start from, as `MaskRCNN.load_pretrained` takes it; train.weights of the config if None.
        verbose: as in keras.Model.fit.

    Raises:
        UserError: nothing to train on, a frozen backbone without weights, or weights that don't fit.
        NonFiniteLoss: a loss left the numbers; `model.keras` holds the weights of the step before.
    """
    if not config.data.train.annotations:
        raise UserError("The config names no data to train on: set data.train.annotations and data.train.images.")
    backbone, weights = config.model.backbone, weights or config.train.weights
    if not weights and (backbone.freeze_at or backbone.norm == "frozen_bn"):
        raise UserError(
            "The config freezes a part of the backbone, which would stay random: give weights to start from "
            "(train.weights), or set model.backbone.norm=gn and model.backbone.freeze_at=0 to train from scratch."
        )
    folder = pathlib.Path(folder)
    keras.utils.set_random_seed(config.train.seed)
    data = coco_dataset(config.data.train, training=True)
    model = MaskRCNN(config.model, dtype=dtype_policy(config.train.precision))
    if weights:
        model.load_pretrained(weights, map_classes=config.train.map_classes, verbose=verbose != 0)
    model.compile(optimizer=make_optimizer(config))
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / "config.yaml") as file:
        file.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False), encoding="utf-8")
    clock, judge = _Clock(), CocoAP(config.data.val, verbose=int(verbose != 0))
    history = _History(folder / "history.json")
    figure = "val_segm_AP" if model.mask_head else "val_bbox_AP"
    judged = [judge, SaveModel(folder / "best.keras", figure)] if config.data.val.annotations else []
    callbacks = [clock, *judged, history]
    epoch_steps = min(config.train.epoch_steps or int(data.cardinality()), config.train.steps)
    epochs = -(-config.train.steps // epoch_steps)
    try:
        model.fit(data.repeat(), epochs=epochs, steps_per_epoch=epoch_steps, callbacks=callbacks, verbose=verbose)
    finally:
        with replaced(folder / "model.keras") as file:
            model.save(file)
    return TrainingRun(model, folder, clock.seconds, history.epochs, judge.results)


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


class _Clock(keras.callbacks.Callback):
    """Adds up the wall time of the epochs; as the first callback it stops before the others evaluate and save."""

    def __init__(self):
        super().__init__()
        self.seconds = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter() - self.started


class _History(keras.callbacks.Callback):
    """Writes the figures of all epochs so far as json after each epoch."""

    def __init__(self, path):
        super().__init__()
        self.path, self.epochs = path, []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({"epoch": epoch + 1} | {name: float(value) for name, value in (logs or {}).items()})
        with replaced(self.path) as file:
            file.write_text(json.dumps(self.epochs, indent=1), encoding="utf-8")
