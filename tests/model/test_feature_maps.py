"""Feature maps with what is needed to find an image on them: valid cells, and pooling that heads share."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.model.necks import FeatureMaps
from mrcnn_tf.model.roi_features import RoILayer
from mrcnn_tf.model.rois import RoISample

STRIDES = {"P2": 4, "P3": 8, "P6": 64}


@pytest.fixture
def features():
    """Two images in a batch of 128 x 192 pixels, the second smaller; "P6" has cells that reach beyond both."""
    random = np.random.default_rng(0)
    maps = {
        name: tf.constant(random.normal(size=(2, 128 // s, 192 // s, 3)), tf.float32) for name, s in STRIDES.items()
    }
    return FeatureMaps(
        maps, STRIDES | {"C5": 32}, tf.constant([[128, 190], [90, 33]]), tf.constant([[128, 192], [96, 64]])
    )


def sample(count, positives):
    random = np.random.default_rng(1)
    corner = random.uniform(0, 60, (2, count, 2))
    boxes = tf.constant(np.concatenate([corner, corner + random.uniform(10, 60, (2, count, 2))], axis=2), tf.float32)
    ones = tf.ones([2, count], tf.int32)
    return RoISample(boxes, ones, ones, ones > 0, ones > 0, positives)


class Counted(RoILayer):
    """Counts its calls."""

    calls = 0

    def call(self, *arguments, **options):
        self.calls += 1
        return super().call(*arguments, **options)


def test_valid_cells_are_the_padded_sizes_over_the_stride_rounded_up(features):
    cells = {name: value.numpy().tolist() for name, value in features.valid_cells.items()}
    assert cells == {"P2": [[32, 48], [24, 16]], "P3": [[16, 24], [12, 8]], "P6": [[2, 3], [2, 1]]}


def test_where_all_images_fill_the_batch_no_map_has_valid_cells(features):
    assert FeatureMaps(features.maps, STRIDES).valid_cells == dict.fromkeys(STRIDES)


def test_the_batchs_size_follows_from_any_map(features):
    np.testing.assert_array_equal(features.batch_size, [128, 192])
    np.testing.assert_array_equal(features.select(["P3"]).batch_size, [128, 192])


def test_selected_maps_come_in_the_order_asked_for_with_their_own_strides(features):
    some = features.select(["P6", "P2"])
    assert list(some.maps) == ["P6", "P2"] and some.strides == {"P6": 64, "P2": 4}
    assert some["P2"] is features["P2"] and some.padded_size is features.padded_size
    assert some.image_size is features.image_size
    with pytest.raises(KeyError):
        some["P3"]


def test_no_gradient_flows_through_stopped_maps(features):
    with tf.GradientTape() as tape:
        tape.watch(features.maps)
        plain, stopped = tf.reduce_sum(features["P2"]), features.stop_gradient()
        total = plain + tf.reduce_sum(stopped["P2"]) + tf.reduce_sum(stopped["P3"])
    slopes = tape.gradient(total, features.maps)
    assert np.all(slopes["P2"].numpy() == 1) and slopes["P3"] is None
    assert stopped.strides == features.strides and stopped.padded_size is features.padded_size


def test_a_layer_pools_each_sample_once_for_all_heads(features):
    layer, other, rois = Counted(3, ["P2", "P3"]), Counted(3, ["P2", "P3"]), sample(8, 3)
    pooled = features.pool(layer, rois)
    np.testing.assert_array_equal(features.pool(layer, rois), pooled)
    assert layer.calls == 1
    np.testing.assert_array_equal(pooled, layer(rois.boxes, features=features))
    np.testing.assert_array_equal(features.pool(other, rois), pooled)
    assert other.calls == 1


def test_positives_are_a_part_of_what_was_pooled_of_all(features):
    layer, rois = Counted(3, ["P2", "P3"]), sample(8, 3)
    pooled = features.pool(layer, rois)
    np.testing.assert_array_equal(features.pool(layer, rois.positives), pooled[:, :3])
    assert layer.calls == 1


def test_positives_alone_are_pooled_alone(features):
    layer, rois = Counted(3, ["P2", "P3"]), sample(8, 3)
    first = features.pool(layer, rois.positives)
    assert first.shape == (2, 3, 3, 3, 3)
    np.testing.assert_array_equal(features.pool(layer, rois.positives), first)
    assert layer.calls == 1
    np.testing.assert_allclose(features.pool(layer, rois)[:, :3], first, atol=1e-6)
    assert layer.calls == 2


def test_another_sample_of_the_same_layer_is_pooled_anew(features):
    layer, rois = Counted(3, ["P2", "P3"]), sample(8, 3)
    features.pool(layer, rois)
    moved = RoISample(rois.boxes + 5.0, rois.classes, rois.truth, rois.positive, rois.drawn)
    assert np.abs(features.pool(layer, moved) - features.pool(layer, rois)).max() > 0.01 and layer.calls == 2
