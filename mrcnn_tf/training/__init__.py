"""Training runs: from a config to weights, checkpoints, logs and pictures. Others use of it:

- `trainer.train` runs a config and returns a `trainer.TrainingRun`.
- `callbacks.Interrupted` is raised after Ctrl-C, when the run stands between two steps.
- `optimizer.make_optimizer` and `optimizer.SGD`: SGD as the R-CNN papers use it, also for a `model.fit` of one's own.
- `checkpoints.Checkpoints` and `snapshot.snapshot`, which the benchmark measures.
- `tensorboard.draw_predictions` draws predictions beside ground truth.
"""
