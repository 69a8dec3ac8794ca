"""Intersection over union of the classes of pixels, counted image by image at the original images' size.

The rule is detectron2's of semantic segmentation: all things are one class, pixels without a label don't count, and the
mean is over the classes that the ground truth has.
"""

import json
import math

import numpy as np

from mrcnn_tf.common.categories import IGNORED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation.results import SemanticResults

# What is counted image by image, handed from one process to another.
#

class ImageCounts:
    """Counts by image; those that measure something fill `_counts`, {image id: lists of plain numbers}."""

    def __init__(self):
        self._counts = {}

    def to_bytes(self):
        """All that was counted, for another process to `merge`."""
        return json.dumps(list(self._counts.items())).encode()

    def merge(self, data):
        """Adds what another one of the same categories gave as `to_bytes`; an image of both counts once."""
        self._counts = dict(json.loads(data)) | self._counts


THINGS = "things"  # the name of class 0


class SemanticIoU(ImageCounts):
    """What IoU and accuracy are made of, for each image that was added.

    Args:
        stuff: the S `Category`s of classes 1 to S; class 0 is any thing.
    """

    def __init__(self, stuff):
        super().__init__()  # {image id: [[class of the truth, class found, pixels], ...]}
        self.stuff = list(stuff)

    def add(self, image_id, truth, found):
        """Counts an image; one added again still counts once.

        Args:
            image_id: int.
            truth: uint8 [H, W], classes, or 255 where there is no label.
            found: uint8 [H, W], classes.

        Raises:
            UserError: the maps differ in size, or there are other classes than S + 1.
        """
        if truth.shape != found.shape:
            raise UserError(
                f"The classes predicted in image {image_id} are a map of {list(found.shape)} pixels but those of its "
                f"ground truth {list(truth.shape)} (height, width): correct the map or the image file."
            )
        classes, labelled = len(self.stuff) + 1, truth != IGNORED
        pairs = truth[labelled].astype(np.int64) * classes + found[labelled]
        if max(truth[labelled].max(initial=0), found.max(initial=0)) >= classes:
            raise UserError(
                f"Image {image_id} has a pixel of a class beyond the {classes} of all things and data.val.stuff: "
                "evaluate with the model's own stuff."
            )
        counts = np.bincount(pairs)
        places = np.flatnonzero(counts)
        rows = np.stack([places // classes, places % classes, counts[places]], axis=1)
        self._counts[int(image_id)] = rows.tolist()

    def results(self, left_out=()):
        """The figures of all images added, as `SemanticResults`.

        Args:
            left_out: sentences about what could not be evaluated.
        """
        classes = len(self.stuff) + 1
        confusion = np.zeros([classes, classes], np.int64)
        for rows in self._counts.values():
            for truth, found, pixels in rows:
                confusion[truth, found] += pixels
        right, there = np.diag(confusion), confusion.sum(axis=1)
        unions = there + confusion.sum(axis=0) - right
        described = [{"id": None, "name": THINGS}, *({"id": one.id, "name": one.name} for one in self.stuff)]
        per_class = [
            one | {"IoU": _share(hits, union if pixels else 0), "accuracy": _share(hits, pixels), "pixels": pixels}
            for one, hits, union, pixels in zip(described, right.tolist(), unions.tolist(), there.tolist(), strict=True)
        ]
        known = [row["IoU"] for row in per_class if row["IoU"] is not None]
        return SemanticResults(
            images=len(self._counts),
            mIoU=math.fsum(known) / len(known) if known else None,
            pixel_accuracy=_share(int(right.sum()), int(there.sum())),
            per_class=per_class,
            left_out=list(left_out),
        )


def _share(part, whole):
    return part / whole if whole else None
