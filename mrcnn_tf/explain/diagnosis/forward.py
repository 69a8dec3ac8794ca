"""A model's forward pass on one image, training's draw of RoIs, and RoIAlign's bins.

Everything is a batch of one, with boxes in pixels of the network's input until `ImageTransform` moves them.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.heads.head import Head
from mrcnn_tf.model.roi_features import RoILayer
from mrcnn_tf.model.rois import Regions, RoISample
from mrcnn_tf.model.stages import Stages
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.roi_align import PyramidRoIs
from mrcnn_tf.ops.roi_align_stock import locate_maps, make_sample_grid
from mrcnn_tf.ops.roi_pool import quantised_boxes


@dataclasses.dataclass
class Forward:
    """A model's `Stages` on one image, computed, and the boxes that its suppressions chose from."""

    stages: Stages  # with the ground truth among its inputs, if there is any
    transform: "ImageTransform"
    box_head: Head  # the one that gives the detections' boxes
    candidates: tuple  # the RPN's `ScoredBoxes`
    rois: Regions  # what the box head works on: the proposals, unless an earlier head moves them
    probabilities: tf.Tensor  # [1, R, K + 1]
    class_boxes: tuple  # the box head's `ClassBoxes`


def run_forward(model, image, truth=None):
    """The `Forward` of a `MaskRCNN` on an image uint8 [H, W, 3], of which `truth` are the `GroundTruthObjects`.

    The graph is `detect`'s with more outputs. In eager mode convolutions aren't fused with what follows, and numbers
    would differ from `detect`'s in their last bits.

    Raises:
        UserError: the model has no box head whose scores and boxes can be seen before suppression.
    """
    box_head = find_box_head(model)
    function = tf.function(lambda pixels: _compute_tensors(model, box_head, pixels), autograph=False)
    function = function.get_concrete_function(tf.TensorSpec([None, None, 3], tf.uint8))
    inputs, known, tensors = function(tf.constant(image))
    transform = ImageTransform(model, inputs)
    if truth is not None:
        inputs |= transform.to_training_inputs(truth)
    return Forward(model.stages(inputs, fills_batch=True, **known), transform, box_head, **tensors)


def find_box_head(model):
    """The head whose boxes are the detections'."""
    if not model.gives("boxes"):
        heads = "a semantic head alone" if model.gives("semantic_logits") else "none"
        raise UserError(
            f"A diagnosis follows objects through RPN and box head, and the model has {heads} "
            "(model.box_head=null): draw its segments by `mrcnn-tf predict`, or compare them with the ground truth by "
            "`mrcnn-tf inspect CONFIG --weights MODEL.keras`."
        )
    box_head = next(head for head in model.heads if any(spec.name == "boxes" for spec in head.outputs))
    if not hasattr(box_head, "score_boxes"):
        raise UserError(
            f"A diagnosis reads the scores and boxes of each class before suppression, and {type(box_head).__name__} "
            "doesn't tell them: give it the methods score_boxes and suppress of mrcnn_tf.parts.BoxHead."
        )
    return box_head


def _compute_tensors(model, box_head, pixels):
    """(inputs, the model's stages by name, the other tensors of a `Forward`) of an image [H, W, 3]."""
    inputs = model.preprocess(pixels)
    stages = model.stages(inputs, fills_batch=True)
    earlier = model.heads[: model.heads.index(box_head)]
    rois = stages.regions[earlier[-1].name] if earlier else stages.proposals
    probabilities, class_boxes = box_head.score_boxes(stages.features, rois)
    known = {name: getattr(stages, name) for name in ("normalized", "maps", "rpn_scores", "proposals", "outputs")}
    candidates = model.rpn.decode_best(stages.features, stages.rpn_scores)
    tensors = {"candidates": candidates, "rois": rois, "probabilities": probabilities, "class_boxes": class_boxes}
    return inputs, known, tensors


def list_maps(stages):
    """(name, [1, h, w, C]) of all maps, in the order of the computation: the backbone's that only the neck reads, then
    those that RPN and heads read, the finest first of both."""
    read = stages.model.spec.strides
    others = sorted(stages.maps.keys() - read, key=lambda name: -tf.size(stages.maps[name][0, ..., 0]).numpy())
    return [(name, stages.maps[name]) for name in (*others, *read)]


def find_roi_layer(pooling):
    """The `RoILayer` of a head's pooling layer, which on C4 lies inside `Res5`; None of one of a user's own."""
    layer = getattr(pooling, "roi_layer", pooling)
    return layer if isinstance(layer, RoILayer) else None


def find_non_finite(forward):
    """Names of the stages of a `Forward` whose output holds NaN or infinity, in the order of the computation."""
    stages, box_head = forward.stages, _in_words(forward.box_head.name)
    outputs = [("the normalised image", stages.normalized)]
    outputs += [(f"the feature map {name}", values) for name, values in list_maps(stages)]
    for kind in ("logits", "deltas"):
        levels = zip(stages.model.spec.strides, getattr(stages.rpn_scores, kind), strict=True)
        outputs += [(f"the RPN's {kind} on {name}", values) for name, values in levels]
    outputs += [(f"the {box_head}'s probabilities", forward.probabilities)]
    outputs += [(f"the {box_head}'s boxes", forward.class_boxes.boxes)]
    count = int(stages.outputs["num_detections"][0])
    for head in stages.model.heads:
        for spec in head.outputs:
            values = stages.outputs[spec.name]
            values = values[:, :count] if spec.per_detection else values
            outputs.append((f"the {_in_words(head.name)}'s {_in_words(spec.name)}", values))
    return [name for name, values in outputs if not np.isfinite(np.asarray(tf.cast(values, tf.float32))).all()]


def _in_words(name):
    return name.replace("_", " ")


class ImageTransform:
    """Moves boxes between the network's input and the original image.

    Args:
        model: a `MaskRCNN`.
        inputs: what its `Preprocess` gives of the image.

    Attributes:
        input_size: (h, w) of the resized image, pixels, without padding.
        ratio: [4] float32, pixels of the original image per pixel of the input, along x, y, x, y.
    """

    def __init__(self, model, inputs):
        self.input_size = tuple(int(side) for side in inputs["image_size"].numpy()[0])
        height, width = inputs["original_size"].numpy()[0]
        x, y = np.float32(width) / np.float32(self.input_size[1]), np.float32(height) / np.float32(self.input_size[0])
        self.ratio, self._box_width = np.array([x, y, x, y], np.float32), model.box_width

    def to_original(self, boxes):
        """The model's boxes [..., 4] (a tensor) in pixels of the original image, numpy."""
        return box_ops.to_half_open(np.asarray(boxes, np.float32), self._box_width) * self.ratio

    def to_training_inputs(self, truth):
        """`GroundTruthObjects` as a training batch has them: tensors `boxes`, `classes`, `crowd`, `masks`, `keypoints`.

        All are [1, G, ...]; without an object there is one of padding.
        """
        inputs = {
            "boxes": truth.boxes / self.ratio,
            "classes": truth.classes.astype(np.int32),
            "crowd": truth.crowd,
        }
        if truth.masks is not None:
            inputs["masks"] = truth.masks
        if truth.keypoints is not None:
            inputs["keypoints"] = truth.keypoints / np.r_[self.ratio[:2], 1].astype(np.float32)
        if not len(truth):  # a batch has room for one object at least, so the layers count on it
            inputs = {name: np.zeros((1, *values.shape[1:]), values.dtype) for name, values in inputs.items()}
        inputs = {name: tf.convert_to_tensor(values[None]) for name, values in inputs.items()}
        return inputs | {"image_id": tf.constant([0], tf.int64)}


@dataclasses.dataclass
class AnchorMatches:
    """The anchors of all levels, one after the other, against the ground truth."""

    matches: np.ndarray  # [A] int32, the object that an anchor learns, or `ops.matching`'s `BACKGROUND` or `IGNORED`
    best_iou: np.ndarray  # [G] float32, the IoU of each object with the anchor that overlaps it most


def match_anchors(stages):
    """`AnchorMatches` of a model's `Stages` with ground truth."""
    anchors, _, matches = stages.model.rpn.matched_anchors(stages.features, stages.truth)
    anchors = np.asarray(anchors).reshape(-1, 4)
    best = [box_ops.iou(anchors, box).numpy().max(initial=0) for box in stages.truth.boxes[stages.truth.valid]]
    return AnchorMatches(matches.numpy()[0], np.array(best, np.float32))


@dataclasses.dataclass
class TrainingRoIs:
    """R RoIs as training would draw them for this image in its first step; the p positives come first."""

    boxes: np.ndarray  # [R, 4] pixels of the original image
    classes: np.ndarray  # [R] int32, 0 is the background
    objects: np.ndarray  # [R] int32, index of the object that a positive RoI learns
    positive: np.ndarray  # [R] bool
    # Of the positives, by name, what heads show of their targets and predictions (`Head.training_examples`): [p, ...],
    # where the head and its ground truth are there.
    examples: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def sample_training_rois(forward):
    """`TrainingRoIs` of a `Forward` with ground truth: training's draw in the first step, and the heads on it."""
    stages, rois = forward.stages, forward.stages.rois
    drawn = rois.drawn.numpy()[0]
    positive = (rois.positive.numpy()[0] & drawn)[drawn]
    count, examples = int(positive.sum()), {}
    fields = rois.boxes, rois.classes, rois.truth, rois.positive, rois.drawn
    positives = RoISample(*(values[:, :count] for values in fields))
    for head in stages.model.heads if count else ():
        examples |= head.training_examples(stages.features, positives, stages.truth)
    return TrainingRoIs(
        boxes=forward.transform.to_original(rois.boxes[0])[drawn],
        classes=rois.classes.numpy()[0][drawn],
        objects=rois.truth.numpy()[0][drawn],
        positive=positive,
        examples={name: values.numpy()[0] for name, values in examples.items()},
    )


@dataclasses.dataclass
class RoIBins:
    """The bins of one RoI and the points in them where RoIAlign samples the map, in pixels of the original image."""

    box: np.ndarray  # [4], the RoI
    level: str  # the map that it is pooled from, such as "P3"
    edges_x: np.ndarray  # [S + 1], the borders of the bins
    edges_y: np.ndarray
    # [n], the columns and rows at whose crossings the map is sampled; empty for RoIPool, which takes the largest cell
    # of each bin. A cell's value stands at its centre; beyond the outermost cells' centres it goes on.
    x: np.ndarray
    y: np.ndarray


def find_levels(forward):
    """int32 [R], which of the maps in the model's `spec` the box head's features of each RoI are pooled from; None
    where its pooling layer doesn't tell."""
    layer, features = find_roi_layer(forward.box_head.pooling), forward.stages.features
    if layer is None:
        return None
    pooled = features.select(layer.maps or features.maps)
    places = [list(features.maps).index(name) for name in pooled.maps]
    return np.array(places, np.int32)[layer.levels(forward.rois.boxes, pooled).numpy()[0]]


def locate_roi_bins(forward, chosen):
    """`RoIBins` of some of a `Forward`'s RoIs, [n] indices; none where the pooling layer doesn't tell."""
    layer, features = find_roi_layer(forward.box_head.pooling), forward.stages.features
    if layer is None or not len(chosen):
        return []
    features = features.select(layer.maps or features.maps)
    boxes = tf.gather(forward.rois.boxes, chosen, axis=1)
    levels, names, strides = layer.levels(boxes, features), list(features.maps), list(features.strides.values())
    scales = [1.0 / stride for stride in strides]
    rois = PyramidRoIs(layer.bounds(boxes, features, levels)[0], tf.zeros_like(levels[0]), levels[0], scales)
    sampling_ratio, aligned = layer.sampling
    if layer.settings.kind != "align":
        rois, aligned = rois._replace(boxes=quantised_boxes(rois)), True
    roi_maps = locate_maps(list(features.maps.values()), rois)
    grid = make_sample_grid(rois.boxes * roi_maps.scale[:, None], layer.output_size, sampling_ratio, aligned, 1)
    located = []
    for index, box in enumerate(forward.transform.to_original(boxes[0])):
        level = int(levels[0, index])
        (edges_x, x), (edges_y, y) = (
            _locate_along(grid, roi_maps, tf.constant([index]), axis, strides[level] * forward.transform.ratio[axis])
            for axis in (0, 1)
        )
        if layer.settings.kind == "pool":
            x, y = x[:0], y[:0]
        located.append(RoIBins(box, names[level], edges_x, edges_y, x, y))
    return located


def _locate_along(grid, roi_maps, roi, axis, pixels):
    """The bins' borders [S + 1] and the samples [n] of one RoI along an axis (0: x, 1: y); `pixels` are of a cell."""
    samples = int(grid.counts(roi, axis)[0])
    length = tf.gather(roi_maps.width if axis == 0 else roi_maps.height, roi)
    share = grid.positions(roi, axis, tf.range(float(samples))[None, None, :], float(samples), length)[1]
    first, step = float(grid.first[roi[0], axis]), float(grid.bins[roi[0], axis])
    edges = (first + step * np.arange(grid.out + 1) + 0.5) * pixels
    # Not the positions of the grid, which have been moved onto the map.
    points = edges[:-1, None] + (np.arange(samples) + 0.5) / samples * step * pixels
    return edges.astype(np.float32), points[share.numpy()[0] > 0].astype(np.float32)
