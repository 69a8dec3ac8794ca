"""A batch of rows that are prepared one by one, where some may fail without the others."""

import tensorflow as tf

AT_ONCE = 2  # rows in preparation at a time: a decoded photograph takes 150 MB and more, whatever the batch's size


def prepare_rows(rows, prepare, default):
    """What a function makes of each row, and a default where it fails.

    It is a small input pipeline inside the graph, of stock operations: only there can an operation fail for one row.

    Args:
        rows: tensor [B, ...].
        prepare: from a row to a dictionary of tensors.
        default: the same dictionary for a row where `prepare` fails.

    Returns:
        The dictionaries as one of tensors [max(B, 1), ...], each padded with zeros to the largest shape, with `ok` bool
        [max(B, 1)]. An empty batch gives one default, because a graph can't run on nothing.
    """
    count = tf.shape(rows, tf.int64)[0]
    missing = tf.maximum(1 - count, 0)
    spare = tf.zeros(tf.concat([[missing], tf.shape(rows, tf.int64)[1:]], axis=0), rows.dtype)

    def one(row):
        tried = tf.data.Dataset.from_tensors(row).map(lambda row: prepare(row) | {"ok": True})
        tried = tried.ignore_errors(log_warning=False)
        failed = tf.data.Dataset.from_tensors(default | {"ok": False})
        return tried.concatenate(failed).take(1).get_single_element()

    dataset = tf.data.Dataset.from_tensor_slices(tf.concat([rows, spare], axis=0))
    dataset = dataset.map(one, num_parallel_calls=AT_ONCE, deterministic=True)
    return dataset.padded_batch(count + missing).get_single_element()
