"""`CocoIndex` -> batches: a tf.data.Dataset in which everything from the file's bytes on happens in the graph."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from mrcnn_tf.categories import most_keypoints
from mrcnn_tf.data.augment import augment
from mrcnn_tf.data.coco import load_index
from mrcnn_tf.data.image_files import apply_orientation, decode_image
from mrcnn_tf.data.keypoints import images_to_train_on, mirror_table
from mrcnn_tf.data.problems import CONSOLE
from mrcnn_tf.data.rasterize import Shapes, crop_masks
from mrcnn_tf.errors import UserError
from mrcnn_tf.ops.resize import resize_image, resized_size
from mrcnn_tf.settings import ResizeConfig

STRIDE = 32  # of the backbone's coarsest map; image sides are padded to multiples of it
BATCHES_AHEAD = 2


def coco_dataset(config, training):
    """Batches of a COCO dataset, one pass over it: a finite tf.data.Dataset (`.repeat()` for more).

    An element is a dict of dense tensors, images padded with zeros at the right and the bottom to multiples of 32:

        image          [B, H, W, 3] float32 RGB 0..255, resized
        image_size     [B, 2] int32, (h, w) of the valid part
        original_size  [B, 2] int32, (h, w) of the file after EXIF orientation (and after a quarter turn, if drawn)
        boxes          [B, G, 4] float32 pixels of `image`, the annotations' boxes clipped to the image
        classes        [B, G] int32, 1 to K; 0 marks padding
        masks          [B, G, S, S] uint8, 255 times the occupancy of each S-th part of the instance's box; absent if
                       `config.masks` is False
        keypoints      [B, G, P, 3] float32, (x, y) in pixels of `image`, and v: 0 unlabelled, 1 hidden, 2 visible;
                       (0, 0, 0) for an unlabelled one. P is the most that a category has; absent if none has any or
                       `config.keypoints` is False
        crowd          [B, G] bool
        image_id       [B] int64

    `config.keypoint_offset` is added to the file's keypoints before anything else. An image with more than G instances
    keeps the largest, crowds last.

    In training the order is drawn anew in each pass, images of the same orientation share a batch (unless
    `config.pad_to` fixes its size), what doesn't fill a batch waits for another pass, and `config.augment` is applied.
    A set that is smaller than a batch fills it by repetition. Images with fewer labelled keypoints than
    `config.min_keypoints`, not counting crowds, are left out.
    Without training every image comes once, in the file's order.

    Args:
        config: settings.DataConfig. `images_per_batch` None means 1, `resize` None the defaults of ResizeConfig, and
            `masks` or `keypoints` None True.
        training: bool.

    Raises:
        UserError: see `load_index`; also if there's nothing to train on, for a keypoint head not one labelled keypoint,
            images don't fit into `config.pad_to`, an image is to be mirrored and a keypoint's other side is missing, or
            `config.min_keypoints` of a dataset used without keypoints.
    """
    if training:
        _check_wanted(config)
    index = load_index(config)
    batch = config.images_per_batch or 1
    if training and not index.classes.size:
        raise UserError(f"No annotation of {config.annotations} can be used: training needs at least one instance.")
    rows = images_to_train_on(index, config) if training else np.arange(index.image_ids.size)
    _check_fit(index, rows, config, training)
    order = _training_order(index, rows, config, batch) if training else tf.data.Dataset.range(rows.size)
    seeds = tf.data.Dataset.random(seed=config.seed, rerandomize_each_iteration=True).batch(2)
    load = _sample_loader(index, config, training)
    samples = tf.data.Dataset.zip(order, seeds).map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    shapes = {name: spec.shape for name, spec in samples.element_spec.items()}
    batches = samples.padded_batch(batch, padded_shapes=shapes, drop_remainder=training)
    count = rows.size / batch
    number = max(math.floor(count), 1) if training else math.ceil(count)
    return batches.apply(tf.data.experimental.assert_cardinality(number)).prefetch(BATCHES_AHEAD)


def _check_wanted(config):
    if config.min_keypoints and config.keypoints is False:
        raise UserError(
            f"data.train.min_keypoints is {config.min_keypoints}, but the data is used without keypoints: set it to 0 "
            "or add a keypoint head (model.keypoint_head={}, data.train.keypoints=true)."
        )


def _check_fit(index, rows, config, training):
    # Also without `pad_to`: an unknown rule is to be named here and not from within the traced function.
    for min_size in _min_sizes(config, training):
        heights, widths = (side.numpy() for side in _resized(index.heights[rows], index.widths[rows], config, min_size))
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
                f"Image {index.image_ids[rows[row]]} of {config.annotations} becomes {widths[row]} x {heights[row]} "
                f"pixels, which doesn't fit into data.*.pad_to {list(config.pad_to)} (height, width): "
                "raise it or lower resize.max_size."
            )


def _min_sizes(config, training):
    """The shorter sides that images are resized to, of which training draws one."""
    resize = config.resize or ResizeConfig()
    return config.augment.min_sizes if training and config.augment.min_sizes else [resize.min_size]


def _resized(heights, widths, config, min_size):
    resize = config.resize or ResizeConfig()
    return resized_size(heights, widths, min_size, resize.max_size, resize.rule)


def _training_order(index, rows, config, batch):
    """Image numbers out of `rows` such that each run of `batch` of them makes a good batch; another order in each pass.

    A permutation is sorted by orientation, cut into batches, and the batches are shuffled. So only one batch can be
    mixed, and what is left over at the end of the pass comes from the orientation drawn last.
    """
    count = rows.size
    if count < batch:
        CONSOLE.print(
            f"{config.annotations} has {count} usable images, fewer than the {batch} of a batch: they are repeated.",
            markup=False,
        )
    portrait = (index.heights > index.widths)[rows]
    if config.pad_to is not None:
        portrait = np.zeros_like(portrait)
    portrait, rows = tf.constant(portrait), tf.constant(rows)

    def batches(permutation):
        group = tf.gather(portrait, permutation)
        later = tf.cast(group != group[0], tf.int32)
        permutation = tf.gather(permutation, tf.argsort(later, stable=True))
        copies = -(-batch // count)
        filled = tf.tile(tf.gather(rows, permutation), [copies])
        used = max(count // batch, 1) * batch
        return tf.data.Dataset.from_tensor_slices(tf.reshape(filled[:used], [-1, batch]))

    order = tf.data.Dataset.range(count).shuffle(count, seed=config.seed, reshuffle_each_iteration=True)
    order = order.batch(count).flat_map(batches)
    order = order.shuffle(max(count // batch, 1), seed=config.seed + 1, reshuffle_each_iteration=True)
    return order.unbatch()


def _sample_loader(index, config, training):
    """The function of (image number, seed [2]) that makes one element, unbatched."""
    tables = _Tables(index)
    most = most_keypoints(index.categories)
    mirrors = tf.constant(mirror_table(index.categories, config.augment)) if training else None
    min_sizes = _min_sizes(config, training)
    mask_size = 0 if config.masks is False else config.mask_size

    # AutoGraph has nothing to convert here and would take most of the time until the first batch.
    @tf.autograph.experimental.do_not_convert
    def load(number, seed):
        image = decode_image(tf.io.read_file(tables.image_files[number]))
        image = apply_orientation(image, tables.orientations[number])
        boxes, classes, crowd, areas = tables.instances(number)
        masks = tables.instance_masks(number, mask_size)
        keypoints = tables.instance_keypoints(number, most, config.keypoint_offset or 0.0)
        if training:
            moved = augment(image, boxes, masks, keypoints, tf.gather(mirrors, classes), config.augment, seed)
            image, boxes, masks, keypoints, _ = moved
        original = tf.shape(image)[:2]
        size = _draw_size(original, config, min_sizes, seed)
        image = resize_image(image, size, (config.resize or ResizeConfig()).rule)
        scale = tf.cast(size, tf.float32) / tf.cast(original, tf.float32)
        boxes = boxes * tf.stack([scale[1], scale[0], scale[1], scale[0]])
        keypoints = keypoints * tf.stack([scale[1], scale[0], 1.0])
        chosen = _largest(areas, crowd, config.max_instances)
        sample = {
            "image": _pad_image(image, size, config.pad_to),
            "image_size": size,
            "original_size": original,
            "boxes": _pad_rows(tf.gather(boxes, chosen), config.max_instances, [4]),
            "classes": _pad_rows(tf.gather(classes, chosen), config.max_instances, []),
            "crowd": _pad_rows(tf.gather(crowd, chosen), config.max_instances, []),
            "image_id": tables.image_ids[number],
        }
        if mask_size:
            sample["masks"] = _pad_rows(tf.gather(masks, chosen), config.max_instances, [mask_size] * 2)
        if most:
            sample["keypoints"] = _pad_rows(tf.gather(keypoints, chosen), config.max_instances, [most, 3])
        return sample

    return load


def _draw_size(original, config, min_sizes, seed):
    """The resized (h, w), int32 [2], for one of `min_sizes`, each as likely."""
    sizes = tf.stack([_resized(original[0], original[1], config, min_size) for min_size in min_sizes])
    seed = tf.random.experimental.stateless_fold_in(seed, 1)  # or large images would be the mirrored ones
    return sizes[tf.random.stateless_uniform([], seed, 0, len(min_sizes), tf.int32)]


def _largest(areas, crowd, number):
    """The places of the `number` largest instances in their own order; crowds come after all others."""
    rank = tf.where(crowd, areas - tf.reduce_max(areas) - 1.0, areas)
    chosen = tf.math.top_k(rank, tf.minimum(tf.size(rank), number)).indices
    return tf.sort(chosen)


def _pad_image(image, size, pad_to):
    target = tf.constant(pad_to) if pad_to is not None else -(-size // STRIDE) * STRIDE
    extra = target - size
    image = tf.pad(image, [[0, extra[0]], [0, extra[1]], [0, 0]])
    image.set_shape([*(pad_to or (None, None)), 3])
    return image


def _pad_rows(values, rows, shape):
    values = tf.pad(values, [[0, rows - tf.shape(values)[0]]] + [[0, 0]] * len(shape))
    values.set_shape([rows, *shape])
    return values


class _Tables:
    """The index as eager tensors, which a mapped function captures by reference: as constants of its graph they would
    be copied into it and could pass protobuf's 2 GB."""

    def __init__(self, index):
        with tf.device("CPU"):
            for field in dataclasses.fields(index):
                value = getattr(index, field.name)
                if isinstance(value, np.ndarray):
                    setattr(self, field.name, tf.constant(value))

    def instances(self, number):
        """boxes [N, 4], classes [N], crowd [N] and areas [N] of one image."""
        rows = slice(*self._range(number))
        return self.boxes[rows], self.classes[rows], self.crowd[rows], self.areas[rows]

    def instance_masks(self, number, size):
        """[N, size, size] uint8 mask crops of one image's instances; for a size of 0 nothing is drawn."""
        boxes = self.instances(number)[0]
        if not size:
            return tf.zeros([tf.shape(boxes)[0], 0, 0], tf.uint8)
        return crop_masks(self._shapes(number), boxes, self.heights[number], self.widths[number], size)

    def instance_keypoints(self, number, most, offset):
        """[N, most, 3] keypoints of one image's instances; `offset` is added to x and y of those that are labelled."""
        first, last = self._range(number)
        bounds = self.keypoint_offsets[first : last + 1]
        values = self.keypoints[bounds[0] : bounds[-1]]
        values += tf.where(values[:, 2:] > 0, [[offset, offset, 0.0]], 0.0)
        return tf.RaggedTensor.from_row_lengths(values, bounds[1:] - bounds[:-1]).to_tensor(shape=[None, most, 3])

    def _range(self, number):
        return self.instance_offsets[number], self.instance_offsets[number + 1]

    def _shapes(self, number):
        first, last = self._range(number)
        ring_bounds = self.ring_offsets[first : last + 1]
        ring_first, ring_last = ring_bounds[0], ring_bounds[-1]
        point_bounds = self.point_offsets[ring_first : ring_last + 1]
        run_bounds = self.run_offsets[first : last + 1]
        ring_counts = ring_bounds[1:] - ring_bounds[:-1]
        instances = tf.range(tf.cast(last - first, tf.int32))
        return Shapes(
            points=self.points[point_bounds[0] : point_bounds[-1]],
            ring_sizes=tf.cast(point_bounds[1:] - point_bounds[:-1], tf.int32),
            ring_instances=tf.repeat(instances, ring_counts),
            runs=self.runs[run_bounds[0] : run_bounds[-1]],
            run_counts=tf.cast(run_bounds[1:] - run_bounds[:-1], tf.int32),
        )
