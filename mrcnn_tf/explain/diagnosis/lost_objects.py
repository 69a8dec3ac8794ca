"""Where each annotated object was lost on its way from the anchors to the detections."""

import dataclasses

import numpy as np

from mrcnn_tf.ops import boxes as box_ops

MATCH_IOU = 0.5  # the least IoU of a box with an object that it counts for, as in COCO's AP50
PARTIAL_IOU = 0.1  # of a detection that covers part of an object
DETECTED = "detected"
MERGED = "merged"
CUT_OFF = "cut off"
SUPPRESSED = "suppressed"
MISCLASSIFIED = "misclassified"
BELOW_THRESHOLD = "below threshold"
MISPLACED = "misplaced"
NO_PROPOSAL = "no proposal"
NO_ANCHOR = "no anchor"
STATUSES = DETECTED, MERGED, CUT_OFF, SUPPRESSED, MISCLASSIFIED, BELOW_THRESHOLD, MISPLACED, NO_PROPOSAL, NO_ANCHOR


@dataclasses.dataclass
class ObjectDiagnosis:
    """What became of one annotated object.

    Attributes:
        number: its index in the ground truth, from 0.
        category: its name.
        box: [x1, y1, x2, y2] in pixels of the original image.
        status: one of `STATUSES`.
        sentence: what happened, with figures.
        anchor_iou, candidate_iou, survivor_iou, proposal_iou: of the best box at each step: the anchors, the RPN's
            candidates, those that its suppression leaves, and the proposals.
        score: the best score of its own class in a box that overlaps it by `MATCH_IOU`; None if there is no such box.
        detection: the number of the detection that finds, covers, hides or misnames it; None if there is none.
        detection_iou: its IoU with the object.
    """

    number: int
    category: str
    box: list[float]
    status: str
    sentence: str
    anchor_iou: float
    candidate_iou: float
    survivor_iou: float
    proposal_iou: float
    score: float | None = None
    detection: int | None = None
    detection_iou: float | None = None


def diagnose_objects(stages):
    """An `ObjectDiagnosis` for each object of `stages.truth` that isn't a crowd region.

    Reads only the arrays of `stages`. A detection finds the object of its class that it overlaps most, best detections
    first, each object once (as in COCO's evaluation at IoU 0.5). For an object that isn't detected, the last step
    counts that a box of it reached.
    """
    matched = _match_objects(stages)
    owner = {detection: number for number, detection in matched.items()}
    numbers = np.flatnonzero(~np.asarray(stages.truth.crowd, bool))
    return [_diagnose(_ObjectBoxes(stages, int(number)), matched, owner) for number in numbers]


def _match_objects(stages):
    """{number of an object: the detection that finds it}."""
    truth, detections = stages.truth, stages.detections
    free = ~np.asarray(truth.crowd, bool)
    matched = {}
    for detection in range(len(detections)):
        candidates = free & (truth.classes == detections.classes[detection])
        overlaps = np.where(candidates, _iou(truth.boxes, detections.boxes[detection]), 0)
        if overlaps.max(initial=0) >= MATCH_IOU:
            matched[int(overlaps.argmax())] = detection
            free[overlaps.argmax()] = False
    return matched


def _iou(boxes, box):
    """float32 [N]: of boxes [N, 4] with one box [4]."""
    return box_ops.iou(np.asarray(boxes, np.float32), np.asarray(box, np.float32)).numpy()


class _ObjectBoxes:
    """One object against the boxes of every stage; those of the box head are the N proposals' for its class."""

    def __init__(self, stages, number):
        truth, self.stages, self.number = stages.truth, stages, number
        self.box, self.label = truth.boxes[number], int(truth.classes[number])
        self.category = stages.categories[self.label - 1].name
        candidates, classification = stages.candidates, stages.classification
        candidate_ious = np.where(candidates.usable, _iou(candidates.boxes, self.box), 0)
        self.stage_ious = {
            "anchor_iou": float(stages.anchor_matches.best_iou[number]),
            "candidate_iou": float(candidate_ious.max(initial=0)),
            "survivor_iou": float(candidate_ious[candidates.kept].max(initial=0)),
            "proposal_iou": float(_iou(stages.proposals.boxes, self.box).max(initial=0)),
        }
        self.class_ious = _iou(classification.boxes[:, self.label - 1], self.box)  # [N]
        self.class_scores = classification.probabilities[:, self.label]
        self.fits = self.class_ious >= MATCH_IOU
        # And above the threshold.
        self.usable = self.fits & classification.usable[:, self.label - 1]
        self.best_score = float(self.class_scores[self.fits].max()) if self.fits.any() else None
        self.detection_ious = _iou(stages.detections.boxes, self.box)
        # [N], where suppression put each box; -1 if suppressed or not usable.
        rank = np.full(classification.usable.size, -1)
        rank[classification.kept] = np.arange(len(classification.kept))
        self.nms_rank = rank.reshape(classification.usable.shape)[:, self.label - 1]

    def conclude(self, status, sentence, detection=None):
        """The `ObjectDiagnosis`."""
        return ObjectDiagnosis(
            number=self.number,
            category=self.category,
            box=[float(edge) for edge in self.box],
            status=status,
            sentence=f"Object {self.number} ({self.category}) {sentence}.",
            **self.stage_ious,
            score=self.best_score,
            detection=detection,
            detection_iou=None if detection is None else float(self.detection_ious[detection]),
        )


def _diagnose(obj, matched, owner):
    if obj.number in matched:
        detection = matched[obj.number]
        score, iou = obj.stages.detections.scores[detection], obj.detection_ious[detection]
        return obj.conclude(
            DETECTED, f"is detected: detection {detection}, score {score:.2f}, IoU {iou:.2f}", detection
        )
    if obj.usable.any():
        return _lost_after_threshold(obj, owner)
    return _misclassified(obj, owner) or _below_threshold(obj) or _misplaced(obj, owner) or _not_proposed(obj)


def _lost_after_threshold(obj, owner):
    """Of an object that has a box of its class above the threshold."""
    limits, detections, classification = obj.stages.limits, obj.stages.detections, obj.stages.classification
    kept = obj.usable & (obj.nms_rank >= 0)
    shared = obj.nms_rank[kept & np.isin(obj.nms_rank, list(owner))]
    if len(shared):
        covering = int(shared.min())
        text = f"has to share detection {covering} with object {owner[covering]}, which it overlaps more"
        return obj.conclude(MERGED, text, covering)
    if kept.any():
        best, most = obj.class_scores[kept].max(), limits.max_detections
        text = f"has a box of score {best:.2f}, but only the {most} best are kept (model.detections.max_per_image)"
        return obj.conclude(CUT_OFF, text)
    best = int(np.where(obj.usable, obj.class_scores, -1).argmax())
    start = f"has a box of score {obj.class_scores[best]:.2f}, suppressed by"
    suppressor = _find_suppressor(obj, best)
    if suppressor is None:
        return obj.conclude(SUPPRESSED, f"{start} a better one of its class")
    rank, iou = suppressor
    score = classification.probabilities[:, 1:].ravel()[classification.kept[rank]]
    if rank >= len(detections):
        return obj.conclude(SUPPRESSED, f"{start} one of score {score:.2f}, IoU {iou:.2f} (model.detections.nms_iou)")
    if rank in owner:
        effect = f"which finds object {owner[rank]}"
    else:
        effect = f"which overlaps the object by {obj.detection_ious[rank]:.2f} only"
    text = f"{start} detection {rank} of score {score:.2f}, {effect}; the IoU of the two boxes is {iou:.2f}"
    return obj.conclude(SUPPRESSED, f"{text}, above model.detections.nms_iou ({limits.class_nms_iou:g})", rank)


def _find_suppressor(obj, proposal):
    """(rank after suppression, IoU) of the first box of the object's class that hides a proposal's."""
    classification, classes = obj.stages.classification, len(obj.stages.categories)
    boxes = classification.boxes.reshape(-1, 4)[classification.kept]
    same_class = classification.kept % classes == obj.label - 1
    overlaps = np.where(same_class, _iou(boxes, classification.boxes[proposal, obj.label - 1]), 0)
    hiding = np.flatnonzero(overlaps > obj.stages.limits.class_nms_iou)
    return (int(hiding[0]), float(overlaps[hiding[0]])) if len(hiding) else None


def _misclassified(obj, owner):
    """If a box on the object has another class, by a detection or at least by a score above the threshold."""
    detections, limits = obj.stages.detections, obj.stages.limits
    own = "its own class has no box there" if obj.best_score is None else f"its own class scores {obj.best_score:.2f}"
    wrong = (obj.detection_ious >= MATCH_IOU) & (detections.classes != obj.label)
    wrong &= ~np.isin(np.arange(len(detections)), list(owner))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        name, score = detections.category_names[first], detections.scores[first]
        text = f"is taken for '{name}' with a score of {score:.2f} (detection {first}); {own}"
        return obj.conclude(MISCLASSIFIED, text, first)
    if not obj.fits.any():
        return None
    rivals = obj.stages.classification.probabilities[obj.fits, 1:].copy()
    rivals[:, obj.label - 1] = 0
    if rivals.max(initial=0) > max(limits.score_threshold, obj.best_score):
        name = obj.stages.categories[int(rivals.max(axis=0).argmax())].name
        return obj.conclude(MISCLASSIFIED, f"is taken for '{name}' with a score of {rivals.max():.2f}; {own}")
    return None


def _below_threshold(obj):
    if obj.best_score is None:
        return None
    threshold, iou = obj.stages.limits.score_threshold, obj.class_ious[obj.fits].max()
    text = f"has a box that fits (IoU {iou:.2f}), but its score, {obj.best_score:.3f}, isn't above the threshold of"
    return obj.conclude(BELOW_THRESHOLD, f"{text} {threshold:g} (model.detections.score_threshold)")


def _misplaced(obj, owner):
    """If a proposal fits and the box head moves it away, or a detection covers part of the object."""
    detections = obj.stages.detections
    partial = (obj.detection_ious >= PARTIAL_IOU) & (detections.classes == obj.label)
    partial &= ~np.isin(np.arange(len(detections)), list(owner))
    if partial.any():
        nearest = int(np.where(partial, obj.detection_ious, 0).argmax())
        text = f"is covered by detection {nearest} with an IoU of {obj.detection_ious[nearest]:.2f} only"
        return obj.conclude(MISPLACED, f"{text}, less than {MATCH_IOU:g}", nearest)
    proposal_iou, moved_iou = obj.stage_ious["proposal_iou"], obj.class_ious.max(initial=0)
    if proposal_iou < MATCH_IOU:
        return None
    text = f"has a proposal that fits (IoU {proposal_iou:.2f}), but the box head moves it away (IoU {moved_iou:.2f})"
    return obj.conclude(MISPLACED, text)


def _not_proposed(obj):
    limits, ious = obj.stages.limits, obj.stage_ious
    start = "has a candidate that fits (IoU"
    if ious["survivor_iou"] >= MATCH_IOU:
        text = f"{start} {ious['survivor_iou']:.2f}), but the RPN ranks it below the best {limits.max_proposals}"
        return obj.conclude(NO_PROPOSAL, f"{text} (model.rpn.post_nms_test)")
    if ious["candidate_iou"] >= MATCH_IOU:
        text = f"{start} {ious['candidate_iou']:.2f}), suppressed by a better scored one that doesn't"
        return obj.conclude(NO_PROPOSAL, f"{text} (model.rpn.nms_iou, {limits.rpn_nms_iou:g})")
    if ious["anchor_iou"] < limits.background_iou:
        side = np.sqrt(max((obj.box[2] - obj.box[0]) * (obj.box[3] - obj.box[1]), 0))
        text = f"of {side:.0f} pixels fits no anchor: the best overlaps it by {ious['anchor_iou']:.2f}"
        return obj.conclude(
            NO_ANCHOR, f"{text} (model.rpn.anchor_sizes, model.rpn.aspect_ratios, model.resize.min_size)"
        )
    objectness = np.concatenate([level.objectness for level in obj.stages.levels])
    own = objectness[obj.stages.anchor_matches.matches == obj.number]
    learned = f" (best objectness of the anchors that learn it: {own.max():.2f})" if len(own) else ""
    text = f"has no proposal on it: the RPN's best box overlaps it by {ious['candidate_iou']:.2f}"
    return obj.conclude(NO_PROPOSAL, f"{text}{learned}")
