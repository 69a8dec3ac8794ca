"""Run by test_snapshot: state out of and into a model on two logical devices. python mirrored_snapshot.py OUT.npz"""

import sys

import numpy as np
import tensorflow as tf
from tiny import tiny_config

from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.training.checkpoints import write_checkpoint
from mrcnn_tf.training.optimizer import SGD
from mrcnn_tf.training.snapshot import restore, snapshot


def main(path):
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = MaskRCNN.from_settings(tiny_config("frozen_bn"))
        model.compile(SGD(0.01, average=0.9))
    tracker = model.loss_trackers["loss"]
    strategy.run(lambda: tracker.update_state(3.0))
    arrays = snapshot(model)
    assert (arrays["losses/loss/total"], arrays["losses/loss/count"]) == (6.0, 2.0)  # the sum over the replicas
    marked = {name: np.full_like(array, 5) for name, array in arrays.items()}
    restore(model, marked)
    again = snapshot(model)
    assert all((again[name] == array).all() for name, array in marked.items())
    for variable in [*model.weights, *model.optimizer.variables]:
        replicas = strategy.experimental_local_results(variable.value)
        assert len(replicas) == 2 and all((replica.numpy() == 5).all() for replica in replicas), variable.path
    write_checkpoint(path, marked, {})


if __name__ == "__main__":
    main(sys.argv[1])
