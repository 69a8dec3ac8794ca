"""Rows that fail without the others."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.serving.served_graph import prepare_images


def prepare(row):
    """The numbers in a text, one below the other; fails for what is no number."""
    return {"numbers": tf.strings.to_number(tf.strings.split(row, ","))[:, None]}


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def prepared(rows):
    return prepare_images(rows, prepare, {"numbers": tf.fill([1, 1], -1.0)})


def test_failed_rows_are_the_default_and_the_order_stays():
    found = prepared(["1,2,3", "x", "4", "", "5,6"])
    expected = [[1, 2, 3], [-1, 0, 0], [4, 0, 0], [-1, 0, 0], [5, 6, 0]]
    np.testing.assert_array_equal(found["numbers"][..., 0], expected)
    assert found["ok"].numpy().tolist() == [True, False, True, False, True]


def test_all_rows_may_fail():
    found = prepared(["x", "y"])
    assert found["numbers"].numpy().tolist() == [[[-1.0]], [[-1.0]]] and not found["ok"].numpy().any()


def test_an_empty_batch_is_one_default():
    found = prepared(tf.constant([], tf.string))
    assert found["numbers"].shape == (1, 1, 1) and found["ok"].numpy().tolist() == [False]


@pytest.mark.parametrize("count", (1, 7, 33))
def test_any_number_of_rows(count):
    found = prepared([str(number) for number in range(count)])
    assert found["numbers"].numpy().ravel().tolist() == list(range(count))
