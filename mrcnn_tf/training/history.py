"""The figures of all epochs so far, as one json file."""

import json
import pathlib

import keras

from mrcnn_tf.common.files import replaced
from mrcnn_tf.common.problems import CONSOLE


class History(keras.callbacks.Callback):
    """Keeps a dictionary of losses and figures for each epoch and writes their list after each.

    Args:
        path: of the json file; None writes none.
        earlier: the epochs before this process, from the checkpoint that it goes on from.

    Attributes:
        epochs: a list of dictionaries by name, with "epoch" from 1.
    """

    def __init__(self, path, earlier=()):
        super().__init__()
        self.path, self.epochs = path and pathlib.Path(path), list(earlier)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({"epoch": epoch + 1} | {name: float(value) for name, value in (logs or {}).items()})
        if self.path is None:
            return
        try:
            with replaced(self.path) as file:
                file.write_text(json.dumps(self.epochs, indent=1), encoding="utf-8")
        except OSError as error:
            CONSOLE.print(
                f"Warning: {self.path} couldn't be written ({error.strerror or error}), the next epoch tries again: "
                "free some space or allow writing there.",
                markup=False,
                soft_wrap=True,
            )
