"""What a run is going to do, said in a few lines at the start: steps, weights, memory, and when it will be done."""

import itertools
import math
import statistics
import time

import keras

from mrcnn_tf.model.necks import activations_of

FIRST_TIMED_STEP, LAST_TIMED_STEP = 3, 10  # those before compile and fill buffers
# Bytes held for each byte that trained convolutions put out: what norms and activations make of it counts, too. And
# those that a step takes besides. Both are fitted, see `activation_bytes`.
ACTIVATION_FACTOR = 1.46
WORKSPACE_BYTES = 0.39e9
# The same of the logits that the semantic loss interpolates to the image's pixels, with 200 to 600 classes.
SEMANTIC_LOGITS_FACTOR = 1.1


def plan_lines(model, config, images, replicas=1, step=0):
    """Describe a run in a few lines, for a reader who doesn't know the config by heart.

    The compiled model trains on `replicas` devices together, on a number of images (None if unknown), and has done
    `step` steps.
    """
    train = config.train
    seen = train.steps * train.images_per_batch
    passes = f" of {images} images, {_short(seen / images)} times through them" if images else ""
    resumed = f" (it goes on after step {step})" if step else ""
    shares = _shares(train.images_per_batch, replicas, train.accumulate)
    return [
        f"Training: {train.steps} steps{passes}{resumed}; {train.images_per_batch} images a step{shares}.",
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
    dtype = model.compute_dtype
    mixed = "" if dtype == "float32" else " with weights in float32"
    return f"Model: {count:.1f} million weights, {trained:.1f} of them trained; computed in {dtype}{mixed}."


def _memory_line(model, config, images):
    height, width = config.data.train.pad_to or (model.resize.min_size, model.resize.max_size)
    state, activations = state_bytes(model), activation_bytes(model, height, width, images)
    if activations is None:
        return (
            f"Memory of a device: {state / 1e9:.1f} GB for weights, gradients and momentum, and what the images take."
        )
    return (
        f"Memory of a device: about {(state + activations) / 1e9:.1f} GB, {state / 1e9:.1f} GB of it for weights, "
        f"gradients and momentum, the rest for {images} images of up to {width}x{height} pixels."
    )


def _short(number):
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def format_duration(seconds):
    """A time such as "2 d 3 h", "3 h 20 min", "4 min" or "50 s"."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


class TimeLeft(keras.callbacks.Callback):
    """Prints once, after the first steps, how long the rest will take: by the median of the third to the tenth step.

    The run has done `step` of its `steps`.
    """

    def __init__(self, steps, step=0, print_line=print):
        super().__init__()
        self.steps, self.step, self.print_line = steps, step, print_line
        self._end_times = []

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if len(self._end_times) < LAST_TIMED_STEP:
            self._end_times.append(time.perf_counter())
            if len(self._end_times) == LAST_TIMED_STEP and self.step < self.steps:
                self.print_line(self._line())

    def _line(self):
        times = [after - before for before, after in itertools.pairwise(self._end_times)][FIRST_TIMED_STEP - 2 :]
        seconds, left = statistics.median(times), self.steps - self.step
        return (
            f"\nStep {self.step}: {seconds:.2f} s a step; the other {left} will take about "
            f"{format_duration(seconds * left)}, evaluation not counted."
        )


def state_bytes(model):
    """Bytes that a compiled model's weights, gradients and optimizer (momentum, averages) take on each device.

    Exact for float32; parts of a batch that are added up (`accumulate`) hold the gradients twice.
    """
    copies_of_gradients = 2 if model.accumulate > 1 else 1
    variables = [*model.weights, *list(model.trainable_variables) * copies_of_gradients, *model.optimizer.variables]
    return sum(math.prod(variable.shape) * (8 if variable.dtype.endswith("64") else 4) for variable in variables)


def activation_bytes(model, height, width, images):
    """Estimate the bytes of a step on one device beside `state_bytes`; None for a backbone that doesn't say.

    It counts what the trained convolutions, the RoI layers and the semantic loss put out, as the parts say it of
    themselves. The constants were fitted to the growth of a process on a processor, with TensorFlow 2.20: the first two
    in seven cases of 0.7 to 1.9 GB (ResNet-18 and -50, 256 and 512 pixels, one and two images, float32 and bfloat16),
    of which the smallest is missed by 16 %, the others by 6 % at most, as are three that were not among them (800x800,
    800x1088, C4). What a semantic head for 53 classes of stuff added to one of 512 pixels was 0.11 GB, where 0.09 are
    expected. What a GPU's convolutions ask for besides isn't in it.
    The device works on `images` at once, padded to `height` times `width` pixels.
    """
    pixels = height * width
    elements = activations_of(model.features, pixels)
    if elements is None:
        return None
    if model.rpn:
        elements += model.rpn.activations(pixels, model.spec.strides.values())
    rois, positives = model.roi_sampler.settings.batch_per_image, model.roi_sampler.most_positives
    elements += sum(head.activations(pixels, rois, positives) for head in model.heads if head.trainable_variables)
    elements += _roi_features(model, rois, positives)
    size = 4 if model.compute_dtype == "float32" else 2
    semantic_classes = 1 + len(model.stuff) if model.gives("semantic_logits") else 0
    activations = ACTIVATION_FACTOR * size * elements
    semantic_logits = SEMANTIC_LOGITS_FACTOR * 4 * semantic_classes * pixels
    return round(WORKSPACE_BYTES + images * (activations + semantic_logits))


def _roi_features(model, rois, positives):
    """Numbers that the pooling layers put out for an image; what heads share is pooled once."""
    pooled = {}
    for head in model.heads:
        if head.pooling:
            count = positives if head.learns_from_positives else rois
            pooled[head.pooling] = max(count, pooled.get(head.pooling, 0))
    shapes = {name: (None, None, None, channels) for name, channels in model.spec.channels.items()}
    return sum(
        layer.activations(count, shapes)
        if hasattr(layer, "activations")
        else count * math.prod(layer.output_shape_of(shapes)[2:])
        for layer, count in pooled.items()
    )
