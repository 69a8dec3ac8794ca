import io

import numpy as np
import pytest
import tensorflow as tf
from made_up import runs_of
from PIL import Image

from mrcnn_tf.data.rasterize import Segmentations, crop_masks, crop_png_masks


def png(mask, value=1):
    data = io.BytesIO()
    Image.fromarray((mask * value).astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def run_shapes(masks):
    runs = [runs_of(mask) for mask in masks]
    empty = tf.zeros([0], tf.int32)
    counts = tf.constant([one.size for one in runs])
    return tf.zeros([0, 2]), empty, empty, tf.constant(np.concatenate(runs), tf.int32), counts


def random_masks(rng, height, width, count):
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        for _ in range(3):
            top, left = rng.integers(0, height - 1), rng.integers(0, width - 1)
            mask[top : top + rng.integers(1, height), left : left + rng.integers(1, width)] ^= True
        mask[rng.integers(0, height, 40), rng.integers(0, width, 40)] ^= True
    return masks


def random_boxes(rng, height, width, count, whole):
    sides = np.sort(rng.uniform(0, 1, (count, 2, 2)) * (width, height), axis=1)
    if whole:
        sides = np.stack([np.floor(sides[:, 0]), np.floor(sides[:, 1]) + 1], axis=1)
    boxes = sides.reshape(count, 4).astype(np.float32)
    boxes[0] = [0, 0, width, height]  # a crop that the image's edge bounds on all sides
    return boxes


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("size", [14, 28, 112])
def test_a_png_gives_the_bits_of_the_same_runs(size, whole):
    rng = np.random.default_rng(size + whole)

    @tf.function(reduce_retracing=True)
    def both(pngs, shapes, boxes, height, width):
        return crop_png_masks(pngs, boxes, size), crop_masks(Segmentations(*shapes), boxes, height, width, size)

    for _ in range(6):
        height, width = rng.integers(20, 400, 2).tolist()
        masks = random_masks(rng, height, width, 9)
        boxes = random_boxes(rng, height, width, 9, whole)
        pngs, sides = tf.constant([png(mask) for mask in masks]), (tf.constant(height), tf.constant(width))
        crops, expected = both(pngs, run_shapes(masks), tf.constant(boxes), *sides)
        np.testing.assert_array_equal(crops, expected)
        assert 0 < crops.numpy().mean() < 255


def test_whatever_isnt_zero_is_inside_and_palettes_of_one_bit_are_read():
    mask = np.zeros((20, 30), bool)
    mask[4:9, 5:17] = True
    bits = io.BytesIO()
    Image.fromarray(mask).save(bits, "PNG")
    boxes = tf.constant([[7.0, 5.0, 15.0, 8.0]] * 3)
    crops = crop_png_masks(tf.constant([png(mask), png(mask, 255), bits.getvalue()]), boxes, 28).numpy()
    np.testing.assert_array_equal(crops, np.full((3, 28, 28), 255))


def test_no_masks_at_all():
    assert crop_png_masks(tf.zeros([0], tf.string), tf.zeros([0, 4]), 28).shape == (0, 28, 28)
