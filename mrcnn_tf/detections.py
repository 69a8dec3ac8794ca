"""What the model found in one image, in that image's own pixels."""

import functools

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf import visualize
from mrcnn_tf.ops.masks import paste_masks, paste_window

NAMED_IN_REPR = 5


class Detections:
    """The detections of one image, best first, as numpy arrays. D may be 0.

    Attributes:
        boxes: [D, 4] float32, [x1, y1, x2, y2] in pixels of the original image.
        scores: [D] float32 in 0..1.
        classes: [D] int32, 1..K, the model's numbering.
        category_ids: [D] int64, the dataset's ids of those classes.
        category_names: D strings.
        mask_probabilities: [D, M, M] float32, the mask of the predicted class inside its box; None without a mask head.
        masks: [D, H, W] bool, made of `mask_probabilities` when first asked for; None without a mask head.
        keypoints: None, there being no keypoint head.
        image_size: (H, W) of the original image.
        mask_rule: how mask probabilities become pixels, "torchvision" or "detectron2" (`conventions.mask_paste`).
    """

    def __init__(
        self, boxes, scores, classes, image_size, categories, mask_probabilities=None, mask_rule="torchvision"
    ):
        """Takes what the attributes describe, and `categories`: the model's K `Category`s, in its classes' order.

        Raises:
            ValueError: arrays of different lengths, or a class outside 1..K.
        """
        self.boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        self.scores = np.asarray(scores, np.float32)
        self.classes = np.asarray(classes, np.int32)
        self.mask_probabilities = None if mask_probabilities is None else np.asarray(mask_probabilities, np.float32)
        self.keypoints = None
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.mask_rule = mask_rule
        lengths = {len(self.boxes), len(self.scores), len(self.classes)}
        if self.mask_probabilities is not None:
            lengths.add(len(self.mask_probabilities))
        if len(lengths) > 1:
            raise ValueError(f"boxes, scores, classes and masks must be equally many, not {sorted(lengths)}.")
        if len(self.classes) and not 1 <= self.classes.min() <= self.classes.max() <= len(categories):
            raise ValueError(f"Every class must lie in 1..{len(categories)}, the number of categories.")
        found = [categories[c - 1] for c in self.classes]
        self.category_ids = np.array([category.id for category in found], np.int64)
        self.category_names = [category.name for category in found]

    def __len__(self):
        return len(self.scores)

    def __repr__(self):
        best = [
            f"{name} {score:.2f}"
            for name, score in zip(self.category_names[:NAMED_IN_REPR], self.scores[:NAMED_IN_REPR], strict=True)
        ]
        if len(self) > NAMED_IN_REPR:
            best.append("...")
        height, width = self.image_size
        return f"<Detections: {len(self)} in {height} x {width} pixels{': ' if best else ''}{', '.join(best)}>"

    @functools.cached_property
    def masks(self):
        if self.mask_probabilities is None:
            return None
        return paste_masks(self.mask_probabilities, self.boxes, *self.image_size, self.mask_rule)

    def to_coco(self, image_id):
        """The detections in COCO's result format, ready for `json.dump` and for pycocotools.

        Masks are encoded from their windows, so no whole-image mask is held.

        Args:
            image_id: the id of this image in the dataset.

        Returns:
            D dicts with `image_id`, `category_id`, `bbox` [x, y, width, height] and `score`; with a mask head also
            `segmentation`, a compressed RLE whose `counts` is a string.
        """
        results = []
        for index, (x1, y1, x2, y2) in enumerate(self.boxes.tolist()):
            result = {
                "image_id": int(image_id),
                "category_id": int(self.category_ids[index]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(self.scores[index]),
            }
            if self.mask_probabilities is not None:
                window = paste_window(
                    self.mask_probabilities[index], self.boxes[index], *self.image_size, self.mask_rule
                )
                result["segmentation"] = _encode(window, *self.image_size)
            results.append(result)
        return results

    def draw(self, image, min_score=0.0, min_side=visualize.MIN_SIDE):
        """The image with its detections drawn on it; see `visualize.draw_detections`."""
        return visualize.draw_detections(image, self, min_score, min_side)


def _encode(window, height, width):
    """The COCO RLE of a `MaskWindow` in a [height, width] image.

    RLE runs go down the columns, so each set run within a column of the window is a run of the image, unless it
    touches the image's bottom and the next column's top.
    """
    rows, columns = window.pixels.shape
    # One unset pixel before all and one below each column: no run goes on past its column.
    pixels = np.zeros(columns * (rows + 1) + 1, bool)
    pixels[1:].reshape(columns, rows + 1)[:, :rows] = window.pixels.T
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])  # starts and ends by turns
    bounds = (changes // (rows + 1) + window.left) * height + changes % (rows + 1) + window.top
    joined = np.flatnonzero(bounds[1:] == bounds[:-1])  # an end where the next run starts
    bounds = np.delete(bounds, np.concatenate([joined, joined + 1]))
    counts = np.diff(bounds, prepend=0, append=height * width).tolist()
    if counts[-1] == 0:
        counts.pop()
    rle = coco_mask.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
