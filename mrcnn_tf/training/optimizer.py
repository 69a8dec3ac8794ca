"""SGD as the R-CNN papers use it."""

import fnmatch
import math

import keras
import tensorflow as tf

from mrcnn_tf.config.settings import Config
from mrcnn_tf.training.schedule import WarmupStepDecay

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
        average: decay of a running average of the weights, kept in `averages`; None for none. See `training.averages`.
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
        self._factors = [_factor(self.rate_factors, variable.path) for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Updates one tf.Variable in place."""
        place = self._get_variable_index(variable)
        velocity = self.velocities[place].value
        gradient = tf.convert_to_tensor(gradient)  # from IndexedSlices too
        if self.decay and variable.name.split("/")[-1].split(":")[0] not in UNDECAYED:
            gradient += self.decay * tf.convert_to_tensor(variable)
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=tf.cast(learning_rate * self._factors[place], variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
        )
        if self.averages:
            average = self.averages[place].value
            average.assign_sub((1.0 - self.average) * (average - variable))

    def get_config(self):
        return super().get_config() | {
            "momentum": self.momentum,
            "weight_decay": self.decay,
            "average": self.average,
            "rate_factors": self.rate_factors,
        }


def _factor(factors, path):
    """The product of the factors whose pattern the path of a weight matches, as a shell would match a file's name."""
    return math.prod(factor for pattern, factor in factors.items() if fnmatch.fnmatchcase(path, pattern))


def make_optimizer(config: Config) -> SGD:
    """The optimizer of the config's `train` section, its learning rate in proportion to the batch (section 3.1)."""
    train = config.train
    peak = train.learning_rate * train.images_per_batch / train.learning_rate_batch
    schedule = WarmupStepDecay(peak, train.warmup_steps, train.warmup_factor, train.decay_steps, train.decay_factor)
    options = {"average": train.ema, "rate_factors": train.rate_factors, "global_clipnorm": train.clip_norm}
    return SGD(schedule, train.momentum, train.weight_decay, **options)
