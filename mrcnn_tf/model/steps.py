"""What `fit` runs for a step, on one device or on many.

Keras's own functions are right for one device. On several, Keras clips each replica's gradient before it adds them up,
looks for infinities on the first replica alone, fails to accumulate, and fails under MultiWorkerMirroredStrategy. Here
the order is fixed: every replica computes its share of the loss's gradient, the shares are summed once, and all of them
then see the same numbers, whatever the optimizer does with them.
"""

import time

import keras
import numpy as np
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.replicas import gathered, local_replicas

# Stopping at the first number that isn't one.
#

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


def make_step_function(model, step):
    """A function of the data's iterator that runs `step(batch)` on each replica; it returns the first one's result."""
    run = _OnReplicas(model, step)
    return _repeated(model, lambda iterator: run(next(iterator), spec=_spec(iterator)))


def make_train_function(model):
    """The same for training: `model.loss_gradients(batch)` in `model.accumulate` parts, then `model.update`.

    Returns:
        A function of the iterator that takes as many batches from it as there are parts, and returns the logs.
    """
    if model.accumulate == 1:
        step = _OnReplicas(model, model.train_step)

        def whole(iterator):
            batch, waited = _timed_next(iterator)
            return step(batch, *_seconds(time.time(), waited), spec=_spec(iterator))

        return _repeated(model, whole)

    store = _Accumulator(model)
    clear, add, update = (_OnReplicas(model, part) for part in (store.clear, store.add, store.update))

    def in_parts(iterator):
        clear()
        total = 0.0
        for _ in range(model.accumulate):
            batch, waited = _timed_next(iterator)
            total += waited
            add(batch, spec=_spec(iterator))
        return update(*_seconds(time.time(), total))

    return _repeated(model, in_parts)


def make_detect_function(model):
    """A function of a batch's inputs by name that gives `model.call`'s outputs, numpy, for all of its images.

    The replicas of this process divide the images among themselves; other processes have no part in it.
    """
    strategy = model.distribute_strategy
    replicas = local_replicas(strategy)

    def detect(inputs):
        return model(inputs, training=False)

    if replicas == 1:
        traced = tf.function(detect, reduce_retracing=True, autograph=False)
        return lambda inputs: {name: value.numpy() for name, value in traced(inputs).items()}

    traced = tf.function(lambda part: strategy.run(detect, args=(part,)), reduce_retracing=True, autograph=False)

    def function(inputs):
        count = len(inputs["image"])
        rows = np.minimum(np.arange(-(-count // replicas) * replicas), count - 1).reshape(replicas, -1)

        def part(context):
            own = rows[context.replica_id_in_sync_group % replicas]
            return {name: tf.gather(values, own) for name, values in inputs.items()}

        outputs = traced(strategy.experimental_distribute_values_from_function(part))
        parts = {name: strategy.experimental_local_results(value) for name, value in outputs.items()}
        return {name: np.concatenate(values)[:count] for name, values in parts.items()}

    return function


def prepare_optimizer(optimizer, strategy):
    """Makes an optimizer take gradients that are summed over the replicas already.

    Raises:
        UserError: for one that cannot work on several replicas.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if getattr(inner, "gradient_accumulation_steps", None):
        raise UserError(
            "An optimizer's gradient_accumulation_steps doesn't work on several devices: leave it out and "
            "give compile(..., accumulate=N)."
        )
    if not hasattr(inner, "_all_reduce_sum_gradients"):
        raise UserError(
            f"Keras {keras.__version__} sums gradients in another way than this package knows: train on one device, or "
            "install a Keras that it was tested with (see the README)."
        )
    inner._all_reduce_sum_gradients = lambda pairs: pairs


class _Accumulator:
    """Sums of the parts of a step on each replica: gradients, losses, and which images they were of."""

    def __init__(self, model):
        self.model = model
        with model.distribute_strategy.scope():
            self.gradients = [_local(weight.shape) for weight in model.trainable_weights]
            self.losses = {name: _local([]) for name in model.loss_names}
            self.images = _local([], tf.int32)

    def clear(self):
        for variable in (*self.gradients, *self.losses.values(), self.images):
            variable.assign(tf.zeros_like(variable))

    def add(self, batch):
        losses, gradients = self.model.loss_gradients(batch)
        losses = check_finite(losses, gathered(batch["image_id"]))
        for variable, gradient in zip(self.gradients, gradients, strict=True):
            variable.assign_add(gradient)
        for name, value in losses.items():
            self.losses[name].assign_add(value)
        self.images.assign_add(tf.shape(batch["image_id"])[0])

    def update(self, now, waited):
        parts = float(self.model.accumulate)
        losses = {name: tf.convert_to_tensor(value) / parts for name, value in self.losses.items()}
        gradients = [tf.convert_to_tensor(value) / parts for value in self.gradients]
        return self.model.update(losses, gradients, tf.convert_to_tensor(self.images), now, waited)


def _local(shape, dtype=tf.float32):
    """A variable of which each replica has its own."""
    return tf.Variable(
        tf.zeros(shape, dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )


class _OnReplicas:
    """A function that runs on every replica and returns what it gave on the first; all give the same.

    It is traced once for each kind of batch, whatever their sizes. The other arguments are float64 scalars.
    """

    def __init__(self, model, function):
        self.model, self.function = model, function
        self.traced = {}

    def __call__(self, *arguments, spec=None):
        if self.model.run_eagerly:
            return self._run(*arguments)
        kind = tuple(tf.nest.flatten(spec))
        if kind not in self.traced:
            scalars = [tf.TensorSpec([], tf.float64)] * (len(arguments) - 1)
            signature = [spec, *scalars] if spec is not None else None
            self.traced[kind] = tf.function(self._run, signature, autograph=False, reduce_retracing=spec is None)
        return self.traced[kind](*arguments)

    def _run(self, *arguments):
        strategy = self.model.distribute_strategy
        results = strategy.run(self.function, args=arguments)
        return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], results)


def _timed_next(iterator):
    """The next batch, and the seconds until it was there."""
    started = time.perf_counter()
    batch = next(iterator)
    return batch, time.perf_counter() - started


def _seconds(*values):
    return [tf.constant(value, tf.float64) for value in values]


def _spec(iterator):
    """Of its elements; None for a Python generator, as `train_on_batch` has one."""
    return getattr(iterator, "element_spec", None)


def _repeated(model, function):
    """`function` as often as `steps_per_execution` says."""

    def repeated(iterator):
        for _ in range(model.steps_per_execution):
            logs = function(iterator)
        return logs

    return repeated
