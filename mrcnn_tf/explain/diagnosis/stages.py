"""Every stage of a model for one image as plain numpy arrays: `look`."""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_files import check_pixels
from mrcnn_tf.explain.diagnosis.annotated_objects import GroundTruthObjects, to_annotated_objects
from mrcnn_tf.explain.diagnosis.forward import (
    AnchorMatches,
    RoIBins,
    TrainingRoIs,
    find_non_finite,
    level_names,
    locate_roi_bins,
    match_anchors,
    run_forward,
    sample_training_rois,
)
from mrcnn_tf.ops.boxes import DROPPED, nms
from mrcnn_tf.results.detections import Detections

# RPN and box head on one image as numpy arrays, boxes in the original image's pixels.
#

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
class RPNLevel:
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
        levels.append(RPNLevel(name, stride, cells, anchors, _probability(logits[0])))
    return levels


def read_candidates(model, seen, frame):
    boxes, scores, level = seen["candidates"]
    kept = _survivors(boxes, scores, level, model.rpn.config["nms_iou"])
    usable = scores.numpy()[0] > DROPPED / 2
    objectness = np.where(usable, _probability(scores[0]), 0)
    return Candidates(frame.original(boxes[0]), objectness, level.numpy(), usable, kept)


def read_proposals(model, seen, frame):
    boxes, scores, valid = (values[0] for values in seen["proposals"])
    levels = find_roi_layer(model).levels(seen["proposals"].boxes)[0]
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


def find_roi_layer(model):
    """The box head's `RoILayer`, which on C4 lies inside `Res5`."""
    return getattr(model.box_features, "roi_layer", model.box_features)


def _probability(logits):
    logits = np.asarray(logits, np.float32)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))


# Between the network's input and the original image.
#

class ImageTransform:
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


# The maps inside a model as pictures: how strongly each cell responds, and its features as colours.
#

SAMPLED_CELLS = 300  # that the main directions are taken from, spread evenly over the map; more cost seconds


@dataclasses.dataclass
class FeatureMap:
    """One map of the backbone or the pyramid.

    Attributes:
        name: such as "C3" or "P5".
        stride: pixels of the network's input per cell.
        strength: [h, w] float32, the mean absolute activation over the channels.
        colours: [h, w, 3] uint8, the three principal components of the channels as red, green and blue.
    """

    name: str
    stride: int
    strength: np.ndarray
    colours: np.ndarray


def read_feature_maps(model, seen, names):
    """The `FeatureMap`s of the tensors of a `trace`; `names` are those of the maps that RPN and heads read."""
    height = int(seen["normalized"].shape[1])
    maps = [(f"C{2 + place}", values) for place, values in enumerate(seen["maps"])]
    if model.fpn:
        maps += zip(names, seen["features"], strict=True)
    found = []
    for name, values in maps:
        values = np.asarray(tf.cast(values[0], tf.float32))
        stride = int(2 ** np.round(np.log2(height / values.shape[0])))
        found.append(FeatureMap(name, stride, np.abs(values).mean(axis=-1), principal_colours(values)))
    return found


def principal_colours(values):
    """[h, w, 3] uint8: the three principal components of features [h, w, C], each stretched to 0..255.

    The sign of a component is that of its largest weight, so that a picture doesn't depend on the solver.
    """
    cells = np.nan_to_num(values.reshape(-1, values.shape[-1]), posinf=0, neginf=0)
    some = cells[np.linspace(0, len(cells) - 1, min(len(cells), SAMPLED_CELLS)).round().astype(int)]
    mean = some.mean(axis=0)
    directions = np.linalg.svd(some - mean, full_matrices=False)[2][:3]
    signs = np.sign(np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1))
    parts = (cells - mean) @ (directions * signs).T
    parts = np.pad(parts, [(0, 0), (0, 3 - parts.shape[1])])
    low, high = np.percentile(parts, [1, 99], axis=0)
    parts = (parts - low) / np.maximum(high - low, 1e-9)
    return (parts.clip(0, 1) * 255).round().astype(np.uint8).reshape(*values.shape[:2], 3)


SHOWN_ROIS = 6  # whose sample points are kept


@dataclasses.dataclass
class Stages:
    """What a model makes of one image, stage by stage. Boxes are [x1, y1, x2, y2] in the original image's pixels.

    Attributes:
        image: uint8 [H, W, 3], the original.
        categories: the model's K `Category`s; class k is the k-th.
        limits: the thresholds that were in force.
        network_input: uint8 [h', w', 3], resized and padded as the network gets it (before the mean is subtracted).
        input_size: (h, w) of the image in it, pixels.
        maps: `FeatureMap`s: the backbone's, then the pyramid's.
        levels: a `Level` for each map that the RPN reads.
        candidates, proposals, classification: see there.
        detections: the `Detections`, as `model.detect` gives them.
        samples: `RoISamples` of the RoIs behind the best detections, or of the best proposals where there are none.
        not_finite: names of the stages whose output holds NaN or infinity, in order.
        truth: the `GroundTruthObjects`; None where none were given, as the two that follow.
        matches: which anchors would learn which object.
        sampled: the RoIs that training would draw, their targets and what the heads predict for them.
    """

    image: np.ndarray
    categories: list[Category]
    limits: Limits
    network_input: np.ndarray
    input_size: tuple[int, int]
    maps: list[FeatureMap]
    levels: list[RPNLevel]
    candidates: Candidates
    proposals: Proposals
    classification: Classification
    detections: Detections
    samples: list[RoIBins] = dataclasses.field(default_factory=list)
    not_finite: list[str] = dataclasses.field(default_factory=list)
    truth: GroundTruthObjects | None = None
    matches: AnchorMatches | None = None
    sampled: TrainingRoIs | None = None

    @property
    def scale(self):
        """float: pixels of the network's input per pixel of the original image (of the height)."""
        return self.input_size[0] / self.image.shape[0]


def compute_stages(model, image, ground_truth=None):
    """Every stage of a model for one image.

    Args:
        model: a `MaskRCNN`.
        image: uint8 [H, W, 3] RGB.
        ground_truth: what is really there: a list of COCO annotations of this image, `GroundTruthObjects`, or a batch
            of `coco_dataset` whose first image this is.

    Returns:
        `Stages`.

    Raises:
        UserError: an image of another shape or type, a ground truth of another form, or a model without a box head.
    """
    if not model.box_head:
        raise UserError(
            "Only stages that find objects can be looked into, and the model has a semantic head alone "
            "(model.box_head=null): draw what it finds by `mrcnn-tf predict`, or compare it with the ground truth by "
            "`mrcnn-tf inspect CONFIG --weights MODEL.keras`."
        )
    image = check_pixels(image, 0)
    truth = to_annotated_objects(ground_truth, model.config, *image.shape[:2])
    seen = run_forward(model, image)
    frame = ImageTransform(model, seen["inputs"])
    names = level_names(model)
    levels = read_levels(model, seen, frame, names)
    classification = read_classification(model, seen, frame)
    outputs = {name: value.numpy()[0] for name, value in seen["outputs"].items()}
    stages = Stages(
        image=image,
        categories=model.config.categories,
        limits=read_limits(model),
        network_input=seen["inputs"]["image"].numpy()[0].round().clip(0, 255).astype(np.uint8),
        input_size=frame.size,
        maps=read_feature_maps(model, seen, names),
        levels=levels,
        candidates=read_candidates(model, seen, frame),
        proposals=read_proposals(model, seen, frame),
        classification=classification,
        detections=model.as_detections(outputs, image.shape[:2]),
        not_finite=find_non_finite(seen, names),
        truth=truth,
    )
    stages.samples = locate_roi_bins(model, seen, frame, _shown_rois(stages), names)
    if truth is not None:
        inputs = frame.training_inputs(truth)
        stages.matches = match_anchors(model, seen, inputs)
        stages.sampled = sample_training_rois(model, seen, inputs, frame)
    return stages


def _shown_rois(stages):
    """The proposals behind the best detections, each once, then the best others."""
    classes = len(stages.categories)
    behind = stages.classification.kept[: len(stages.detections)] // classes
    every = np.arange(len(stages.proposals.boxes))
    rois = list(dict.fromkeys([*behind.tolist(), *every.tolist()]))[:SHOWN_ROIS]
    return np.array(rois, np.int64)
