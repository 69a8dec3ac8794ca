"""Training stops at the first number that isn't one, and says which and where."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.steps import MARK, check_finite

IDS = tf.constant([139, 285], tf.int64)


def test_finite_values_pass_unchanged():
    checked = check_finite({"loss_class": tf.constant(1.5), "loss_box": tf.constant(-0.0)}, IDS)
    assert {name: float(value) for name, value in checked.items()} == {"loss_class": 1.5, "loss_box": 0.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("graph", [False, True])
def test_the_message_names_the_bad_values_and_the_images(bad, graph):
    values = {"loss_class": tf.constant(1.0), "loss_box": tf.constant(bad), "loss_mask": tf.constant(np.nan)}
    check = tf.function(check_finite) if graph else check_finite
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        check(values, IDS)
    message = caught.value.message
    assert MARK in message
    assert "loss_box" in message and "loss_mask" in message and "loss_class" not in message
    assert "139, 285" in message


def test_whatever_uses_the_result_runs_after_the_check():
    weight = tf.Variable(1.0)

    @tf.function
    def step(loss):
        weight.assign_add(check_finite({"loss": loss}, IDS)["loss"])

    step(tf.constant(2.0))
    with pytest.raises(tf.errors.InvalidArgumentError):
        step(tf.constant(np.nan))
    assert float(weight) == 3.0


def test_gradients_pass_through():
    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = check_finite({"loss": x * x}, IDS)["loss"]
    assert float(tape.gradient(value, x)) == 6.0
