"""Non-maximum suppression with static output shapes."""

import tensorflow as tf

DROPPED = -1e9  # the score of a box that must not survive


def nms(boxes, scores, groups, iou_threshold, count):
    """Greedy non-maximum suppression inside each group, by falling score, the best `count` of each image.

    Boxes of different groups (FPN levels, classes) never suppress each other: each group is moved to a place of its own
    in the plane, as both reference systems do.

    Args:
        boxes: [B, N, 4] pixels, non-negative coordinates.
        scores: [B, N]; DROPPED for boxes that must not survive.
        groups: int32 [B, N] or [1, N].
        iou_threshold: a box that overlaps a better one by more than this is suppressed.
        count: survivors per image, padded.

    Returns:
        indices int32 [B, count] into N by falling score (0 in padding), valid bool [B, count].
    """
    # Each image's own largest coordinate: a neighbour in the batch must not decide how finely overlaps are computed.
    apart = tf.reduce_max(boxes, axis=[1, 2], keepdims=True) + 1.0
    shifted = boxes + tf.cast(groups, tf.float32)[..., None] * apart

    most = boxes.shape[1]
    most = tf.minimum(count, tf.shape(scores)[1]) if most is None else min(count, most)

    def one_image(arguments):
        image_boxes, image_scores = arguments
        # The op reads yxyx, but overlap doesn't change when both axes are swapped.
        selected = tf.raw_ops.NonMaxSuppressionV4(
            boxes=image_boxes,
            scores=image_scores,
            max_output_size=most,  # XLA fails when asked for more than there are
            iou_threshold=tf.cast(iou_threshold, tf.float32),
            score_threshold=DROPPED / 2,
            pad_to_max_output_size=True,
        )
        return selected.selected_indices, selected.valid_outputs

    scores = tf.cast(scores, tf.float32)
    if boxes.shape[0] == 1:  # TFLite has no lists of tensors, which map_fn needs
        indices, found = (values[None] for values in one_image((shifted[0], scores[0])))
    else:
        signature = (tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32))
        indices, found = tf.map_fn(one_image, (shifted, scores), fn_output_signature=signature)
    indices = tf.pad(indices, [[0, 0], [0, count - tf.shape(indices)[1]]])
    indices = tf.ensure_shape(indices, [None, count])
    valid = tf.range(count)[None, :] < found[:, None]
    return tf.where(valid, indices, 0), valid
