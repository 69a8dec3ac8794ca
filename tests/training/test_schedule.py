"""The learning rate, by hand."""

import keras
import pytest

from mrcnn_tf.training.optimizer import WarmupStepDecay

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
