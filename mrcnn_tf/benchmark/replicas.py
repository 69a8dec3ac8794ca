"""What it costs to train on two devices: a step of the same images on one logical processor and on two.

Both have the same cores, so what the second run takes longer is the price of the replicas: sums of gradients, weights
kept twice, operations on smaller batches.
"""

import keras
import tensorflow as tf

from mrcnn_tf.benchmark import worker
from mrcnn_tf.benchmark.models import benchmark_config
from mrcnn_tf.benchmark.training import RATE, repeated_batch
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.training.optimizer import SGD

IMAGES = 2  # of a step


def prepare(config, overrides, height, width, replicas):
    """Times a step of SGD on IMAGES images of height x width pixels, divided among `replicas` logical devices."""
    settings = benchmark_config(config, overrides, height, width)
    with logical_strategy(replicas).scope():
        keras.utils.set_random_seed(0)
        model = MaskRCNN(settings.model)
        model.compile(optimizer=SGD(RATE, settings.train.momentum, settings.train.weight_decay))
        model.optimizer.build(model.trainable_weights)
    model.make_train_function()
    data = repeated_batch(settings, height, width, IMAGES)
    batches = iter(model.distribute_strategy.experimental_distribute_dataset(data))
    return worker.Task(worker.timed(step=lambda: model.train_function(batches)))


def logical_strategy(replicas):
    """A strategy of so many logical devices on the processor; nothing may have used TensorFlow's devices before."""
    if replicas == 1:
        return tf.distribute.get_strategy()
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * replicas)
    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])


if __name__ == "__main__":
    worker.serve(prepare)
