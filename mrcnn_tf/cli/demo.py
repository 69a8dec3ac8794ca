"""The demo: train a small Mask R-CNN on the nuclei tiles that the package ships, evaluate it and draw what it sees."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.config.settings import Config
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.explain.show_batch import draw_found, draw_sample
from mrcnn_tf.results.draw import save_png, side_by_side
from mrcnn_tf.training.trainer import TrainingRun, train

DRAWN_SCORE = 0.5


@dataclasses.dataclass
class DemoResult:
    """The training run, whose results are of the held-out tiles, and the pictures."""

    run: TrainingRun
    pictures: list[pathlib.Path]


def run_demo(config: Config, folder, verbose="auto") -> DemoResult:
    """Trains by the config, evaluates on data.val and draws ground truth and detections of each of its images.

    Args:
        config: `nuclei_r18_fpn`, or one with the same data.
        folder: gets the training run's files, `results.json` and a picture per held-out tile under `pictures/`.
        verbose: as in keras.Model.fit.
    """
    if not config.data.val.annotations:
        raise UserError("The demo needs held-out images: leave data.val.annotations and data.val.images as they are.")
    folder = pathlib.Path(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of an earlier demo, which this one replaces
    run = train(config, folder, verbose=verbose)
    with atomic_write(folder / "results.json") as file:
        figures = run.results.to_json() | {"training_seconds": run.seconds}
        file.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return DemoResult(run, _draw_all(run.model, config.data.val, folder / "pictures"))


def _draw_all(model, data, folder):
    """Ground truth beside detections for each image of a small dataset, one PNG each, as the network sees them."""
    pictures = []
    for batch in coco_dataset(data, training=False):
        found = model.detect_batch(batch | {"original_size": batch["image_size"]})  # in the resized pixels
        for number, detections in enumerate(found):
            one = {name: value[number].numpy() for name, value in batch.items()}
            height, width = one["image_size"]
            image = np.round(one["image"][:height, :width]).astype(np.uint8)
            left = draw_sample(one, data.categories, data.stuff)
            right = draw_found(image, detections, min_score=DRAWN_SCORE)
            pictures.append(folder / f"{one['image_id']}.png")
            save_png(side_by_side(left, right), pictures[-1])
    return pictures
