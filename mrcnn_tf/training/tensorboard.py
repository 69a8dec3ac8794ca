"""Event files for TensorBoard, which is needed to look at them, not to write them.

They are TFRecords of `Event` messages, written here without `tf.summary.scalar`: that lies in the package tensorboard,
which comes with TensorFlow 2.20 but not with 2.21.
"""

import io
import os
import pathlib
import socket
import time

import tensorflow as tf
from PIL import Image

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
