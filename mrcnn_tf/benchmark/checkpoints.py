"""What a checkpoint costs the training that goes on while it is written."""

import pathlib
import tempfile

import keras

from mrcnn_tf.benchmark import worker
from mrcnn_tf.benchmark.models import benchmark_config
from mrcnn_tf.benchmark.training import RATE, repeated_batch
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.training.checkpoint import Checkpoints
from mrcnn_tf.training.optimizer import SGD
from mrcnn_tf.training.snapshot import snapshot

STEPS = 2  # more than a write takes


def prepare(config, overrides, height, width):
    """Times STEPS training steps of one image, by themselves and from the begin of a checkpoint's writing on.

    The difference is what a checkpoint costs, copying included; the fact `every` is the config's steps between two.
    """
    settings = benchmark_config(config, overrides, height, width)
    keras.utils.set_random_seed(0)
    model = MaskRCNN(settings.model)
    model.compile(optimizer=SGD(RATE, settings.train.momentum, settings.train.weight_decay))
    model.optimizer.build(model.trainable_weights)
    model.make_train_function()
    batches = iter(repeated_batch(settings, height, width, 1))
    folder = tempfile.TemporaryDirectory()
    checkpoints = Checkpoints(pathlib.Path(folder.name), keep=1)
    facts = {"every": settings.train.checkpoint_steps, "steps": STEPS}
    model.train_function(batches)

    def steps():
        for _ in range(STEPS):
            model.train_function(batches)

    def saving():
        step = facts["saved"] = facts.get("saved", 0) + 1
        checkpoints.save(snapshot(model), {"step": step})
        steps()
        checkpoints.close()

    task = worker.Task(worker.timed(steps=steps, steps_saving=saving), facts)
    task.folder = folder  # it goes when the process ends
    return task


if __name__ == "__main__":
    worker.serve(prepare)
