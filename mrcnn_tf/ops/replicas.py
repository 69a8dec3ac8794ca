"""Sums over the replicas of a tf.distribute strategy; without one, or outside its `run`, there is a single replica."""

import tensorflow as tf


def summed(values):
    """A tensor, or a list of them, summed over all replicas: every replica gets the same. For gradients, counts, flags.

    All replicas must call it, in the same order and outside of loops and branches.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def gathered(values):
    """[B, ...] -> the rows of all replicas, [sum of B, ...], in the replicas' order."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_gather(values, axis=0)
