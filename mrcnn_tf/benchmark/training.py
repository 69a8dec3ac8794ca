"""A training step, as `fit` runs it."""

import keras
import numpy as np
import tensorflow as tf

from mrcnn_tf.benchmark import inputs, worker
from mrcnn_tf.benchmark.models import benchmark_config, benchmark_model
from mrcnn_tf.training.optimizer import SGD

RATE = 1e-9  # random weights must not run away


def prepare(config, overrides, height, width, precision):
    """Times a step of SGD with momentum on one image of height x width pixels with seven objects and their masks."""
    settings = benchmark_config(config, overrides, height, width)
    keras.utils.set_random_seed(0)
    model = benchmark_model(settings, precision)
    model.compile(optimizer=SGD(RATE, settings.train.momentum, settings.train.weight_decay))
    model.optimizer.build(model.trainable_weights)
    model.make_train_function()
    batches = iter(repeated_batch(settings, height, width, 1))
    facts = {}

    def run():
        elapsed = worker.seconds(lambda: facts.update(_as_numbers(model.train_function(batches))))
        return {"step": elapsed}

    return worker.Task(run, facts)


def _as_numbers(metrics):
    return {name: float(value) for name, value in metrics.items() if name.startswith("loss")}


def repeated_batch(config, height, width, images):
    """An endless tf.data.Dataset of one batch with the same image `images` times."""
    batch = _batch(height, width, len(config.model.categories), config.data.train)
    if config.model.semantic_head:
        batch["semantic"] = inputs.labels(*batch["image"].shape[1:3], len(config.model.stuff))[None]
    batch = {name: np.repeat(values, images, axis=0) for name, values in batch.items()}
    batch["image_id"] = np.arange(images, dtype=np.int64)
    return tf.data.Dataset.from_tensors(batch).repeat()


def _batch(height, width, classes, data):
    """A batch of one image by the data pipeline's contract, its canvas a multiple of 32."""
    pixels = np.zeros((1, -(-height // 32) * 32, -(-width // 32) * 32, 3), np.float32)
    pixels[0, :height, :width] = inputs.image(height, width)
    boxes, classes = inputs.objects(height, width, classes)
    side = data.mask_size
    masks = np.repeat(255 * inputs.ellipses(np.array([[0, 0, side, side]]), side, side), len(boxes), axis=0)

    def padded(values):
        return np.pad(values, [(0, data.max_instances - len(values))] + [(0, 0)] * (values.ndim - 1))[None]

    size = np.array([[height, width]], np.int32)
    return {
        "image": pixels,
        "image_size": size,
        "original_size": size,
        "boxes": padded(boxes),
        "classes": padded(classes.astype(np.int32)),
        "masks": padded(masks),
        "crowd": np.zeros((1, data.max_instances), bool),
        "image_id": np.ones(1, np.int64),
    }


if __name__ == "__main__":
    worker.serve(prepare)
