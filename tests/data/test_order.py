import collections

import numpy as np
import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data.order import WHOLE_STEP, Order, Pool, Share


def order(count=12, batch=4, seed=3, portrait=None, pools=None):
    pools = pools or [Pool(np.arange(count), count)]
    return Order(pools, np.zeros(count, bool) if portrait is None else portrait, batch, seed)


def steps(one, first, number, share=WHOLE_STEP):
    """The images [number, n] and seeds [number, n, 2] of a worker's next `number` steps."""
    size = one.batch // share.workers
    elements = list(one.stream(first, share).take(number * size).as_numpy_iterator())
    images, seeds = zip(*elements, strict=True)
    return np.reshape(images, [number, size]), np.reshape(seeds, [number, size, 2])


def test_every_pass_has_each_image_once_and_another_order():
    images, seeds = steps(order(), 0, 15)
    passes = images.reshape(5, 12)
    assert (np.sort(passes, axis=1) == np.arange(12)).all()
    assert len({tuple(one) for one in passes.tolist()}) == 5
    assert len(np.unique(seeds.reshape(-1, 2), axis=0)) == 60


def test_the_order_follows_from_the_seed():
    images, seeds = steps(order(), 0, 6)
    again = steps(order(), 0, 6)
    np.testing.assert_array_equal(again[0], images)
    np.testing.assert_array_equal(again[1], seeds)
    for seed in (4, -1):
        other = steps(order(seed=seed), 0, 6)
        assert (other[0] != images).any() and (other[1] != seeds).all()


@pytest.mark.parametrize("first", [1, 2, 3, 7, 3 * 10**6 + 1])
def test_a_stream_from_a_step_is_the_tail_of_the_whole(first):
    start = first - first % 3
    whole = steps(order(), start, 8)
    tail = steps(order(), first, 8 - (first - start))
    for one, other in zip(whole, tail, strict=True):
        np.testing.assert_array_equal(one[first - start :], other)


@pytest.mark.parametrize(("workers", "batches"), [(2, 1), (1, 4), (2, 2), (4, 1)])
def test_workers_share_each_step(workers, batches):
    whole = steps(order(), 1, 5)
    parts = [steps(order(), 1, 5, Share(worker, workers, batches)) for worker in range(workers)]
    for place in range(2):
        np.testing.assert_array_equal(np.concatenate([part[place] for part in parts], axis=1), whole[place])


def test_a_step_that_cant_be_shared_equally():
    assert Share(0, 3, 2).batch_size(12) == 2
    with pytest.raises(UserError, match="train.images_per_batch is 10, .* set it to a multiple of 6"):
        order(batch=10).stream(0, Share(0, 3, 2))


def test_orientations_are_mixed_in_one_step_at_most():
    portrait = np.arange(21) % 3 == 0  # 7 of 21
    images, _ = steps(order(21, 4, portrait=portrait), 0, 50)
    passes = portrait[images].reshape(10, 5, 4).sum(axis=2)
    mixed = (passes % 4 != 0).sum(axis=1)
    assert mixed.max() == 1
    assert len(set(map(tuple, passes.tolist()))) > 3  # the steps are shuffled
    assert set(np.unique(images)) == set(range(21))  # what waits is another image each time


def test_a_set_smaller_than_a_step_is_repeated():
    images, seeds = steps(order(3, 8), 0, 4)
    for one in images.tolist():
        assert sorted(collections.Counter(one).values()) == [2, 3, 3]
    assert order(3, 8).steps_per_pass == 1
    assert len(np.unique(seeds.reshape(-1, 2), axis=0)) == 32


def test_a_pool_is_drawn_in_whole_permutations_across_passes():
    """Of 5 images 8 a pass, of 7 images 4 a pass: permutations begin and end within passes."""
    pools = [Pool(np.arange(5), 8), Pool(np.arange(5, 12), 4)]
    one = order(12, 3, pools=pools)
    assert one.steps_per_pass == 4
    passes = steps(one, 0, 35 * 4)[0].reshape(35, 12)
    for pool in pools:
        drawn = np.sum([(passes == row).sum(axis=1) for row in pool.images], axis=0)
        assert (drawn == pool.draws).all()
        seen = np.zeros(pool.images.size, int)
        for images in passes:
            seen += np.bincount(images, minlength=12)[pool.images]
            assert seen.max() - seen.min() <= 1  # nothing comes again before all others have come
        assert seen.min() == seen.max() == 35 * pool.draws // pool.images.size
    middle = one.stream(7, WHOLE_STEP).take(9).as_numpy_iterator()
    assert [int(image) for image, _ in middle] == passes.reshape(-1)[21:30].tolist()


def test_permutations_are_as_likely_as_each_other():
    images, _ = steps(order(3, 3), 0, 1200)
    counts = collections.Counter(map(tuple, images.tolist()))
    assert len(counts) == 6
    assert max(abs(count - 200) for count in counts.values()) < 65  # five deviations of 12.9


def test_one_pass_is_another_each_time_and_the_same_after_each_start():
    def passes(one):
        return [[int(image) for image, _ in one] for _ in range(3)]

    first = passes(order().one_pass())
    assert all(sorted(one) == list(range(12)) for one in first) and first[0] != first[1] != first[2]
    assert passes(order().one_pass()) == first
    repeated = [int(image) for image, _ in order().one_pass().repeat(3)]
    assert repeated == sum(first, [])
