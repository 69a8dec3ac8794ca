"""The learning rate by hand, and SGD against a plain numpy loop of its formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.config.load import load_config
from mrcnn_tf.training.optimizer import SGD, WarmupStepDecay, make_optimizer

SCHEDULE = WarmupStepDecay(peak=0.02, warmup_steps=10, warmup_factor=0.001, decay_steps=[60, 80], decay_factor=0.1)


@pytest.mark.parametrize(
    "step, rate",
    [
        (0, 0.02 * 0.001),
        (5, 0.02 * (0.001 + 0.999 * 0.5)),
        (10, 0.02),
        (59, 0.02),
        (60, 0.002),
        (79, 0.002),
        (80, 0.0002),
        (10_000, 0.0002),
    ],
)
def test_rates(step, rate):
    assert float(SCHEDULE(step)) == pytest.approx(rate, rel=1e-5)


def test_without_warm_up_or_decay_it_is_constant():
    schedule = WarmupStepDecay(0.5, 0, 0.001, [], 0.1)
    assert [float(schedule(step)) for step in (0, 1, 99)] == [0.5, 0.5, 0.5]


def test_it_serialises():
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(SCHEDULE))
    assert again.get_config() == SCHEDULE.get_config()


def variables():
    return [
        keras.Variable(np.array([1.0, -2.0], np.float32), name="kernel"),
        keras.Variable(np.array([3.0], np.float32), name="bias"),
        keras.Variable(np.array([4.0], np.float32), name="gamma"),
    ]


def test_three_steps_by_hand():
    weights = variables()
    optimizer = SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    expected = [weight.numpy().astype(np.float64) for weight in weights]
    velocities = [np.zeros_like(value) for value in expected]
    for step in range(3):
        gradients = [np.array([0.5, -1.0]) * (step + 1), np.array([2.0]), np.array([-1.0])]
        optimizer.apply([tf.constant(gradient, tf.float32) for gradient in gradients], weights)
        for i, gradient in enumerate(gradients):
            decay = 0.0 if i == 2 else 0.01  # gamma isn't decayed
            velocities[i] = 0.9 * velocities[i] + gradient + decay * expected[i]
            expected[i] -= 0.1 * velocities[i]
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, rtol=1e-6)


def test_a_step_decay_takes_effect_at_once():
    """Keras's own SGD keeps old rates in its velocity; here the velocity has no rate in it."""
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.0])
    weight = keras.Variable(np.zeros(1, np.float32), name="kernel")
    optimizer = SGD(learning_rate=rate, momentum=0.9, weight_decay=0.0)
    for _ in range(3):
        optimizer.apply([tf.ones(1)], [weight])
    np.testing.assert_allclose(weight.numpy(), [-1.0])


def test_sparse_gradients_and_clipping():
    table = keras.Variable(np.zeros((4, 1), np.float32), name="table")
    optimizer = SGD(learning_rate=1.0, momentum=0.0, weight_decay=0.0, global_clipnorm=1.0)
    optimizer.apply([tf.IndexedSlices(tf.constant([[3.0], [4.0]]), tf.constant([0, 2]), tf.constant([4, 1]))], [table])
    np.testing.assert_allclose(table.numpy()[:, 0], [-0.6, 0, -0.8, 0], rtol=1e-6)


def test_the_rate_is_in_proportion_to_the_batch():
    config = load_config("mask_rcnn_r50_fpn", ["train.images_per_batch=4", "train.warmup_steps=0", "train.clip_norm=5"])
    optimizer = make_optimizer(config)
    assert float(optimizer.learning_rate) == pytest.approx(0.005)
    assert (optimizer.momentum, optimizer.decay, optimizer.global_clipnorm) == (0.9, 1e-4, 5.0)


def test_it_serialises_with_its_schedule():
    optimizer = make_optimizer(load_config("nuclei_r18_fpn"))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert isinstance(again, SGD) and again.get_config() == optimizer.get_config()
