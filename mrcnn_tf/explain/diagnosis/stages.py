"""What a model makes of one image, stage by stage, as numpy arrays with boxes in the original image's pixels."""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import Category
from mrcnn_tf.datasets.image_files import check_pixels
from mrcnn_tf.explain.diagnosis import forward
from mrcnn_tf.explain.diagnosis.annotated_objects import GroundTruthObjects, to_annotated_objects
from mrcnn_tf.explain.diagnosis.forward import AnchorMatches, RoIBins, TrainingRoIs
from mrcnn_tf.ops.boxes import DROPPED
from mrcnn_tf.results.detections import Detections

COLOUR_CELLS = 300  # that the principal components are computed from, spread evenly over the map; more cost seconds
SHOWN_ROIS = 6  # whose bins are located


@dataclasses.dataclass
class Limits:
    """The settings that decide what is dropped, as the model's layers have them; IoUs, and numbers of boxes."""

    score_threshold: float  # of detections
    class_nms_iou: float
    max_detections: int
    rpn_nms_iou: float
    max_proposals: int
    background_iou: float  # an anchor below it with every object learns the background


@dataclasses.dataclass
class FeatureMap:
    """One map of the backbone or the pyramid."""

    name: str  # such as "C3" or "P5"
    strength: np.ndarray  # [h, w] float32, the mean absolute activation over the channels
    colours: np.ndarray  # [h, w, 3] uint8, see `principal_colours`


@dataclasses.dataclass
class RPNLevel:
    """One map that the RPN reads."""

    name: str  # such as "P2" or "C4"
    stride: int  # pixels of the network's input per cell
    cells: tuple[int, int]  # (rows, columns)
    anchors: np.ndarray  # [A, 4] pixels of the original image; A = rows * columns * anchors per cell, in that order
    objectness: np.ndarray  # [A] float32, 0..1


@dataclasses.dataclass
class Candidates:
    """The RPN's best anchors of each level, moved by its deltas and clipped, before suppression."""

    boxes: np.ndarray  # [N, 4] pixels of the original image
    objectness: np.ndarray  # [N] float32, 0..1
    levels: np.ndarray  # [N] int32, index into `Stages.levels`
    usable: np.ndarray  # [N] bool; False for a box without area or with numbers that aren't finite
    # [n] int32, which candidates suppression leaves, by falling objectness; the first `Limits.max_proposals` of them
    # are the proposals.
    kept: np.ndarray


@dataclasses.dataclass
class Proposals:
    """The N RoIs that the box head gets, by falling objectness."""

    boxes: np.ndarray  # [N, 4] pixels of the original image
    objectness: np.ndarray  # [N] float32, 0..1
    # [N] int32, index into `Stages.levels`: the map that the box head's features are cut from; None where a user's own
    # pooling layer doesn't tell.
    pooled_from: np.ndarray | None


@dataclasses.dataclass
class Classification:
    """What the box head says of the N proposals."""

    probabilities: np.ndarray  # [N, K + 1] float32, column 0 is the background
    boxes: np.ndarray  # [N, K, 4] pixels of the original image, the box for each class, clipped
    usable: np.ndarray  # [N, K] bool: the score is above the threshold and the box large enough
    # [n] int32, which of the N * K boxes suppression leaves, by falling score; the first `Limits.max_detections` of
    # them are the detections. Box i is of proposal i // K and class i % K + 1.
    kept: np.ndarray


@dataclasses.dataclass
class Stages:
    """What a model makes of one image, stage by stage. Boxes are [x1, y1, x2, y2] in the original image's pixels."""

    image: np.ndarray  # uint8 [H, W, 3], the original
    categories: list[Category]  # K; class k is the k-th
    limits: Limits
    network_input: np.ndarray  # uint8 [h', w', 3], resized and padded, before the mean is subtracted
    input_size: tuple[int, int]  # (h, w) of the image in it, pixels
    feature_maps: list[FeatureMap]  # see `forward.list_maps`
    levels: list[RPNLevel]
    candidates: Candidates
    proposals: Proposals
    classification: Classification
    detections: Detections  # as `model.detect` gives them
    roi_bins: list[RoIBins]  # of the RoIs behind the best detections, then of the best other proposals
    non_finite: list[str]  # names of the stages whose output holds NaN or infinity, in order
    truth: GroundTruthObjects | None = None  # None where none were given, as the two that follow
    anchor_matches: AnchorMatches | None = None  # which anchors would learn which object
    training_rois: TrainingRoIs | None = None  # those that training would draw, their targets and predictions

    @property
    def scale(self):
        """float: pixels of the network's input per pixel of the original image (of the height)."""
        return self.input_size[0] / self.image.shape[0]


def compute_stages(model, image, ground_truth=None):
    """Run a model on one image and keep what every stage gives: the `Stages`.

    Args:
        model: a `MaskRCNN`.
        image: uint8 [H, W, 3] RGB.
        ground_truth: the annotated objects: a list of COCO annotations of this image, `GroundTruthObjects`, or a batch
            of `coco_dataset` whose first image this is.

    Raises:
        UserError: an image of another shape or type, a ground truth of another form, or a model without a box head.
    """
    image = check_pixels(image, 0)
    truth = to_annotated_objects(ground_truth, model.settings, *image.shape[:2])
    run = forward.run_forward(model, image, truth)
    outputs = {name: value.numpy()[0] for name, value in run.stages.outputs.items()}
    proposals, classification = _read_proposals(run), _read_classification(run)
    detections = model.as_detections(outputs, image.shape[:2])
    chosen = _choose_rois(classification, len(detections), len(proposals.boxes))
    return Stages(
        image=image,
        categories=list(model.categories),  # the model's own knows the model, and a copy would copy that
        limits=_read_limits(model.rpn.settings, run.box_head.detections),
        network_input=run.stages.inputs["image"].numpy()[0].round().clip(0, 255).astype(np.uint8),
        input_size=run.transform.input_size,
        feature_maps=_read_feature_maps(run),
        levels=_read_levels(run),
        candidates=_read_candidates(run),
        proposals=proposals,
        classification=classification,
        detections=detections,
        roi_bins=forward.locate_roi_bins(run, chosen),
        non_finite=forward.find_non_finite(run),
        truth=truth,
        anchor_matches=None if truth is None else forward.match_anchors(run.stages),
        training_rois=None if truth is None else forward.sample_training_rois(run),
    )


def _choose_rois(classification, detections, proposals):
    """Indices of the proposals behind the best detections, each once, then of the best others."""
    behind = classification.kept[:detections] // classification.boxes.shape[1]
    chosen = dict.fromkeys([*behind.tolist(), *range(proposals)])
    return np.array(list(chosen)[:SHOWN_ROIS], np.int64)


def _read_limits(rpn, detections):
    return Limits(
        score_threshold=detections.score_threshold,
        class_nms_iou=detections.nms_iou,
        max_detections=detections.max_per_image,
        rpn_nms_iou=rpn.nms_iou,
        max_proposals=rpn.post_nms_test,
        background_iou=rpn.background_iou,
    )


def _read_feature_maps(run):
    feature_maps = []
    for name, values in forward.list_maps(run.stages):
        values = np.asarray(tf.cast(values[0], tf.float32))
        feature_maps.append(FeatureMap(name, np.abs(values).mean(axis=-1), principal_colours(values)))
    return feature_maps


def principal_colours(values):
    """[h, w, 3] uint8: the three principal components of features [h, w, C], each stretched to 0..255.

    The sign of a component is that of its largest weight, so that a picture doesn't depend on the solver.
    """
    cells = np.nan_to_num(values.reshape(-1, values.shape[-1]), posinf=0, neginf=0)
    sample = cells[np.linspace(0, len(cells) - 1, min(len(cells), COLOUR_CELLS)).round().astype(int)]
    mean = sample.mean(axis=0)
    directions = np.linalg.svd(sample - mean, full_matrices=False)[2][:3]
    signs = np.sign(np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1))
    components = (cells - mean) @ (directions * signs).T
    components = np.pad(components, [(0, 0), (0, 3 - components.shape[1])])
    low, high = np.percentile(components, [1, 99], axis=0)
    components = (components - low) / np.maximum(high - low, 1e-9)
    return (components.clip(0, 1) * 255).round().astype(np.uint8).reshape(*values.shape[:2], 3)


def _read_levels(run):
    features, rpn = run.stages.features, run.stages.model.rpn
    columns = features.maps.items(), features.strides.values(), rpn.anchors.make(features), run.stages.rpn_scores.logits
    return [
        RPNLevel(
            name,
            stride,
            (int(values.shape[1]), int(values.shape[2])),
            run.transform.to_original(anchors).reshape(-1, 4),
            _sigmoid(logits[0]),
        )
        for (name, values), stride, anchors, logits in zip(*columns, strict=True)
    ]


def _read_candidates(run):
    boxes, scores, levels = run.candidates
    usable = scores.numpy()[0] > DROPPED / 2
    return Candidates(
        boxes=run.transform.to_original(boxes[0]),
        objectness=np.where(usable, _sigmoid(scores[0]), 0),
        levels=levels.numpy(),
        usable=usable,
        kept=_suppress(run.stages.model.rpn, boxes, scores, levels),
    )


def _read_proposals(run):
    valid, levels = run.rois.valid.numpy()[0], forward.find_levels(run)
    return Proposals(
        boxes=run.transform.to_original(run.rois.boxes[0])[valid],
        objectness=_sigmoid(run.rois.scores[0])[valid],
        pooled_from=None if levels is None else levels[valid],
    )


def _read_classification(run):
    boxes, scores, classes = run.class_boxes
    valid = run.rois.valid.numpy()[0]
    shape = [len(valid), len(run.stages.model.categories)]
    return Classification(
        probabilities=run.probabilities.numpy()[0][valid],
        boxes=run.transform.to_original(boxes[0]).reshape(*shape, 4)[valid],
        usable=(scores.numpy()[0] > DROPPED / 2).reshape(shape)[valid],
        kept=_suppress(run.box_head, boxes, scores, classes),
    )


def _suppress(part, boxes, scores, groups):
    """Indices [n] of all that an RPN's or a box head's suppression leaves, without the limit to the best so many, which
    takes the first."""
    kept, valid = part.suppress(boxes, scores, groups[None, :], int(boxes.shape[1]))
    return kept.numpy()[0][valid.numpy()[0]]


def _sigmoid(logits):
    logits = np.asarray(logits, np.float32)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))
