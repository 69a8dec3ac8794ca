"""Training runs of the command in processes of their own, small enough for tests."""

import json
import os
import signal
import subprocess
import sys
import time

from mrcnn_tf.training.checkpoints import read_checkpoint

START = "from mrcnn_tf.cli import main; main()"
CONFIG = """
model:
  features: C5
  backbone: {depth: 10, norm: gn, freeze_at: 0}
  resize: {min_size: 64, max_size: 64}
  fpn: {channels: 32}
  rpn:
    {batch_per_image: 32, pre_nms_train: 60, pre_nms_test: 60, post_nms_train: 30, post_nms_test: 30,
     anchor_sizes: [8, 16, 32, 64, 128]}
  rois: {batch_per_image: 16}
  box_head: {channels: 32}
  mask_head: {channels: 16, convs: 1}
  detections: {max_per_image: 5}
train:
  {images_per_batch: 4, learning_rate: 0.002, learning_rate_batch: 4, steps: 8, epoch_steps: 4, warmup_steps: 2,
   checkpoint_steps: 3, log_steps: 1, clip_norm: 1.0, ema: 0.9, deterministic: true}
"""


def write_config(folder, shapes, held_out):
    """The path of a config for two datasets, each (json, folder of images)."""
    path = folder / "config.yaml"
    parts = {
        name: {"annotations": str(annotations), "images": str(images)}
        for name, (annotations, images) in (("train", shapes), ("val", held_out))
    }
    path.write_text(f"{CONFIG}\ndata: {json.dumps(parts)}\n")
    return path


def start(config, out, *options, cluster=None, index=0):
    """The process of `mrcnn-tf train`; with `cluster`, a list of addresses, that of one of several workers."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    if cluster:
        task = {"cluster": {"worker": cluster}, "task": {"type": "worker", "index": index}}
        environment["TF_CONFIG"] = json.dumps(task)
    command = [sys.executable, "-c", START, "train", str(config), "--out", str(out), *options]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, **streams)


def finish(process, status=0, seconds=600):
    """What the process printed; checks its exit status."""
    printed = process.communicate(timeout=seconds)[0]
    assert process.returncode == status, printed[-3000:]
    return printed


def signal_at_step(process, out, step, number=signal.SIGKILL):
    """Sends a signal to the process as soon as its log has come to a step."""
    while process.poll() is None and logged(out)[-1:] < [step]:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0][-3000:]
    process.send_signal(number)


def logged(out):
    """The steps in the log."""
    return [record["step"] for record in records(out)]


def records(out):
    """The records in the log, without what depends on the clock."""
    path = out / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    clocks = ("time", "images_per_second", "input_wait")
    return [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines if line.endswith("}")]


def last_state(out):
    """(arrays by name, facts) of the last checkpoint."""
    return read_checkpoint(sorted((out / "checkpoints").glob("step-*.npz"))[-1])
