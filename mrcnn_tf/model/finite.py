"""Stopping at the first number that isn't one."""

import tensorflow as tf

MARK = "Training stopped: "


def check_finite(values, image_ids):
    """The scalars `values` (a dictionary by name) unchanged; at run time an error that names those that aren't finite.

    Whatever is computed from the result runs after the check, so a weight update never sees the bad number.

    Args:
        values: a dictionary of scalars.
        image_ids: [B], what they were computed of; None where it can't be said.

    Raises:
        tf.errors.InvalidArgumentError: from the running graph, its message holding MARK, the names and the image ids
        [B].
    """
    names, scalars = list(values), list(values.values())
    bad = ~tf.math.is_finite(tf.stack([tf.cast(scalar, tf.float32) for scalar in scalars]))
    named = tf.strings.reduce_join(tf.boolean_mask(tf.constant(names), bad), separator=", ")
    where = ""
    if image_ids is not None:
        where = " for image ids " + tf.strings.reduce_join(tf.strings.as_string(image_ids), separator=", ")
    message = tf.strings.join([MARK, named, " is not finite", where, "; the weights are those of the step before."])
    check = tf.debugging.Assert(~tf.reduce_any(bad), [message])
    with tf.control_dependencies([check]):
        return {name: tf.identity(scalar) for name, scalar in values.items()}
