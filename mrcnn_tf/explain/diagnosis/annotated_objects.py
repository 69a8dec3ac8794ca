"""Where each annotated object was lost on its way from the anchors to the detections."""

import dataclasses

import numpy as np

from mrcnn_tf.common.categories import max_keypoints
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.data.rasterize import Segmentations, crop_masks
from mrcnn_tf.datasets.annotation_checks import Checker
from mrcnn_tf.datasets.annotation_records import Annotations
from mrcnn_tf.ops import boxes as box_ops

# The objects that are really in an image, from COCO annotations or from a batch, in the image's own pixels.
#

SOURCE = "the ground truth"  # how a sentence on a record names where it comes from


@dataclasses.dataclass
class GroundTruthObjects:
    """The G annotated objects of one image.

    Attributes:
        boxes: [G, 4] float32, [x1, y1, x2, y2] in pixels of the original image, inside it.
        classes: [G] int32, 1..K, the model's numbering.
        crowd: [G] bool.
        masks: [G, S, S] uint8, 255 times the occupancy of each S-th part of the object's box; None without masks.
        keypoints: [G, P, 3] float32, (x, y) in pixels of the original image and COCO's visibility; None without.
        notes: a sentence for each annotation that isn't used as it stands.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    def __len__(self):
        return len(self.classes)

    @classmethod
    def from_coco(cls, records, config, height, width):
        """From the annotations of one image, checked as for training.

        Args:
            records: COCO annotation dicts. `id` and `image_id` may be missing; masks are used if all have one.
            config: the model's `ModelConfig`, whose categories and keypoint convention count.
            height, width: of the image, pixels.

        Raises:
            UserError: `records` isn't a list of dicts.
        """
        if not isinstance(records, (list, tuple)) or not all(isinstance(record, dict) for record in records):
            raise UserError("The ground truth must be a list of COCO annotations (dicts with bbox and category_id).")
        masks = bool(records) and all(record.get("segmentation") for record in records)
        annotations = Annotations(SOURCE, masks)
        for place, record in enumerate(records):
            annotations.add({"id": place, **record, "image_id": 0})
        annotations.finish()
        sides = np.array([height], np.int32), np.array([width], np.int32)
        checker = Checker(annotations, np.zeros(1, np.int64), *sides, set(), config.categories)
        found = checker.instances(1)
        return cls(
            boxes=found["boxes"],
            classes=found["classes"],
            crowd=found["crowd"],
            masks=_crops(found, height, width) if masks else None,
            keypoints=_keypoints(found, config) if max_keypoints(config.categories) else None,
            notes=[problem.message for problem in annotations.problems + checker.problems],
        )

    @classmethod
    def from_batch(cls, batch, index=0):
        """From the `index`-th image of a batch of `coco_dataset`, moved into that image's original pixels."""
        row = {name: np.asarray(value)[index] for name, value in batch.items()}
        real = row["classes"] > 0
        y, x = row["original_size"] / row["image_size"].astype(np.float32)
        scale = np.array([x, y, x, y], np.float32)
        return cls(
            boxes=row["boxes"][real] * scale,
            classes=row["classes"][real],
            crowd=row["crowd"][real],
            masks=row["masks"][real] if "masks" in row else None,
            keypoints=row["keypoints"][real] * np.array([x, y, 1], np.float32) if "keypoints" in row else None,
        )


def to_annotated_objects(ground_truth, config, height, width):
    """`GroundTruthObjects` of whatever form: themselves, a batch (its first image), or COCO annotations; None of None.

    Raises:
        UserError: see `GroundTruthObjects.from_coco`.
    """
    if ground_truth is None or isinstance(ground_truth, GroundTruthObjects):
        return ground_truth
    if isinstance(ground_truth, dict):
        return GroundTruthObjects.from_batch(ground_truth)
    return GroundTruthObjects.from_coco(ground_truth, config, height, width)


def read_image_annotations(annotations, image):
    """The annotations of one image of a COCO json, which is streamed.

    Args:
        annotations: path of the json.
        image: the image's `file_name` (or a path that ends in it), or its id.

    Returns:
        A list of dicts, as in the file.

    Raises:
        UserError: the json can't be read, is a panoptic one, or lists no such image.
    """
    number, records = None, []
    for section, record in stream_arrays(annotations, ("images", "annotations")):
        if section == "images" and _is(record, image):
            number = record["id"]
        elif section == "annotations" and (number is None or record.get("image_id") == number):
            if isinstance(record, dict) and "segments_info" in record:
                raise UserError(
                    f"{annotations} has panoptic segments and no instances: give COCO's annotations of instances."
                )
            records.append(record)  # annotations may come before images
    if number is None:
        raise UserError(f"{annotations} lists no image '{image}': give a file name or an id of its images.")
    return [record for record in records if record.get("image_id") == number]


def _is(record, image):
    if isinstance(image, int):
        return record.get("id") == image
    name, path = str(record.get("file_name")).replace("\\", "/"), str(image).replace("\\", "/")
    return path == name or path.endswith(f"/{name}") or name.endswith(f"/{path}")


def _crops(found, height, width):
    """[G, S, S] uint8 mask crops of a `Checker`'s instances, as training gets them."""
    ring_counts = np.diff(found["ring_offsets"])
    shapes = Segmentations(
        points=found["points"].astype(np.float32),
        ring_sizes=np.diff(found["point_offsets"]).astype(np.int32),
        ring_instances=np.repeat(np.arange(len(ring_counts), dtype=np.int32), ring_counts),
        runs=found["runs"],
        run_counts=np.diff(found["run_offsets"]).astype(np.int32),
    )
    return crop_masks(shapes, found["boxes"], height, width, DataConfig().mask_size).numpy()


def _keypoints(found, config):
    """[G, P, 3] of a `Checker`'s instances, zeros where nothing is labelled."""
    bounds, offset = found["keypoint_offsets"], config.conventions.keypoint_offset
    keypoints = np.zeros([len(bounds) - 1, max_keypoints(config.categories), 3], np.float32)
    for place, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
        own = found["keypoints"][first:last]
        keypoints[place, : last - first] = own + np.where(own[:, 2:] > 0, [offset, offset, 0], 0)
    return keypoints


IOU = 0.5  # with an object, of what counts as a box of it
PARTIAL_IOU = 0.1  # of a detection that covers part of an object
DETECTED = "found"
MERGED = "merged"
CUT_OFF = "cut off"
SUPPRESSED = "suppressed"
MISCLASSIFIED = "misclassified"
BELOW_THRESHOLD = "below threshold"
MISPLACED = "misplaced"
NO_PROPOSAL = "no proposal"
NO_ANCHOR = "no anchor"
STATUSES = (DETECTED, MERGED, CUT_OFF, SUPPRESSED, MISCLASSIFIED, BELOW_THRESHOLD, MISPLACED, NO_PROPOSAL, NO_ANCHOR)


@dataclasses.dataclass
class ObjectDiagnosis:
    """What became of one annotated object.

    Attributes:
        number: its place in the ground truth, from 0.
        category: its name.
        box: [x1, y1, x2, y2] in pixels of the original image.
        fate: one of `FATES`.
        sentence: what happened, with figures.
        anchor_iou, candidate_iou, survivor_iou, proposal_iou: of the best box at each step: the anchors, the RPN's
            candidates, those that its suppression leaves, and the proposals.
        score: the best score of its own class in a box that overlaps it by `IOU` or more; None if there is no such box.
        detection: the number of the detection that found, covers, hides or misnames it; None if there is none.
        detection_iou: its IoU with the object.
    """

    number: int
    category: str
    box: list[float]
    fate: str
    sentence: str
    anchor_iou: float
    candidate_iou: float
    survivor_iou: float
    proposal_iou: float
    score: float | None = None
    detection: int | None = None
    detection_iou: float | None = None


def diagnose_objects(stages):
    """An `ObjectFate` for each object of `stages.truth` that isn't a crowd region; see `ObjectFate.fate`.

    Reads only the arrays of `stages`. A detection finds the object of its class that it overlaps most, best detections
    first, each object once (as in COCO's evaluation at IoU 0.5). For what isn't found, the last step counts that a
    box of the object reached.
    """
    matched = match_detections(stages)
    owner = {detection: number for number, detection in matched.items()}
    numbers = np.flatnonzero(~np.asarray(stages.truth.crowd, bool))
    return [_fate(_Object(stages, int(number)), matched, owner) for number in numbers]


def match_detections(stages):
    """{object: the detection that finds it}."""
    truth, detections = stages.truth, stages.detections
    free = ~np.asarray(truth.crowd, bool)
    matched = {}
    for place in range(len(detections)):
        asked = free & (truth.classes == detections.classes[place])
        overlaps = np.where(asked, iou(truth.boxes, detections.boxes[place]), 0)
        if overlaps.max(initial=0) >= IOU:
            matched[int(overlaps.argmax())] = place
            free[overlaps.argmax()] = False
    return matched


def iou(boxes, box):
    """float32 [N]: of boxes [N, 4] with one box [4]."""
    return box_ops.iou(np.asarray(boxes, np.float32), np.asarray(box, np.float32)).numpy()


class _Object:
    """One object against the boxes of every stage."""

    def __init__(self, stages, number):
        truth, self.stages, self.number = stages.truth, stages, number
        self.box, self.label = truth.boxes[number], int(truth.classes[number])
        self.category = stages.categories[self.label - 1].name
        candidates, found = stages.candidates, stages.classification
        near = np.where(candidates.usable, iou(candidates.boxes, self.box), 0)
        self.overlaps = {
            "anchor_iou": float(stages.matches.best_iou[number]),
            "candidate_iou": float(near.max(initial=0)),
            "survivor_iou": float(near[candidates.kept].max(initial=0)),
            "proposal_iou": float(iou(stages.proposals.boxes, self.box).max(initial=0)),
        }
        self.of_class = iou(found.boxes[:, self.label - 1], self.box)  # [P], boxes for the object's class
        self.scores = found.probabilities[:, self.label]
        self.there = self.of_class >= IOU
        self.usable = self.there & found.usable[:, self.label - 1]
        self.score = float(self.scores[self.there].max()) if self.there.any() else None
        self.of_detections = iou(stages.detections.boxes, self.box)
        # Where suppression put each proposal's box for this class; -1: suppressed or below the threshold.
        place = np.full(found.usable.size, -1)
        place[found.kept] = np.arange(len(found.kept))
        self.place = place.reshape(found.usable.shape)[:, self.label - 1]

    def ends(self, fate, sentence, detection=None):
        """The `ObjectFate`."""
        covered = None if detection is None else float(self.of_detections[detection])
        box = [float(edge) for edge in self.box]
        return ObjectDiagnosis(
            self.number,
            self.category,
            box,
            fate,
            f"Object {self.number} ({self.category}) {sentence}.",
            **self.overlaps,
            score=self.score,
            detection=detection,
            detection_iou=covered,
        )


def _fate(one, matched, owner):
    if one.number in matched:
        found = matched[one.number]
        score, overlap = one.stages.detections.scores[found], one.of_detections[found]
        return one.ends(DETECTED, f"is found: detection {found}, score {score:.2f}, IoU {overlap:.2f}", found)
    if one.usable.any():
        return _lost_among_boxes(one, owner)
    return _misclassified(one, owner) or _below_threshold(one) or _misplaced(one, owner) or _not_proposed(one)


def _lost_among_boxes(one, owner):
    """Of an object that has a box of its class above the threshold."""
    limits = one.stages.limits
    kept = one.usable & (one.place >= 0)
    if (kept & (one.place < len(one.stages.detections))).any():
        covering = int(one.place[kept].min())
        other = owner[covering]
        what = f"has to share detection {covering} with object {other}, which it overlaps more"
        return one.ends(MERGED, what, covering)
    if kept.any():
        what = f"has a box of score {one.scores[kept].max():.2f}, but only the {limits.max_detections} best are kept"
        return one.ends(CUT_OFF, f"{what} (model.detections.max_per_image)")
    best = int(np.where(one.usable, one.scores, -1).argmax())
    rival = _suppressor(one, best)
    start = f"has a box of score {one.scores[best]:.2f}, suppressed by"
    if rival is None:
        return one.ends(SUPPRESSED, f"{start} a better one of its class")
    place, overlap = rival
    score = _score_of_kept(one.stages, place)
    if place >= len(one.stages.detections):
        return one.ends(SUPPRESSED, f"{start} one of score {score:.2f}, IoU {overlap:.2f} (model.detections.nms_iou)")
    if place in owner:
        whose = f"which finds object {owner[place]}"
    else:
        whose = f"which overlaps the object by {one.of_detections[place]:.2f} only"
    what = f"{start} detection {place} of score {score:.2f}, {whose}; the IoU of the two boxes is {overlap:.2f}"
    return one.ends(SUPPRESSED, f"{what}, above model.detections.nms_iou ({limits.class_nms_iou:g})", place)


def _suppressor(one, proposal):
    """(place among the boxes that suppression leaves, IoU) of the first of this class that hides a proposal's box."""
    found, classes = one.stages.classification, len(one.stages.categories)
    flat = found.boxes.reshape(-1, 4)[found.kept]
    same = found.kept % classes == one.label - 1
    overlaps = np.where(same, iou(flat, found.boxes[proposal, one.label - 1]), 0)
    hiding = np.flatnonzero(overlaps > one.stages.limits.class_nms_iou)
    return (int(hiding[0]), float(overlaps[hiding[0]])) if len(hiding) else None


def _score_of_kept(stages, place):
    proposal, label = divmod(int(stages.classification.kept[place]), len(stages.categories))
    return float(stages.classification.probabilities[proposal, label + 1])


def _misclassified(one, owner):
    """If a box on the object has another class, by a detection or at least by a score above the threshold."""
    detections, found, limits = one.stages.detections, one.stages.classification, one.stages.limits
    own = f"its own class scores {one.score:.2f}" if one.score is not None else "its own class has no box there"
    others = (one.of_detections >= IOU) & (detections.classes != one.label)
    others &= ~np.isin(np.arange(len(detections)), list(owner))
    if others.any():
        wrong = int(np.flatnonzero(others)[0])
        name = detections.category_names[wrong]
        what = f"is taken for '{name}' with a score of {detections.scores[wrong]:.2f} (detection {wrong})"
        return one.ends(MISCLASSIFIED, f"{what}; {own}", wrong)
    if not one.there.any():
        return None
    rivals = found.probabilities[one.there, 1:].copy()
    rivals[:, one.label - 1] = 0
    if rivals.max(initial=0) > max(limits.score_threshold, one.score):
        name = one.stages.categories[int(rivals.max(axis=0).argmax())].name
        what = f"is taken for '{name}' with a score of {rivals.max():.2f}"
        return one.ends(MISCLASSIFIED, f"{what}; {own}")
    return None


def _below_threshold(one):
    if one.score is None:
        return None
    threshold = one.stages.limits.score_threshold
    what = f"has a box that fits (IoU {one.of_class[one.there].max():.2f}), but its score, {one.score:.3f}, isn't"
    return one.ends(BELOW_THRESHOLD, f"{what} above the threshold of {threshold:g} (model.detections.score_threshold)")


def _misplaced(one, owner):
    """If a proposal fits and the box head moves it away, or a detection covers part of the object."""
    detections = one.stages.detections
    partial = (one.of_detections >= PARTIAL_IOU) & (detections.classes == one.label)
    partial &= ~np.isin(np.arange(len(detections)), list(owner))
    if partial.any():
        nearest = int(np.where(partial, one.of_detections, 0).argmax())
        what = f"is covered by detection {nearest} with an IoU of {one.of_detections[nearest]:.2f} only"
        return one.ends(MISPLACED, f"{what}, less than {IOU:g}", nearest)
    if one.overlaps["proposal_iou"] < IOU:
        return None
    what = f"has a proposal that fits (IoU {one.overlaps['proposal_iou']:.2f}), but the box head moves it away"
    return one.ends(MISPLACED, f"{what} (IoU {one.of_class.max(initial=0):.2f})")


def _not_proposed(one):
    limits, overlaps = one.stages.limits, one.overlaps
    if overlaps["survivor_iou"] >= IOU:
        what = f"has a candidate that fits (IoU {overlaps['survivor_iou']:.2f}), but the RPN ranks it below the best"
        return one.ends(NO_PROPOSAL, f"{what} {limits.max_proposals} (model.rpn.post_nms_test)")
    if overlaps["candidate_iou"] >= IOU:
        what = (
            f"has a candidate that fits (IoU {overlaps['candidate_iou']:.2f}), suppressed by a better scored one that"
        )
        return one.ends(NO_PROPOSAL, f"{what} doesn't (model.rpn.nms_iou, {limits.rpn_nms_iou:g})")
    if overlaps["anchor_iou"] < limits.background_iou:
        side = np.sqrt(max((one.box[2] - one.box[0]) * (one.box[3] - one.box[1]), 0))
        what = f"of {side:.0f} pixels fits no anchor: the best overlaps it by {overlaps['anchor_iou']:.2f}"
        return one.ends(NO_ANCHOR, f"{what} (model.rpn.anchor_sizes, model.rpn.aspect_ratios, model.resize.min_size)")
    objectness = np.concatenate([level.objectness for level in one.stages.levels])
    own = objectness[one.stages.matches.matches == one.number]
    said = f" (best objectness of the anchors that learn it: {own.max():.2f})" if len(own) else ""
    what = f"has no proposal on it: the RPN's best box overlaps it by {overlaps['candidate_iou']:.2f}"
    return one.ends(NO_PROPOSAL, f"{what}{said}")
