"""Whether a checkpoint belongs to the run that is to go on from it."""

import json

import keras
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.version import __version__

# They decide when something is written or when to stop, not what is computed.
HARMLESS = {"train.log_steps", "train.checkpoint_steps", "train.keep_checkpoints", "train.patience"}
SHOWN = 4  # differences in a sentence
LONGEST = 60  # characters of a value
UNSET = object()


def code_version():
    """The versions that a checkpoint names: {"mrcnn_tf", "tensorflow", "keras"}."""
    return {"mrcnn_tf": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}


def version_note(facts):
    """A sentence on what else than now a checkpoint was made with; None if nothing."""
    now, then = code_version(), facts.get("version") or {}
    changed = [f"{name} {then.get(name, '?')} (now {now[name]})" for name in now if then.get(name) != now[name]]
    if not changed:
        return None
    return f"The checkpoint was made with {', '.join(changed)}: the run goes on, though not to the last bit as before."


def config_differences(old, new):
    """A line such as "train.learning_rate: 0.02 -> 0.01" for each setting that differs between two configs.

    Settings that can't change what is computed are left out (`HARMLESS`).

    Args:
        old, new: configs as nested dictionaries, from dataclasses.asdict or json.
    """
    return list(_differences(_plain(old), _plain(new), ""))


def check_same_run(facts, config, force=False):
    """Refuses to go on with another config than the checkpoint's.

    Args:
        facts: of the checkpoint; its "config" is compared.
        config: the config to go on with, as a nested dictionary.
        force: go on all the same.

    Returns:
        The differences, as `config_differences` gives them.

    Raises:
        UserError: there are some, unless `force`.
    """
    differences = config_differences(facts.get("config") or {}, config)
    if differences and not force:
        shown = "; ".join(differences[:SHOWN])
        more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise UserError(
            f"The config differs from that of the run in this folder ({shown}{more}): set it back, train in another "
            "folder, or go on with the new one by --force."
        )
    return differences


def _plain(config):
    """As it comes back from json: tuples are lists, keys are strings."""
    return json.loads(json.dumps(config))


def _differences(old, new, path):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key, UNSET), new.get(key, UNSET), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and _sections(old + new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, f"{path}[{index}]")
    elif old != new and path not in HARMLESS:
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _sections(values):
    return all(isinstance(value, dict) for value in values)


def _shown(value):
    if value is UNSET:
        return "(not set)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
