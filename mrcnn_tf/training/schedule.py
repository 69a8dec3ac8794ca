"""The learning rate over the steps: linear warm-up, then falling in steps (section 3.1 of the paper)."""

import bisect

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("mrcnn_tf")
class WarmupStepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`peak`, reached linearly from `warmup_factor * peak` over `warmup_steps`, times `decay_factor` at each decay
    step.

    Args:
        peak: learning rate after warm-up.
        warmup_steps: 0 for none.
        warmup_factor: of the first step's rate to `peak`; both reference systems use 0.001.
        decay_steps: increasing step numbers.
        decay_factor: 0.1 in the paper.
    """

    def __init__(self, peak, warmup_steps, warmup_factor, decay_steps, decay_factor):
        super().__init__()
        self.peak, self.warmup_steps, self.warmup_factor = peak, warmup_steps, warmup_factor
        self.decay_steps, self.decay_factor = list(decay_steps), decay_factor

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        progress = tf.minimum(step / max(self.warmup_steps, 1), 1.0) if self.warmup_steps else 1.0
        warmup = self.warmup_factor + (1.0 - self.warmup_factor) * progress
        decays = tf.add_n([tf.zeros([])] + [tf.cast(step >= bound, tf.float32) for bound in self.decay_steps])
        return self.peak * warmup * tf.pow(tf.constant(self.decay_factor, tf.float32), decays)

    def at(self, step):
        """The rate of one step as a plain number, for plans and plots."""
        progress = min(step / self.warmup_steps, 1.0) if self.warmup_steps else 1.0
        warmup = self.warmup_factor + (1.0 - self.warmup_factor) * progress
        return self.peak * warmup * self.decay_factor ** bisect.bisect_right(self.decay_steps, step)

    def get_config(self):
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "warmup_factor": self.warmup_factor,
            "decay_steps": self.decay_steps,
            "decay_factor": self.decay_factor,
        }
