"""A .keras file with parts of a user's own, which Keras loads where their classes are imported."""

import json
import zipfile

from mrcnn_tf.common.errors import UserError


def load_keras_file(path):
    """The keras.Model of a .keras file.

    Raises:
        UserError: it can't be read, or has a part of a class that isn't imported.
    """
    import keras

    try:
        return keras.saving.load_model(path)
    except (ValueError, OSError, TypeError, KeyError) as error:
        if missing := _missing_class(path):
            raise UserError(missing) from error
        if own := _own_error(error):
            raise UserError(f"{path}: {own}") from error
        reason = str(error).splitlines()[0].split(". ")[0]
        raise UserError(f"{path} is no readable Keras model ({reason}): give a whole .keras file.") from error


def _own_error(error):
    """The UserError that Keras has wrapped, such as a setting's; None if there is none."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _missing_class(path):
    """A sentence about a class of the file that Keras doesn't have; None if it has all of them."""
    import keras

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
