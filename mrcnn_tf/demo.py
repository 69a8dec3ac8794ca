"""The demo: train a small Mask R-CNN on the nuclei tiles that the package ships, evaluate it and draw what it sees."""

import dataclasses
import json
import pathlib

import numpy as np

from mrcnn_tf.config import Config
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.evaluation.coco import CocoResults
from mrcnn_tf.evaluation.runner import evaluate
from mrcnn_tf.files import replaced
from mrcnn_tf.training.trainer import TrainingRun, train
from mrcnn_tf.visualize import draw_ground_truth, save_png, side_by_side

DRAWN_SCORE = 0.5


@dataclasses.dataclass
class DemoResult:
    """The training run, the final figures on the held-out tiles, and the pictures."""

    run: TrainingRun
    results: CocoResults
    pictures: list[pathlib.Path]


def run_demo(config: Config, folder, verbose="auto") -> DemoResult:
    """Trains by the config, evaluates on data.val and draws ground truth and detections of each of its images.

    Args:
        config: `nuclei_r18_fpn`, or one with the same data.
        folder: gets the training run's files, `results.json` and a picture per held-out tile under `pictures/`.
        verbose: as in keras.Model.fit.
    """
    folder = pathlib.Path(folder)
    run = train(config, folder, verbose=verbose)
    results, _ = evaluate(run.model, config.data.val, progress=verbose != 0)
    with replaced(folder / "results.json") as file:
        file.write_text(json.dumps(results.to_json() | {"training_seconds": run.seconds}, indent=1), encoding="utf-8")
    return DemoResult(run, results, _draw_all(run.model, config.data.val, folder / "pictures"))


def _draw_all(model, data, folder):
    """Ground truth beside detections for each image of a small dataset, one PNG each, as the network sees them."""
    pictures = []
    for batch in coco_dataset(data, training=False).unbatch().as_numpy_iterator():
        height, width = batch["image_size"]
        image = np.round(batch["image"][:height, :width]).astype(np.uint8)
        found = batch["classes"] > 0
        names = [data.categories[number - 1].name for number in batch["classes"][found]]
        left = draw_ground_truth(image, batch["boxes"][found], names, batch["masks"][found])
        right = model.detect(image).draw(image, min_score=DRAWN_SCORE)
        pictures.append(folder / f"{batch['image_id']}.png")
        save_png(side_by_side(left, right), pictures[-1])
    return pictures
