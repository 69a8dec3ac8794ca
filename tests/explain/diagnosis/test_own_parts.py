"""A diagnosis of models with heads and layers of a user's own."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_config

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import OwnHeadConfig
from mrcnn_tf.explain.diagnosis.diagnose import diagnose
from mrcnn_tf.explain.diagnosis.stage_pictures import draw_all_stages
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.parts import BoxHead, Head, OutputSpec

EXAMPLES = pathlib.Path(__file__).parents[3] / "docs" / "extending"
IMAGE = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
RECORDS = [
    {"bbox": [4, 4, 26, 24], "category_id": 3, "segmentation": [[4, 4, 30, 4, 30, 28, 4, 28]]},
    {"bbox": [30, 10, 36, 30], "category_id": 17, "segmentation": [[30, 10, 66, 10, 66, 40, 30, 40]]},
]


class RowHead(Head):
    """Its output of each detection is a number that is NaN for padding, and for `broken` ones."""

    outputs = (OutputSpec("row", (), "number of the row"),)
    broken = -1

    def detect(self, features, regions):
        rows = tf.where(regions.valid, tf.cumsum(tf.ones_like(regions.scores), axis=1), np.nan)
        return {"row": tf.where(rows == self.broken, np.nan, rows)}

    def training_examples(self, features, rois, truth):
        return {"row_targets": tf.cast(rois.positives.truth, tf.float32)}


class HalfHead(Head):
    """Moves the proposals before the box head sees them: to their left halves."""

    def refine(self, features, regions):
        x1, y1, x2, y2 = tf.unstack(regions.boxes, axis=-1)
        return regions._replace(boxes=tf.stack([x1, y1, (x1 + x2) / 2, y2], axis=-1))


class AllBoxes(BoxHead):
    """A box head that suppresses nothing."""

    def suppress(self, boxes, scores, classes, most):
        scores, kept = tf.math.top_k(scores, most)
        return kept, scores > 0


class WholeImage(keras.layers.Layer):
    """A pooling layer that gives the mean of the finest map for every RoI."""

    def build(self, input_shape):
        pass

    def output_shape_of(self, shapes):
        return (None, None, 1, 1, next(iter(shapes.values()))[-1])

    def call(self, rois, features):
        finest = next(iter(features.maps.values()))
        mean = tf.reduce_mean(finest, axis=[1, 2], keepdims=True)[:, None]
        return tf.tile(mean, [1, rois.shape[1], 1, 1, 1])


def make(change=lambda heads: heads, config=None):
    """A tiny model, whose list of heads is changed."""
    keras.utils.set_random_seed(3)
    config = config or tiny_config("gn")
    model = MaskRCNN.from_settings(config)
    heads = change(model.heads)
    return MaskRCNN(model.features, model.rpn, heads, model.preprocess, model.roi_sampler, config.categories)


def test_a_head_without_any_hint_is_no_trouble():
    head = RowHead(name="row_head")
    diagnosis = diagnose(make(lambda heads: [*heads, head]), IMAGE, RECORDS)
    rows = diagnosis.detections.row
    np.testing.assert_array_equal(rows, np.arange(len(rows)) + 1)
    assert diagnosis.stages.non_finite == []
    training = diagnosis.stages.training_rois
    assert {"row_targets", "mask_targets"} <= training.examples.keys()
    np.testing.assert_array_equal(training.examples["row_targets"], training.objects[training.positive])
    assert "detections" in draw_all_stages(diagnosis.stages) and diagnosis.draw().width > 300


def test_what_it_gives_is_held_finite():
    head = RowHead(name="row_head")
    head.broken = 2
    diagnosis = diagnose(make(lambda heads: [*heads, head]), IMAGE)
    assert diagnosis.stages.non_finite == ["the row head's row"]


def test_padding_may_be_anything():
    config = tiny_config("gn")
    config.detections.score_threshold = 1.0
    diagnosis = diagnose(make(lambda heads: [*heads, RowHead(name="row_head")], config), IMAGE)
    assert len(diagnosis.detections) == 0 and diagnosis.stages.non_finite == []


def test_the_head_of_the_documentation_needs_no_field_of_the_annotations(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    config = tiny_config("gn")
    own = OwnHeadConfig("orientation_head:OrientationHead", "orientation_head", {"pool_size": 5, "units": 8})
    config.own_heads = [own]
    diagnosis = diagnose(MaskRCNN.from_settings(config), IMAGE, RECORDS)
    assert diagnosis.detections.orientation.shape == diagnosis.detections.scores.shape
    assert len(diagnosis.objects) == 2 and diagnosis.stages.training_rois.positive.any()


def test_a_cascade_is_followed_to_its_detections(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    config = tiny_config("gn")
    config.box_head.callable = "cascade_head:CascadeHead"
    keras.utils.set_random_seed(3)
    model = MaskRCNN.from_settings(config)
    diagnosis = diagnose(model, IMAGE, RECORDS)
    assert_first_survivors_are_detections(diagnosis)
    assert len(draw_all_stages(diagnosis.stages)) > 10
    np.testing.assert_array_equal(diagnosis.detections.boxes, model.detect(IMAGE).boxes)


def assert_first_survivors_are_detections(diagnosis):
    detections, classification = diagnosis.detections, diagnosis.stages.classification
    assert len(detections) > 0
    best = classification.kept[: len(detections)]
    np.testing.assert_array_equal(classification.boxes.reshape(-1, 4)[best], detections.boxes)
    np.testing.assert_allclose(classification.probabilities[:, 1:].ravel()[best], detections.scores, rtol=1e-6)
    np.testing.assert_array_equal(best % 2 + 1, detections.classes)


def test_another_suppression_is_the_models():
    def change(heads):
        box_head = heads[0]
        own = AllBoxes(2, box_head.pooling, box_head.settings, box_head.detections, name="own")
        return [own, *heads[1:]]

    diagnosis = diagnose(make(change), IMAGE, RECORDS)
    assert_first_survivors_are_detections(diagnosis)
    assert diagnosis.counts.class_survivors == diagnosis.counts.above_threshold > diagnosis.counts.detections == 10


def test_regions_are_those_that_the_box_head_gets():
    plain = diagnose(make(), IMAGE).stages
    halves = diagnose(make(lambda heads: [HalfHead(name="half"), *heads]), IMAGE)
    expected = plain.proposals.boxes.copy()
    expected[:, 2] = (expected[:, 0] + expected[:, 2]) / 2
    np.testing.assert_allclose(halves.stages.proposals.boxes, expected, atol=1e-4)
    assert_first_survivors_are_detections(halves)


def test_a_pooling_layer_that_reads_no_level_has_no_bins():
    def change(heads):
        pooling = WholeImage(name="whole_image")
        return [BoxHead(2, pooling, heads[0].settings, heads[0].detections, name="own")]

    stages = diagnose(make(change), IMAGE, RECORDS).stages
    assert stages.proposals.pooled_from is None and stages.roi_bins == []
    assert "roi_bins" not in draw_all_stages(stages)


def test_a_box_head_that_tells_nothing_is_named():
    class Silent(Head):
        outputs = BoxHead(2, None).outputs

    with pytest.raises(UserError, match="Silent doesn't tell them: .*score_boxes"):
        diagnose(make(lambda heads: [Silent(name="silent")]), IMAGE)


def test_a_model_without_boxes_has_no_diagnosis():
    with pytest.raises(UserError, match="the model has none"):
        diagnose(make(lambda heads: [RowHead(name="row_head")]), IMAGE)
