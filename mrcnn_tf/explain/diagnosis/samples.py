"""Where the box head's RoI layer samples the maps, as points of the image."""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.ops.roi_align import PyramidRoIs
from mrcnn_tf.ops.roi_maps import RoIMaps
from mrcnn_tf.ops.roi_pool import quantised_boxes
from mrcnn_tf.ops.sample_grid import SampleGrid


@dataclasses.dataclass
class RoISamples:
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


def sample_points(model, seen, frame, rois, names):
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
        found.append(RoISamples(box, names[int(levels[0, place])], edges_x, edges_y, x, y))
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
