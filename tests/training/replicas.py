"""Run as a script by test_replicas: trains tiny models on some logical devices and writes what came of them.

python tests/training/replicas.py REPLICAS SCENARIO OUT.npz
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from tiny import tiny_batch, tiny_config

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import SemanticHeadConfig
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.training.optimizer import SGD

IMAGES, STEPS = 4, 3  # images of a step; two batches of so many where two are accumulated
RATE = 0.005  # small, or rounding would decide which RoIs are drawn in the third step

OVERFLOW = 100 + 10 + 3  # the last image of the second step, so that of the last replica


def logical_strategy(replicas):
    """A strategy of so many logical devices on the processor; nothing may have used TensorFlow's devices before."""
    if replicas == 1:
        return tf.distribute.get_strategy()
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * replicas)
    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])


@keras.saving.register_keras_serializable("tests")
class Overflowing(MaskRCNN):
    """Its gradient of any batch with image OVERFLOW is infinite."""

    def loss_gradients(self, batch):
        values, gradients = super().loss_gradients(batch)
        bad = tf.reduce_any(batch["image_id"] == OVERFLOW)
        return values, [tf.where(bad, np.inf, gradient) for gradient in gradients]


SCENARIOS = {
    "accumulated": {"optimizer": {"global_clipnorm": 5.0, "average": 0.9}, "accumulate": 2, "detects": True},
    "sync_bn": {"norm": "sync_bn", "rate": 0.0005},  # it multiplies rounding where a map has few cells
    "of_keras": {"of_keras": True, "images": 2 * IMAGES + 1},
    "overflow": {"kind": Overflowing, "scaled": True},
    "semantic": {"images": 2 * IMAGES + 1, "semantic": True},
    "float16": {"dtype": "mixed_float16"},
}


def batches(parts):
    """A batch for each step and part, all different, images of two sizes among them."""
    sizes = [(64, 64), (64, 48), (48, 64), (64, 64)][:IMAGES]
    made = []
    for number in range(STEPS * parts):
        batch = tiny_batch(sizes, seed=number)
        batch["image_id"] += 10 * number
        batch["boxes"][0, 0] += number  # so that the images' objects differ, too
        labels = np.random.default_rng(number).integers(0, 3, batch["image"].shape[:3])
        labels[0, 10:] = 255  # images count by their labelled pixels
        batch["semantic"] = labels.astype(np.uint8)
        made.append(batch)
    return made


def dataset(parts, images):
    made = batches(parts)
    columns = {name: np.concatenate([batch[name] for batch in made])[:images] for name in made[0]}
    return tf.data.Dataset.from_tensor_slices(columns).batch(IMAGES)


def train(
    strategy,
    norm="frozen_bn",
    optimizer=None,
    accumulate=1,
    of_keras=False,
    kind=MaskRCNN,
    scaled=False,
    dtype=None,
    images=None,
    rate=RATE,
    semantic=False,
    detects=False,
):
    """(model, arrays by name) after the steps: weights, losses, detections if asked, how far the weights moved."""
    keras.utils.set_random_seed(3)
    with strategy.scope():
        config = tiny_config("frozen_bn")
        config.backbone.norm = norm
        if semantic:
            config.stuff = [Category(5, "sky"), Category(6, "sea")]
            config.semantic_head = SemanticHeadConfig(channels=32, loss_weight=5.0)
            config.box_head = config.mask_head = None  # whose samples turn on the last digit of a score
        model = kind.from_settings(config, dtype=dtype)
        before = [weight.numpy() for weight in model.trainable_weights]
        theirs = keras.optimizers.SGD(rate, momentum=0.9, clipnorm=0.1)
        rule = theirs if of_keras else SGD(rate, **(optimizer or {}))
        model.compile(optimizer=keras.optimizers.LossScaleOptimizer(rule) if scaled else rule, accumulate=accumulate)
    history = model.fit(dataset(accumulate, images), verbose=0).history
    moved = max(np.abs(weight.numpy() - old).max() for weight, old in zip(model.trainable_weights, before, strict=True))
    return model, outcome(model, history, detects) | {"moved": moved}


def outcome(model, history, detects):
    arrays = {f"weights/{weight.path}": weight.numpy() for weight in model.weights}
    arrays |= {f"averages/{i}": value.numpy() for i, value in enumerate(getattr(model.optimizer, "averages", []))}
    arrays |= {f"logs/{name}": np.array(value) for name, value in history.items() if name.startswith("loss")}
    if detects:
        three = {name: values[:3] for name, values in batches(1)[0].items()}  # no multiple of the replicas
        for index, detected in enumerate(model.detect_batch(three)):
            arrays |= {f"boxes/{index}": detected.boxes, f"scores/{index}": detected.scores}
    if hasattr(model.optimizer, "dynamic_scale"):
        arrays["scale"] = model.optimizer.dynamic_scale.numpy()
    return arrays | {"steps": model.optimizer.iterations.numpy()}


def main(replicas, folder, *scenarios):
    strategy, kept = logical_strategy(int(replicas)), []
    for scenario in scenarios:
        # Kept, for TensorFlow locked up when it let go of one model's graphs while it traced another on two replicas.
        model, arrays = train(strategy, **SCENARIOS[scenario])
        kept.append(model)
        np.savez(f"{folder}/{scenario}-{replicas}.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
