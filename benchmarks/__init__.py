"""What only this project needs to measure itself, run from a checkout: `python -m benchmarks compare`, `ablate`
and `memory`.

`comparison` sets `mrcnn_tf` beside torchvision, detectron2 and the Model Garden, each measurement in processes of its
own (`cases`), and `display` shows it. Our measurements are in `roofline`, `detection_cost` and `training_cost`, or
where `mrcnn-tf benchmark` has them; those of the others are in `peers`. `ablation` trains the paper's tables.
"""
