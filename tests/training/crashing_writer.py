"""Saves checkpoints without a pause until it is killed: python crashing_writer.py FOLDER STEP."""

import itertools
import sys

import numpy as np

from mrcnn_tf.training.checkpoints import Checkpoints

MEGABYTES = 6


def arrays_of(step):
    """What the checkpoint of a step holds: its content follows from the step."""
    return {"model/a": np.full([MEGABYTES << 18], step, np.float32), "losses/count": np.array(step, np.int64)}


if __name__ == "__main__":
    checkpoints = Checkpoints(sys.argv[1], keep=2)
    first = int(sys.argv[2])
    for step in itertools.count(first):
        checkpoints.save(arrays_of(step), {"step": step, "figures": {"val_segm_AP": -abs(step - 7)}})
