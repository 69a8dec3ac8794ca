"""How the pixels of a dataset are divided among things, the classes of stuff and what has no class."""

import concurrent.futures
import dataclasses
import os

import numpy as np

from mrcnn_tf.common.categories import IGNORED
from mrcnn_tf.evaluation.semantic_iou import THINGS
from mrcnn_tf.evaluation.truth import thing_annotations


@dataclasses.dataclass
class PixelCount:
    """How many pixels a class has and in how many images it occurs; `id` is None for all things as one."""

    id: int | None
    name: str
    pixels: int
    images: int


@dataclasses.dataclass
class PixelStatistics:
    """Counts over the pixels of all images with a map.

    Attributes:
        images, pixels: how many.
        unlabelled: pixels of no class: void, ignored, or of a category that isn't among those in use.
        classes: `PixelCount`s, all things as one first, then stuff in its order.
    """

    images: int
    pixels: int
    unlabelled: int
    classes: list[PixelCount]

    def to_json(self):
        """All of it as a plain dict for `json.dump`, each class with its `share` of all pixels."""
        plain = dataclasses.asdict(self)
        for row in plain["classes"]:
            row["share"] = row["pixels"] / self.pixels
        return plain | {"unlabelled_share": self.unlabelled / self.pixels}


def read_pixels(truth, annotate=False, on_done=None):
    """Goes through all maps once.

    Args:
        truth: `SegmentTruth` or `LabelTruth`.
        annotate: whether its things are the dataset's instances.
        on_done: called after each image.

    Returns:
        (`PixelStatistics`, the things as annotations of a `GroundTruth`, [] unless `annotate`).

    Raises:
        UserError: a map that can't be read or doesn't fit its json.
    """
    counts = np.zeros([len(truth.images), IGNORED + 1], np.int64)
    annotations = []
    ids = [image["id"] for image in truth.images]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        read = pool.map(lambda image_id: _read(truth, image_id, annotate), ids)
        for row, (found, things) in enumerate(read):
            counts[row] = found
            annotations += [{"id": len(annotations) + place} | thing for place, thing in enumerate(things, 1)]
            if on_done:
                on_done()
    described = [(None, THINGS), *((one.id, one.name) for one in truth.stuff)]
    classes = [
        PixelCount(*one, int(counts[:, number].sum()), int((counts[:, number] > 0).sum()))
        for number, one in enumerate(described)
    ]
    return PixelStatistics(len(ids), int(counts.sum()), int(counts[:, IGNORED].sum()), classes), annotations


def _read(truth, image_id, annotate):
    """([256] pixels of each class, the things as annotations) of an image."""
    if not annotate:
        return _class_counts(truth.labels(image_id)), []
    regions, things = truth.regions(image_id), {one.id for one in truth.classes if one.is_thing}
    segments = [segment for segment in regions.segments if segment["category_id"] in things]
    annotations = thing_annotations(regions.pixels, segments, image_id)
    return _class_counts(truth.labels(image_id, regions)), annotations


def _class_counts(labels):
    return np.bincount(labels.ravel(), minlength=IGNORED + 1)
