"""Every stage of a model for one image as plain numpy arrays: `look`."""

import dataclasses

import numpy as np

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.images import checked_pixels
from mrcnn_tf.explain.diagnosis.activations import FeatureMap, feature_maps
from mrcnn_tf.explain.diagnosis.frame import Frame
from mrcnn_tf.explain.diagnosis.ground_truth import GroundTruthObjects, as_objects
from mrcnn_tf.explain.diagnosis.parts import (
    Candidates,
    Classification,
    Level,
    Limits,
    Proposals,
    read_candidates,
    read_classification,
    read_levels,
    read_limits,
    read_proposals,
)
from mrcnn_tf.explain.diagnosis.samples import RoISamples, sample_points
from mrcnn_tf.explain.diagnosis.targets import AnchorMatches, SampledRoIs, anchor_matches, sampled_rois
from mrcnn_tf.explain.diagnosis.trace import level_names, stages_not_finite, trace
from mrcnn_tf.results.detections import Detections

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
    levels: list[Level]
    candidates: Candidates
    proposals: Proposals
    classification: Classification
    detections: Detections
    samples: list[RoISamples] = dataclasses.field(default_factory=list)
    not_finite: list[str] = dataclasses.field(default_factory=list)
    truth: GroundTruthObjects | None = None
    matches: AnchorMatches | None = None
    sampled: SampledRoIs | None = None

    @property
    def scale(self):
        """float: pixels of the network's input per pixel of the original image (of the height)."""
        return self.input_size[0] / self.image.shape[0]


def look(model, image, ground_truth=None):
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
    image = checked_pixels(image, 0)
    truth = as_objects(ground_truth, model.config, *image.shape[:2])
    seen = trace(model, image)
    frame = Frame(model, seen["inputs"])
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
        maps=feature_maps(model, seen, names),
        levels=levels,
        candidates=read_candidates(model, seen, frame),
        proposals=read_proposals(model, seen, frame),
        classification=classification,
        detections=model.as_detections(outputs, image.shape[:2]),
        not_finite=stages_not_finite(seen, names),
        truth=truth,
    )
    stages.samples = sample_points(model, seen, frame, _shown_rois(stages), names)
    if truth is not None:
        inputs = frame.training_inputs(truth)
        stages.matches = anchor_matches(model, seen, inputs)
        stages.sampled = sampled_rois(model, seen, inputs, frame)
    return stages


def _shown_rois(stages):
    """The proposals behind the best detections, each once, then the best others."""
    classes = len(stages.categories)
    behind = stages.classification.kept[: len(stages.detections)] // classes
    every = np.arange(len(stages.proposals.boxes))
    rois = list(dict.fromkeys([*behind.tolist(), *every.tolist()]))[:SHOWN_ROIS]
    return np.array(rois, np.int64)
