"""Which image stands where in an endless training stream: arithmetic on (seed, place), nothing remembered.

So a run can go on at any step, and several workers agree on each step's images, without telling one another anything.
"""

import dataclasses

import tensorflow as tf

from mrcnn_tf.common.errors import UserError

# The streams of draws within a pass; pool i's permutations have PERMUTATIONS + i.
BATCHES, AUGMENTATION, MIXTURE, PERMUTATIONS = range(4)


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of each step's images that one worker loads.

    A step's images are cut into `workers` equal runs, and a worker's run into `batches` equal batches, one after the
    other elements of its stream: element s * batches + i is the i-th batch of step s. Which images a step has, and how
    they are augmented, is the same for all shares.

    Attributes:
        worker: 0 to workers - 1.
        workers: how many load a part of each step.
        batches: how many batches the worker's part makes: replicas times the parts that gradients are added up over.
    """

    worker: int = 0
    workers: int = 1
    batches: int = 1

    def batch_size(self, images_per_batch):
        """Images in each of the batches.

        Raises:
            UserError: `images_per_batch`, those of a step, can't be cut so.
        """
        parts = self.workers * self.batches
        if images_per_batch % parts:
            raise UserError(
                f"train.images_per_batch is {images_per_batch}, which {self.workers} workers can't share equally in "
                f"{self.batches} batches each: set it to a multiple of {parts}."
            )
        return images_per_batch // parts


WHOLE = Share()


@dataclasses.dataclass(frozen=True)
class Pool:
    """Images that are drawn from one endless row of permutations of theirs.

    Attributes:
        rows: [N] int64, the images' numbers.
        draws: how many are drawn in each pass. As many as there are images: each of them once.
    """

    rows: object
    draws: int


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
            self._pools = [Pool(tf.constant(pool.rows, tf.int64), pool.draws) for pool in pools]
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
        return passes.flat_map(lambda number: self._elements(number, WHOLE))

    def _elements(self, number, share):
        images, seeds = self._pass(number)
        size = share.batch_size(self.batch) * share.batches
        images = tf.reshape(images, [-1, share.workers, size])[:, share.worker]
        seeds = tf.reshape(seeds, [-1, share.workers, size, 2])[:, share.worker]
        elements = (tf.reshape(images, [-1]), tf.reshape(seeds, [-1, 2]))
        return tf.data.Dataset.from_tensor_slices(elements)

    def _pass(self, number):
        """The images [S, B] of pass `number` and the seeds [S, B, 2] of their augmentation, int64."""
        steps, batch = self.steps_per_pass, self.batch
        drawn = [self._draw(place, pool, number) for place, pool in enumerate(self._pools)]
        images = drawn[0] if len(drawn) == 1 else _shuffled(tf.concat(drawn, axis=0), self._seed(number, MIXTURE))
        group = tf.gather(self._portrait, images)
        images = tf.gather(images, tf.argsort(tf.cast(group != group[0], tf.int32), stable=True))
        copies = -(-steps * batch // sum(pool.draws for pool in self._pools))
        images = tf.reshape(tf.tile(images, [copies])[: steps * batch], [steps, batch])
        images = _shuffled(images, self._seed(number, BATCHES))
        seed = self._seed(number, AUGMENTATION)
        return images, tf.random.stateless_uniform([steps, batch, 2], seed, None, None, tf.int64)

    def _draw(self, place, pool, number):
        """A pool's images in pass `number`, int64 [draws]."""
        size = tf.size(pool.rows, tf.int64)
        first = number * pool.draws
        last = first + pool.draws - 1

        def permutation(nth):
            return _shuffled(pool.rows, self._seed(nth, PERMUTATIONS + place))

        drawn = tf.map_fn(permutation, tf.range(first // size, last // size + 1))
        return tf.reshape(drawn, [-1])[first % size :][: pool.draws]

    def _seed(self, number, stream):
        seed = tf.stack([tf.constant(self.seed, tf.int64), number])
        return tf.random.experimental.stateless_fold_in(seed, stream)


def _shuffled(values, seed):
    return tf.random.experimental.stateless_shuffle(values, seed)
