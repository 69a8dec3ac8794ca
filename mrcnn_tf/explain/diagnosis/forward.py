"""What training would teach the model on one image: matched anchors, sampled RoIs and the heads' targets."""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.model.rois import foreground
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops.matching import image_seeds
from mrcnn_tf.ops.roi_align import PyramidRoIs
from mrcnn_tf.ops.roi_align_stock import RoIMaps, SampleGrid
from mrcnn_tf.ops.roi_pool import quantised_boxes

# What every stage of a model gives for one image, by the model's own layers, in one graph as in `detect`.
#

def run_forward(model, image):
    """The tensors of every stage, a batch of one, boxes in pixels of the network's input.

    The graph is `detect`'s with more outputs. In eager mode convolutions aren't fused with what follows, and numbers
    would differ from `detect`'s in their last bits.

    Args:
        model: a `MaskRCNN`.
        image: uint8 [H, W, 3].

    Returns:
        A dictionary: `inputs` (what `Preprocess` gives), `normalized` [1, h, w, 3], `maps` (the backbone's) and
        `features` (what RPN and heads read), `logits` and `deltas` (of the RPN, lists over levels), `candidates` and
        `proposals` (see layers/rpn.py), `class_logits`, `box_deltas` and `class_candidates` (see layers/box_head.py),
        and `outputs` (what `MaskRCNN.detections` gives).
    """
    function = tf.function(lambda pixels: _stages(model, pixels), autograph=False)
    return function.get_concrete_function(tf.TensorSpec([None, None, 3], tf.uint8))(tf.constant(image))


def input_extent(model, inputs):
    """int32 [B, 2]: what proposals and detections are clipped to, in the pixels of the model's own boxes."""
    return inputs["image_size"] - int(model.box_ends[-1])


def _stages(model, pixels):
    inputs = model.preprocess(pixels)
    normalized = model.preprocess.normalize(inputs["image"], inputs["image_size"])
    maps = model.backbone(normalized)
    features = model.fpn(maps) if model.fpn else maps[-1:]
    logits, deltas = model.rpn.scores(features)
    extent = input_extent(model, inputs)
    proposals = model.rpn.propose(features, logits, deltas, extent)
    class_logits, box_deltas = model.box_head(model.box_features(features, proposals.boxes))
    return {
        "inputs": inputs,
        "normalized": normalized,
        "maps": maps,
        "features": features,
        "logits": logits,
        "deltas": deltas,
        "candidates": model.rpn.candidates(features, logits, deltas, extent),
        "proposals": proposals,
        "class_logits": class_logits,
        "box_deltas": box_deltas,
        "class_candidates": model.box_head.candidates(class_logits, box_deltas, proposals, extent),
        "outputs": model.detections_in(features, logits, deltas, inputs),
    }


def level_names(model):
    """Names of the maps that RPN and heads read: P2 to P6, or the backbone's last."""
    return [f"P{level}" for level in range(2, 7)] if model.fpn else [model.config.features]


def find_non_finite(seen, names):
    """Names of the stages whose output holds NaN or infinity, in the order of the computation."""
    stages = [("the normalised image", seen["normalized"])]
    stages += [(f"the backbone's C{2 + place}", values) for place, values in enumerate(seen["maps"])]
    if len(names) > 1:
        stages += [(f"the pyramid's {name}", values) for name, values in zip(names, seen["features"], strict=True)]
    for what in ("logits", "deltas"):
        stages += [(f"the RPN's {what} on {name}", values) for name, values in zip(names, seen[what], strict=True)]
    stages += [("the box head's class logits", seen["class_logits"]), ("the box head's deltas", seen["box_deltas"])]
    for name in ("masks", "keypoints"):
        if name in seen["outputs"]:
            stages.append((f"the {name[:-1]} head's {name}", seen["outputs"][name]))
    if "semantic_logits" in seen["outputs"]:
        stages.append(("the semantic head's logits", seen["outputs"]["semantic_logits"]))
    return [name for name, values in stages if not np.isfinite(np.asarray(tf.cast(values, tf.float32))).all()]


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
class TrainingRoIs:
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


def match_anchors(model, seen, truth):
    """`AnchorMatches` of the tensors of a `trace` and the ground truth as training has it."""
    anchors, _, matches = model.rpn.matched_anchors(
        seen["features"], truth["boxes"], truth["classes"] > 0, truth["crowd"]
    )
    anchors = np.asarray(anchors).reshape(-1, 4)
    real = truth["boxes"][0][truth["classes"][0] > 0]
    best = [box_ops.iou(anchors, box).numpy().max(initial=0) for box in real]
    return AnchorMatches(matches.numpy()[0], np.array(best, np.float32))


def sample_training_rois(model, seen, truth, frame):
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
    found = TrainingRoIs(
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


# Where the box head's RoI layer samples the maps, as points of the image.
#

@dataclasses.dataclass
class RoIBins:
    """The bins of one RoI and the samples inside them, in pixels of the original image.

    Attributes:
        box: [4], the RoI.
        level: the map that it is pooled from, such as "P3".
        edges_x, edges_y: [S + 1], the borders of the bins.
        x, y: [n], the columns and rows at whose crossings the map is sampled; empty for RoIPool, which takes the
            largest cell of each bin. A cell's value stands at the cell's centre; beyond the centres of a map's
            outermost cells it goes on with their values.
    """

    box: np.ndarray
    level: str
    edges_x: np.ndarray
    edges_y: np.ndarray
    x: np.ndarray
    y: np.ndarray


def locate_roi_bins(model, seen, frame, rois, names):
    """`RoISamples` of some proposals.

    Args:
        model: a `MaskRCNN`.
        seen: the tensors of a `trace`.
        frame: between the network's input and the original image.
        rois: [R] ints, which proposals.
        names: of the maps that RPN and heads read.
    """
    if not len(rois):
        return []
    layer = getattr(model.box_features, "roi_layer", model.box_features)
    boxes = tf.gather(seen["proposals"].boxes, rois, axis=1)
    maps = list(seen["features"][: len(layer.strides)])
    levels = layer.levels(boxes)
    where = PyramidRoIs(
        layer.bounds(maps, boxes, levels)[0],
        tf.zeros_like(levels[0]),
        levels[0],
        [1.0 / stride for stride in layer.strides],
    )
    ratio, aligned = layer.sampling
    if layer.kind != "align":
        where, aligned = dataclasses.replace(where, boxes=quantised_boxes(where)), True
    own_maps = RoIMaps(maps, where)
    grid = SampleGrid(where.boxes * own_maps.scale[:, None], layer.output_size, ratio, aligned, 1)
    found = []
    for place, box in enumerate(frame.original(boxes[0])):
        roi = tf.constant([place])
        stride = layer.strides[int(levels[0, place])]
        axes = [_axis(grid, own_maps, roi, axis, stride * frame.ratio[axis]) for axis in (0, 1)]
        (edges_x, x), (edges_y, y) = axes
        if layer.kind == "pool":
            x, y = x[:0], y[:0]
        found.append(RoIBins(box, names[int(levels[0, place])], edges_x, edges_y, x, y))
    return found


def _axis(grid, maps, roi, axis, pixels):
    """The bins' borders [S + 1] and the samples [n] of one RoI along an axis (0: x, 1: y); `pixels` are of a cell."""
    samples = int(grid.counts(roi, axis)[0])
    length = tf.gather(maps.width if axis == 0 else maps.height, roi)
    share = grid.positions(roi, axis, tf.range(float(samples))[None, None, :], float(samples), length)[1]
    first, step = float(grid.first[roi[0], axis]), float(grid.bins[roi[0], axis])
    edges = (first + step * np.arange(grid.out + 1) + 0.5) * pixels
    # Not the positions of the grid, which have been moved onto the map.
    points = edges[:-1, None] + (np.arange(samples) + 0.5) / samples * step * pixels
    return edges.astype(np.float32), points[share.numpy()[0] > 0].astype(np.float32)
