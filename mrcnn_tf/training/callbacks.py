"""Callbacks of `mrcnn-tf train` beside CocoAP."""

import math
import pathlib

import keras

from mrcnn_tf.files import replaced


class SaveModel(keras.callbacks.Callback):
    """Saves the model after an epoch in which a figure beat its best so far; a file is never half written.

    Args:
        path: ends in .keras.
        monitor: a figure of the logs that should be high, such as "val_segm_AP".
    """

    def __init__(self, path, monitor):
        super().__init__()
        self.path, self.monitor = pathlib.Path(path), monitor
        self.best = -math.inf

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.monitor)
        if value is None or value <= self.best:
            return
        self.best = value
        with replaced(self.path) as temporary:
            self.model.save(temporary)
