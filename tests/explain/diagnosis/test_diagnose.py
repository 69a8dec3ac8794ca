"""`mrcnn_tf.diagnose`: sentences and tables of whole models."""

import copy
import functools
import io
import json

import keras
import numpy as np
import pytest
from rich.console import Console
from serving.panoptic_model import panoptic_config
from tiny import tiny_config

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.explain.diagnosis.diagnose import diagnose
from mrcnn_tf.explain.diagnosis.diagnosis_checks import check_training
from mrcnn_tf.model.mask_rcnn import MaskRCNN

IMAGE = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
RECORDS = [{"bbox": [4, 4, 26, 24], "category_id": 3}, {"bbox": [30, 10, 36, 30], "category_id": 17}]


def make(kind="gn"):
    keras.utils.set_random_seed(3)
    return MaskRCNN.from_settings(tiny_config(kind))


@pytest.fixture(scope="module")
def trained():
    """A model whose weights look as if it had been trained."""
    model = make()
    for weight in model.weights:
        if weight.name in ("gamma", "beta", "bias"):
            weight.assign(weight.numpy() + np.random.default_rng(0).normal(0, 0.01, weight.shape))
    return model


@pytest.fixture
def diagnosis(trained):
    """Its diagnosis with ground truth, a new one for each test."""
    return copy.deepcopy(_diagnosed(trained))


@functools.cache
def _diagnosed(model):
    return diagnose(model, IMAGE, RECORDS)


def printed(table):
    console = Console(file=io.StringIO(), width=150)
    console.print(table)
    return console.file.getvalue()


def test_with_ground_truth(trained, diagnosis):
    assert [one.category for one in diagnosis.objects] == ["cat", "dog"]
    assert "of 2 annotated objects" in diagnosis.sentences[0]
    assert diagnosis.counts.detections == len(diagnosis.stages.detections) == 10
    text = printed(diagnosis.table())
    assert all(one.status in text for one in diagnosis.objects) and "36x30" in text
    assert str(diagnosis).splitlines() == diagnosis.sentences
    assert not check_training(trained)


def test_without_ground_truth(trained):
    diagnosis = diagnose(trained, IMAGE)
    assert diagnosis.objects == [] and diagnosis.sentences[0].startswith("10 detections")
    assert "best score" in printed(diagnosis.table()) and "dog" in printed(diagnosis.table())


def test_json_is_plain(diagnosis):
    found = json.loads(json.dumps(diagnosis.to_json()))
    assert found["counts"]["proposals"] == 30
    assert [one["number"] for one in found["objects"]] == [0, 1]
    assert {row["category"] for row in found["classes"]} == {"cat", "dog"}


def test_a_notebook_shows_sentences_and_table(diagnosis):
    diagnosis.sentences.append("a < b")
    page = diagnosis._repr_html_()
    assert "a &lt; b" in page and page.count("<li>") == len(diagnosis.sentences) and "36x30" in page


def test_a_threshold_above_all_scores(trained):
    box_head = trained.heads[0]
    box_head.detections.score_threshold = 0.99
    try:
        diagnosis = diagnose(trained, IMAGE, RECORDS)
    finally:
        box_head.detections.score_threshold = 0.01
    assert diagnosis.sentences[0].startswith("No detection;")
    assert diagnosis.counts.above_threshold == 0
    assert any("isn't above the threshold of 0.99" in sentence for sentence in diagnosis.sentences)
    assert diagnosis.draw().size > (500, 300)


def test_annotations_that_cannot_be_used_are_named(trained):
    diagnosis = diagnose(trained, IMAGE, [*RECORDS, {"id": 8, "bbox": [1, 1, 5, 5], "category_id": 99}])
    assert len(diagnosis.objects) == 2
    assert any("Annotation 8" in sentence and "category 99" in sentence for sentence in diagnosis.sentences)


def test_a_weight_that_is_not_a_number_is_named():
    model = make()
    weight = next(weight for weight in model.weights if weight.path.endswith("res3_0/conv1/kernel"))
    values = weight.numpy()
    values[0, 0, 0, 0] = np.nan
    weight.assign(values)
    diagnosis = diagnose(model, IMAGE, RECORDS)
    assert "res3_0/conv1/kernel holds NaN" in diagnosis.sentences[1]
    assert diagnosis.stages.non_finite[0] == "the feature map C3"


def test_numbers_that_overflow_are_traced_to_their_stage():
    model = make()
    # Finite weights that make infinities of C2 to C5.
    for conv in model.features.lateral:
        conv.kernel.assign(np.full(conv.kernel.shape, 3e38, np.float32))
    diagnosis = diagnose(model, IMAGE)
    assert any("come from the feature map P2" in sentence for sentence in diagnosis.sentences)


@pytest.mark.parametrize("kind, word", [("frozen_bn", "is frozen and random"), ("gn", "it is random")])
def test_an_untrained_model_is_recognised(kind, word):
    untrained, random = check_training(make(kind))
    assert "RPN's objectness and the box head's classifier" in untrained
    assert word in random and "imagenet" in random


def test_a_new_classifier_on_trained_weights_is_recognised(trained):
    bias = trained.heads[0].class_logits.bias
    values = bias.numpy()
    bias.assign(np.zeros_like(values))
    found = check_training(trained)
    bias.assign(values)
    assert len(found) == 1 and "The box head's classifier has its initial bias" in found[0]


def test_instances_of_a_panoptic_model_are_diagnosed_and_its_segments_are_there():
    model = MaskRCNN.from_settings(panoptic_config(), seed=0)
    diagnosis = diagnose(model, IMAGE, RECORDS)
    assert len(diagnosis.objects) == 2 and "of 2 annotated objects" in diagnosis.sentences[0]
    assert diagnosis.draw(heat=False).size > (500, 300)
    assert diagnosis.stages.detections.panoptic.segment_map.shape == IMAGE.shape[:2]
    copied = copy.deepcopy(diagnosis)  # nothing in it holds the model
    np.testing.assert_array_equal(copied.detections.panoptic.segment_map, diagnosis.detections.panoptic.segment_map)
    assert diagnosis.stages.non_finite == []


def test_numbers_of_the_semantic_head_that_are_not_finite_are_named():
    model = MaskRCNN.from_settings(panoptic_config(), seed=0)
    kernel = model.heads[-1].predictor.kernel
    kernel.assign(np.full(kernel.shape, 3e38, np.float32))  # finite, and its products aren't
    diagnosis = diagnose(model, IMAGE)
    assert diagnosis.stages.non_finite == ["the semantic head's semantic logits"]
    assert any("come from the semantic head's semantic logits" in sentence for sentence in diagnosis.sentences)


def test_a_semantic_head_by_itself_has_no_diagnosis():
    model = MaskRCNN.from_settings(panoptic_config(instances=False), seed=0)
    message = r"semantic head alone .*model.box_head=null.*mrcnn-tf predict.*mrcnn-tf inspect"
    with pytest.raises(UserError, match=message):
        diagnose(model, IMAGE, RECORDS)
