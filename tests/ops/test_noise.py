"""Random numbers by place: uniform, independent, and the same wherever they are asked for."""

import numpy as np
import tensorflow as tf

from mrcnn_tf.ops.matching import anchor_counters, image_seeds, roi_counters, uniform

COUNT = 4096


def numbers(seed=0, step=7, ids=(1, 2, 2**40 + 1), counters=None):
    counters = tf.range(COUNT) if counters is None else tf.constant(counters)
    return uniform(image_seeds(seed, step, tf.constant(ids, tf.int64)), tf.cast(counters, tf.uint32)).numpy()


def test_they_are_uniform_and_those_of_different_images_steps_and_seeds_have_nothing_in_common():
    rows = np.concatenate([numbers(), numbers(step=8), numbers(seed=1)])
    assert rows.min() >= 0 and rows.max() < 1
    # Six standard deviations of the mean, the mean square and the correlation of so many uniform numbers.
    assert np.abs(rows.mean(axis=1) - 1 / 2).max() < 6 * np.sqrt(1 / 12 / COUNT)
    assert np.abs(np.square(rows).mean(axis=1) - 1 / 3).max() < 6 * np.sqrt(4 / 45 / COUNT)
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 6 / np.sqrt(COUNT)
    following = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in rows]
    assert np.abs(following).max() < 6 / np.sqrt(COUNT)


def test_an_images_numbers_dont_depend_on_its_neighbours_or_on_what_else_is_counted():
    np.testing.assert_array_equal(numbers(ids=[2])[0], numbers()[1])
    np.testing.assert_array_equal(numbers(counters=[5, 1000, 17])[:, 1], numbers()[:, 1000])


def test_large_and_negative_ids_and_seeds_count_in_full():
    rows = numbers(ids=[1, 2**32 + 1, -1, 2**62])
    assert (rows[:, None] != rows[None]).any(axis=2).sum() == 4 * 3
    assert (numbers(seed=0) != numbers(seed=2**31)).any() and (numbers(seed=-1) != numbers(seed=1)).any()


def test_a_compiled_graph_gives_the_same_numbers():
    ids, counters = tf.constant([9], tf.int64), np.arange(8, dtype=np.uint32)
    compiled = tf.function(lambda step: uniform(image_seeds(3, step, ids), counters), jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.constant(5, tf.int64)), numbers(3, 5, [9])[:, :8])


def test_every_anchor_and_roi_has_a_counter_of_its_own_whatever_the_padding():
    small, large = (
        anchor_counters([tf.zeros([1, height + pad, width + pad, 1]) for height, width in ((4, 6), (2, 3))], 3).numpy()
        for pad in (0, 2)
    )
    rois = roi_counters(50).numpy()
    assert small.dtype == rois.dtype == np.uint32
    assert len(np.unique(np.concatenate([large, rois]))) == len(large) + len(rois)
    assert np.isin(small, large).all() and small[0] == 0 and rois[0] == 7 * 2**29
