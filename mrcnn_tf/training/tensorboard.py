"""What TensorBoard shows of a run: curves of its records, and pictures of its predictions.

The event files are TFRecords of `Event` messages, written here without `tf.summary.scalar`: that lies in the package
tensorboard, which comes with TensorFlow 2.20 but not with 2.21, and is needed to look at them alone.
"""

import io
import os
import pathlib
import socket
import time

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.common.problems import print_line
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.explain.show_batch import draw_sample
from mrcnn_tf.ops.panoptic_maps import resize_labels
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.draw import draw_detections, side_by_side
from mrcnn_tf.results.segments import Panoptic
from mrcnn_tf.training.optimizer import averaged_weights

JPEG_QUALITY = 85
MIN_SCORE = 0.5  # of the detections drawn
MAX_SIDE = 1200  # pixels of a picture


class EventFile:
    """A file of events in `folder`, made with the first one and flushed after each call; OSError if that fails.

    Losses and speed become curves under `training`, metrics of evaluations under `evaluation`. TensorBoard shows all
    event files of a folder as one run; what older ones have of steps later than `step` is hidden.
    """

    def __init__(self, folder, step=0):
        self.folder, self.step = pathlib.Path(folder), step
        self._file, self._started = None, False

    def write(self, record):
        """Add the values of a record of `LogMetrics` as points of curves."""
        values = [
            tf.compat.v1.Summary.Value(tag=_tag(name), simple_value=value)
            for name, value in record.items()
            if name not in ("step", "time")
        ]
        self._add(step=record["step"], summary=tf.compat.v1.Summary(value=values))

    def write_pictures(self, pictures, step):
        """Add pictures, {name: uint8 RGB [H, W, 3]}, which TensorBoard shows with a slider over the steps."""
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


class ShowPredictions(keras.callbacks.Callback):
    """Adds pictures of the first `count` images of a dataset to an `EventFile` after each evaluation.

    Predictions are those of the averaged weights, where the optimizer keeps averages. It goes by the logs of the epoch,
    where the metrics of an evaluation have to be: it comes after CocoAP. `logger` is the `LogMetrics` that counts the
    steps, and `data_config` the `DataConfig` of the images.
    """

    def __init__(self, events, data_config, logger, count=4):
        super().__init__()
        self.events, self.data_config, self.logger, self.count = events, data_config, logger, count
        self._batches = None

    def on_epoch_end(self, epoch, logs=None):
        if not any(name.startswith("val_") for name in logs or {}):
            return
        if self._batches is None:
            number = -(-self.count // (self.data_config.images_per_batch or 1))
            self._batches = list(coco_dataset(self.data_config, training=False).take(number))
        with averaged_weights(self.model):
            pictures = draw_predictions(self.model, self._batches, self.count)
        try:
            self.events.write_pictures(pictures, self.logger.step)
        except OSError as error:
            print_line(f"Warning: the pictures for TensorBoard are lost ({error.strerror}).")


def draw_predictions(model, batches, count=4, min_score=MIN_SCORE):
    """Draw ground truth beside detections or segments: {"predictions/<image id>": uint8 RGB [H, W, 3]}.

    The first `count` images of the batches, of the data contract, are drawn in the size that the MaskRCNN sees, and of
    the detections those with a score of `min_score` or more.
    """
    pictures = {}
    for batch in batches:
        arrays = {name: np.asarray(value) for name, value in batch.items()}
        for index, detections in enumerate(model.detect_batch(batch)):
            sample = {name: value[index] for name, value in arrays.items()}
            name = f"predictions/{sample['image_id']}"
            if len(pictures) < count and name not in pictures:  # a last batch may repeat images to be full
                pictures[name] = _draw_beside_truth(sample, detections, model, min_score)
    return pictures


def _draw_beside_truth(sample, detections, model, min_score):
    height, width = size = tuple(int(side) for side in sample["image_size"])
    pixels = sample["image"][:height, :width].round().clip(0, 255).astype(np.uint8)
    truth = draw_sample(sample, model.categories, model.stuff)
    segments = detections.panoptic
    if segments is not None:
        predictions = Panoptic(resize_labels(segments.segment_map, size), segments.segments).draw(pixels)
        title = "segments"
    else:
        predictions = draw_detections(pixels, _resize_detections(detections, size, model.categories), min_score)
        title = f"detections scored {min_score} or more"
    sheet = Image.fromarray(side_by_side(truth, predictions, ("ground truth", title)))
    sheet.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(sheet)


def _resize_detections(detections, size, categories):
    """The `Detections` in their image resized to (h, w)."""
    y, x = np.array(size, np.float32) / detections.image_size
    keypoints = detections.keypoints
    return Detections(
        boxes=detections.boxes * np.array([x, y, x, y], np.float32),
        scores=detections.scores,
        classes=detections.classes,
        image_size=size,
        categories=categories,
        mask_probabilities=detections.mask_probabilities,
        mask_rule=detections.mask_rule,
        keypoints=None if keypoints is None else keypoints * np.array([x, y, 1], np.float32),
        **detections.extras,
    )
