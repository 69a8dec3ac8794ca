"""`Stages` made by hand: boxes and scores of each step given, no model."""

import numpy as np

from mrcnn_tf.common.categories import Category
from mrcnn_tf.explain.diagnosis.annotated_objects import GroundTruthObjects
from mrcnn_tf.explain.diagnosis.forward import AnchorMatches
from mrcnn_tf.explain.diagnosis.stages import Candidates, Classification, Limits, Proposals, RPNLevel, Stages
from mrcnn_tf.results.detections import Detections

CATEGORIES = [Category(3, "cat"), Category(17, "dog")]
SIDE = 100


def overlap(box, other):
    """IoU in plain Python."""
    wide = max(0, min(box[2], other[2]) - max(box[0], other[0]))
    high = max(0, min(box[3], other[3]) - max(box[1], other[1]))
    sizes = [(one[2] - one[0]) * (one[3] - one[1]) for one in (box, other)]
    union = sum(sizes) - wide * high
    return wide * high / union if union else 0.0


def survivors(boxes, scores, groups, threshold):
    """Indices that greedy suppression keeps, best first; a score of 0 doesn't take part."""
    kept = []
    for one in sorted(np.flatnonzero(np.array(scores) > 0), key=lambda place: -scores[place]):
        if all(groups[one] != groups[other] or overlap(boxes[one], boxes[other]) <= threshold for other in kept):
            kept.append(int(one))
    return np.array(kept, np.int64)


def stages(truth, rois=(), candidates=None, crowd=(), anchor_iou=0.8, max_detections=10, max_proposals=10, image=None):
    """Stages of a 100 x 100 image with two classes.

    Args:
        truth: (box, class) of each object.
        rois: (box, [background, cat, dog] probabilities, box of cat, box of dog), the last two the RoI's if left out.
        candidates: (box, objectness) before suppression; None: the RoIs.
        crowd: numbers of objects that are crowd regions.
        anchor_iou: of the best anchor with each object.
        max_detections, max_proposals: limits.
        image: uint8 [100, 100, 3].
    """
    limits = Limits(0.05, 0.5, max_detections, 0.7, max_proposals, 0.3)
    rois = [(*roi, *[roi[0]] * (4 - len(roi))) for roi in rois]
    boxes = np.array([roi[2:] for roi in rois], np.float32).reshape(-1, 2, 4)
    probabilities = np.array([roi[1] for roi in rois], np.float32).reshape(-1, 3)
    usable = probabilities[:, 1:] > limits.score_threshold
    scores = np.where(usable, probabilities[:, 1:], 0).ravel()
    kept = survivors(boxes.reshape(-1, 4), scores, np.arange(len(scores)) % 2, limits.class_nms_iou)
    best = kept[:max_detections]
    if candidates is None:
        candidates = [(roi[0], 0.9 - 0.01 * place) for place, roi in enumerate(rois)]
    candidate_boxes = np.array([box for box, _ in candidates], np.float32).reshape(-1, 4)
    objectness = np.array([score for _, score in candidates], np.float32)
    levels = np.zeros(len(candidates), np.int32)
    anchors = np.array([[0, 0, 32, 32], [32, 32, 64, 64]], np.float32)
    return Stages(
        image=np.full((SIDE, SIDE, 3), 90, np.uint8) if image is None else image,
        categories=CATEGORIES,
        limits=limits,
        network_input=np.full((SIDE, SIDE, 3), 90, np.uint8),
        input_size=(SIDE, SIDE),
        feature_maps=[],
        levels=[RPNLevel("C4", 16, (1, 2), anchors, np.array([0.1, 0.2], np.float32))],
        candidates=Candidates(
            candidate_boxes,
            objectness,
            levels,
            np.ones(len(candidates), bool),
            survivors(candidate_boxes, objectness, levels, limits.rpn_nms_iou),
        ),
        proposals=Proposals(
            np.array([roi[0] for roi in rois], np.float32).reshape(-1, 4),
            np.linspace(0.9, 0.5, len(rois)).astype(np.float32),
            np.zeros(len(rois), np.int32),
        ),
        classification=Classification(probabilities, boxes, usable, kept),
        detections=Detections(
            boxes.reshape(-1, 4)[best], scores[best], (best % 2 + 1).astype(np.int32), (SIDE, SIDE), CATEGORIES
        ),
        truth=GroundTruthObjects(
            np.array([box for box, _ in truth], np.float32).reshape(-1, 4),
            np.array([label for _, label in truth], np.int32),
            np.isin(np.arange(len(truth)), crowd),
        ),
        roi_bins=[],
        non_finite=[],
        anchor_matches=AnchorMatches(np.array([-1, 0]), np.full(len(truth), anchor_iou, np.float32)),
    )
