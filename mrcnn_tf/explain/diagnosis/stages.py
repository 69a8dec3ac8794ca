"""Every stage of a model for one image as plain numpy arrays: `look`."""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_files import checked_pixels
from mrcnn_tf.explain.diagnosis.ground_truth import GroundTruthObjects, as_objects
from mrcnn_tf.explain.diagnosis.parts import (
    Candidates,
    Classification,
    Frame,
    Level,
    Limits,
    Proposals,
    read_candidates,
    read_classification,
    read_levels,
    read_limits,
    read_proposals,
)
from mrcnn_tf.explain.diagnosis.trace import (
    AnchorMatches,
    RoISamples,
    SampledRoIs,
    anchor_matches,
    level_names,
    sample_points,
    sampled_rois,
    stages_not_finite,
    trace,
)
from mrcnn_tf.results.detections import Detections

# The maps inside a model as pictures: how strongly each cell responds, and its features as colours.
#

CELLS = 300  # that the main directions are taken from, spread evenly over the map; more cost seconds


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


def feature_maps(model, seen, names):
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
    some = cells[np.linspace(0, len(cells) - 1, min(len(cells), CELLS)).round().astype(int)]
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
