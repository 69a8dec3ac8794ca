"""Boxes back in the original image, by hand."""

import numpy as np
import tensorflow as tf

from mrcnn_tf.ops.boxes import to_original


def test_each_axis_of_each_image_has_its_own_ratio():
    boxes = tf.constant([[[10.0, 20, 30, 40]], [[10.0, 20, 30, 40]]])
    # (height, width): first 100x200 from 50x400 (y halves, x doubles); second unchanged in y, x thirds.
    result = to_original(boxes, tf.constant([[100, 200], [90, 90]]), tf.constant([[50, 400], [90, 30]]))
    np.testing.assert_allclose(result, [[[20, 10, 60, 20]], [[10 / 3, 20, 10, 40]]], rtol=1e-6)


def test_the_whole_resized_image_is_the_whole_original():
    box = to_original(tf.constant([[[0.0, 0, 993, 799]]]), tf.constant([[799, 993]]), tf.constant([[161, 200]]))
    np.testing.assert_allclose(box, [[[0, 0, 200, 161]]], rtol=1e-6)
