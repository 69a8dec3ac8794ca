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

from mrcnn_tf.common.errors import NonFiniteLoss, UserError
from mrcnn_tf.ops.replicas import count_local_replicas, gather_over_replicas, sum_over_replicas

GRADIENT, SCALED_GRADIENT = "gradient", "scaled_gradient"  # what is checked beside the losses
SUBJECTS = {GRADIENT: "the gradient", SCALED_GRADIENT: "the gradient, however small the loss scale,"}


class FiniteCheck:
    """Stops a training step at the first number that isn't finite, and remembers which it was.

    An error of the running graph says in words only where it comes from. So each check first notes in variables what
    isn't finite, and `error` makes the exception of them afterwards. Each of the strategy's replicas has its own
    variables, of equal values.
    """

    def __init__(self, loss_names, strategy):
        self.names, self.strategy = [*loss_names, *SUBJECTS], strategy
        with strategy.scope():
            self.bad = _replica_variable([len(self.names)], tf.bool, tf.VariableAggregation.ONLY_FIRST_REPLICA)
            self.image_ids = _replica_variable([None], tf.int64, tf.VariableAggregation.ONLY_FIRST_REPLICA)

    def check(self, values, image_ids=None):
        """The scalars `values` unchanged; the running graph fails where one isn't finite.

        Whatever is computed from the result runs after the check, so a weight update never sees the bad number.

        Args:
            values: a dictionary of scalars, losses by their names and GRADIENT or SCALED_GRADIENT.
            image_ids: [B] of the images that they were computed of; None where it can't be said.

        Raises:
            tf.errors.InvalidArgumentError: from the running graph.
        """
        scalars = [tf.cast(values.get(name, 0.0), tf.float32) for name in self.names]
        bad = ~tf.math.is_finite(tf.stack(scalars))
        image_ids = tf.zeros([0], tf.int64) if image_ids is None else tf.cast(image_ids, tf.int64)
        with tf.control_dependencies([self.bad.assign(bad), self.image_ids.assign(image_ids)]):
            check = tf.debugging.Assert(~tf.reduce_any(bad), ["A loss or the gradient is not finite."])
        with tf.control_dependencies([check]):
            return {name: tf.identity(scalar) for name, scalar in values.items()}

    def error(self):
        """`NonFiniteLoss` if the last check failed, None otherwise; it is told once."""
        bad, image_ids = (self.strategy.experimental_local_results(v)[0] for v in (self.bad, self.image_ids))
        names = [SUBJECTS.get(name, name) for name, is_bad in zip(self.names, bad.numpy(), strict=True) if is_bad]
        if not names:
            return None
        images = f" for image ids {', '.join(map(str, image_ids.numpy()))}" if len(image_ids.numpy()) else ""
        bad.assign(tf.zeros_like(bad))
        return NonFiniteLoss(
            f"Training stopped: {', '.join(names)} is not finite{images}; the weights are those of the step before."
        )


def make_step_function(model, step):
    """A function of the data's iterator that runs `step(batch)` on each replica; it returns the first one's result."""
    run = _OnReplicas(model, step)
    return _repeat_step(model, lambda iterator: run(next(iterator), spec=_element_spec(iterator)))


def make_train_function(model):
    """The same for training: `model.loss_gradients(batch)` of `model.accumulate` batches, then `model.update`.

    The function takes as many batches from the iterator and returns the logs.
    """
    if model.accumulate == 1:
        run = _OnReplicas(model, model.train_step)

        def step(iterator):
            batch, waited = _timed_next(iterator)
            return run(batch, *_seconds(time.time(), waited), spec=_element_spec(iterator))

        return _repeat_step(model, step)

    accumulator = _Accumulator(model)
    clear, add, update = (_OnReplicas(model, part) for part in (accumulator.clear, accumulator.add, accumulator.update))

    def accumulated_step(iterator):
        clear()
        total = 0.0
        for _ in range(model.accumulate):
            batch, waited = _timed_next(iterator)
            total += waited
            add(batch, spec=_element_spec(iterator))
        return update(*_seconds(time.time(), total))

    return _repeat_step(model, accumulated_step)


def make_detect_function(model):
    """A function of a batch's inputs by name that gives `model.call`'s outputs, numpy, for all of its images.

    The replicas of this process divide the images among themselves; other processes have no part in it.
    """
    strategy = model.distribute_strategy
    replicas = count_local_replicas(strategy)

    def detect(inputs):
        return model(inputs, training=False)

    if replicas == 1:
        traced = tf.function(detect, reduce_retracing=True, autograph=False)
        return lambda inputs: {name: value.numpy() for name, value in traced(inputs).items()}

    traced = tf.function(lambda share: strategy.run(detect, args=(share,)), reduce_retracing=True, autograph=False)

    def detect_on_replicas(inputs):
        count = len(inputs["image"])
        rows = np.minimum(np.arange(-(-count // replicas) * replicas), count - 1).reshape(replicas, -1)

        def share_of(context):
            own_rows = rows[context.replica_id_in_sync_group % replicas]
            return {name: tf.gather(values, own_rows) for name, values in inputs.items()}

        outputs = traced(strategy.experimental_distribute_values_from_function(share_of))
        outputs = {name: strategy.experimental_local_results(value) for name, value in outputs.items()}
        return {name: np.concatenate(values)[:count] for name, values in outputs.items()}

    return detect_on_replicas


def prepare_optimizer(optimizer, strategy):
    """Makes an optimizer take gradients that are summed over the replicas already.

    Raises:
        UserError: for one that cannot work on several replicas.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    on_several = strategy.num_replicas_in_sync > 1
    if on_several and getattr(inner, "gradient_accumulation_steps", None):
        raise UserError(
            "An optimizer's gradient_accumulation_steps doesn't work on several devices: leave it out and "
            "give compile(..., accumulate=N)."
        )
    if hasattr(inner, "_all_reduce_sum_gradients"):
        # On one device too: of each graph that holds Keras's own sum, TensorFlow keeps the gradient for good.
        inner._all_reduce_sum_gradients = lambda pairs: pairs
    elif on_several:
        raise UserError(
            f"Keras {keras.__version__} sums gradients in another way than this package knows: train on one device, or "
            "install a Keras that it was tested with (see the README)."
        )


class _Accumulator:
    """Sums over the batches of a step on each replica: gradients, losses, and the number of images."""

    def __init__(self, model):
        self.model, total = model, tf.VariableAggregation.SUM
        with model.distribute_strategy.scope():
            self.gradients = [_replica_variable(weight.shape, tf.float32, total) for weight in model.trainable_weights]
            self.losses = {name: _replica_variable([], tf.float32, total) for name in model.loss_names}
            self.images = _replica_variable([], tf.int32, total)

    def clear(self):
        for variable in (*self.gradients, *self.losses.values(), self.images):
            variable.assign(tf.zeros_like(variable))

    def add(self, batch):
        losses, gradients = self.model.loss_gradients(batch)
        # The sums over all replicas: those that share a step must all go on with it or all fail.
        sums = dict(zip(losses, sum_over_replicas(list(losses.values())), strict=True))
        checked = self.model.finite_check.check(sums, gather_over_replicas(batch["image_id"]))
        with tf.control_dependencies(list(checked.values())):
            for variable, gradient in zip(self.gradients, gradients, strict=True):
                variable.assign_add(gradient)
            for name, value in losses.items():
                self.losses[name].assign_add(value)
            self.images.assign_add(tf.shape(batch["image_id"])[0])

    def update(self, now, waited):
        batches = float(self.model.accumulate)
        losses = {name: tf.convert_to_tensor(value) / batches for name, value in self.losses.items()}
        gradients = [tf.convert_to_tensor(value) / batches for value in self.gradients]
        return self.model.update(losses, gradients, tf.convert_to_tensor(self.images), now, waited)


def _replica_variable(shape, dtype, aggregation):
    """A variable of zeros of which each replica has its own; a side of None may change, and is 0 at first."""
    zeros, on_read = tf.zeros([side or 0 for side in shape], dtype), tf.VariableSynchronization.ON_READ
    return tf.Variable(zeros, shape=shape, trainable=False, synchronization=on_read, aggregation=aggregation)


class _OnReplicas:
    """Runs a function on every replica and returns the first one's result; all give the same.

    It is traced once for each structure of a batch, whatever the sizes. The other arguments are float64 scalars.
    """

    def __init__(self, model, function):
        self.model, self.function = model, function
        self.traced = {}

    def __call__(self, *arguments, spec=None):
        if self.model.run_eagerly:
            return self._run(*arguments)
        structure = tuple(tf.nest.flatten(spec))
        if structure not in self.traced:
            scalars = [tf.TensorSpec([], tf.float64)] * (len(arguments) - 1)
            signature = [spec, *scalars] if spec is not None else None
            self.traced[structure] = tf.function(self._run, signature, autograph=False, reduce_retracing=spec is None)
        return self.traced[structure](*arguments)

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


def _element_spec(iterator):
    """None for a Python generator, as `train_on_batch` has one."""
    return getattr(iterator, "element_spec", None)


def _repeat_step(model, step):
    """A function that runs `step` as often as `steps_per_execution` says and returns the last logs."""

    def steps(iterator):
        for _ in range(model.steps_per_execution):
            logs = step(iterator)
        return logs

    return steps
