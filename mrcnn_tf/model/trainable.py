"""A Keras model that brings its own losses: `compile`, `fit` and the steps between them."""

import keras
import numpy as np
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.roi_features import RoILayer
from mrcnn_tf.model.steps import (
    GRADIENT,
    SCALED_GRADIENT,
    FiniteCheck,
    make_step_function,
    make_train_function,
    prepare_optimizer,
)
from mrcnn_tf.ops.native.library import static_shapes
from mrcnn_tf.ops.replicas import gather_over_replicas, sum_over_replicas

SMALLEST_LOSS_SCALE = 2.0**-10  # halved so often, it isn't the scale that is at fault


class _Clock(keras.metrics.Metric):
    """Counts something over the wall time since the first step of the epoch, whose own count only starts the clock.

    On several replicas all count the same, and what is read is the sum over them: both parts of a ratio grow alike.
    """

    def __init__(self, name, **kwargs):
        super().__init__(name=name, dtype="float64", **kwargs)  # seconds since 1970 need more than float32
        self.count = self.add_variable((), "zeros", dtype="float64", name="count")
        self.start = self.add_variable((), "zeros", dtype="float64", name="start")
        self.now = self.add_variable((), "zeros", dtype="float64", name="now")

    def update_state(self, count, now):
        """Adds a step's count; `now` is the time in seconds."""
        started = self.start > 0.0
        self.count.assign_add(tf.where(started, tf.cast(count, tf.float64), 0.0))
        self.start.assign(tf.where(started, tf.convert_to_tensor(self.start), now))
        self.now.assign(now)

    def result(self):
        return tf.math.divide_no_nan(tf.convert_to_tensor(self.count), self.now - self.start)


@keras.saving.register_keras_serializable("mrcnn_tf")
class ImagesPerSecond(_Clock):
    """Images of all replicas per second, waiting for input included."""

    def __init__(self, name="images_per_second", **kwargs):
        super().__init__(name, **kwargs)


@keras.saving.register_keras_serializable("mrcnn_tf")
class InputWait(_Clock):
    """The share of the time, 0 to 1, that the step waited for its batch. Updated with seconds."""

    def __init__(self, name="input_wait", **kwargs):
        super().__init__(name, **kwargs)


class Trainable(keras.Model):
    """What `MaskRCNN` needs for training beside `compute_losses(batch, training) -> {name: scalar}`."""

    def track(self, names):
        """Makes the metrics that logs show: of "loss", the losses by name, and the speed."""
        self.loss_trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self.speed, self.input_wait = ImagesPerSecond(), InputWait()

    def compile(self, optimizer="sgd", accumulate=1, jit_compile=False, **kwargs):
        """keras.Model.compile; the losses are the model's own.

        Args:
            optimizer: as in Keras. In mixed float16 it gets dynamic loss scaling.
            accumulate: batches whose gradients are averaged for one step; `fit` counts steps, not batches.
            jit_compile: compile losses and gradients by XLA, with stock operations; on one device alone.
            **kwargs: as in Keras.
        """
        if jit_compile and self.distribute_strategy.num_replicas_in_sync > 1:
            raise UserError("XLA can't compile a step on several devices: leave out jit_compile (train.jit_compile).")
        roi_layers = (layer for layer in self._flatten_layers() if isinstance(layer, RoILayer))
        if jit_compile and any(layer.settings.kind == "pool" for layer in roi_layers):
            raise UserError(
                "XLA can't compile RoIPool, the size of whose bins follows from the boxes: leave out jit_compile "
                "(train.jit_compile)."
            )
        # To Keras it would mean the whole step, with the check of the losses, which speaks in strings.
        super().compile(optimizer=optimizer, jit_compile=False, **kwargs)
        prepare_optimizer(self.optimizer, self.distribute_strategy)
        self.accumulate, self.by_xla = accumulate, jit_compile
        self.finite_check = FiniteCheck(self.loss_names, self.distribute_strategy)

    accumulate, by_xla = 1, False

    def get_compile_config(self):
        """What `compile` was called with, as json."""
        own = {"accumulate": self.accumulate, "jit_compile": self.by_xla}
        return super().get_compile_config() | own if self.compiled else {}

    def compile_from_config(self, config):
        """Compiles a loaded model as it was when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_weights)

    def _maybe_symbolic_build(self, *args, **kwargs):
        """Nothing: all weights are there. Keras would trace the model once more, which fails on several replicas."""

    def make_train_function(self, force=False):
        """See `steps`."""
        if self.train_function is None or force:
            self.train_function = make_train_function(self)

    def make_test_function(self, force=False):
        """See `steps`."""
        if self.test_function is None or force:
            self.test_function = make_step_function(self, self.test_step)

    def train_step(self, batch, now=0.0, waited=0.0):
        """One step of `fit`, which fails before a number that isn't finite reaches the weights, see `FiniteCheck`.

        Args:
            batch: of the data contract, this replica's part of it.
            now: the time when it was there, in seconds; 0 leaves the speed out.
            waited: seconds until then.
        """
        values, gradients = self.loss_gradients(batch)
        return self.update(values, gradients, tf.shape(batch["image"])[0], now, waited, batch["image_id"])

    def loss_gradients(self, batch):
        """The losses of a batch by name, and the gradient of (with float16, the scaled) sum for each trainable weight.

        Under a strategy they are this replica's shares, see `losses`.
        """
        if not self.by_xla:
            return self._loss_gradients(batch)
        with static_shapes():
            return tf.function(self._loss_gradients, jit_compile=True, autograph=False)(batch)

    def _loss_gradients(self, batch):
        with tf.GradientTape() as tape:
            values = self.compute_losses(batch)
            total = self.optimizer.scale_loss(tf.add_n(list(values.values())))
        return values, tape.gradient(total, self.trainable_weights)

    def update(self, values, gradients, images, now, waited, image_ids=None):
        """Sums losses and gradients over the replicas, updates the weights, and returns the figures of the step."""
        gradients = sum_over_replicas([tf.convert_to_tensor(gradient) for gradient in gradients])
        values = dict(zip(values, sum_over_replicas(list(values.values())), strict=True))
        image_ids = None if image_ids is None else gather_over_replicas(image_ids)
        checked = self.finite_check.check(values | self._gradient_scalar(gradients), image_ids)
        with tf.control_dependencies(list(checked.values())):
            self.optimizer.apply([tf.identity(gradient) for gradient in gradients], self.trainable_weights)
        self.speed.update_state(sum_over_replicas(images), now)
        self.input_wait.update_state(waited, now)
        return self._report(values) | {metric.name: metric.result() for metric in (self.speed, self.input_wait)}

    def _gradient_scalar(self, gradients):
        """A scalar by name that is finite where the gradient is, or may still become so by a smaller loss scale."""
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            return {GRADIENT: tf.linalg.global_norm(gradients)}
        scale = tf.convert_to_tensor(self.optimizer.dynamic_scale)
        return {SCALED_GRADIENT: tf.where(scale < SMALLEST_LOSS_SCALE, np.inf, 0.0)}

    def test_step(self, batch):
        """One step of `fit`'s validation and of keras `evaluate`: the losses. Average precision: `CocoAP`."""
        values = self.compute_losses(batch, training=False)
        return self._report(dict(zip(values, sum_over_replicas(list(values.values())), strict=True)))

    def _report(self, values):
        for name, value in {"loss": tf.add_n(list(values.values())), **values}.items():
            self.loss_trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self.loss_trackers.items()}

    @property
    def loss_names(self):
        """The names of what `compute_losses` gives."""
        return [name for name in self.loss_trackers if name != "loss"]

    def fit(self, x=None, *args, steps_per_epoch=None, **kwargs):
        """keras.Model.fit, but a loss that isn't finite ends in a NonFiniteLoss of one sentence."""
        if self.compiled and not self.optimizer.built:
            with self.distribute_strategy.scope():  # made inside the first step, they would have it traced twice
                self.optimizer.build(self.trainable_weights)
        if self.accumulate > 1 and steps_per_epoch is None and isinstance(x, tf.data.Dataset):
            steps_per_epoch = int(x.cardinality()) // self.accumulate
            if steps_per_epoch < 1:
                raise UserError(
                    f"The data has {int(x.cardinality())} batches and a step takes {self.accumulate} (accumulate): "
                    "give steps_per_epoch and data that repeats, or accumulate less."
                )
            x = x.repeat()
        kwargs = {"shuffle": False} | kwargs  # Keras warns of shuffling a tf.data.Dataset
        try:
            return super().fit(x, *args, steps_per_epoch=steps_per_epoch, **kwargs)
        except tf.errors.InvalidArgumentError:
            error = self.finite_check.error()
            if error is None:
                raise
            raise error from None
