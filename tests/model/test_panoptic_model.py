"""A tiny Mask R-CNN with a semantic head: batches, its loss among the others, its file."""

import dataclasses

import keras
import numpy as np
import pytest
from serving.panoptic_model import panoptic_config
from tiny import tiny_batch

import mrcnn_tf
from mrcnn_tf.model.mask_rcnn import MaskRCNN

SIZES = (64, 96), (80, 60)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    return MaskRCNN.from_settings(panoptic_config())


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(4)
    return [np.kron(rng.integers(0, 255, (h // 4, w // 4, 3)), np.ones((4, 4, 1))).astype(np.uint8) for h, w in SIZES]


@pytest.fixture(scope="module")
def alone(model, images):
    return model.detect(images)


def test_an_image_has_the_same_maps_in_a_batch_as_alone(model, images, alone):
    rows = [{name: value.numpy()[0] for name, value in model.preprocess(image).items()} for image in images]
    height, width = (max(row["image"].shape[axis] for row in rows) for axis in (0, 1))
    assert len({row["image"].shape for row in rows}) == 2  # so that each of them is padded
    for row in rows:
        missing = [(0, height - row["image"].shape[0]), (0, width - row["image"].shape[1]), (0, 0)]
        row["image"] = np.pad(row["image"], missing)
    batch = {name: np.stack([row[name] for row in rows]) for name in ("image", "image_size", "original_size")}
    for found, expected, size in zip(model.detect_batch(batch), alone, SIZES, strict=True):
        assert found.semantic.shape == found.panoptic.segment_map.shape == size
        assert len(np.unique(expected.semantic)) > 1
        assert (found.semantic == expected.semantic).mean() > 0.995
        assert (found.panoptic.segment_map == expected.panoptic.segment_map).mean() > 0.98


def test_the_logits_are_given_up_for_the_map(model, images, alone):
    found = model.detect(images[0])
    first = found.panoptic
    assert not hasattr(found.semantics, "logits")
    np.testing.assert_array_equal(found.semantic, alone[0].semantic)
    assert found.panoptic is first


@pytest.mark.usefixtures("eagerly")
def test_boxes_without_masks_are_never_fused(images):
    config = panoptic_config()
    config.mask_head = None
    for threshold in (0.01, 1.0):  # with detections and without
        config.detections = dataclasses.replace(config.detections, score_threshold=threshold)
        found = MaskRCNN.from_settings(config).detect(images[0])
        assert (len(found) > 0) == (threshold < 1)
        assert found.panoptic is None and found.semantic.shape == SIZES[0]


def test_the_loss_has_its_weight(model):
    labels = np.random.default_rng(5).integers(0, 4, (2, 64, 64)).astype(np.uint8)
    batch, losses = tiny_batch() | {"semantic": labels}, []
    for weight in (0.5, 2.0):
        config = panoptic_config()
        config.semantic_head = dataclasses.replace(config.semantic_head, loss_weight=weight)
        other = MaskRCNN.from_settings(config)
        other.set_weights(model.get_weights())
        losses.append(other.compute_losses(batch, training=False)["loss_semantic"].numpy())
    assert losses[0] > 0.1 and losses[1] == pytest.approx(4 * losses[0], rel=1e-5)


def test_a_file_gives_the_same_segments(model, images, alone, tmp_path):
    model.save(tmp_path / "model.keras")
    found = mrcnn_tf.load_model(tmp_path / "model.keras").detect(images[1])
    np.testing.assert_array_equal(found.panoptic.segment_map, alone[1].panoptic.segment_map)
    assert found.panoptic.segments == alone[1].panoptic.segments
