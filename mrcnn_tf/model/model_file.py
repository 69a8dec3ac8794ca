"""The .keras file that a model is saved in."""

import json
import pathlib
import zipfile

import keras

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.mask_rcnn import MaskRCNN


def load_model(path):
    """Load the `MaskRCNN` that `model.save` or `mrcnn-tf train` wrote.

    Raises:
        UserError: there is no such file, it holds something else, or it has a part of a class that isn't imported.
    """
    if not pathlib.Path(path).is_file():
        raise UserError(f"There is no file {path}: give the .keras file that training wrote.")
    try:
        model = keras.saving.load_model(path)
    except (ValueError, OSError, TypeError, KeyError) as error:
        if missing := _missing_class(path):
            raise UserError(missing) from error
        raise UserError(
            f"{path} isn't a model saved by mrcnn_tf ({str(error).splitlines()[0].split('. ')[0]}): give a .keras file."
        ) from error
    if not isinstance(model, MaskRCNN):
        raise UserError(f"{path} holds a {type(model).__name__}: give the .keras file of a MaskRCNN.")
    return model


def _missing_class(path):
    """A sentence about a class of the file that Keras doesn't have; None if it has all of them."""
    try:
        with zipfile.ZipFile(path) as file:
            config = json.loads(file.read("config.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    for part in _parts(config):
        module, name, registered = part.get("module"), part["class_name"], part["registered_name"]
        if ">" not in (registered or "") or keras.saving.get_registered_object(registered) is not None:
            continue
        if module is None:  # of a script or a notebook
            return (
                f"{path} has a part of the class {name}, which isn't defined: run the code that defines it before, or "
                "put it into a module, import that and save the model again."
            )
        return (
            f"{path} has a part of the class {name} from {module}, which isn't imported: import it before, or on the "
            f"command line run mrcnn-tf --import {module}."
        )
    return None


def _parts(config):
    """All objects in a config, as Keras writes them."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str) and "registered_name" in config:
            yield config
        for value in config.values():
            yield from _parts(value)
    elif isinstance(config, list):
        for value in config:
            yield from _parts(value)
