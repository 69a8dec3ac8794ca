"""SGD as the R-CNN papers use it, its learning rate over the steps, and running averages of the weights."""

import contextlib
import fnmatch
import math

import keras
import tensorflow as tf

from mrcnn_tf.config.settings import Config


@keras.saving.register_keras_serializable("mrcnn_tf")
class WarmupStepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a learning rate that falls in steps (section 3.1 of the paper).

    It is `peak`, reached linearly from `warmup_factor * peak` (0.001 of it in both reference systems) over
    `warmup_steps` (0 for none), times `decay_factor` (0.1 in the paper) at each of the increasing `decay_steps`.
    """

    def __init__(self, peak, warmup_steps, warmup_factor, decay_steps, decay_factor):
        super().__init__()
        self.peak, self.warmup_steps, self.warmup_factor = peak, warmup_steps, warmup_factor
        self.decay_steps, self.decay_factor = list(decay_steps), decay_factor

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        progress = tf.minimum(step / max(self.warmup_steps, 1), 1.0) if self.warmup_steps else 1.0
        warmup = self.warmup_factor + (1.0 - self.warmup_factor) * progress
        decays = tf.add_n([tf.zeros([])] + [tf.cast(step >= bound, tf.float32) for bound in self.decay_steps])
        return self.peak * warmup * tf.pow(tf.constant(self.decay_factor, tf.float32), decays)

    def get_config(self):
        arguments = ("peak", "warmup_steps", "warmup_factor", "decay_steps", "decay_factor")
        return {name: getattr(self, name) for name in arguments}


UNDECAYED = ("gamma", "beta")  # normalisation weights: shrinking them fights what they are for


@keras.saving.register_keras_serializable("mrcnn_tf")
class SGD(keras.optimizers.Optimizer):
    """v = momentum * v + gradient + weight_decay * w;  w = w - learning_rate * v.

    keras.optimizers.SGD differs in two ways that matter when recipes are carried over: its weight decay bypasses the
    momentum, and its velocity contains the learning rate, so that a step decay takes effect late. This one is Caffe's
    and PyTorch's, in one fused pass over each variable.

    Args:
        learning_rate: a number or schedule.
        momentum: 0.9 in the paper.
        weight_decay: 1e-4 in the paper; not applied to normalisation weights.
        average: decay of a running average of the weights, kept in `averages`; None for none. See `averaged_weights`.
        rate_factors: {pattern of weight paths, such as "backbone/*": factor of their learning rate}; where several
            match, they multiply.
        **kwargs: of keras.optimizers.Optimizer, such as global_clipnorm.
    """

    def __init__(
        self, learning_rate=0.02, momentum=0.9, weight_decay=1e-4, average=None, rate_factors=None, name="sgd", **kwargs
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum, self.decay = momentum, weight_decay  # Keras's own weight_decay is the decoupled kind
        self.average, self.rate_factors = average, dict(rate_factors or {})

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")
        self.averages = self.add_optimizer_variables(variables, "average") if self.average is not None else []
        for average, variable in zip(self.averages, variables, strict=bool(self.averages)):
            average.assign(variable)
        factors = self.rate_factors.items()  # patterns match as a shell matches the names of files
        self._variable_factors = [
            math.prod(factor for pattern, factor in factors if fnmatch.fnmatchcase(variable.path, pattern))
            for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        """Update a tf.Variable in place."""
        index = self._get_variable_index(variable)
        velocity = self.velocities[index].value
        gradient = tf.convert_to_tensor(gradient)  # from IndexedSlices too
        if self.decay and variable.name.split("/")[-1].split(":")[0] not in UNDECAYED:
            gradient += self.decay * tf.convert_to_tensor(variable)
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=tf.cast(learning_rate * self._variable_factors[index], variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
        )
        if self.averages:
            average = self.averages[index].value
            average.assign_sub((1.0 - self.average) * (average - variable))

    def get_config(self):
        arguments = {name: getattr(self, name) for name in ("momentum", "average", "rate_factors")}
        return super().get_config() | arguments | {"weight_decay": self.decay}


@contextlib.contextmanager
def averaged_weights(model):
    """Give the model the running averages of its trained weights (`train.ema`) within the block.

    Averages over the last steps generalise better than the weights of any step (Polyak and Juditsky 1992), so they are
    evaluated and saved; training itself goes on from the weights. Nothing happens where the optimizer keeps none.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    averages = getattr(optimizer, "averages", [])
    weights = model.trainable_weights if averages else []
    trained = [weight.numpy() for weight in weights]
    for weight, average in zip(weights, averages, strict=True):
        weight.assign(average.numpy())
    try:
        yield
    finally:
        for weight, value in zip(weights, trained, strict=True):
            weight.assign(value)


def make_optimizer(config: Config) -> SGD:
    """The optimizer of the config's `train` section, its learning rate in proportion to the batch (section 3.1)."""
    train = config.train
    peak = train.learning_rate * train.images_per_batch / train.learning_rate_batch
    schedule = WarmupStepDecay(peak, train.warmup_steps, train.warmup_factor, train.decay_steps, train.decay_factor)
    options = {"average": train.ema, "rate_factors": train.rate_factors, "global_clipnorm": train.clip_norm}
    return SGD(schedule, train.momentum, train.weight_decay, **options)
