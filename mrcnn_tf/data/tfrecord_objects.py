"""The objects of records as the columns that `checks.Checker` takes from a json's annotations."""

import numpy as np

from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets.records import NO_KEYPOINTS


class RecordObjects:
    """The objects of I records, T of them, as columns; see `records.Annotations`. They have no polygons and runs.

    Args:
        images: list of I tfrecord_features.RecordFeatures.
        sources: list of I (file, number) of their records.
        categories: list of Category.
        masks: whether an object needs a mask. If so, those without are left out.

    Attributes:
        ids: [T] int64, 0, 1, ...
        places: [T] int64, their places in their records.
        problems: list of Problem, for those left out.
    """

    def __init__(self, images, sources, categories, masks):
        counts = np.array([image.labels.size for image in images], np.int64)
        owners = np.repeat(np.arange(len(images)), counts)
        places = np.arange(owners.size) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = np.ones(owners.size, bool)
        if masks:
            kept = _joined([image.masked for image in images], bool)
        self.problems = [_unmasked(*sources[owners[row]], places[row]) for row in np.flatnonzero(~kept).tolist()]
        self._sources = sources
        self._owners, self.places = owners[kept], places[kept]
        self.ids = np.arange(self.places.size)
        self.image_ids = np.array([image.image_id for image in images], np.int64)[self._owners]
        self.category_ids = _joined([image.labels for image in images], np.int64)[kept]
        self.crowd = _joined([image.crowd for image in images], bool)[kept]
        self.areas = _joined([image.areas for image in images], np.float64)[kept]
        corners = _joined([image.boxes for image in images], np.float64).reshape(-1, 4)[kept]
        self.boxes = np.c_[corners[:, :2], corners[:, 2:] - corners[:, :2]]
        self.box_given = np.ones(self.ids.size, bool)
        self.ring_counts = self.run_starts = self.run_counts = np.zeros(self.ids.size, np.int64)
        self.rle_sizes = np.full([self.ids.size, 2], -1)
        self.ring_sizes, self.points, self.runs = np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64)
        self._set_keypoints([image.keypoints for image in images], categories)

    def whereabouts(self, row):
        """See `records.Annotations.whereabouts`."""
        return _named(*self._sources[self._owners[row]], self.places[row])

    def _set_keypoints(self, keypoints, categories):
        # A record has room for the category with the most; others fill the beginning of theirs.
        numbers = {category.id: len(category.keypoints) for category in categories}
        kept = []
        self.keypoint_numbers = np.full(self.ids.size, NO_KEYPOINTS)
        self.keypoint_counts = np.zeros(self.ids.size, np.int64)
        for row, (owner, place, label) in enumerate(
            zip(self._owners.tolist(), self.places.tolist(), self.category_ids.tolist(), strict=True)
        ):
            if keypoints[owner].size:
                values = keypoints[owner][place, : numbers.get(label)]
                self.keypoint_numbers[row] = values.size
                if values[:, 2].any():
                    self.keypoint_counts[row] = values.size
                    kept.append(values.ravel())
        self.keypoints = _joined(kept, np.float32)


def _joined(arrays, kind):
    return np.concatenate([np.zeros(0, kind), *(array.ravel() for array in arrays)]).astype(kind)


def _unmasked(file, number, place):
    record, file, name = _named(file, number, place)
    what = "has no mask, a PNG of the image's size, and was skipped: write image/object/mask or train without masks."
    return Problem("empty_segmentation", record, file, f"{name} {what}")


def _named(file, number, place):
    return f"{number}/{place}", file, f"Object {place} of record {number} of {file}"
