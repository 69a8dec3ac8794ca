"""Sums over the replicas of a tf.distribute strategy, and messages between its processes.

Without a strategy, or outside its `run`, there is a single replica.
"""

import contextlib

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import IGNORED

FAR = 1e5  # pixels; beyond any anchor


def summed(values):
    """A tensor, or a list of them, summed over all replicas: every replica gets the same. For gradients, counts, flags.

    All replicas must call it, in the same order and outside of loops and branches.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    with _own_device(context):
        values = tf.nest.map_structure(tf.identity, values)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def gathered(values):
    """[B, ...] -> the rows of all replicas, [sum of B, ...], in the replicas' order."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    with _own_device(context):
        return context.all_gather(tf.identity(values), axis=0)


def _own_device(context):
    """A process with a single replica takes the sum's place from the tensors, which don't always say where they are.

    Not from `context.devices`, which is empty on all processes but the first (TensorFlow 2.20).
    """
    devices = context.strategy.extended.worker_devices
    return tf.device(devices[0]) if len(devices) == 1 else contextlib.nullcontext()


def workers(strategy):
    """(which of a strategy's processes this is, how many there are), (0, 1) without others. The first is the chief."""
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict() if resolver else {}
    chiefs, others = len(jobs.get("chief", [])), len(jobs.get("worker", []))
    if chiefs + others < 2:
        return 0, 1
    index = resolver.task_id or 0
    return (index if resolver.task_type == "chief" else chiefs + index), chiefs + others


def local_replicas(strategy):
    """How many of a strategy's replicas this process has."""
    return strategy.num_replicas_in_sync // workers(strategy)[1]


def from_all_workers(strategy, data):
    """The bytes that each of a strategy's processes gives, in their order, a list; all processes must call it."""
    _, count = workers(strategy)
    if count == 1:
        return [data]
    words = np.frombuffer(data + bytes(-len(data) % 4), np.int32)  # what collective operations take
    local = local_replicas(strategy)

    def here(values):
        """One value from each process: of its first replica, nothing from the others."""

        def part(context):
            return tf.constant(values if context.replica_id_in_sync_group % local == 0 else values[:0], tf.int32)

        return strategy.gather(strategy.experimental_distribute_values_from_function(part), axis=0).numpy()

    sizes = here(np.array([len(data)], np.int32))
    parts = np.split(here(words), np.cumsum((sizes + 3) // 4)[:-1])
    return [part.tobytes()[:size] for part, size in zip(parts, sizes, strict=True)]


def at_least_one(batch):
    """A batch of the data contract as it is; without images, as some replica may get it of a dataset's last ones, an
    image that nothing is learnt from.

    TensorFlow's convolutions fail on no image at all. All of the image is crowd, so no anchor and no RoI is drawn, and
    no pixel has a class.
    """
    filler = {name: tf.zeros([1, *tf.unstack(tf.shape(values)[1:])], values.dtype) for name, values in batch.items()}
    filler["image_size"] = tf.shape(batch["image"])[None, 1:3]
    filler["boxes"] += tf.constant([-FAR, -FAR, FAR, FAR])
    filler["classes"] += 1
    filler["crowd"] = tf.ones_like(filler["crowd"])
    if "semantic" in filler:
        filler["semantic"] += IGNORED
    missing = tf.cast(tf.equal(tf.shape(batch["image"])[0], 0), tf.int32)
    return {name: tf.concat([values, filler[name][:missing]], axis=0) for name, values in batch.items()}
