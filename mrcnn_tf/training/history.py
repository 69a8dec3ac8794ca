"""The figures of all epochs so far, as one json file."""

import json
import pathlib

import keras

from mrcnn_tf.files import replaced


class History(keras.callbacks.Callback):
    """Keeps a dictionary of losses and figures for each epoch and writes their list after each.

    Args:
        path: of the json file.
        earlier: the epochs before this process, from the checkpoint that it goes on from.

    Attributes:
        epochs: a list of dictionaries by name, with "epoch" from 1.
    """

    def __init__(self, path, earlier=()):
        super().__init__()
        self.path, self.epochs = pathlib.Path(path), list(earlier)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({"epoch": epoch + 1} | {name: float(value) for name, value in (logs or {}).items()})
        with replaced(self.path) as file:
            file.write_text(json.dumps(self.epochs, indent=1), encoding="utf-8")
