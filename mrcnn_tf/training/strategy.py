"""Which devices and hosts train together."""

import dataclasses
import json
import os

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data.order import Share
from mrcnn_tf.ops.replicas import local_replicas, workers

HOW = 'such as {"cluster": {"worker": ["host-a:12345", "host-b:12345"]}, "task": {"type": "worker", "index": 0}}'
# What TensorFlow raises on the workers that are left when one goes.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError, tf.errors.CancelledError)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a run on several hosts: addresses of all of them, and which one this is. The first is chief."""

    addresses: tuple[str, ...]
    index: int


def read_cluster(text):
    """The `Cluster` that the environment variable TF_CONFIG describes; None for a single process.

    Args:
        text: its value, None or "" if it isn't set.

    Raises:
        UserError: it doesn't parse or makes no sense.
    """
    if not text:
        return None
    try:
        found = json.loads(text)
        cluster, task = found["cluster"], found.get("task", {})
        chief, workers = list(cluster.get("chief", [])), list(cluster.get("worker", []))
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"TF_CONFIG doesn't parse ({type(error).__name__}: {error}): give json {HOW}.") from error
    addresses = chief + workers
    if not addresses or not all(isinstance(address, str) and ":" in address for address in addresses):
        raise UserError(f"TF_CONFIG names no workers as host:port: give json {HOW}.")
    if kind not in ("chief", "worker"):
        raise UserError(
            f"TF_CONFIG makes this process a {kind!r}, but every process trains: give type worker or chief."
        )
    known = len(chief if kind == "chief" else workers)
    if not 0 <= index < known:
        raise UserError(f"TF_CONFIG makes this process {kind} {index}, but names {known} of them, counted from 0.")
    place = index if kind == "chief" else len(chief) + index
    return Cluster(tuple(addresses), place) if len(addresses) > 1 else None


def make_strategy(choice):
    """The strategy for `train.strategy`; on several hosts it must be made before TensorFlow is used for anything.

    Raises:
        UserError: TF_CONFIG is wrong, or "mirrored" on a machine without GPUs or several processors.
    """
    cluster = read_cluster(os.environ.get("TF_CONFIG"))
    if cluster:
        if choice == "none":
            raise UserError("TF_CONFIG names several workers and train.strategy is none: unset one of them.")
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    processors = tf.config.list_logical_devices("CPU")
    if choice == "none" or (choice == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = gpus or processors
    if choice == "mirrored" and len(devices) < 2:
        raise UserError(
            f"train.strategy is mirrored, but there is one device alone ({devices[0].name}): set it to auto."
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def is_chief(strategy):
    """Whether this process is the one that writes files and talks."""
    return workers(strategy)[0] == 0


def distributed(strategy, stream, accumulate):
    """The data of a run for `fit`.

    Args:
        strategy: of the run.
        stream: function of a `Share` that gives a tf.data.Dataset of this process's batches.
        accumulate: parts of a batch that a device works through.
    """
    local = local_replicas(strategy)

    def part(context):
        return stream(Share(context.input_pipeline_id, context.num_input_pipelines, local * accumulate))

    return strategy.distribute_datasets_from_function(part)


def lost_worker(error, strategy):
    """The sentence for an error that means that another worker is gone; None for any other."""
    if workers(strategy)[1] == 1 or not isinstance(error, LOST):
        return None
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    addresses = ", ".join([*jobs.get("chief", []), *jobs.get("worker", [])])
    return (
        f"A worker of this run ({addresses}) is gone, and no step works without it: see the logs, then start all of "
        "them again with --resume."
    )
