"""The stages of a forward pass: each is computed when it is asked for, from those that are given where some are."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_batch, tiny_config

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.model.rois import GroundTruth, Regions
from mrcnn_tf.model.stages import Stages


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return MaskRCNN.from_settings(tiny_config("frozen_bn"))


@pytest.fixture(scope="module")
def batch():
    return {name: tf.constant(value) for name, value in tiny_batch().items()}


def computed(stages):
    return {name for name in vars(Stages) if name in vars(stages)}


def test_a_stage_computes_what_leads_to_it_and_nothing_else(model, batch):
    stages = model.stages(batch)
    assert computed(stages) == set()
    assert stages.normalized.shape == (2, 64, 64, 3) and computed(stages) == {"normalized"}
    assert set(stages.proposals._fields) == {"boxes", "scores", "classes", "valid"}
    assert computed(stages) == {"normalized", "maps", "features", "rpn_scores", "proposals"}
    assert stages.proposals is stages.proposals
    assert set(stages.outputs) == {"boxes", "scores", "classes", "num_detections", "masks"}
    assert computed(stages) == {"normalized", "maps", "features", "rpn_scores", "proposals", "regions", "outputs"}


def test_training_and_inference_go_apart_after_the_rpns_scores(model, batch):
    stages = model.stages(batch)
    assert set(stages.losses) == set(model.loss_names)
    assert not {"proposals", "regions", "outputs"} & computed(stages)
    for name, value in model.compute_losses(batch, training=False).items():
        np.testing.assert_array_equal(stages.losses[name], value)


def test_the_padded_size_is_each_images_rounded_up_unless_all_fill_the_batch(model, batch):
    np.testing.assert_array_equal(model.stages(batch).padded_size, [[64, 64], [64, 64]])  # of 64 x 64 and 64 x 48
    assert model.stages(batch, fills_batch=True).padded_size is None


def test_known_stages_take_the_place_of_computed_ones(model, batch):
    """Whatever led to them isn't needed: so an export runs the RPN in one graph and the heads in another."""
    first = model.stages(batch)
    sizes = {name: batch[name] for name in ("image_size", "original_size")}
    second = model.stages(sizes, features=first.features, proposals=first.proposals)
    for name, value in first.outputs.items():
        np.testing.assert_array_equal(second.outputs[name], value)
    assert not {"normalized", "maps", "rpn_scores"} & computed(second)


def test_the_heads_work_on_what_the_heads_before_have_made_of_the_proposals(model, batch):
    stages = model.stages(batch)
    assert list(stages.regions) == ["box_head", "mask_head"]
    assert stages.regions["mask_head"] is stages.regions["box_head"] and isinstance(stages.regions["box_head"], Regions)
    assert stages.regions["box_head"].boxes.shape == (2, 10, 4)
    ratio = 2  # of original_size to image_size
    valid = stages.regions["box_head"].valid.numpy()
    np.testing.assert_allclose(
        stages.outputs["boxes"].numpy()[valid], ratio * stages.regions["box_head"].boxes.numpy()[valid], rtol=1e-6
    )


def test_inclusive_boxes_of_the_truth_end_at_their_last_pixel():
    batch = {"boxes": tf.constant([[[2.0, 3, 10, 20]]]), "classes": tf.constant([[4]]), "crowd": tf.constant([[False]])}
    np.testing.assert_array_equal(GroundTruth(batch).boxes, [[[2, 3, 10, 20]]])
    np.testing.assert_array_equal(GroundTruth(batch, "inclusive").boxes, [[[2, 3, 9, 19]]])


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("masks", "set data.train.masks=true"),
        ("keypoints", "set data.train.keypoints=true"),
        ("semantic", "set data.train.semantic=true"),
        ("orientation", r"set data.train.fields=\[orientation\]"),
    ],
)
def test_what_a_head_learns_from_and_the_batch_lacks_is_named(name, remedy):
    batch = {"boxes": tf.zeros([1, 1, 4]), "classes": tf.zeros([1, 1], tf.int32), "crowd": tf.zeros([1, 1], tf.bool)}
    truth = GroundTruth(batch)
    assert truth["boxes"] is batch["boxes"]
    with pytest.raises(UserError, match=f"The batch has no '{name}', which a head learns from: .*{remedy}"):
        truth[name]
