"""A training step compiled by XLA against the same step without it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_batch, tiny_config

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import SemanticHeadConfig
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.training.optimizer import SGD


def batches(batch):
    """Batches whose sizes, as in the data pipeline, are known only when they are there."""
    signature = {name: tf.TensorSpec([None] * value.ndim, value.dtype) for name, value in batch.items()}
    signature["image"] = tf.TensorSpec([None, None, None, 3], tf.float32)
    signature["masks"] = tf.TensorSpec([None, None, 28, 28], tf.uint8)
    for name in ("boxes", "image_size", "original_size"):
        signature[name] = tf.TensorSpec([*[None] * (batch[name].ndim - 1), batch[name].shape[-1]], batch[name].dtype)
    return tf.data.Dataset.from_generator(lambda: iter([batch]), output_signature=signature)


def test_losses_and_gradients_are_those_without_xla():
    keras.utils.set_random_seed(0)
    model = MaskRCNN.from_settings(tiny_config("frozen_bn"))
    start = model.get_weights()
    losses, gradients = [], []
    for jit_compile in (False, True):
        model.set_weights(start)
        model.compile(keras.optimizers.SGD(1.0), jit_compile=jit_compile)  # the weights change by their gradients
        history = model.fit(batches(tiny_batch()), steps_per_epoch=1, verbose=0).history
        losses.append({name: values for name, values in history.items() if name.startswith("loss")})
        gradients.append([before - after for before, after in zip(start, model.get_weights(), strict=True)])
    assert losses[0].keys() == losses[1].keys() and "loss_mask" in losses[0]
    for name, values in losses[0].items():
        np.testing.assert_allclose(losses[1][name], values, rtol=1e-4, err_msg=name)
    assert sum(gradient.any() for gradient in gradients[0]) > 40
    for weight, gradient, compiled in zip(start, *gradients, strict=True):
        rounding = 1e-6 * np.linalg.norm(weight)  # of the changed weight
        assert np.linalg.norm(compiled - gradient) <= 1e-4 * np.linalg.norm(gradient) + rounding


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_semantic_head_learns_under_xla(policy):
    """The second image is smaller than the batch, so that its edges repeat and their gradients add up.

    The backbone is frozen: its gradients are compared above, and to compile them takes most of the time.
    """
    config = tiny_config("frozen_bn")
    config.backbone.freeze_at = 5
    config.stuff, config.semantic_head = [Category(30, "sky")], SemanticHeadConfig(channels=32)
    config.box_head = config.mask_head = None
    keras.utils.set_random_seed(0)
    model = MaskRCNN.from_settings(config, dtype=policy)
    labels = np.random.default_rng(1).integers(0, 2, (2, 64, 96)).astype(np.uint8)
    labels[1, :, 64:] = 255
    batch = tiny_batch(((64, 96), (64, 48)), (64, 96)) | {"semantic": labels}
    start, losses = model.get_weights(), []
    for jit_compile in (False, True):
        model.set_weights(start)
        model.compile(keras.optimizers.SGD(0.5), jit_compile=jit_compile)
        losses.append(model.fit(batches(batch), steps_per_epoch=1, verbose=0).history["loss_semantic"][0])
        losses.append(model.compute_losses(batch, training=False)["loss_semantic"].numpy())
    tolerance = 1e-4 if policy == "float32" else 0.02
    np.testing.assert_allclose(losses[2:], losses[:2], rtol=tolerance)
    assert losses[1] != losses[0]


def test_what_xla_cannot_compile_is_refused():
    config = tiny_config()
    config.roi_layer.kind = "pool"
    with pytest.raises(UserError, match="RoIPool"):
        MaskRCNN.from_settings(config).compile(SGD(0.01), jit_compile=True)
