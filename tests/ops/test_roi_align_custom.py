"""What only our own operation promises: errors instead of crashes, shapes, determinism, huge boxes."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops.native.library import custom_ops
from mrcnn_tf.ops.roi_align import PyramidRoIs, pyramid_roi_align

ATTRIBUTES = {"spatial_scales": [1.0, 0.5], "output_size": 2, "sampling_ratio": 2, "aligned": True}


def arguments(**changes):
    """Of the operation: two maps, three RoIs; `changes` replaces some."""
    inputs = {
        "features": [tf.ones([2, 8, 6, 4]), tf.ones([2, 4, 3, 4])],
        "boxes": tf.constant([[0.0, 0.0, 4.0, 4.0]] * 3),
        "box_batch": tf.constant([0, 1, 1]),
        "box_level": tf.constant([0, 1, 0]),
        "canvas": tf.zeros([0, 2], tf.int32),
    }
    return inputs | ATTRIBUTES | changes


WRONG = {
    "a map of rank 3": ({"features": [tf.ones([2, 8, 6, 4]), tf.ones([2, 4, 4])]}, "rank|Feature map 1"),
    "other channels": ({"features": [tf.ones([2, 8, 6, 4]), tf.ones([2, 4, 3, 5])]}, "channels|equal"),
    "other images": ({"features": [tf.ones([2, 8, 6, 4]), tf.ones([1, 4, 3, 4])]}, "equally many images"),
    "boxes of three": ({"boxes": tf.zeros([3, 3])}, r"\[R, 4\]|must be 4"),
    "boxes of rank 1": ({"boxes": tf.zeros([12])}, r"\[R, 4\]|rank"),
    "fewer images": ({"box_batch": tf.constant([0, 1])}, "3 boxes|equal"),
    "fewer levels": ({"box_level": tf.constant([0, 1])}, "3 boxes|equal"),
    "no such image": ({"box_batch": tf.constant([0, 2, 1])}, "RoI 1 .* image 2"),
    "a negative image": ({"box_batch": tf.constant([0, 1, -1])}, "RoI 2 .* image -1"),
    "no such level": ({"box_level": tf.constant([0, 1, 2])}, "RoI 2 .* level 2"),
    "a canvas of one image": ({"canvas": tf.ones([1, 2], tf.int32)}, r"canvas .* \[2, 2\]"),
    "too few scales": ({"spatial_scales": [1.0]}, "2 feature maps and 1 scales"),
    "output of nothing": ({"output_size": 0}, "output_size"),
    "a negative ratio": ({"sampling_ratio": -1}, "sampling_ratio"),
    "nine maps": ({"features": [tf.ones([1, 2, 2, 1])] * 9, "spatial_scales": [1.0] * 9}, "at most 8"),
}


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_an_error(name, graph):
    changes, message = WRONG[name]
    pool = custom_ops().mrcnn_tf_roi_align
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=message):
        (tf.function(pool) if graph else pool)(**arguments(**changes))


WRONG_GRADIENT = {
    "another number of RoIs": {"pooled_gradient": tf.zeros([2, 2, 2, 4])},
    "other bins": {"pooled_gradient": tf.zeros([3, 3, 3, 4])},
    "other channels": {"pooled_gradient": tf.zeros([3, 2, 2, 3])},
    "a shape of three numbers": {"shapes": [tf.constant([2, 8, 6]), tf.constant([2, 4, 3, 4])]},
    "a negative shape": {"shapes": [tf.constant([2, 8, -6, 4]), tf.constant([2, 4, 3, 4])]},
    "shapes of different batches": {"shapes": [tf.constant([2, 8, 6, 4]), tf.constant([1, 4, 3, 4])]},
}


@pytest.mark.parametrize("name", WRONG_GRADIENT)
def test_a_gradient_that_does_not_fit_is_an_error(name):
    inputs = arguments() | {
        "pooled_gradient": tf.zeros([3, 2, 2, 4]),
        "shapes": [tf.constant([2, 8, 6, 4]), tf.constant([2, 4, 3, 4])],
    }
    del inputs["features"]
    custom_ops().mrcnn_tf_roi_align_grad(**inputs)
    with pytest.raises(tf.errors.InvalidArgumentError):
        custom_ops().mrcnn_tf_roi_align_grad(**(inputs | WRONG_GRADIENT[name]))


def test_more_output_than_can_be_counted_is_an_error():
    with pytest.raises(tf.errors.OpError):
        custom_ops().mrcnn_tf_roi_align(**arguments(output_size=2**31 - 1))


def test_shapes_are_known_while_tracing():
    def pool(features, boxes, batch):
        rois = PyramidRoIs(boxes, batch, tf.zeros_like(batch), [1.0])
        pooled = pyramid_roi_align([features], rois, 7, 2, True, "custom")
        shapes.append((pooled.shape.as_list(), tf.gradients(pooled, features)[0].shape.as_list()))
        return pooled

    shapes = []
    for count in (5, None):
        signature = [tf.TensorSpec([2, 8, 6, 4]), tf.TensorSpec([count, 4]), tf.TensorSpec([count], tf.int32)]
        tf.function(pool, input_signature=signature).get_concrete_function()
    assert shapes == [([5, 7, 7, 4], [2, 8, 6, 4]), ([None, 7, 7, 4], [2, 8, 6, 4])]


@pytest.mark.parametrize("shape", [(1, 0, 6, 4), (1, 8, 0, 4), (1, 0, 0, 4), (1, 8, 6, 0)])
def test_empty_maps_pool_to_zeros(shape):
    features = tf.ones(shape)
    with tf.GradientTape() as tape:
        tape.watch(features)
        rois = PyramidRoIs(np.float32([[0, 0, 4, 4]]), tf.constant([0]), tf.constant([0]), [1.0])
        pooled = pyramid_roi_align([features], rois, 2, 2, True, "custom")
    assert pooled.shape == (1, 2, 2, shape[3]) and not pooled.numpy().any()
    assert tape.gradient(pooled, features).shape == shape


def test_no_images_and_no_rois():
    rois = PyramidRoIs(tf.zeros([0, 4]), tf.zeros([0], tf.int32), tf.zeros([0], tf.int32), [1.0])
    assert pyramid_roi_align([tf.zeros([0, 8, 6, 4])], rois, 2, 2, True, "custom").shape == (0, 2, 2, 4)


@pytest.mark.parametrize("side", [1e5, 1e9, 1e30])
def test_a_huge_adaptive_box_takes_no_longer_than_its_map(side):
    """Its bins have up to 10^18 samples. All of the map lies in the middle bin: its mean is the map's sum over the
    samples, one in each cell while float32 can tell cells apart."""
    features = tf.ones([1, 8, 6, 1])
    box = np.float32([[-side, -side, side, side]])
    rois = PyramidRoIs(box, tf.constant([0]), tf.constant([0]), [1.0])
    pooled = pyramid_roi_align([features], rois, 3, 0, True, "custom").numpy()[0, :, :, 0]
    samples = (2 * side / 3) ** 2
    assert np.isfinite(pooled).all() and not pooled[[0, 0, 2, 2], [0, 2, 0, 2]].any()
    if side == 1e5:  # the 6 x 8 cells and what the clamped samples beside them add
        assert 48 / samples < pooled[1, 1] < 90 / samples


def test_many_rois_on_many_threads_equal_one_by_one():
    random = np.random.default_rng(0)
    features = [tf.constant(random.normal(size=(2, 32 // s, 32 // s, 24)).astype(np.float32)) for s in (1, 2)]
    corner = random.uniform(-4, 30, (3000, 2))
    boxes = np.float32(np.concatenate([corner, corner + random.uniform(0, 20, (3000, 2))], axis=1))
    image, level = random.integers(0, 2, (2, 3000)).astype(np.int32)
    upstream = tf.constant(random.normal(size=(3000, 3, 3, 24)).astype(np.float32))

    def run(part):
        with tf.GradientTape() as tape:
            tape.watch(features)
            rois = PyramidRoIs(boxes[part], image[part], level[part], [1.0, 0.5])
            pooled = pyramid_roi_align(features, rois, 3, 2, True, "custom")
            total = tf.reduce_sum(pooled * upstream[part])
        return pooled.numpy(), [gradient.numpy() for gradient in tape.gradient(total, features)]

    pooled, gradients = run(slice(0, 3000))
    parts = [run(slice(start, start + 100)) for start in range(0, 3000, 100)]
    np.testing.assert_array_equal(pooled, np.concatenate([part[0] for part in parts]))
    for index, gradient in enumerate(gradients):
        np.testing.assert_allclose(gradient, sum(np.float64(part[1][index]) for part in parts), atol=1e-3)
    # The order of the sums doesn't depend on the threads, so the result is the same to the bit.
    for again, gradient in zip(run(slice(0, 3000))[1], gradients, strict=True):
        np.testing.assert_array_equal(again, gradient)


def test_bfloat16_is_rounded_to_nearest():
    """A map of one value pools to that value; half of 1 + 2^-7, the last place, times two RoIs comes back exactly."""
    values = tf.constant(np.float32([1.0, 1.0078125, -3.140625, 65280.0, np.nan])[None, None, None, :], tf.bfloat16)
    features = tf.tile(values, [1, 4, 4, 1])
    rois = PyramidRoIs(np.float32([[0.3, 0.3, 3.1, 3.1]]), tf.constant([0]), tf.constant([0]), [1.0])
    pooled = tf.cast(pyramid_roi_align([features], rois, 2, 2, True, "custom"), tf.float32)
    np.testing.assert_array_equal(pooled[0, 1, 1], tf.cast(values, tf.float32)[0, 0, 0])
