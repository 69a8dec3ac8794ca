"""Everything that a model in training holds, as arrays, and back; and whether it may go on with another config."""

import collections
import json

import keras
import numpy as np
import tensorflow as tf

from mrcnn_tf.common.environment import __version__
from mrcnn_tf.common.errors import UserError

# Settings that decide when something is written or when to stop, not what is computed.
HARMLESS_SETTINGS = {"train.log_steps", "train.checkpoint_steps", "train.keep_checkpoints", "train.patience"}
MAX_DIFFERENCES = 4  # in a message; the others are counted
MAX_VALUE_LENGTH = 60  # characters
UNSET = object()


def snapshot(model, spare=None):
    """Copy a compiled model's state: {name: numpy array}.

    That is weights, optimizer (with loss scale and averages), seeds of random layers, and the sums behind the losses of
    the epoch; not the clocks. Names follow from what a variable is for, so they are the same in another process. Under
    a strategy, call it outside of `strategy.run`; mirrored variables come once. `spare` is an earlier snapshot that may
    be overwritten, several times faster than to have new memory.
    """
    spare = spare or {}
    return {name: _copy(variable, spare.get(name)) for name, variable in _variables(model).items()}


def _copy(variable, spare):
    value = np.asarray(tf.convert_to_tensor(variable.value))  # on a processor, a view of the variable itself
    if spare is None or spare.shape != value.shape or spare.dtype != value.dtype:
        return value.copy()
    np.copyto(spare, value)
    return spare


def restore(model, arrays, source="The checkpoint"):
    """Set the state of a compiled model to the `arrays` of a `snapshot`, which `source` names in complaints.

    UserError if names, shapes or dtypes differ; then the model is as before.
    """
    variables = _variables(model)
    fault = _first_mismatch(variables, arrays)
    if fault:
        raise UserError(f"{source} {fault}: resume with the config that it was made with, or train in a new folder.")
    for name, variable in variables.items():
        variable.assign(arrays[name])


class RestoreLosses(keras.callbacks.Callback):
    """Sets the sums behind the epoch's losses to those of a snapshot, once, after `fit` has cleared them.

    For a run that goes on in the middle of an epoch; it must come before the callbacks that read them.
    """

    def __init__(self, arrays):
        super().__init__()
        self.arrays = arrays

    def on_epoch_begin(self, epoch, logs=None):
        if self.arrays is not None:
            for name, variable in _loss_variables(self.model):
                variable.assign(self.arrays[name])
        self.arrays = None


def _first_mismatch(variables, arrays):
    for name, variable in variables.items():
        if name not in arrays:
            return f"has no {name}, which the model has"
        array = arrays[name]
        if tuple(array.shape) != tuple(variable.shape):
            return f"has {name} of shape {list(array.shape)} and the model's is {list(variable.shape)}"
        if array.dtype.name != variable.dtype:
            return f"has {name} as {array.dtype.name} and the model's is {variable.dtype}"
    extra = next((name for name in arrays if name not in variables), None)
    return extra and f"has {extra}, which the model lacks"


def _variables(model):
    """Keras variables by the names that they have in a checkpoint.

    Keras numbers the names of optimizers by how many a process has made, so these are left out.
    """
    optimizer = model.optimizer
    if not optimizer.built:
        with model.distribute_strategy.scope():
            optimizer.build(model.trainable_variables)
    named = [(f"model/{variable.path}", variable) for variable in model.weights]
    for index, variable in enumerate(optimizer.variables):
        named.append((f"optimizer/{index:04d}_{variable.path.split('/', 1)[1]}", variable))
    named += _loss_variables(model)
    ids = {id(variable) for _, variable in named}
    others = [variable for variable in model.non_trainable_variables if id(variable) not in ids]
    named += [(f"state/{index:04d}_{variable.name}", variable) for index, variable in enumerate(others)]
    repeated = [name for name, count in collections.Counter(name for name, _ in named).items() if count > 1]
    if repeated:
        raise ValueError(f"Two variables would be {repeated[0]} in a checkpoint.")
    return dict(named)


def _loss_variables(model):
    return [
        (f"losses/{name}/{variable.name}", variable)
        for name, tracker in model.loss_trackers.items()
        for variable in tracker.variables
    ]


def library_versions():
    """The versions that a checkpoint names: {"mrcnn_tf", "tensorflow", "keras"}."""
    return {"mrcnn_tf": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}


def describe_version_change(facts):
    """A sentence on the other versions that a checkpoint was made with; None if they are the same."""
    now, then = library_versions(), facts.get("version") or {}
    others = [f"{name} {then.get(name, '?')} (now {now[name]})" for name in now if then.get(name) != now[name]]
    if not others:
        return None
    return f"The checkpoint was made with {', '.join(others)}: the run goes on, though not to the last bit as before."


def check_same_config(facts, config, force=False):
    """The `config_differences` of a checkpoint's config and that to go on with; UserError if any, unless `force`."""
    differences = config_differences(facts.get("config") or {}, config)
    if differences and not force:
        listed = "; ".join(differences[:MAX_DIFFERENCES])
        more = f"; and {len(differences) - MAX_DIFFERENCES} more" if len(differences) > MAX_DIFFERENCES else ""
        raise UserError(
            f"The config differs from that of the run in this folder ({listed}{more}): set it back, train in another "
            "folder, or go on with the new one by --force."
        )
    return differences


def config_differences(old, new):
    """A line such as "train.learning_rate: 0.02 -> 0.01" for each setting that differs between two configs.

    The configs are nested dictionaries, from dataclasses.asdict or json. `HARMLESS_SETTINGS` are left out.
    """
    old, new = (json.loads(json.dumps(config)) for config in (old, new))  # tuples become lists, keys strings
    return list(_differences(old, new, ""))


def _differences(old, new, path):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key, UNSET), new.get(key, UNSET), f"{path}.{key}" if path else key)
    elif _are_sections(old) and _are_sections(new) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, f"{path}[{index}]")
    elif old != new and path not in HARMLESS_SETTINGS:
        yield f"{path}: {_short_json(old)} -> {_short_json(new)}"


def _are_sections(value):
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _short_json(value):
    if value is UNSET:
        return "(not set)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 3] + "..."
