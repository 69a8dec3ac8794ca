"""Detections whose masks come as COCO's compressed run lengths instead of probabilities."""

import functools

import numpy as np
from PIL import Image

from mrcnn_tf.datasets.rle import decode_strings
from mrcnn_tf.results.detections import Detections

SIDE = 112  # of the square that shows a mask inside its box in a picture


class EncodedMaskDetections(Detections):
    """`Detections` with `mask_counts`, D COCO strings as bytes, in the place of `mask_probabilities`, which are None.

    `masks` and `to_coco` are exactly what was encoded; a picture shows them as far as 112 x 112 cells of a box can.
    """

    def __init__(self, mask_counts, **kwargs):
        """Takes the `counts` of D whole-image masks, and everything else as `Detections` does.

        Raises:
            ValueError: a string that isn't the run lengths of an image of this size, and what `Detections` raises.
        """
        super().__init__(**kwargs)
        self.mask_counts = [bytes(counts) for counts in mask_counts]
        runs, numbers = decode_strings(self.mask_counts)
        self._runs = np.split(runs, np.cumsum(numbers)[:-1])[: len(numbers)]
        pixels = self.image_size[0] * self.image_size[1]
        fit = all(len(own) and own.min() >= 0 and own.sum() == pixels for own in self._runs)
        if len(self.mask_counts) != len(self) or not fit:
            raise ValueError(f"the masks must be run lengths of {len(self)} images of {self.image_size} pixels")

    @functools.cached_property
    def masks(self):
        masks = np.zeros((len(self), *self.image_size), bool)
        for index, mask in enumerate(masks):
            mask[:] = self.mask(index)
        return masks

    def to_coco(self, image_id):
        """As `Detections.to_coco`."""
        results = super().to_coco(image_id)
        for result, counts in zip(results, self.mask_counts, strict=True):
            result["segmentation"] = {"size": list(self.image_size), "counts": counts.decode("ascii")}
        return results

    def draw(self, image, **kwargs):
        """As `Detections.draw`."""
        shown = Detections(
            self.boxes,
            self.scores,
            np.arange(1, len(self) + 1),
            self.image_size,
            self.categories,
            mask_probabilities=self._in_boxes(),
            mask_rule="detectron2",
            keypoints=self.keypoints,
        )
        return shown.draw(image, **kwargs)

    def mask(self, index):
        """One of `masks`, [H, W] bool."""
        runs = self._runs[index]  # down the columns, outside and inside by turns
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(self.image_size[::-1]).T

    def _in_boxes(self):
        """[D, SIDE, SIDE] float32: the share of each cell of a box that its mask covers."""
        limits = np.array([*self.image_size[::-1], *self.image_size[::-1]], np.float32)
        squares = np.zeros((len(self), SIDE, SIDE), np.float32)
        for index, (square, box) in enumerate(zip(squares, np.clip(self.boxes, 0, limits), strict=True)):
            if box[2] > box[0] and box[3] > box[1]:
                mask = Image.fromarray(self.mask(index).astype(np.uint8) * 255)
                square[:] = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX, tuple(box.tolist()))) / 255
        return squares
