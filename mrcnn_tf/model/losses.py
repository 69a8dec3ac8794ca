"""The losses: L = L_cls + L_box + L_mask on the sampled RoIs (section 3), L_keypoint (section 5), the RPN's own two,
and L_sem of all pixels (Panoptic FPN).

All in float32. Normalisers are sums over the whole batch, so that an image with many objects weighs more, as in both
reference systems. Where the batch is spread over several replicas, they are sums over all of them: each replica then
has its share of the loss, and losses and gradients add up to what a single one would have.
"""

import tensorflow as tf

from mrcnn_tf.common.categories import IGNORED
from mrcnn_tf.ops.replicas import sum_over_replicas


def smooth_l1(predictions, targets, beta):
    """Element-wise smooth L1: quadratic below `beta`, linear beyond; beta 0 is the absolute difference."""
    difference = tf.abs(predictions - targets)
    if beta == 0:
        return difference
    return tf.where(difference < beta, 0.5 * tf.square(difference) / beta, difference - 0.5 * beta)


def _only(values, mask):
    """`values`, 0 where `mask` is False. On a loss's arguments too: the slope at an infinity, times 0, would be NaN."""
    return tf.where(mask, values, 0.0)


def _total(values, mask):
    return tf.reduce_sum(_only(values, mask))


def _count(mask):
    """In the batches of all replicas."""
    return sum_over_replicas(tf.reduce_sum(tf.cast(mask, tf.float32)))


def masked_mean(values, mask):
    """The mean of `values` where `mask` (of the same shape) is true, over the batches of all replicas: a scalar, of
    which each replica has its share; 0 where nothing is."""
    return _total(values, mask) / tf.maximum(_count(mask), 1.0)


def _rpn_normalizer(sample, normalizer):
    """torchvision divides by the anchors that were drawn, detectron2 by all slots, so that sparse images weigh less."""
    counted = tf.ones_like(sample.drawn) if normalizer == "batch_size" else sample.drawn
    return tf.maximum(_count(counted), 1.0)


def rpn_objectness_loss(sample, normalizer):
    """Binary cross-entropy of the sampled anchors' logits. Takes an `AnchorSample`; returns a scalar."""
    labels = tf.cast(sample.positive, tf.float32)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=_only(sample.logits, sample.drawn))
    return _total(entropy, sample.drawn) / _rpn_normalizer(sample, normalizer)


def rpn_box_loss(sample, normalizer, beta):
    """Smooth L1 of the positive anchors' deltas, divided like the objectness loss, so that both weigh the same."""
    counts = sample.positive[..., None]
    error = smooth_l1(_only(sample.deltas, counts), _only(sample.targets, counts), beta)
    return _total(error, counts) / _rpn_normalizer(sample, normalizer)


def class_loss(logits, sample):
    """L_cls: cross-entropy of logits [B, R, K + 1] over the sampled RoIs of a `RoISample`, mean over those drawn."""
    logits = _only(logits, sample.drawn[..., None])
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=sample.classes, logits=logits)
    return masked_mean(entropy, sample.drawn)


def box_loss(deltas, targets, sample, beta):
    """L_box: smooth L1 of the true class's deltas [B, R, K, 4] (K = 1: of all classes) and targets [B, R, 4], summed
    over positive RoIs.

    Divided by all sampled RoIs (Fast R-CNN, section 2.3): by the positives alone, an image with one object would pull
    as hard as one with a hundred.
    """
    own_box = tf.clip_by_value(sample.classes - 1, 0, deltas.shape[2] - 1)
    own = tf.gather(deltas, own_box, batch_dims=2)
    counts = sample.positive[..., None]
    error = smooth_l1(_only(own, counts), _only(targets, counts), beta)
    return _total(error, counts) / tf.maximum(_count(sample.drawn), 1.0)


def mask_loss(scores, targets, positive):
    """L_mask: cross-entropy of the true class's `MaskScores` [B, P, M, M] and targets, mean over positives' pixels.

    Binary where masks are independent; where classes compete, the multinomial one of Table 2b.
    """
    counts = positive[:, :, None, None]
    foreground, background, targets = (_only(values, counts) for values in (*scores, targets))
    pixels = float(targets.shape[2] * targets.shape[3])
    entropy = -targets * foreground - (1.0 - targets) * background
    return tf.reduce_sum(entropy) / tf.maximum(_count(positive) * pixels, 1.0)


def keypoint_loss(logits, cells, visible):
    """L_keypoint: cross-entropy of a softmax over all cells of each heatmap, mean over the keypoints that count.

    Takes logits float32 [B, N, P, M, M], the cells int32 [B, N, P] that the keypoints lie in, counted row by row, and
    which keypoints count, bool [B, N, P].
    """
    side = logits.shape[3]
    flat = tf.reshape(logits, tf.concat([tf.shape(logits)[:3], [side * side]], axis=0))
    labels, logits = tf.where(visible, cells, 0), _only(flat, visible[..., None])
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return masked_mean(entropy, visible)


def semantic_loss(logits, labels):
    """Cross-entropy of logits [B, h, w, S + 1], enlarged to the pixels of labels uint8 [B, H, W] (S + 1 classes, or
    IGNORED), mean over the pixels that count (Panoptic FPN, section 3).

    Interpolated first and then compared: labels made smaller would lose whatever is thinner than a cell.
    """
    counts = labels != IGNORED
    pixels = tf.image.resize(logits, tf.shape(labels)[1:], method="bilinear")
    labels, logits = tf.where(counts, tf.cast(labels, tf.int32), 0), _only(pixels, counts[..., None])
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return masked_mean(entropy, counts)
