"""The running averages of the weights (`train.ema`) in the place of the weights, for evaluation and saving.

Averages over the last steps generalise better than any one of them (Polyak and Juditsky 1992); training itself goes on
from the weights.
"""

import contextlib


@contextlib.contextmanager
def averaged(model):
    """Within it, the model's trained weights are their averages; nothing happens where the optimizer keeps none."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    averages = getattr(optimizer, "averages", [])
    weights = model.trainable_weights if averages else []
    kept = [weight.numpy() for weight in weights]
    for weight, average in zip(weights, averages, strict=True):
        weight.assign(average.numpy())
    try:
        yield
    finally:
        for weight, value in zip(weights, kept, strict=True):
            weight.assign(value)
