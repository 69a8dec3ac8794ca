"""Sums over the replicas of a tf.distribute strategy, and messages between its processes.

Without a strategy, or outside its `run`, there is a single replica.
"""

import contextlib

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import IGNORED

FAR = 1e5  # pixels; beyond any anchor


def sum_over_replicas(values):
    """A tensor, or a list of them, summed over all replicas: every replica gets the same. For gradients, counts, flags.

    All replicas must call it, in the same order and outside of loops and branches.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    with _local_device(context):
        values = tf.nest.map_structure(tf.identity, values)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def gather_over_replicas(values):
    """The rows of a tensor [B, ...] of all replicas, [sum of B, ...], in the replicas' order."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    with _local_device(context):
        return context.all_gather(tf.identity(values), axis=0)


def _local_device(context):
    """The device of a process with a single replica: it sums on the tensors' device, which they don't always name.

    `context.devices` is empty on all processes but the first (TensorFlow 2.20).
    """
    devices = context.strategy.extended.worker_devices
    return tf.device(devices[0]) if len(devices) == 1 else contextlib.nullcontext()


def worker_rank_and_count(strategy):
    """(rank of this process, number of processes) of a strategy, (0, 1) without others. The first is the chief."""
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict() if resolver else {}
    chiefs, workers = len(jobs.get("chief", [])), len(jobs.get("worker", []))
    if chiefs + workers < 2:
        return 0, 1
    index = resolver.task_id or 0
    return (index if resolver.task_type == "chief" else chiefs + index), chiefs + workers


def count_local_replicas(strategy):
    """How many of a strategy's replicas this process has."""
    return strategy.num_replicas_in_sync // worker_rank_and_count(strategy)[1]


def gather_from_workers(strategy, data):
    """A list of the bytes that each of a strategy's processes gives, in their order; all processes must call it."""
    _, count = worker_rank_and_count(strategy)
    if count == 1:
        return [data]
    words = np.frombuffer(data + bytes(-len(data) % 4), np.int32)  # what collective operations take
    local_replicas = count_local_replicas(strategy)

    def gather(values):
        """The values of the first replica of each process, in a row; the others add none."""

        def of_replica(context):
            is_first = context.replica_id_in_sync_group % local_replicas == 0
            return tf.constant(values if is_first else values[:0], tf.int32)

        return strategy.gather(strategy.experimental_distribute_values_from_function(of_replica), axis=0).numpy()

    sizes = gather(np.array([len(data)], np.int32))
    chunks = np.split(gather(words), np.cumsum((sizes + 3) // 4)[:-1])
    return [chunk.tobytes()[:size] for chunk, size in zip(chunks, sizes, strict=True)]


def fill_empty_batch(batch):
    """A batch of the data contract as it is; an empty one with an image that nothing is learnt from.

    Some replica may get no image of a dataset's last batch, and TensorFlow's convolutions fail on none. All of the
    added image is crowd, so no anchor and no RoI is drawn, and no pixel has a class.
    """
    image = {name: tf.zeros([1, *tf.unstack(tf.shape(values)[1:])], values.dtype) for name, values in batch.items()}
    image["image_size"] = tf.shape(batch["image"])[None, 1:3]
    image["boxes"] += tf.constant([-FAR, -FAR, FAR, FAR])
    image["classes"] += 1
    image["crowd"] = tf.ones_like(image["crowd"])
    if "semantic" in image:
        image["semantic"] += IGNORED
    missing = tf.cast(tf.equal(tf.shape(batch["image"])[0], 0), tf.int32)
    return {name: tf.concat([values, image[name][:missing]], axis=0) for name, values in batch.items()}
