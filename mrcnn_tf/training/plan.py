"""What a run is going to do, said in a few lines at the start, and when it will be done."""

import itertools
import math
import statistics
import time

import keras

from mrcnn_tf.training.memory import activation_bytes, state_bytes

FIRST, LAST = 3, 10  # the steps that are timed; those before compile and fill buffers


def plan_lines(model, config, images, replicas=1, step=0):
    """A few lines for a reader who doesn't know the config by heart.

    Args:
        model: compiled.
        config: the whole `Config`.
        images: in the training data; None if unknown.
        replicas: devices that train together.
        step: how many steps the run has behind it.
    """
    train = config.train
    seen = train.steps * train.images_per_batch
    rounds = f" of {images} images, {_short(seen / images)} times through them" if images else ""
    begin = f" (it goes on after step {step})" if step else ""
    shared = _shares(train.images_per_batch, replicas, train.accumulate)
    return [
        f"Training: {train.steps} steps{rounds}{begin}; {train.images_per_batch} images a step{shared}.",
        _model_line(model),
        _memory_line(model, config, train.images_per_batch // (replicas * train.accumulate)),
    ]


def _shares(images, replicas, accumulate):
    parts = [f"{replicas} devices"] * (replicas > 1) + [f"{accumulate} parts one after another"] * (accumulate > 1)
    return f" = {' x '.join([*parts, f'{images // (replicas * accumulate)} images'])}" if parts else ""


def _model_line(model):
    count, trained = (
        sum(math.prod(variable.shape) for variable in variables) / 1e6
        for variables in (model.weights, model.trainable_variables)
    )
    numbers = model.compute_dtype
    mixed = "" if numbers == "float32" else " with weights in float32"
    return f"Model: {count:.1f} million weights, {trained:.1f} of them trained; computed in {numbers}{mixed}."


def _memory_line(model, config, images):
    height, width = config.data.train.pad_to or (config.model.resize.min_size, config.model.resize.max_size)
    state, layers = state_bytes(model), activation_bytes(model, height, width, images)
    if layers is None:
        return f"Memory of a device: {_gigabytes(state)} for weights, gradients and momentum, and what the images take."
    return (
        f"Memory of a device: about {_gigabytes(state + layers)}, {_gigabytes(state)} of it for weights, gradients and "
        f"momentum, the rest for {images} images of up to {width}x{height} pixels."
    )


def _gigabytes(size):
    return f"{size / 1e9:.1f} GB"


def _short(number):
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def duration(seconds):
    """Such as "2 d 3 h", "3 h 20 min", "4 min" or "50 s"."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


class TimeLeft(keras.callbacks.Callback):
    """Says once, after the first steps, how long the rest will take: by the median of the third to the tenth step.

    Args:
        steps: of the whole run.
        step: how many it has behind it.
        say: a function of the line.
    """

    def __init__(self, steps, step=0, say=print):
        super().__init__()
        self.steps, self.step, self.say = steps, step, say
        self._ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if len(self._ends) < LAST:
            self._ends.append(time.perf_counter())
            if len(self._ends) == LAST and self.step < self.steps:
                self.say(self._line())

    def _line(self):
        times = [after - before for before, after in itertools.pairwise(self._ends)][FIRST - 2 :]
        seconds, left = statistics.median(times), self.steps - self.step
        return (
            f"\nStep {self.step}: {seconds:.2f} s a step; the other {left} will take about {duration(seconds * left)}, "
            "evaluation not counted."
        )
