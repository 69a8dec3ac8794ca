"""A `DataConfig` -> batches: a tf.data.Dataset in which everything from the files' bytes on is in the graph."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import IGNORED, UNUSED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import CONSOLE, print_line
from mrcnn_tf.config.settings import ResizeConfig
from mrcnn_tf.data.affine import has_labels
from mrcnn_tf.data.augment import augment_sample, check_augment_settings
from mrcnn_tf.data.geometric import RandomStream, mirror_permutations, resize_sample, stream_seed
from mrcnn_tf.data.loader import SampleLoader, explain_input_error, is_input_error
from mrcnn_tf.data.order import WHOLE_STEP, Order, make_pools, select_training_images
from mrcnn_tf.data.sources import load_sources
from mrcnn_tf.ops.resize import resized_size

STRIDE = 32  # of the backbone's coarsest map; image sides are padded to multiples of it
BATCHES_AHEAD = 2
CLASSES_SHOWN = 5  # of those without objects
STEPS_AHEAD = 8  # how far an iterator's error may be from the step that was counted last


def coco_dataset(config, training):
    """Batches of a dataset, one pass over it: a finite tf.data.Dataset (`.repeat()` for more).

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
        semantic       [B, H, W] uint8, the class of each pixel of `image`: 0 for any thing, 1 to S in the order of
                       `config.stuff`; 255 where it is unlabelled, ignored or beyond the image. Absent without maps
                       (`config.panoptic`, `config.semantic_maps`) or if `config.semantic` is False
        image_id       [B] int64; of several sources, two may use the same
        (a field)      [B, G] float32 for each name of `config.fields`, the annotation's number as it is in the json;
                       NaN where there is none, and in padding
        transform      [B, G, 2, 2] float32, the linear part of the map from the file (after EXIF orientation) to
                       `image` that an object went through, a pasted one on its own: `transform @ (cos, sin)` is where
                       a direction of the annotation points in `image`, and its length the scale in that direction.
                       Zeros in padding; absent if `config.fields` is empty

    `config.keypoint_offset` is added to the file's keypoints before anything else. An image with more than G instances
    keeps the largest, crowds last.

    In training the order is drawn anew in each pass, images of the same orientation share a batch (unless
    `config.pad_to` fixes its size), what doesn't fill a batch waits for another pass, and `config.augment` is applied.
    A set that is smaller than a batch fills it by repetition. Images with fewer labelled keypoints than
    `config.min_keypoints`, not counting crowds, are left out. Of sources with weights a pass is a mixture in that
    proportion, see `order.make_pools`.
    Without training every image comes once, in the file's order.

    Args:
        config: settings.DataConfig. `images_per_batch` None means 1, `resize` None the defaults of ResizeConfig, and
            `masks`, `keypoints` or `semantic` None True.
        training: bool.

    Raises:
        UserError: see `load_sources` and, in training, `TrainingData`; also if images don't fit into `config.pad_to`.
    """
    if training:
        return TrainingData(config).one_pass()
    sources = load_sources(config)
    count = sources.index.image_ids.size
    check_images_fit(sources, np.arange(count), config, training)
    loader, resize = SampleLoader(sources.index, config), config.resize or ResizeConfig()

    # AutoGraph has nothing to convert here and would take most of the time until the first batch.
    @tf.autograph.experimental.do_not_convert
    def load(number):
        sample = loader.load(number)
        original_size = tf.shape(sample.image)[:2]
        height, width = original_size[0], original_size[1]
        size = tf.stack(resized_size(height, width, resize.min_size, resize.max_size, resize.rule))
        return make_element(resize_sample(sample, size, config), original_size, loader.image_id(number), config)

    batch = config.images_per_batch or 1
    elements = tf.data.Dataset.range(count).map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = make_batches(elements, batch, drop_remainder=False)
    return batches.apply(tf.data.experimental.assert_cardinality(math.ceil(count / batch))).prefetch(BATCHES_AHEAD)


class TrainingData:
    """What there is to train on, in an order that follows from the config alone. Reading the index is done once, here.

    The config is a settings.DataConfig, as for `coco_dataset`.

    Attributes:
        images: how many there are.
        steps_per_pass: steps of `config.images_per_batch` images in once through them.

    Raises:
        UserError: see `load_sources`; also if there's nothing to train on, for a keypoint head not one labelled
            keypoint, images don't fit into `config.pad_to`, an image is to be mirrored and a keypoint's other side is
            missing, `config.min_keypoints` of a dataset used without keypoints, or see `check_augment_settings`.
    """

    def __init__(self, config):
        if config.min_keypoints and config.keypoints is False:
            raise UserError(
                f"data.train.min_keypoints is {config.min_keypoints}, but the data is used without keypoints: set it "
                "to 0 or add a keypoint head (model.keypoint_head={}, data.train.keypoints=true)."
            )
        check_augment_settings(config)
        sources = load_sources(config)
        index, batch = sources.index, config.images_per_batch or 1
        self._config, self._loader = config, SampleLoader(index, config)
        if config.semantic and not self._loader.has_labels:
            raise UserError(
                f"{sources.name} has no classes of pixels to train a semantic head on: set data.train.panoptic and "
                "data.train.panoptic_maps, or data.train.semantic_maps, or train without it (model.semantic_head=null)."
            )
        check_objects(index, sources.name, self._loader.has_labels)
        images = select_training_images(index, dataclasses.replace(config, annotations=sources.name))
        check_images_fit(sources, images, config, training=True)
        if images.size < batch:
            CONSOLE.print(
                f"{sources.name} has {images.size} usable images, fewer than the {batch} of a batch: "
                "they are repeated.",
                markup=False,
            )
        # One size for all leaves nothing to keep apart.
        portrait = (index.heights > index.widths) & (config.pad_to is None)
        self._order = Order(make_pools(sources, images, batch), portrait, batch, config.seed)
        with tf.device("CPU"):
            self._images = tf.constant(images)
            self._permutations = tf.constant(mirror_permutations(index.categories, config.augment))
        self.images, self.steps_per_pass = images.size, self._order.steps_per_pass

    def stream(self, first_step=0, share=WHOLE_STEP):
        """The endless tf.data.Dataset of a training run's batches, `coco_dataset` says of what.

        Every batch follows from the config and its position alone: two streams of one config are equal to the bit, and
        one that starts at a later step gives the other's tail, without loading what lies before.

        Args:
            first_step: the step to start at.
            share: which part of each step's images the stream holds, in how many batches; raises UserError if they
                can't be shared so.
        """
        size = share.batch_size(self._order.batch)
        batches = self._batches(self._order.stream(first_step, share), size)
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        return batches.apply(endless).prefetch(BATCHES_AHEAD)

    def input_error(self, error, step=0):
        """The UserError that names the file or record which can't be read any more; None if it's not about reading.

        Args:
            error: tf.errors.OpError of a training step.
            step: the step that failed; its images are looked at first.
        """
        if not is_input_error(error):
            return None
        drawn = self._order.stream(step, WHOLE_STEP).take(STEPS_AHEAD * self._order.batch)
        likely = [number for number, _ in drawn]
        if self._config.augment.copy_paste:
            likely += [self._draw_partner(seed) for _, seed in drawn]
        return explain_input_error(error, self._loader, likely, self._images)

    def one_pass(self):
        """A finite dataset of `steps_per_pass` batches, another order in each iteration."""
        batches = self._batches(self._order.one_pass(), self._order.batch)
        return batches.apply(tf.data.experimental.assert_cardinality(self.steps_per_pass)).prefetch(BATCHES_AHEAD)

    def _batches(self, drawn, size):
        """Batches of the images and seeds that `order.Order` gives."""
        elements = drawn.map(self._load_element, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return make_batches(elements, size, drop_remainder=True)

    # AutoGraph has nothing to convert here and would take most of the time until the first batch.
    @tf.autograph.experimental.do_not_convert
    def _load_element(self, number, seed):
        config = self._config
        load_partner = (lambda: self._loader.load(self._draw_partner(seed))) if config.augment.copy_paste else None
        sample = self._loader.load(number)
        sample, original_size = augment_sample(sample, load_partner, self._permutations, config, seed)
        return make_element(sample, original_size, self._loader.image_id(number), config)

    def _draw_partner(self, seed):
        """The number of another image, whose objects may be pasted in."""
        seed = stream_seed(seed, RandomStream.PARTNER)
        return self._images[tf.random.stateless_uniform([], seed, 0, self.images, tf.int64)]


def check_objects(index, source, has_pixel_classes):
    """Says on stderr which classes of a CocoIndex have no object to learn from; crowds are none.

    `source` is what to call the data, and `has_pixel_classes` is whether there are classes of pixels to learn as well.

    Raises UserError if there is nothing to learn.
    """
    counts = np.bincount(index.classes[~index.crowd], minlength=len(index.categories) + 1)[1:]
    if not counts.sum() and not has_pixel_classes:
        if index.classes.size:
            raise UserError(
                f"All {index.classes.size} annotations of {source} that can be used are crowds, from which nothing is "
                "learnt: set iscrowd to 0 where an annotation is a single object."
            )
        raise UserError(f"No annotation of {source} can be used: training needs at least one instance.")
    names = [category.name for category in index.categories]
    unlearnt = [name for name, count in zip(names, counts.tolist(), strict=True) if not count and name != UNUSED]
    if unlearnt:
        shown = ", ".join(unlearnt[:CLASSES_SHOWN]) + (" ..." if len(unlearnt) > CLASSES_SHOWN else "")
        print_line(
            f"{source}: {len(unlearnt)} of {len(names)} classes have no object to learn from ({shown}): label some, or "
            "leave such classes out."
        )


def make_element(sample, original_size, image_id, config):
    """Makes the element of one image, of fixed shapes, as `coco_dataset` describes them.

    The `Sample` is as the network is to see it. Of more than `config.max_instances` objects the largest are kept,
    crowds last.
    """
    size = tf.shape(sample.image)[:2]
    largest = _find_largest(sample.areas, sample.crowd, config.max_instances)

    def pad_objects(values, fill=0):
        values = tf.gather(values, largest)
        shape = values.shape[1:]
        extra = [[0, config.max_instances - tf.shape(values)[0]]] + [[0, 0]] * len(shape)
        values = tf.pad(values, extra, constant_values=fill)
        values.set_shape([config.max_instances, *shape])
        return values

    element = {
        "image": _pad_image(sample.image, size, config.pad_to, 0),
        "image_size": size,
        "original_size": original_size,
        "boxes": pad_objects(sample.boxes),
        "classes": pad_objects(sample.classes),
        "crowd": pad_objects(sample.crowd),
        "image_id": image_id,
    }
    if sample.masks.shape[1] != 0:
        element["masks"] = pad_objects(sample.masks)
    if sample.keypoints.shape[1] != 0:
        element["keypoints"] = pad_objects(sample.keypoints)
    if config.fields:
        numbers = tf.unstack(pad_objects(sample.field_values, math.nan), axis=1)
        element |= dict(zip(config.fields, numbers, strict=True)) | {"transform": pad_objects(sample.transforms)}
    if has_labels(sample):
        element["semantic"] = _pad_image(sample.semantic, size, config.pad_to, IGNORED)
    return element


def make_batches(elements, size, drop_remainder):
    """Makes batches of `size` elements; each image is padded to the largest of its batch."""
    specs = elements.element_spec
    shapes = {name: spec.shape for name, spec in specs.items()}
    fills = {name: tf.zeros([], spec.dtype) for name, spec in specs.items()}
    if "semantic" in fills:
        fills["semantic"] += IGNORED
    return elements.padded_batch(size, padded_shapes=shapes, padding_values=fills, drop_remainder=drop_remainder)


def check_images_fit(sources, images, config, training):
    """Raises UserError unless the `images` (their numbers) of `sources` fit into `config.pad_to`, if there is one."""
    # Also without `pad_to`: an unknown rule is to be named here and not from within the traced function.
    index, resize = sources.index, config.resize or ResizeConfig()
    original_heights, original_widths = index.heights[images], index.widths[images]
    for min_size in config.augment.min_sizes if training and config.augment.min_sizes else [resize.min_size]:
        sizes = resized_size(original_heights, original_widths, min_size, resize.max_size, resize.rule)
        heights, widths = (side.numpy() for side in sizes)
        if config.pad_to is None:
            continue
        if len(config.pad_to) != 2 or any(side <= 0 or side % STRIDE for side in config.pad_to):
            raise UserError(f"data.*.pad_to is {list(config.pad_to)}: give [height, width] in multiples of {STRIDE}.")
        over = (heights > config.pad_to[0]) | (widths > config.pad_to[1])
        if training and config.augment.quarter_turns:
            over |= (widths > config.pad_to[0]) | (heights > config.pad_to[1])
        if over.any():
            first = np.flatnonzero(over)[0]
            size = f"{widths[first]} x {heights[first]}"
            raise UserError(
                f"Image {index.image_ids[images[first]]} of {sources.name} becomes {size} pixels, "
                f"which doesn't fit into data.*.pad_to {list(config.pad_to)} (height, width): "
                "raise it or lower resize.max_size."
            )


def _find_largest(areas, crowd, count):
    """The indices of the `count` largest objects in their own order; crowds come after all others."""
    rank = tf.where(crowd, areas - tf.reduce_max(areas) - 1.0, areas)
    largest = tf.math.top_k(rank, tf.minimum(tf.size(rank), count)).indices
    return tf.sort(largest)


def _pad_image(pixels, size, pad_to, fill):
    """[h, w, ...] of `size`, padded at the right and the bottom to `pad_to`, or else to multiples of STRIDE."""
    padded_size = tf.constant(pad_to) if pad_to is not None else -(-size // STRIDE) * STRIDE
    extra = padded_size - size
    channels = pixels.shape[2:]
    pixels = tf.pad(pixels, [[0, extra[0]], [0, extra[1]], *([0, 0] for _ in channels)], constant_values=fill)
    pixels.set_shape([*(pad_to or (None, None)), *channels])
    return pixels
