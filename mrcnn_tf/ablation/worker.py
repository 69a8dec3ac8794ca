"""The process that trains and evaluates one row with one seed: `python -m mrcnn_tf.ablation.worker ARGUMENTS`.

ARGUMENTS is a json object: `overrides` over `base.yaml`, and the `folder` for what training leaves and `result.json`.
"""

import dataclasses
import json
import pathlib
import resource
import shutil
import sys

from mrcnn_tf.ablation.runner import BASE, RESULT
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.config.load import load_config
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.evaluation.evaluate_model import evaluate
from mrcnn_tf.training.trainer import train

CHECKPOINTS = "checkpoints"
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes


def run_row(overrides, folder):
    """Trains by `base.yaml` and the overrides, evaluates once at the end and writes `result.json` into the folder."""
    config = load_config(BASE, overrides)
    folder, val = pathlib.Path(folder), config.data.val
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # of a run that didn't get to its result
    # An evaluation after each epoch would take longer than the training.
    run = train(dataclasses.replace(config, data=dataclasses.replace(config.data, val=DataConfig())), folder, verbose=0)
    results, _ = evaluate(run.model, val, progress=False)
    (folder / "model.keras").unlink()  # tens of runs of hundreds of megabytes, which nobody needs
    shutil.rmtree(folder / CHECKPOINTS)
    outcome = {
        "figures": results.to_json(),
        "losses": run.history[-1],
        "seconds": run.seconds,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT,
        "overrides": overrides,
    }
    with atomic_write(folder / RESULT) as file:
        file.write_text(json.dumps(outcome, indent=1), encoding="utf-8")


if __name__ == "__main__":
    try:
        run_row(**json.loads(sys.argv[1]))
    except UserError as error:
        sys.exit(str(error))
