"""Anchors: reference boxes of several aspect ratios at every cell of a feature map (Faster R-CNN, section 3.1.1)."""

import keras
import numpy as np
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.checks import valid_settings
from mrcnn_tf.config.settings import Conventions
from mrcnn_tf.model.blocks import ConfiguredLayer
from mrcnn_tf.ops import padding

DEFAULT_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)


@keras.saving.register_keras_serializable("mrcnn_tf")
class AnchorGenerator(ConfiguredLayer):
    """The anchors of all maps, by the conventions of one of the reference systems.

    An `RPN` takes another layer in its place that has `per_cell(map_count)` and `make(features)`.

    Args:
        sizes: square roots of the anchors' areas, pixels: a number or a list of numbers for each map, the finest first.
            A single map has anchors of all sizes.
        aspect_ratios: height / width.
        conventions: of which `anchor_rounding`, `anchor_stride` and `box_width` are read.
    """

    def __init__(
        self,
        sizes: list = DEFAULT_SIZES,
        aspect_ratios: list = (0.5, 1.0, 2.0),
        conventions: Conventions | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.sizes, self.aspect_ratios = list(sizes), list(aspect_ratios)
        self.conventions = valid_settings(conventions, Conventions)

    def per_cell(self, map_count):
        """A, the anchors of a cell.

        Raises:
            UserError: sizes for another number of maps, or another number of sizes for each: the RPN's head is the
                same on all maps.
        """
        counts = {len(sizes) for sizes in self._sizes_of_maps(map_count)}
        if len(counts) > 1:
            raise UserError(
                f"The anchors have {' or '.join(map(str, sorted(counts)))} sizes a map ({self.sizes}): give each map "
                "as many, since the RPN's head is the same on all maps."
            )
        return counts.pop() * len(self.aspect_ratios)

    def _sizes_of_maps(self, map_count):
        if map_count == 1 and not isinstance(self.sizes[0], (list, tuple)):
            return [self.sizes]
        if map_count != len(self.sizes):
            raise UserError(
                f"The anchors have sizes for {len(self.sizes)} maps ({self.sizes}), and the RPN reads {map_count}: "
                "give a size, or a list of sizes, for each map, the finest first (model.rpn.anchor_sizes)."
            )
        return [sizes if isinstance(sizes, (list, tuple)) else [sizes] for sizes in self.sizes]

    def make(self, features):
        """A list over the maps of a `FeatureMaps` of float32 [H_l * W_l * A, 4] pixels, or [B, ..., 4] where the stride
        depends on the image."""
        is_padded = self.conventions.anchor_stride == "padded"
        padded_size = features.padded_size
        if is_padded and padded_size is None:
            batch = tf.shape(next(iter(features.maps.values())))[0]
            padded_size = tf.tile(features.batch_size[None], [batch, 1])
        anchors, sizes_of_maps = [], self._sizes_of_maps(len(features.maps))
        for (name, level), sizes in zip(features.maps.items(), sizes_of_maps, strict=True):
            cell = cell_anchors(sizes, self.aspect_ratios, self.conventions.anchor_rounding)
            if self.conventions.box_width == "inclusive":
                cell = cell - np.array([0, 0, 1, 1], np.float32)
            stride = features.strides[name]
            stride = padded_stride(padded_size, stride) if is_padded else stride
            anchors.append(grid_anchors(cell, tf.shape(level)[1], tf.shape(level)[2], stride))
        return anchors


def cell_anchors(sizes, aspect_ratios, rounding):
    """Anchors of one cell around the origin, numpy float32 [sizes * ratios, 4] pixels; all ratios of a size in a row.

    Args:
        sizes: square roots of the anchors' areas, pixels.
        aspect_ratios: height / width, as both reference systems have it (the Model Garden has width / height).
        rounding: round the corners half-to-even to whole pixels, as torchvision; detectron2 keeps the fractions.
    """
    sizes, ratios = np.asarray(sizes, np.float64)[:, None], np.asarray(aspect_ratios, np.float64)
    widths, heights = (sizes / np.sqrt(ratios)).ravel(), (sizes * np.sqrt(ratios)).ravel()
    anchors = np.stack([-widths, -heights, widths, heights], axis=1) / 2
    return (np.round(anchors) if rounding else anchors).astype(np.float32)


def padded_stride(padded_size, stride):
    """torchvision's distance of anchors, float32 [B, 2] pixels: the padded size over its cells, rounded down.

    At P6 it may be 61 pixels where `stride` is 64.
    """
    return tf.cast(padded_size // padding.count_cells(padded_size, stride), tf.float32)


def grid_anchors(cell, grid_height, grid_width, stride):
    """Anchors [grid_height * grid_width * A, 4] in pixels, in the order of a flattened [H, W, A] RPN output.

    `cell` [A, 4] is centred at `stride` times the cell index, without a half-cell offset (both reference systems).
    `stride` is a number, or float32 [B, 2] = (vertical, horizontal) for anchors [B, ..., 4].
    """
    stride = tf.broadcast_to(tf.cast(stride, tf.float32), [2]) if isinstance(stride, (int, float)) else stride
    ys = tf.range(grid_height, dtype=tf.float32) * stride[..., :1]
    xs = tf.range(grid_width, dtype=tf.float32) * stride[..., 1:]
    ys, xs = ys[..., :, None, None], xs[..., None, :, None]
    x1, y1, x2, y2 = tf.unstack(tf.constant(cell), axis=-1)
    shape = tf.broadcast_dynamic_shape(tf.shape(ys + x1), tf.shape(xs + x1))
    anchors = tf.stack([tf.broadcast_to(side, shape) for side in (xs + x1, ys + y1, xs + x2, ys + y2)], axis=-1)
    return tf.reshape(anchors, tf.concat([tf.shape(stride)[:-1], [-1, 4]], axis=0))


def usable_anchors(features, anchors_per_cell):
    """Which anchors lie at an image's valid cells: list over `FeatureMaps` of bool [B or 1, H_l * W_l * A]."""
    usable = []
    for name, level in features.maps.items():
        height, width = tf.shape(level)[1], tf.shape(level)[2]
        cells = features.valid_cells[name]
        cells = tf.stack([[height, width]]) if cells is None else cells
        mask = tf.reshape(padding.valid_mask(cells, height, width), [tf.shape(cells)[0], -1])
        usable.append(tf.repeat(mask, anchors_per_cell, axis=1))
    return usable
