"""A model's own layers on one image: the forward pass of `detect`, training's draw of RoIs, and RoIAlign's bins.

Everything is a batch of one, with boxes in pixels of the network's input until `ImageTransform` moves them.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.model.rois import foreground
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.matching import image_seeds
from mrcnn_tf.ops.roi_align import PyramidRoIs
from mrcnn_tf.ops.roi_align_stock import locate_maps, make_sample_grid
from mrcnn_tf.ops.roi_pool import quantised_boxes


def run_forward(model, image):
    """Compute the tensors of every stage.

    The graph is `detect`'s with more outputs. In eager mode convolutions aren't fused with what follows, and numbers
    would differ from `detect`'s in their last bits.

    Args:
        model: a `MaskRCNN`.
        image: uint8 [H, W, 3].

    Returns:
        A dictionary: `inputs` (what `Preprocess` gives), `normalized` [1, h, w, 3], `backbone_maps` and `features`
        (what RPN and heads read), `rpn_logits` and `rpn_deltas` (lists over levels), the RPN's `candidates` and
        `proposals`, the box head's `class_logits`, `box_deltas` and `class_candidates`, and `outputs` (what
        `MaskRCNN.detections` gives).
    """
    function = tf.function(lambda pixels: _compute_tensors(model, pixels), autograph=False)
    return function.get_concrete_function(tf.TensorSpec([None, None, 3], tf.uint8))(tf.constant(image))


def _compute_tensors(model, pixels):
    inputs = model.preprocess(pixels)
    normalized = model.preprocess.normalize(inputs["image"], inputs["image_size"])
    maps = model.backbone(normalized)
    features = model.fpn(maps) if model.fpn else maps[-1:]
    logits, deltas = model.rpn.scores(features)
    extent = _clipping_size(model, inputs)
    proposals = model.rpn.propose(features, logits, deltas, extent)
    class_logits, box_deltas = model.box_head(model.box_features(features, proposals.boxes))
    return {
        "inputs": inputs,
        "normalized": normalized,
        "backbone_maps": maps,
        "features": features,
        "rpn_logits": logits,
        "rpn_deltas": deltas,
        "candidates": model.rpn.decode_best(features, logits, deltas, extent),
        "proposals": proposals,
        "class_logits": class_logits,
        "box_deltas": box_deltas,
        "class_candidates": model.box_head.decode_boxes(class_logits, box_deltas, proposals, extent),
        "outputs": model.detections_in(features, logits, deltas, inputs),
    }


def _clipping_size(model, inputs):
    """int32 [1, 2]: what proposals and detections are clipped to, in the pixels of the model's own boxes."""
    return model.box_limits(inputs["image_size"])


def name_levels(model):
    """Names of the maps that RPN and heads read: P2 to P6, or the backbone's last."""
    return [f"P{level}" for level in range(2, 7)] if model.fpn else [model.config.features]


def find_roi_layer(model):
    """The box head's `RoILayer`, which on C4 lies inside `Res5`."""
    return getattr(model.box_features, "roi_layer", model.box_features)


def find_non_finite(tensors, level_names):
    """Names of the stages of `run_forward` whose output holds NaN or infinity, in the order of the computation."""
    maps, features, outputs = tensors["backbone_maps"], tensors["features"], tensors["outputs"]
    stages = [("the normalised image", tensors["normalized"])]
    stages += [(f"the backbone's C{level}", values) for level, values in enumerate(maps, 2)]
    if len(level_names) > 1:
        stages += [(f"the pyramid's {name}", values) for name, values in zip(level_names, features, strict=True)]
    for kind in ("logits", "deltas"):
        for name, values in zip(level_names, tensors[f"rpn_{kind}"], strict=True):
            stages.append((f"the RPN's {kind} on {name}", values))
    stages += [("the box head's class logits", tensors["class_logits"])]
    stages += [("the box head's deltas", tensors["box_deltas"])]
    stages += [(f"the {name[:-1]} head's {name}", outputs[name]) for name in ("masks", "keypoints") if name in outputs]
    if "semantic_logits" in outputs:
        stages.append(("the semantic head's logits", outputs["semantic_logits"]))
    return [name for name, values in stages if not np.isfinite(np.asarray(tf.cast(values, tf.float32))).all()]


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
        self.ratio, self._half_open_offset = np.array([x, y, x, y], np.float32), model.half_open_offset

    def to_original(self, boxes):
        """The model's boxes [..., 4] (a tensor) in pixels of the original image, numpy."""
        return (np.asarray(boxes, np.float32) + self._half_open_offset) * self.ratio

    def to_training_inputs(self, truth):
        """`GroundTruthObjects` as training has them: tensors `boxes`, `classes`, `crowd`, `masks`, `keypoints`.

        All are [1, G, ...], boxes as the model's own; without an object there is one of padding.
        """
        inputs = {
            "boxes": truth.boxes / self.ratio - self._half_open_offset,
            "classes": truth.classes.astype(np.int32),
            "crowd": truth.crowd,
        }
        if truth.masks is not None:
            inputs["masks"] = truth.masks
        if truth.keypoints is not None:
            inputs["keypoints"] = truth.keypoints / np.r_[self.ratio[:2], 1].astype(np.float32)
        if not len(truth):  # a batch has room for one object at least, so the layers count on it
            inputs = {name: np.zeros((1, *values.shape[1:]), values.dtype) for name, values in inputs.items()}
        return {name: tf.convert_to_tensor(values[None]) for name, values in inputs.items()}


@dataclasses.dataclass
class AnchorMatches:
    """The anchors of all levels, one after the other, against the ground truth."""

    matches: np.ndarray  # [A] int32, the object that an anchor learns, or `ops.matching`'s `BACKGROUND` or `IGNORED`
    best_iou: np.ndarray  # [G] float32, the IoU of each object with the anchor that overlaps it most


def match_anchors(model, tensors, truth):
    """`AnchorMatches` of the tensors of `run_forward` and the ground truth as training has it."""
    anchors, _, matches = model.rpn.matched_anchors(
        tensors["features"], truth["boxes"], truth["classes"] > 0, truth["crowd"]
    )
    anchors = np.asarray(anchors).reshape(-1, 4)
    boxes = truth["boxes"][0][truth["classes"][0] > 0]
    best = [box_ops.iou(anchors, box).numpy().max(initial=0) for box in boxes]
    return AnchorMatches(matches.numpy()[0], np.array(best, np.float32))


@dataclasses.dataclass
class TrainingRoIs:
    """R RoIs as training would draw them for this image in its first step; the p positives come first."""

    boxes: np.ndarray  # [R, 4] pixels of the original image
    classes: np.ndarray  # [R] int32, 0 is the background
    objects: np.ndarray  # [R] int32, index of the object that a positive RoI learns
    positive: np.ndarray  # [R] bool
    # [p, M, M] float32 0..1, for the RoI's class; None without a mask head or masks.
    mask_targets: np.ndarray | None = None
    predicted_masks: np.ndarray | None = None
    # Of the keypoint head; None without one or without keypoints: [p, P] int32, the cell of the heatmap (row * side +
    # column) that each keypoint lies in, [p, P] bool, whether it counts, and [p, P, side, side] float32 logits.
    keypoint_cells: np.ndarray | None = None
    keypoint_valid: np.ndarray | None = None
    heatmaps: np.ndarray | None = None


def sample_training_rois(model, tensors, truth, transform):
    """`TrainingRoIs`: the training's proposals, its draw in the first step, and the heads on it; arguments as for
    `match_anchors`, and the `ImageTransform`."""
    features, extent = tensors["features"], _clipping_size(model, tensors["inputs"])
    proposals = model.rpn.propose(features, tensors["rpn_logits"], tensors["rpn_deltas"], extent, training=True)
    seeds = image_seeds(model.seed, 0, [0])
    rois = model.roi_sampler(proposals, truth["boxes"], truth["classes"], truth["crowd"], seeds)
    drawn = rois.drawn.numpy()[0]
    positive = (rois.positive.numpy()[0] & drawn)[drawn]
    sampled = TrainingRoIs(
        boxes=transform.to_original(rois.boxes[0])[drawn],
        classes=rois.classes.numpy()[0][drawn],
        objects=rois.truth.numpy()[0][drawn],
        positive=positive,
    )
    positives = foreground(rois, int(positive.sum()))
    if positive.any() and model.mask_head and "masks" in truth:
        sampled.mask_targets = model.mask_head.targets(truth["masks"], truth["boxes"], positives).numpy()[0]
        scores = model.mask_head(model.mask_features(features, positives.boxes), positives.classes)
        sampled.predicted_masks = tf.exp(scores.foreground).numpy()[0]
    if positive.any() and model.keypoint_head and "keypoints" in truth:
        cells, valid = model.keypoint_head.targets(truth["keypoints"], positives)
        heatmaps = model.keypoint_head(model.keypoint_features(features, positives.boxes), positives.classes)
        sampled.keypoint_cells, sampled.keypoint_valid = cells.numpy()[0], valid.numpy()[0]
        sampled.heatmaps = heatmaps.numpy()[0]
    return sampled


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


def locate_roi_bins(model, tensors, transform, proposals, level_names):
    """`RoIBins` of some proposals, [R] indices."""
    if not len(proposals):
        return []
    layer = find_roi_layer(model)
    boxes = tf.gather(tensors["proposals"].boxes, proposals, axis=1)
    maps = list(tensors["features"][: len(layer.strides)])
    levels = layer.levels(boxes)
    scales = [1.0 / stride for stride in layer.strides]
    rois = PyramidRoIs(layer.bounds(maps, boxes, levels)[0], tf.zeros_like(levels[0]), levels[0], scales)
    sampling_ratio, aligned = layer.sampling
    if layer.kind != "align":
        rois, aligned = rois._replace(boxes=quantised_boxes(rois)), True
    roi_maps = locate_maps(maps, rois)
    grid = make_sample_grid(rois.boxes * roi_maps.scale[:, None], layer.output_size, sampling_ratio, aligned, 1)
    located = []
    for index, box in enumerate(transform.to_original(boxes[0])):
        level = int(levels[0, index])
        (edges_x, x), (edges_y, y) = (
            _locate_along(grid, roi_maps, tf.constant([index]), axis, layer.strides[level] * transform.ratio[axis])
            for axis in (0, 1)
        )
        if layer.kind == "pool":
            x, y = x[:0], y[:0]
        located.append(RoIBins(box, level_names[level], edges_x, edges_y, x, y))
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
