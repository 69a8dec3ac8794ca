"""What a run tells of itself on the way: losses, learning rate, speed and figures of evaluations by step."""

import io
import json
import math
import os
import pathlib
import socket
import time

import keras
import tensorflow as tf
from PIL import Image

from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.problems import CONSOLE
from mrcnn_tf.model.trainable import ImagesPerSecond, InputWait


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


# The run's records as lines of json.
#

class LogFile:
    """Appends a line of json for each record to a file, complete on the disk's side of this process when it returns.

    Args:
        path: such as log.jsonl.
        step: how many steps the run has behind it. Lines of later steps are cut away, as is one that a killed run left
            unfinished; with 0 the file starts anew.
    """

    def __init__(self, path, step=0):
        self.path = pathlib.Path(path)
        self._torn = False
        if self.path.exists():
            _cut(self.path, step)

    def write(self, record):
        """Appends one record, a dictionary of numbers; one that isn't finite becomes null."""
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = "\n" * self._torn + json.dumps(finite) + "\n"
        self._torn = True  # until all of it is written
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line)
        self._torn = False


def read_log(path):
    """The records of a log file, without a line that a killed run left unfinished."""
    return [record for _, record in _records(path)]


def _cut(path, step):
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for line, record in _records(path):
            if record["step"] <= step:
                file.write(line)


def _records(path):
    """(line, record) of each whole line."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "step" in record:
                yield line, record


# Event files for TensorBoard, which is needed to look at them, not to write them.
#
# They are TFRecords of `Event` messages, written here without `tf.summary.scalar`: that lies in the package
# tensorboard, which comes with TensorFlow 2.20 but not with 2.21.
#

JPEG_QUALITY = 85


class EventFile:
    """A file of events in `folder`, made with the first one and flushed after each call; an OSError is no space.

    Losses and speed become curves under `training`, figures of evaluations under `evaluation`.

    Args:
        folder: TensorBoard shows all event files of it as one run.
        step: how many steps the run has behind it; what older files have of later ones is hidden.
    """

    def __init__(self, folder, step=0):
        self.folder, self.step = pathlib.Path(folder), step
        self._file, self._started = None, False

    def write(self, record):
        """Adds the values of a record of `Measure` as points of curves."""
        named = {_tag(name): value for name, value in record.items() if name not in ("step", "time")}
        values = [tf.compat.v1.Summary.Value(tag=tag, simple_value=value) for tag, value in named.items()]
        self._add(step=record["step"], summary=tf.compat.v1.Summary(value=values))

    def write_pictures(self, pictures, step):
        """Adds pictures, {name: uint8 RGB [H, W, 3]}, which TensorBoard shows with a slider over the steps."""
        values = []
        for name, picture in pictures.items():
            file = io.BytesIO()
            Image.fromarray(picture).save(file, format="JPEG", quality=JPEG_QUALITY)
            image = tf.compat.v1.Summary.Image(
                height=picture.shape[0], width=picture.shape[1], colorspace=3, encoded_image_string=file.getvalue()
            )
            values.append(tf.compat.v1.Summary.Value(tag=name, image=image))
        self._add(step=step, summary=tf.compat.v1.Summary(value=values))

    def _add(self, **fields):
        try:
            self._file = self._file or self._open()
            _append(self._file, **fields)
        except tf.errors.OpError as error:  # no space, for one; what follows a torn event couldn't be read
            self._file = None
            raise OSError(None, error.message, str(self.folder)) from error

    def _open(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        file = tf.io.TFRecordWriter(str(self.folder / name))
        _append(file, file_version="brain.Event:2")
        if not self._started:
            start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            _append(file, step=self.step + 1, session_log=start)  # hides what was written from this step on
            self._started = True
        return file


def _append(file, **fields):
    file.write(tf.compat.v1.Event(wall_time=time.time(), **fields).SerializeToString())
    file.flush()


def _tag(name):
    return f"evaluation/{name.removeprefix('val_')}" if name.startswith("val_") else f"training/{name}"
