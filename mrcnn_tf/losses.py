"""The losses: L = L_cls + L_box + L_mask on the sampled RoIs (section 3) and the RPN's own two.

All in float32. Normalisers are sums over the whole batch, so that an image with many objects weighs more, as in both
reference systems.
"""

import tensorflow as tf


def smooth_l1(predictions, targets, beta):
    """Element-wise smooth L1: quadratic below `beta`, linear beyond; beta 0 is the absolute difference."""
    difference = tf.abs(predictions - targets)
    if beta == 0:
        return difference
    return tf.where(difference < beta, 0.5 * tf.square(difference) / beta, difference - 0.5 * beta)


def _total(values, mask):
    return tf.reduce_sum(tf.where(mask, values, 0.0))  # where, not a product: padding may hold infinities


def _count(mask):
    return tf.reduce_sum(tf.cast(mask, tf.float32))


def _rpn_normalizer(sample, normalizer):
    """torchvision divides by the anchors that were drawn, detectron2 by all slots, so that sparse images weigh less."""
    slots = tf.cast(tf.size(sample.drawn), tf.float32)
    return slots if normalizer == "batch_size" else tf.maximum(_count(sample.drawn), 1.0)


def rpn_objectness_loss(sample, normalizer):
    """Binary cross-entropy of the sampled anchors' logits. Takes an `AnchorSample`; returns a scalar."""
    labels = tf.cast(sample.positive, tf.float32)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=sample.logits)
    return _total(entropy, sample.drawn) / _rpn_normalizer(sample, normalizer)


def rpn_box_loss(sample, normalizer, beta):
    """Smooth L1 of the positive anchors' deltas, divided like the objectness loss, so that both weigh the same."""
    error = tf.reduce_sum(smooth_l1(sample.deltas, sample.targets, beta), axis=-1)
    return _total(error, sample.positive) / _rpn_normalizer(sample, normalizer)


def class_loss(logits, sample):
    """L_cls: cross-entropy of logits [B, R, K + 1] over the sampled RoIs of a `RoISample`, mean over those drawn."""
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=sample.classes, logits=logits)
    return _total(entropy, sample.drawn) / tf.maximum(_count(sample.drawn), 1.0)


def box_loss(deltas, sample, beta):
    """L_box: smooth L1 of the ground truth class's deltas, deltas [B, R, K, 4], summed over positive RoIs.

    Divided by all sampled RoIs (Fast R-CNN, section 2.3): by the positives alone, an image with one object would pull
    as hard as one with a hundred.
    """
    own = tf.gather(deltas, tf.maximum(sample.classes - 1, 0), batch_dims=2)
    error = tf.reduce_sum(smooth_l1(own, sample.targets, beta), axis=-1)
    return _total(error, sample.positive) / tf.maximum(_count(sample.drawn), 1.0)


def mask_loss(logits, targets, positive):
    """L_mask: binary cross-entropy of the true class's mask logits [B, P, M, M], mean over positives' pixels."""
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    pixels = float(logits.shape[2] * logits.shape[3])
    return _total(entropy, positive[:, :, None, None]) / tf.maximum(_count(positive) * pixels, 1.0)
