"""A `DataConfig` -> batches: a tf.data.Dataset in which everything from the files' bytes on is in the graph."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import CONSOLE
from mrcnn_tf.config.settings import ResizeConfig
from mrcnn_tf.data import draws
from mrcnn_tf.data.augment import augmented, check_augment
from mrcnn_tf.data.batching import batched, check_fit, element
from mrcnn_tf.data.faults import explained, from_input
from mrcnn_tf.data.framing import resized
from mrcnn_tf.data.keypoints import images_to_train_on, mirror_table
from mrcnn_tf.data.loader import SampleLoader
from mrcnn_tf.data.order import WHOLE, Order
from mrcnn_tf.data.sources import load_sources, pools
from mrcnn_tf.ops.resize import resized_size

BATCHES_AHEAD = 2
STEPS_AHEAD = 8  # how far an iterator's error may be from the step that was counted last
PARTNER = 0  # the stream of draws for copy-paste's other image; the others in draws.py are 1 and up


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

    `config.keypoint_offset` is added to the file's keypoints before anything else. An image with more than G instances
    keeps the largest, crowds last.

    In training the order is drawn anew in each pass, images of the same orientation share a batch (unless
    `config.pad_to` fixes its size), what doesn't fill a batch waits for another pass, and `config.augment` is applied.
    A set that is smaller than a batch fills it by repetition. Images with fewer labelled keypoints than
    `config.min_keypoints`, not counting crowds, are left out. Of sources with weights a pass is a mixture in that
    proportion, see `sources.pools`.
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
    check_fit(sources, np.arange(count), config, training)
    loader, resize = SampleLoader(sources.index, config), config.resize or ResizeConfig()

    # AutoGraph has nothing to convert here and would take most of the time until the first batch.
    @tf.autograph.experimental.do_not_convert
    def load(number):
        sample = loader.load(number)
        original = tf.shape(sample.image)[:2]
        size = tf.stack(resized_size(original[0], original[1], resize.min_size, resize.max_size, resize.rule))
        return element(resized(sample, size, config), original, loader.image_id(number), config)

    batch = config.images_per_batch or 1
    elements = tf.data.Dataset.range(count).map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batched(elements, batch, drop_remainder=False)
    return batches.apply(tf.data.experimental.assert_cardinality(math.ceil(count / batch))).prefetch(BATCHES_AHEAD)


class TrainingData:
    """What there is to train on, in an order that follows from the config alone. Reading the index is done once, here.

    Attributes:
        images: how many there are.
        steps_per_pass: steps of `config.images_per_batch` images in once through them.

    Args:
        config: settings.DataConfig, as for `coco_dataset`.

    Raises:
        UserError: see `load_sources`; also if there's nothing to train on, for a keypoint head not one labelled
            keypoint, images don't fit into `config.pad_to`, an image is to be mirrored and a keypoint's other side is
            missing, `config.min_keypoints` of a dataset used without keypoints, or see `check_augment`.
    """

    def __init__(self, config):
        _check_wanted(config)
        check_augment(config)
        sources = load_sources(config)
        index, batch = sources.index, config.images_per_batch or 1
        self._config, self._loader = config, SampleLoader(index, config)
        if config.semantic and not self._loader.has_labels:
            raise UserError(
                f"{sources.name} has no classes of pixels to train a semantic head on: set data.train.panoptic and "
                "data.train.panoptic_maps, or data.train.semantic_maps, or train without it (model.semantic_head=null)."
            )
        if not (index.classes.size or self._loader.has_labels):
            raise UserError(f"No annotation of {sources.name} can be used: training needs at least one instance.")
        rows = images_to_train_on(index, dataclasses.replace(config, annotations=sources.name))
        check_fit(sources, rows, config, training=True)
        if rows.size < batch:
            CONSOLE.print(
                f"{sources.name} has {rows.size} usable images, fewer than the {batch} of a batch: they are repeated.",
                markup=False,
            )
        # One size for all leaves nothing to keep apart.
        portrait = (index.heights > index.widths) & (config.pad_to is None)
        self._order = Order(pools(sources, rows, batch), portrait, batch, config.seed)
        with tf.device("CPU"):
            self._rows = tf.constant(rows)
            self._mirrors = tf.constant(mirror_table(index.categories, config.augment))
        self.images, self.steps_per_pass = rows.size, self._order.steps_per_pass

    def stream(self, first_step=0, share=WHOLE):
        """The endless tf.data.Dataset of a training run's batches, `coco_dataset` says of what.

        Every batch follows from the config and its place alone: two streams of one config are equal to the bit, and one
        that starts at a later step gives the other's tail, without loading what lies before.

        Args:
            first_step: the step to start at.
            share: which part of each step's images the stream holds, in how many batches.

        Raises:
            UserError: the images of a step can't be shared so.
        """
        size = share.batch_size(self._order.batch)
        batches = self._batches(self._order.stream(first_step, share), size)
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        return batches.apply(endless).prefetch(BATCHES_AHEAD)

    def input_error(self, error, step=0):
        """What a training step's error has to do with the data.

        Args:
            error: tf.errors.OpError.
            step: the step that failed; its images are looked at first.

        Returns:
            UserError with a sentence that names the file or record which can't be read any more; None if the error
            isn't about reading.
        """
        if not from_input(error):
            return None
        places = self._order.stream(step, WHOLE).take(STEPS_AHEAD * self._order.batch)
        likely = [number for number, _ in places]
        if self._config.augment.copy_paste:
            likely += [self._partner(seed) for _, seed in places]
        return explained(error, self._loader, likely, self._rows)

    def one_pass(self):
        """A finite dataset of `steps_per_pass` batches, another order in each iteration."""
        batches = self._batches(self._order.one_pass(), self._order.batch)
        return batches.apply(tf.data.experimental.assert_cardinality(self.steps_per_pass)).prefetch(BATCHES_AHEAD)

    def _batches(self, places, size):
        """Batches of the images and seeds that `order.Order` gives."""
        elements = places.map(self._element, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return batched(elements, size, drop_remainder=True)

    # AutoGraph has nothing to convert here and would take most of the time until the first batch.
    @tf.autograph.experimental.do_not_convert
    def _element(self, number, seed):
        config = self._config
        other = (lambda: self._loader.load(self._partner(seed))) if config.augment.copy_paste else None
        sample = self._loader.load(number)
        sample, original = augmented(sample, other, self._mirrors, config, seed)
        return element(sample, original, self._loader.image_id(number), config)

    def _partner(self, seed):
        """The number of another image, whose objects may be pasted in."""
        return self._rows[tf.random.stateless_uniform([], draws.stream(seed, PARTNER), 0, self.images, tf.int64)]


def _check_wanted(config):
    if config.min_keypoints and config.keypoints is False:
        raise UserError(
            f"data.train.min_keypoints is {config.min_keypoints}, but the data is used without keypoints: set it to 0 "
            "or add a keypoint head (model.keypoint_head={}, data.train.keypoints=true)."
        )
