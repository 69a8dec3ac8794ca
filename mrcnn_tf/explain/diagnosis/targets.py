"""What training would teach the model on one image: matched anchors, sampled RoIs and the heads' targets."""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.explain.diagnosis.trace import input_extent
from mrcnn_tf.model.roi_sampler import foreground
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.noise import image_seeds


@dataclasses.dataclass
class AnchorMatches:
    """The anchors of all levels, one after the other, against the ground truth.

    Attributes:
        matches: [A] int32, the object that an anchor learns, `ops.matching.BACKGROUND` or `ops.matching.IGNORED`.
        best_iou: [G] float32, the IoU of each object with the anchor that overlaps it most.
    """

    matches: np.ndarray
    best_iou: np.ndarray


@dataclasses.dataclass
class SampledRoIs:
    """R RoIs as training would draw them for this image in its first step; positives come first.

    Attributes:
        boxes: [R, 4] pixels of the original image.
        classes: [R] int32, 0 is the background.
        truth: [R] int32, the object that a positive RoI learns.
        positive: [R] bool.
        mask_targets, masks: [p, M, M] float32 0..1 of the p positives, what the mask head should say and what it says
            of that class; None without a mask head or masks.
        keypoint_cells, keypoint_counts: [p, P] int32, the cell of the heatmap (row * side + column) that each keypoint
            lies in, and bool, whether it counts; None without a keypoint head or keypoints.
        heatmaps: [p, P, side, side] float32, the keypoint head's logits.
    """

    boxes: np.ndarray
    classes: np.ndarray
    truth: np.ndarray
    positive: np.ndarray
    mask_targets: np.ndarray | None = None
    masks: np.ndarray | None = None
    keypoint_cells: np.ndarray | None = None
    keypoint_counts: np.ndarray | None = None
    heatmaps: np.ndarray | None = None


def anchor_matches(model, seen, truth):
    """`AnchorMatches` of the tensors of a `trace` and the ground truth as training has it."""
    anchors, _, matches = model.rpn.matched_anchors(
        seen["features"], truth["boxes"], truth["classes"] > 0, truth["crowd"]
    )
    anchors = np.asarray(anchors).reshape(-1, 4)
    real = truth["boxes"][0][truth["classes"][0] > 0]
    best = [box_ops.iou(anchors, box).numpy().max(initial=0) for box in real]
    return AnchorMatches(matches.numpy()[0], np.array(best, np.float32))


def sampled_rois(model, seen, truth, frame):
    """`SampledRoIs`: the training's proposals, its draw in the first step, and the heads on it.

    Args:
        model: a `MaskRCNN`.
        seen: the tensors of a `trace`.
        truth: the ground truth as training has it.
        frame: between the network's input and the original image.
    """
    features = seen["features"]
    extent = input_extent(model, seen["inputs"])
    proposals = model.rpn.propose(features, seen["logits"], seen["deltas"], extent, training=True)
    seeds = image_seeds(model.seed, 0, [0])
    rois = model.roi_sampler(proposals, truth["boxes"], truth["classes"], truth["crowd"], seeds)
    drawn = rois.drawn.numpy()[0]
    positive = (rois.positive.numpy()[0] & drawn)[drawn]
    found = SampledRoIs(
        boxes=frame.original(rois.boxes[0])[drawn],
        classes=rois.classes.numpy()[0][drawn],
        truth=rois.truth.numpy()[0][drawn],
        positive=positive,
    )
    first = foreground(rois, int(positive.sum()))
    if positive.any() and model.mask_head and "masks" in truth:
        found.mask_targets = model.mask_head.targets(truth["masks"], truth["boxes"], first).numpy()[0]
        scores = model.mask_head(model.mask_features(features, first.boxes), first.classes)
        found.masks = tf.exp(scores.foreground).numpy()[0]
    if positive.any() and model.keypoint_head and "keypoints" in truth:
        cells, counts = model.keypoint_head.targets(truth["keypoints"], first)
        heatmaps = model.keypoint_head(model.keypoint_features(features, first.boxes), first.classes)
        found.keypoint_cells, found.keypoint_counts = cells.numpy()[0], counts.numpy()[0]
        found.heatmaps = heatmaps.numpy()[0]
    return found
