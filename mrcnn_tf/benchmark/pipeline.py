"""The input pipeline alone: how many training images a second the processor can prepare."""

import json
import os
import tempfile

import numpy as np
from PIL import Image

from mrcnn_tf.benchmark import inputs, worker
from mrcnn_tf.config.settings import DataConfig, ResizeConfig
from mrcnn_tf.data.pipeline import coco_dataset

FILE_HEIGHT, FILE_WIDTH = 480, 640
FILES, CLASSES = 16, 3
CORNERS = 40  # of an object's outline


def prepare(images=48, batch=2):
    """Times `images` images of coco_dataset(training=True): 640 x 480 JPEG files, seven polygons each, to 800 pixels.

    The time is seconds for each image.
    """
    # Kept in memory by the process: the files are read anew in each pass.
    folder = tempfile.TemporaryDirectory()
    os.environ["MRCNN_TF_CACHE"] = os.path.join(folder.name, "cache")
    annotations = make_dataset(folder.name)
    config = DataConfig(annotations, folder.name, images_per_batch=batch, resize=ResizeConfig())
    batches = iter(coco_dataset(config, training=True).repeat())

    def run():
        elapsed = worker.seconds(lambda: [next(batches) for _ in range(images // batch)])
        return {"image": elapsed / (images // batch * batch)}

    # The task holds the folder: it goes when the process ends.
    task = worker.Task(run)
    task.folder = folder
    return task


def make_dataset(folder):
    """Writes FILES JPEG files and a COCO json of their objects into `folder`; returns the json's path."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, FILES + 1):
        coarse = generator.integers(0, 256, (FILE_HEIGHT // 8, FILE_WIDTH // 8, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((FILE_WIDTH, FILE_HEIGHT), Image.Resampling.BICUBIC)
        picture.save(os.path.join(folder, f"{number}.jpg"))
        images.append({"id": number, "file_name": f"{number}.jpg", "height": FILE_HEIGHT, "width": FILE_WIDTH})
        for box, category in zip(*inputs.objects(FILE_HEIGHT, FILE_WIDTH, CLASSES), strict=True):
            annotations.append(_annotation(len(annotations) + 1, number, box, int(category)))
    categories = [{"id": number, "name": str(number)} for number in range(1, CLASSES + 1)]
    path = os.path.join(folder, "instances.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, file)
    return path


def _annotation(number, image, box, category):
    """The ellipse that fills the box, as a polygon."""
    x1, y1, x2, y2 = map(float, box)
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    outline = np.stack([np.cos(angles) * (x2 - x1) + x1 + x2, np.sin(angles) * (y2 - y1) + y1 + y2], 1) / 2
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1) * np.pi / 4,
        "iscrowd": 0,
        "segmentation": [outline.round(2).ravel().tolist()],
    }


if __name__ == "__main__":
    worker.serve(prepare)
