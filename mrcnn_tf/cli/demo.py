"""`mrcnn-tf demo`: train a small Mask R-CNN on the nuclei tiles that the package ships, evaluate it, draw what it sees.

A tile is a part of a microscopy picture; the held-out tiles of data.val are those that are evaluated and drawn.
"""

import json
import pathlib
import shlex
import shutil
import time
from typing import Annotated

import typer

from mrcnn_tf.cli.options import AsJson, Overrides, console
from mrcnn_tf.common.errors import UserError

DRAWN_SCORE = 0.5  # the pictures show detections of at least this score


def demo(
    overrides: Overrides = None,
    out: Annotated[pathlib.Path, typer.Option(help="The folder for the model, figures and pictures.")] = pathlib.Path(
        "runs/demo"
    ),
    as_json: AsJson = False,
):
    """Train a small Mask R-CNN on microscopy tiles that come with the package, evaluate it and draw what it sees."""
    started = time.perf_counter()
    from mrcnn_tf.config.load import load_config
    from mrcnn_tf.training.callbacks import Interrupted

    try:
        run, pictures = run_demo(load_config("nuclei_r18_fpn", overrides or []), out, verbose=0 if as_json else "auto")
    except Interrupted as interrupted:
        command = shlex.join(["mrcnn-tf", "train", str(out / "config.yaml"), "--out", str(out), "--resume"])
        console.print(f"Stopped. Training goes on with: {command}", soft_wrap=True)
        raise typer.Exit(interrupted.exit_code) from None
    seconds = {"training": run.seconds, "total": time.perf_counter() - started}
    if as_json:
        print(json.dumps(run.results.to_json() | {"seconds": seconds}))
        return
    console.print(run.results.table())
    console.print(f"Trained in {seconds['training']:.0f} s, everything took {seconds['total']:.0f} s.")
    for picture in pictures:
        console.print(f"Picture: {picture}", soft_wrap=True)
    model = run.folder / "model.keras"
    console.print(f"Model:   {model}\nTry it:  mrcnn-tf predict YOUR_IMAGE.png --weights {model}", soft_wrap=True)


def run_demo(config, folder, verbose="auto"):
    """Train by a config, evaluate on data.val, and draw ground truth beside detections for each of its images.

    The config is that of `nuclei_r18_fpn`, or one with the same data. The folder gets the training run's files,
    `results.json` and a picture per held-out tile under `pictures/`; `verbose` is as in keras.Model.fit. Returns the
    `TrainingRun`, whose results are of the held-out tiles, and the list of the pictures' paths.
    """
    from mrcnn_tf.common.files import write_json
    from mrcnn_tf.training.trainer import train

    if not config.data.val.annotations:
        raise UserError("The demo needs held-out images: leave data.val.annotations and data.val.images as they are.")
    folder = pathlib.Path(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of an earlier demo, which this one replaces
    run = train(config, folder, verbose=verbose)
    write_json(run.results.to_json() | {"training_seconds": run.seconds}, folder / "results.json", indent=1)
    return run, _draw_images(run.model, config.data.val, folder / "pictures")


def _draw_images(model, data, folder):
    """One PNG for each image of a small dataset, resized as the network sees it; returns their paths."""
    import numpy as np

    from mrcnn_tf.data.pipeline import coco_dataset
    from mrcnn_tf.explain.show_batch import draw_result, draw_sample
    from mrcnn_tf.results.draw import save_png, side_by_side

    pictures = []
    for batch in coco_dataset(data, training=False):
        # With the resized image as the original, boxes and masks are in the resized pixels that are drawn.
        detections_of_images = model.detect_batch(batch | {"original_size": batch["image_size"]})
        for index, detections in enumerate(detections_of_images):
            sample = {name: value[index].numpy() for name, value in batch.items()}
            height, width = sample["image_size"]
            image = np.round(sample["image"][:height, :width]).astype(np.uint8)
            left = draw_sample(sample, data.categories, data.stuff)
            right = draw_result(image, detections, min_score=DRAWN_SCORE)
            pictures.append(folder / f"{sample['image_id']}.png")
            save_png(side_by_side(left, right), pictures[-1])
    return pictures
