"""The detections of one image, in that image's own pixels: boxes, masks, keypoints and classes of pixels."""

import collections
import functools

import numpy as np
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.datasets.run_lengths import as_text, decode_strings
from mrcnn_tf.ops.masks import paste_masks, paste_window
from mrcnn_tf.ops.panoptic_maps import semantic_map
from mrcnn_tf.results import draw
from mrcnn_tf.results.segments import NAMED_IN_REPR, Panoptic

ENCODED_MASK_SIDE = 112  # cells along each side of a box by which a picture shows an encoded mask

# Of one image: logits [h, w, S + 1] of all things and S classes of stuff; the (h, w) of the network's image that they
# are of; the S `Category`s; and the `PanopticConfig` by which instances and stuff are fused, None where they aren't.
SemanticLogits = collections.namedtuple("SemanticLogits", "logits size stuff fusion")
# The same with the class of each pixel, uint8 [H, W]; and what an exported model fused, an `ops.panoptic_maps.Fused` of
# numpy arrays, or None: then it is fused here.
SemanticMap = collections.namedtuple("SemanticMap", "labels fused stuff fusion")


class Detections:
    """The detections of one image, best first, as numpy arrays. D may be 0.

    Attributes:
        boxes: [D, 4] float32, [x1, y1, x2, y2] in pixels of the original image.
        scores: [D] float32 in 0..1.
        classes: [D] int32, 1..K, the model's numbering.
        category_ids: [D] int64, the dataset's ids of those classes.
        category_names: D strings.
        categories: the D `Category`s themselves, with the names and the skeleton of their keypoints.
        mask_probabilities: [D, M, M] float32, the mask of the predicted class inside its box; None without a mask head.
        masks: [D, H, W] bool, made of `mask_probabilities` when first asked for; None without a mask head.
        keypoints: [D, P, 3] float32, (x, y, score) in pixels of the original image, P being the most keypoints of any
            class; zeros beyond the keypoints of the detection's own class. The score is what `conventions.
            keypoint_score` says. None without a keypoint head.
        keypoint_offset: pixels that `keypoints` lie right of and below the dataset's own (`conventions.
            keypoint_offset`): 0.5 where a whole number stands for the centre of its pixel.
        image_size: (H, W) of the original image.
        mask_rule: how mask probabilities become pixels, "torchvision" or "detectron2" (`conventions.mask_paste`).
        semantic: [H, W] uint8, the class of each pixel: 0 of any thing, 1..S of stuff. Made when first asked for, of
            logits that are held until then, 12 MB with 54 classes at 800 x 1088. None without a semantic head.
        extras: what heads of a user's own give of each detection, arrays [D, ...] by name; each is an attribute, too.
        panoptic: things and stuff as one map of segments, a `Panoptic`, made when first asked for. None without a
            semantic head, or with boxes and no masks.
    """

    def __init__(
        self,
        boxes,
        scores,
        classes,
        image_size,
        categories,
        mask_probabilities=None,
        mask_rule="torchvision",
        keypoints=None,
        keypoint_offset=0.0,
        semantics=None,
        **extras,
    ):
        """Takes what the attributes describe, but as `categories` the model's K `Category`s, in its classes' order, and
        as `semantics` what `semantic` and `panoptic` are made of, a `SemanticLogits` or `SemanticMap`.

        Raises:
            ValueError: arrays of different lengths, a class outside 1..K, or keypoints that aren't [D, P, 3] or fewer
                than a detected class has.
        """
        self.boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        self.scores = np.asarray(scores, np.float32)
        self.classes = np.asarray(classes, np.int32)
        self.mask_probabilities = None if mask_probabilities is None else np.asarray(mask_probabilities, np.float32)
        self.keypoints = None if keypoints is None else np.asarray(keypoints, np.float32)
        self.keypoint_offset = float(keypoint_offset)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.mask_rule, self.semantics = mask_rule, semantics
        self.extras = {name: np.asarray(values) for name, values in extras.items()}
        self._check(categories)
        self.categories = [categories[c - 1] for c in self.classes]
        self.category_ids = np.array([category.id for category in self.categories], np.int64)
        self.category_names = [category.name for category in self.categories]

    def _check(self, categories):
        arrays = (self.boxes, self.scores, self.classes, self.mask_probabilities, self.keypoints)
        arrays += tuple(self.extras.values())
        lengths = {len(array) for array in arrays if array is not None}
        if len(lengths) > 1:
            names = ", ".join(["boxes", "scores", "classes", "masks", "keypoints", *self.extras])
            raise ValueError(f"{names} must be equally many, not {sorted(lengths)}.")
        if len(self.classes) and not 1 <= self.classes.min() <= self.classes.max() <= len(categories):
            raise ValueError(f"Every class must lie in 1..{len(categories)}, the number of categories.")
        if self.keypoints is not None:
            most = max((len(categories[c - 1].keypoints) for c in self.classes), default=0)
            if self.keypoints.ndim != 3 or self.keypoints.shape[1] < most or self.keypoints.shape[2] != 3:
                raise ValueError(f"Keypoints must be [D, {most} or more, 3], not {list(self.keypoints.shape)}.")

    def __len__(self):
        return len(self.scores)

    def __getattr__(self, name):
        extras = self.__dict__.get("extras", {})
        if name in extras:
            return extras[name]
        raise AttributeError(f"Detections have no '{name}': the model has no head that gives it.")

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

    @property
    def semantic(self):
        if self.semantics is None:
            return None
        if isinstance(self.semantics, SemanticLogits):
            logits, size = (tf.convert_to_tensor(value) for value in self.semantics[:2])
            labels = _semantic_function(logits.shape[2])(logits, size, tf.constant(self.image_size)).numpy()
            self.semantics = SemanticMap(labels, None, *self.semantics[2:])
        return self.semantics.labels

    @functools.cached_property
    def panoptic(self):
        semantics = self.semantics
        if semantics is None or semantics.fusion is None:
            return None
        if isinstance(semantics, SemanticMap) and semantics.fused:
            return Panoptic.from_fused(*semantics.fused[:3], self, semantics.stuff)
        return Panoptic.fuse(self, self.semantic, semantics.stuff, semantics.fusion)

    def label(self, index):
        """The name and the score of a detection, and what `extras` have a single number of, as pictures show them."""
        numbers = [
            f"{name} {values[index].item():.3g}"
            for name, values in self.extras.items()
            if values[index].size == 1 and np.issubdtype(values.dtype, np.number)
        ]
        return " ".join([f"{self.category_names[index]} {self.scores[index]:.2f}", *numbers])

    def to_coco(self, image_id):
        """List the detections in COCO's result format, ready for `json.dump` and for pycocotools.

        Masks are encoded from their windows, so no whole-image mask is held.

        Args:
            image_id: the id of this image in the dataset, a whole number or a name.

        Returns:
            D dicts with `image_id`, `category_id`, `bbox` [x, y, width, height] and `score`; with a mask head also
            `segmentation`, a compressed RLE whose `counts` is a string; with a keypoint head, where the class has
            keypoints, `keypoints` [x, y, score, x, y, score, ...] in their order, x and y counted as the dataset does;
            and what `extras` hold.
        """
        results = []
        for index, (x1, y1, x2, y2) in enumerate(self.boxes.tolist()):
            result = {
                "image_id": image_id if isinstance(image_id, str) else int(image_id),
                "category_id": int(self.category_ids[index]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(self.scores[index]),
            }
            if self.mask_probabilities is not None:
                window = paste_window(
                    self.mask_probabilities[index], self.boxes[index], *self.image_size, self.mask_rule
                )
                result["segmentation"] = _encode_window(window, *self.image_size)
            count = len(self.categories[index].keypoints)
            if self.keypoints is not None and count:
                offset = np.array([self.keypoint_offset, self.keypoint_offset, 0], np.float32)
                result["keypoints"] = (self.keypoints[index, :count] - offset).ravel().tolist()
            results.append(result | {name: values[index].tolist() for name, values in self.extras.items()})
        return results

    def draw(self, image, min_score=0.0, min_side=draw.MIN_SIDE):
        """Draw the detections on their image; see `results.draw.draw_detections`."""
        return draw.draw_detections(image, self, min_score, min_side)


@functools.cache
def _semantic_function(classes):
    """`ops.panoptic_maps.semantic_map`, traced once for images of all sizes."""
    sizes = tf.TensorSpec([2], tf.int32)
    signature = [tf.TensorSpec([None, None, classes], tf.float32), sizes, sizes]
    return tf.function(semantic_map, input_signature=signature, autograph=False)


def _encode_window(window, height, width):
    """The COCO RLE of a `MaskWindow` in a [height, width] image.

    RLE runs go down the columns, so each set run within a column of the window is a run of the image, unless it
    touches the image's bottom and the next column's top.
    """
    rows, columns = window.pixels.shape
    # One unset pixel before all and one below each column: no run goes on past its column.
    pixels = np.zeros(columns * (rows + 1) + 1, bool)
    pixels[1:].reshape(columns, rows + 1)[:, :rows] = window.pixels.T
    edges = np.flatnonzero(pixels[1:] != pixels[:-1])  # starts and ends of set runs by turns
    bounds = (edges // (rows + 1) + window.left) * height + edges % (rows + 1) + window.top
    joined = np.flatnonzero(bounds[1:] == bounds[:-1])  # an end where the next run starts
    bounds = np.delete(bounds, np.concatenate([joined, joined + 1]))
    counts = np.diff(bounds, prepend=0, append=height * width).tolist()
    if counts[-1] == 0:
        counts.pop()
    return as_text(coco_mask.frPyObjects({"counts": counts, "size": [height, width]}, height, width))


class EncodedMaskDetections(Detections):
    """`Detections` whose masks are COCO's compressed run lengths, `mask_counts`, D bytes, not `mask_probabilities`.

    `masks` and `to_coco` are exactly what was encoded; a picture shows them as far as 112 x 112 cells of a box can.
    """

    def __init__(self, mask_counts, **kwargs):
        """Takes the `counts` of D whole-image masks, and everything else as `Detections` does, with its errors.

        Raises ValueError also for a string that isn't the run lengths of an image of this size.
        """
        super().__init__(**kwargs)
        self.mask_counts = [bytes(counts) for counts in mask_counts]
        runs, numbers = decode_strings(self.mask_counts)
        pixels = self.image_size[0] * self.image_size[1]
        mask_runs = np.split(runs, np.cumsum(numbers)[:-1])[: len(numbers)]
        fit = all(len(lengths) and lengths.min() >= 0 and lengths.sum() == pixels for lengths in mask_runs)
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
        detections = Detections(
            self.boxes,
            self.scores,
            np.arange(1, len(self) + 1),
            self.image_size,
            self.categories,
            mask_probabilities=self._masks_in_boxes(),
            mask_rule="detectron2",
            keypoints=self.keypoints,
            **self.extras,
        )
        return detections.draw(image, **kwargs)

    def mask(self, index):
        """One of `masks`, [H, W] bool."""
        return coco_mask.decode({"size": list(self.image_size), "counts": self.mask_counts[index]}).astype(bool)

    def _masks_in_boxes(self):
        """float32 [D, S, S], S cells along each side of a box: the share of each cell that the mask covers."""
        side = ENCODED_MASK_SIDE
        limits = np.array([*self.image_size[::-1], *self.image_size[::-1]], np.float32)
        squares = np.zeros((len(self), side, side), np.float32)
        for index, (square, box) in enumerate(zip(squares, np.clip(self.boxes, 0, limits), strict=True)):
            if box[2] > box[0] and box[3] > box[1]:
                mask = Image.fromarray(self.mask(index) * np.uint8(255))
                square[:] = np.asarray(mask.resize((side, side), Image.Resampling.BOX, tuple(box.tolist()))) / 255
        return squares
