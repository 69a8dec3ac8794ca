"""Which devices and hosts train together."""

import json
import os

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data.order import Share
from mrcnn_tf.ops.replicas import count_local_replicas, worker_rank_and_count

EXAMPLE = 'such as {"cluster": {"worker": ["host-a:12345", "host-b:12345"]}, "task": {"type": "worker", "index": 0}}'
# What TensorFlow raises on the workers that are left when one goes.
LOST_WORKER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)


def has_several_workers(tf_config):
    """Whether the environment variable TF_CONFIG, None or "" if it isn't set, describes a run of several processes.

    UserError if it doesn't parse or makes no sense.
    """
    if not tf_config:
        return False
    try:
        fields = json.loads(tf_config)
        cluster, task = fields["cluster"], fields.get("task", {})
        addresses = {job: list(cluster.get(job, [])) for job in ("chief", "worker")}
        job, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"TF_CONFIG doesn't parse ({type(error).__name__}: {error}): give json {EXAMPLE}.") from error
    processes = addresses["chief"] + addresses["worker"]
    if not processes or not all(isinstance(address, str) and ":" in address for address in processes):
        raise UserError(f"TF_CONFIG names no workers as host:port: give json {EXAMPLE}.")
    if job not in ("chief", "worker"):
        raise UserError(f"TF_CONFIG makes this process a {job!r}, but every process trains: give type worker or chief.")
    count = len(addresses[job])
    if not 0 <= index < count:
        raise UserError(f"TF_CONFIG makes this process {job} {index}, but names {count} of them, counted from 0.")
    return len(processes) > 1


def make_strategy(choice):
    """Make the strategy for `train.strategy`; on several hosts before TensorFlow is used for anything.

    UserError if TF_CONFIG is wrong, or for "mirrored" on a machine without GPUs or several processors.
    """
    if has_several_workers(os.environ.get("TF_CONFIG")):
        if choice == "none":
            raise UserError("TF_CONFIG names several workers and train.strategy is none: unset one of them.")
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if choice == "none" or (choice == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    if choice == "mirrored" and len(devices) < 2:
        raise UserError(
            f"train.strategy is mirrored, but there is one device alone ({devices[0].name}): set it to auto."
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def is_chief(strategy):
    """Whether this process is the one that writes files and prints."""
    return worker_rank_and_count(strategy)[0] == 0


def distribute_batches(strategy, stream, accumulate):
    """The data of a run for `fit`.

    `stream` is a function of a `Share` that gives a tf.data.Dataset of this process's batches, of each of which a
    device works through `accumulate` parts.
    """
    replicas = count_local_replicas(strategy)
    return strategy.distribute_datasets_from_function(
        lambda context: stream(Share(context.input_pipeline_id, context.num_input_pipelines, replicas * accumulate))
    )


def describe_lost_worker(error, strategy):
    """A sentence for an error that means that another worker is gone; None for any other."""
    if worker_rank_and_count(strategy)[1] == 1 or not isinstance(error, LOST_WORKER_ERRORS):
        return None
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    addresses = ", ".join([*jobs.get("chief", []), *jobs.get("worker", [])])
    return (
        f"A worker of this run ({addresses}) is gone, and no step works without it: see the logs, then start all of "
        "them again with --resume."
    )
