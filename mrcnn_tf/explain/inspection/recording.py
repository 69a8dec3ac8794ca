"""Keeps the classes of pixels that a model finds while it is evaluated, which has no use for them afterwards."""

import os

import numpy as np
from PIL import Image


class Recording:
    """A model whose answers are kept; else it is the model.

    Args:
        model: has `detect_batch`, as `evaluation.runner.evaluate` needs it.
        folder: that exists, for a PNG of each image.
    """

    def __init__(self, model, folder):
        self._model, self._folder = model, str(folder)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def detect_batch(self, batch):
        """What the model detects in a batch of `coco_dataset`."""
        found = self._model.detect_batch(batch)
        for image_id, detections in zip(np.asarray(batch["image_id"]).tolist(), found, strict=True):
            if detections.semantic is not None:
                Image.fromarray(np.asarray(detections.semantic, np.uint8)).save(self._path(image_id), compress_level=1)
        return found

    def seen(self, images):
        """Those of some records of images that the model gave classes for."""
        return [image for image in images if os.path.isfile(self._path(image["id"]))]

    def labels(self, image_id):
        """uint8 [H, W], what it found in an image."""
        with Image.open(self._path(image_id)) as image:
            return np.asarray(image)

    def _path(self, image_id):
        return os.path.join(self._folder, f"{image_id}.png")
