"""RPN and box head on one image as numpy arrays, boxes in the original image's pixels."""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.ops.boxes import DROPPED, nms


@dataclasses.dataclass
class Limits:
    """The settings that decide what is dropped, as the model's layers have them.

    Attributes:
        score_threshold, class_nms_iou, max_detections: of detections.
        candidates_per_level, rpn_nms_iou, max_proposals: of proposals.
        foreground_iou, background_iou: an anchor of at least this IoU learns an object, one below this background.
        min_size, max_size: the sides that images are resized to, pixels.
    """

    score_threshold: float
    class_nms_iou: float
    max_detections: int
    candidates_per_level: int
    rpn_nms_iou: float
    max_proposals: int
    foreground_iou: float
    background_iou: float
    min_size: int
    max_size: int


@dataclasses.dataclass
class Level:
    """One map that the RPN reads.

    Attributes:
        name: such as "P2" or "C4".
        stride: pixels of the network's input per cell.
        cells: (rows, columns).
        anchors: [N, 4] pixels of the original image; N = rows * columns * anchors per cell, in that order.
        objectness: [N] float32, 0..1.
    """

    name: str
    stride: int
    cells: tuple[int, int]
    anchors: np.ndarray
    objectness: np.ndarray


@dataclasses.dataclass
class Candidates:
    """The RPN's best anchors of each level, moved by its deltas and clipped, before suppression.

    Attributes:
        boxes: [N, 4] pixels of the original image.
        objectness: [N] float32 0..1.
        levels: [N] int32, index into `Stages.levels`.
        usable: [N] bool; False for a box without area or with numbers that aren't finite.
        kept: [n] int32, which candidates suppression leaves, by falling objectness; the first `Limits.max_proposals`
            of them are the proposals.
    """

    boxes: np.ndarray
    objectness: np.ndarray
    levels: np.ndarray
    usable: np.ndarray
    kept: np.ndarray


@dataclasses.dataclass
class Proposals:
    """The P RoIs that the box head gets, by falling objectness.

    Attributes:
        boxes: [P, 4] pixels of the original image.
        objectness: [P] float32 0..1.
        pooled_from: [P] int32, index into `Stages.levels`: the map that the box head's features are cut from.
    """

    boxes: np.ndarray
    objectness: np.ndarray
    pooled_from: np.ndarray


@dataclasses.dataclass
class Classification:
    """What the box head says of the P proposals.

    Attributes:
        probabilities: [P, K + 1] float32, column 0 is the background.
        boxes: [P, K, 4] pixels of the original image, the box for each class, clipped.
        usable: [P, K] bool: the score is above the threshold and the box large enough.
        kept: [n] int32, which of the P * K boxes suppression leaves, by falling score; the first
            `Limits.max_detections` of them are the detections. Proposal n // K, class n % K + 1.
    """

    probabilities: np.ndarray
    boxes: np.ndarray
    usable: np.ndarray
    kept: np.ndarray


def read_limits(model):
    rpn, detections, resize = model.rpn.config, model.box_head.detections, model.preprocess.resize
    return Limits(
        score_threshold=detections["score_threshold"],
        class_nms_iou=detections["nms_iou"],
        max_detections=detections["max_per_image"],
        candidates_per_level=rpn["pre_nms_test"],
        rpn_nms_iou=rpn["nms_iou"],
        max_proposals=rpn["post_nms_test"],
        foreground_iou=rpn["foreground_iou"],
        background_iou=rpn["background_iou"],
        min_size=resize["min_size"],
        max_size=resize["max_size"],
    )


def read_levels(model, seen, frame, names):
    levels = []
    rows = zip(names, model.rpn.strides, seen["features"], model.rpn.anchors(seen["features"], None), strict=True)
    for (name, stride, features, anchors), logits in zip(rows, seen["logits"], strict=True):
        anchors = frame.original(anchors).reshape(-1, 4)
        cells = int(features.shape[1]), int(features.shape[2])
        levels.append(Level(name, stride, cells, anchors, _probability(logits[0])))
    return levels


def read_candidates(model, seen, frame):
    boxes, scores, level = seen["candidates"]
    kept = _survivors(boxes, scores, level, model.rpn.config["nms_iou"])
    usable = scores.numpy()[0] > DROPPED / 2
    objectness = np.where(usable, _probability(scores[0]), 0)
    return Candidates(frame.original(boxes[0]), objectness, level.numpy(), usable, kept)


def read_proposals(model, seen, frame):
    boxes, scores, valid = (values[0] for values in seen["proposals"])
    levels = roi_layer(model).levels(seen["proposals"].boxes)[0]
    real = valid.numpy()
    return Proposals(frame.original(boxes)[real], _probability(scores)[real], levels.numpy()[real])


def read_classification(model, seen, frame):
    boxes, scores, classes = seen["class_candidates"]
    real = seen["proposals"].valid.numpy()[0]
    kept = _survivors(boxes, scores, classes, model.box_head.detections["nms_iou"])
    shape = [len(real), model.box_head.num_classes]
    return Classification(
        probabilities=tf.nn.softmax(seen["class_logits"])[0].numpy()[real],
        boxes=frame.original(boxes[0]).reshape(*shape, 4)[real],
        usable=(scores.numpy()[0] > DROPPED / 2).reshape(shape)[real],
        kept=kept,
    )


def _survivors(boxes, scores, groups, iou):
    """Indices [n] of all that suppression leaves, without the limit to the best so many, which takes the first of
    them."""
    kept, valid = nms(boxes, scores, groups[None, :], iou, int(boxes.shape[1]))
    return kept.numpy()[0][valid.numpy()[0]]


def roi_layer(model):
    """The box head's `RoILayer`, which on C4 lies inside `Res5`."""
    return getattr(model.box_features, "roi_layer", model.box_features)


def _probability(logits):
    logits = np.asarray(logits, np.float32)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))


# Between the network's input and the original image.
#

class Frame:
    """Between the network's input and the original image."""

    def __init__(self, model, inputs):
        self.size = tuple(int(side) for side in inputs["image_size"].numpy()[0])
        height, width = inputs["original_size"].numpy()[0]
        y, x = np.float32(height) / np.float32(self.size[0]), np.float32(width) / np.float32(self.size[1])
        self.ratio, self._ends = np.array([x, y, x, y], np.float32), model.box_ends

    def original(self, boxes):
        """The model's boxes [..., 4] (a tensor) in pixels of the original image, numpy."""
        return (np.asarray(boxes, np.float32) + self._ends) * self.ratio

    def training_inputs(self, truth):
        """The ground truth as training has it: tensors `boxes`, `classes`, `crowd`, `masks`, `keypoints` [1, G, ...],
        boxes as the model's own; without an object one of padding."""
        inputs = {
            "boxes": truth.boxes / self.ratio - self._ends,
            "classes": truth.classes.astype(np.int32),
            "crowd": truth.crowd,
        }
        if truth.masks is not None:
            inputs["masks"] = truth.masks
        if truth.keypoints is not None:
            inputs["keypoints"] = truth.keypoints / np.r_[self.ratio[:2], 1].astype(np.float32)
        # A batch has room for one object at least, so the layers count on it.
        missing = int(not len(truth))
        padded = {
            name: np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1)) for name, values in inputs.items()
        }
        return {name: tf.convert_to_tensor(values[None]) for name, values in padded.items()}
