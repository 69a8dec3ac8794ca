"""Training stops at the first number that isn't finite, and says which and where."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.common.errors import NonFiniteLoss
from mrcnn_tf.model.steps import GRADIENT, SCALED_GRADIENT, FiniteCheck

IDS = tf.constant([139, 285], tf.int64)
LOSSES = ["loss_class", "loss_box", "loss_mask"]


@pytest.fixture
def finite_check():
    return FiniteCheck(LOSSES, tf.distribute.get_strategy())


def test_finite_values_pass_unchanged(finite_check):
    checked = finite_check.check({"loss_class": tf.constant(1.5), "loss_box": tf.constant(-0.0)}, IDS)
    assert {name: float(value) for name, value in checked.items()} == {"loss_class": 1.5, "loss_box": 0.0}
    assert finite_check.error() is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("graph", [False, True])
def test_the_message_names_the_bad_values_and_the_images(finite_check, bad, graph):
    values = {"loss_class": tf.constant(1.0), "loss_box": tf.constant(bad), "loss_mask": tf.constant(np.nan)}
    check = tf.function(finite_check.check) if graph else finite_check.check
    with pytest.raises(tf.errors.InvalidArgumentError):
        check(values, IDS)
    error = finite_check.error()
    assert isinstance(error, NonFiniteLoss)
    assert str(error) == (
        "Training stopped: loss_box, loss_mask is not finite for image ids 139, 285; the weights are those of the "
        "step before."
    )
    assert finite_check.error() is None  # another error of the graph is no longer taken for this one


@pytest.mark.parametrize(
    ("name", "subject"),
    [(GRADIENT, "the gradient"), (SCALED_GRADIENT, "the gradient, however small the loss scale,")],
)
def test_the_message_names_the_gradient(finite_check, name, subject):
    with pytest.raises(tf.errors.InvalidArgumentError):
        finite_check.check({"loss_box": tf.constant(1.0), name: tf.constant(np.inf)})
    assert str(finite_check.error()).startswith(f"Training stopped: {subject} is not finite; the weights")


def test_whatever_uses_the_result_runs_after_the_check(finite_check):
    weight = tf.Variable(1.0)

    @tf.function
    def step(loss):
        weight.assign_add(finite_check.check({"loss_box": loss}, IDS)["loss_box"])

    step(tf.constant(2.0))
    with pytest.raises(tf.errors.InvalidArgumentError):
        step(tf.constant(np.nan))
    assert float(weight) == 3.0


def test_gradients_pass_through(finite_check):
    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = finite_check.check({"loss_box": x * x}, IDS)["loss_box"]
    assert float(tape.gradient(value, x)) == 6.0
