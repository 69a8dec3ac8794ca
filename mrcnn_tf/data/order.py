"""Which images a training run draws, and which stands where in its endless stream.

The order is arithmetic on (seed, position), nothing is remembered. So a run can go on at any step, and several workers
agree on each step's images, without telling one another anything.
"""

import collections
import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import max_keypoints
from mrcnn_tf.common.errors import UserError

# The streams of random numbers within a pass; the i-th pool's permutations have PERMUTATIONS + i.
BATCHES, AUGMENTATION, MIXTURE, PERMUTATIONS = range(4)


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of each step's images that one worker loads.

    A step's images are cut into `workers` equal runs, and a worker's run into `batches` equal batches, one after the
    other elements of its stream: element s * batches + i is the i-th batch of step s. Which images a step has, and how
    they are augmented, is the same for all shares.
    """

    worker: int = 0  # 0 to workers - 1
    workers: int = 1  # how many load a part of each step
    batches: int = 1  # that the worker's part makes: replicas times the parts that gradients are added up over

    def batch_size(self, images_per_batch):
        """Images in each of the batches; raises UserError if `images_per_batch`, those of a step, can't be cut so."""
        parts = self.workers * self.batches
        if images_per_batch % parts:
            raise UserError(
                f"train.images_per_batch is {images_per_batch}, which {self.workers} workers can't share equally in "
                f"{self.batches} batches each: set it to a multiple of {parts}."
            )
        return images_per_batch // parts


WHOLE_STEP = Share()


# Images that are drawn from one endless sequence of permutations of theirs: their numbers, [N] int64, and how many are
# drawn in each pass; as many as there are images means each of them once.
Pool = collections.namedtuple("Pool", "images draws")


class Order:
    """Passes of `steps_per_pass` steps, each of `batch` images of the same orientation as far as that goes.

    A pass's images are drawn from the pools and mixed, sorted by orientation and cut into batches, which are shuffled.
    So only one batch can be of both orientations, and what is left over at the end comes from the orientation drawn
    last; it waits for another pass. Too few images for a batch fill it by repetition.

    Args:
        pools: list of Pool.
        portrait: [I] bool, by image number; images of different values are kept apart.
        batch: images of a step.
        seed: int.
    """

    def __init__(self, pools, portrait, batch, seed):
        self.batch, self.seed = batch, seed
        self.steps_per_pass = max(sum(pool.draws for pool in pools) // batch, 1)
        with tf.device("CPU"):
            self._pools = [Pool(tf.constant(pool.images, tf.int64), pool.draws) for pool in pools]
            self._portrait = tf.constant(portrait)

    def stream(self, first_step, share):
        """The endless dataset of (image number int64, seed int64 [2]) of a worker's images from `first_step` on."""
        first_pass, step = divmod(first_step, self.steps_per_pass)
        size = share.batch_size(self.batch) * share.batches
        passes = tf.data.Dataset.range(first_pass, tf.int64.max)
        return passes.flat_map(lambda number: self._elements(number, share)).skip(step * size)

    def one_pass(self):
        """A finite dataset of the same elements; each iteration is another pass, in the same order after each start."""
        passes = tf.data.Dataset.random(seed=self.seed, rerandomize_each_iteration=True).take(1)
        return passes.flat_map(lambda number: self._elements(number, WHOLE_STEP))

    def _elements(self, number, share):
        images, seeds = self._draw_pass(number)
        size = share.batch_size(self.batch) * share.batches
        images = tf.reshape(images, [-1, share.workers, size])[:, share.worker]
        seeds = tf.reshape(seeds, [-1, share.workers, size, 2])[:, share.worker]
        return tf.data.Dataset.from_tensor_slices((tf.reshape(images, [-1]), tf.reshape(seeds, [-1, 2])))

    def _draw_pass(self, number):
        """The images [S, B] of pass `number` and the seeds [S, B, 2] of their augmentation, int64."""
        steps, batch = self.steps_per_pass, self.batch
        drawn = [self._draw(index, pool, number) for index, pool in enumerate(self._pools)]
        images = drawn[0] if len(drawn) == 1 else _shuffle(tf.concat(drawn, axis=0), self._seed(number, MIXTURE))
        portrait = tf.gather(self._portrait, images)
        images = tf.gather(images, tf.argsort(tf.cast(portrait != portrait[0], tf.int32), stable=True))
        copies = -(-steps * batch // sum(pool.draws for pool in self._pools))
        images = tf.reshape(tf.tile(images, [copies])[: steps * batch], [steps, batch])
        images = _shuffle(images, self._seed(number, BATCHES))
        seed = self._seed(number, AUGMENTATION)
        return images, tf.random.stateless_uniform([steps, batch, 2], seed, None, None, tf.int64)

    def _draw(self, index, pool, number):
        """The images of the pool at `index` in pass `number`, int64 [draws]."""
        size = tf.size(pool.images, tf.int64)
        first = number * pool.draws
        last = first + pool.draws - 1

        def permutation(nth):
            return _shuffle(pool.images, self._seed(nth, PERMUTATIONS + index))

        drawn = tf.map_fn(permutation, tf.range(first // size, last // size + 1))
        return tf.reshape(drawn, [-1])[first % size :][: pool.draws]

    def _seed(self, number, stream):
        seed = tf.stack([tf.constant(self.seed, tf.int64), number])
        return tf.random.experimental.stateless_fold_in(seed, stream)


def _shuffle(values, seed):
    return tf.random.experimental.stateless_shuffle(values, seed)


def make_pools(sources, images, batch):
    """What each pass of a training order draws, a list of Pool.

    Without weights, every image once. With weights, as many images as there are, rounded down to whole batches and
    divided among the sources by largest remainder. Raises UserError if a source has a weight and no image to train on,
    or one so small that it gets no image.

    Args:
        sources: sources.Sources.
        images: [N] int64, the numbers of the images to train on, rising.
        batch: images of a step.
    """
    if sources.weights is None:
        return [Pool(images, images.size)]
    total = max(images.size // batch, 1) * batch
    bounds = np.searchsorted(images, sources.starts)
    draws = _apportion(total, np.array(sources.weights))
    for index, name in enumerate(sources.names):
        if bounds[index] == bounds[index + 1]:
            raise UserError(
                f"No image of {name} can be trained on, but it has a weight: remove it from data.*.sources."
            )
        if not draws[index]:
            raise UserError(
                f"The weight of {name} is {sources.weights[index]:.2g} of all, which gives it none of a pass's {total} "
                "images: raise it in data.*.sources."
            )
    return [Pool(images[first:end], int(count)) for first, end, count in zip(bounds, bounds[1:], draws, strict=False)]


def _apportion(total, weights):
    """`total` divided in proportion to `weights` [N], which add up to 1: whole numbers by largest remainder."""
    quotas = total * weights
    shares = np.floor(quotas).astype(np.int64)
    largest = np.argsort(shares - quotas, kind="stable")
    shares[largest[: total - shares.sum()]] += 1
    return shares


def select_training_images(index, config):
    """The numbers, rising int64, of a CocoIndex' images with the labelled keypoints that `config` asks for, if it does.

    Of the settings.DataConfig `keypoints` and `min_keypoints` are read. Raises UserError if there are no such images,
    or not a single labelled keypoint for a keypoint head to learn from.
    """
    counts = count_labelled_keypoints(index)
    wants_keypoints = config.keypoints or max_keypoints(index.categories)
    if wants_keypoints and not counts.any():
        raise UserError(
            f"No annotation of {config.annotations} has a labelled keypoint to train on: name keypoints in its "
            "categories and label them, or train without them (model.keypoint_head=null, data.train.keypoints=false)."
        )
    images = np.flatnonzero(counts >= config.min_keypoints)
    if not images.size:
        raise UserError(
            f"No image of {config.annotations} has {config.min_keypoints} labelled keypoints: "
            "lower data.train.min_keypoints or give annotations and their categories keypoints."
        )
    return images


def count_labelled_keypoints(index):
    """[I] int64: how many labelled keypoints the instances of each of the `CocoIndex`'s images have, without crowds."""
    instance = np.repeat(np.arange(index.classes.size), np.diff(index.keypoint_offsets))
    labelled = (index.keypoints[:, 2] > 0) & ~index.crowd[instance]
    image = np.repeat(np.arange(index.image_ids.size), np.diff(index.instance_offsets))
    return np.bincount(image[instance[labelled]], minlength=index.image_ids.size)
