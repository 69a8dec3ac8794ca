"""Samples -> elements of fixed shapes -> batches, whose images are padded to a common size that suits the backbone."""

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import IGNORED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import ResizeConfig
from mrcnn_tf.data.labels import has_labels
from mrcnn_tf.ops.resize import resized_size

STRIDE = 32  # of the backbone's coarsest map; image sides are padded to multiples of it


def element(sample, original_size, image_id, config):
    """A batch's contents for one image, as `pipeline.coco_dataset` describes them.

    Args:
        sample: `Sample`, its image [h, w, 3] float32 as the network is to see it.
        original_size: int32 [2].
        image_id: int64 scalar.
        config: settings.DataConfig; of more than its `max_instances` objects the largest are kept, crowds last.
    """
    size = tf.shape(sample.image)[:2]
    chosen = _largest(sample.areas, sample.crowd, config.max_instances)

    def rows(values):
        return _pad_rows(tf.gather(values, chosen), config.max_instances)

    parts = {
        "image": _on_canvas(sample.image, size, config.pad_to, 0),
        "image_size": size,
        "original_size": original_size,
        "boxes": rows(sample.boxes),
        "classes": rows(sample.classes),
        "crowd": rows(sample.crowd),
        "image_id": image_id,
    }
    if sample.masks.shape[1] != 0:
        parts["masks"] = rows(sample.masks)
    if sample.keypoints.shape[1] != 0:
        parts["keypoints"] = rows(sample.keypoints)
    if has_labels(sample):
        parts["semantic"] = _on_canvas(sample.semantic, size, config.pad_to, IGNORED)
    return parts


def batched(elements, size, drop_remainder):
    """A dataset of batches of `size` elements; each image is padded to the largest of its batch."""
    specs = elements.element_spec
    shapes = {name: spec.shape for name, spec in specs.items()}
    fills = {name: tf.zeros([], spec.dtype) for name, spec in specs.items()}
    if "semantic" in fills:
        fills["semantic"] += IGNORED
    return elements.padded_batch(size, padded_shapes=shapes, padding_values=fills, drop_remainder=drop_remainder)


def check_fit(sources, rows, config, training):
    """Raises UserError unless the images `rows` of `sources` fit into `config.pad_to`, if there is one."""
    # Also without `pad_to`: an unknown rule is to be named here and not from within the traced function.
    index, resize = sources.index, config.resize or ResizeConfig()
    for min_size in config.augment.min_sizes if training and config.augment.min_sizes else [resize.min_size]:
        sizes = resized_size(index.heights[rows], index.widths[rows], min_size, resize.max_size, resize.rule)
        heights, widths = (side.numpy() for side in sizes)
        if config.pad_to is None:
            continue
        if len(config.pad_to) != 2 or any(side <= 0 or side % STRIDE for side in config.pad_to):
            raise UserError(f"data.*.pad_to is {list(config.pad_to)}: give [height, width] in multiples of {STRIDE}.")
        over = (heights > config.pad_to[0]) | (widths > config.pad_to[1])
        if training and config.augment.quarter_turns:
            over |= (widths > config.pad_to[0]) | (heights > config.pad_to[1])
        if over.any():
            row = np.flatnonzero(over)[0]
            raise UserError(
                f"Image {index.image_ids[rows[row]]} of {sources.name} becomes {widths[row]} x {heights[row]} pixels, "
                f"which doesn't fit into data.*.pad_to {list(config.pad_to)} (height, width): "
                "raise it or lower resize.max_size."
            )


def _largest(areas, crowd, number):
    """The places of the `number` largest objects in their own order; crowds come after all others."""
    rank = tf.where(crowd, areas - tf.reduce_max(areas) - 1.0, areas)
    chosen = tf.math.top_k(rank, tf.minimum(tf.size(rank), number)).indices
    return tf.sort(chosen)


def _on_canvas(pixels, size, pad_to, fill):
    """[h, w, ...] of `size`, padded at the right and the bottom to the canvas of a batch of its own."""
    target = tf.constant(pad_to) if pad_to is not None else -(-size // STRIDE) * STRIDE
    extra = target - size
    rest = pixels.shape[2:]
    pixels = tf.pad(pixels, [[0, extra[0]], [0, extra[1]], *([0, 0] for _ in rest)], constant_values=fill)
    pixels.set_shape([*(pad_to or (None, None)), *rest])
    return pixels


def _pad_rows(values, number):
    shape = values.shape[1:]
    values = tf.pad(values, [[0, number - tf.shape(values)[0]]] + [[0, 0]] * len(shape))
    values.set_shape([number, *shape])
    return values
