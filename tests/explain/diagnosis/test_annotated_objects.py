"""Ground truth from annotations and from batches is the same, and as training has it."""

import json

import numpy as np
import pytest
from tiny import tiny_config

from mrcnn_tf.common.categories import read_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DataConfig, ModelConfig, ResizeConfig
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.datasets.shapes import make_shapes
from mrcnn_tf.explain.diagnosis.annotated_objects import (
    GroundTruthObjects,
    read_image_annotations,
    to_annotated_objects,
)

SQUARE = {"bbox": [4, 6, 20, 10], "category_id": 17}


def from_coco(records, config=None):
    return GroundTruthObjects.from_coco(records, config or tiny_config(), 40, 60)


def test_annotations_and_batches_agree(tmp_path):
    annotations, images = make_shapes(tmp_path, 2, seed=3, size=96)
    config = ModelConfig(categories=read_categories(annotations))
    data = DataConfig(
        annotations=str(annotations),
        images=str(images),
        resize=ResizeConfig(150, 150),
        categories=config.categories,
        images_per_batch=2,
        keypoint_offset=config.conventions.keypoint_offset,
    )
    batch = next(iter(coco_dataset(data, training=False)))
    records = read_image_annotations(annotations, "images/000002.png")
    expected, objects = GroundTruthObjects.from_batch(batch, 1), from_records(records, config)
    assert len(objects) == len(records) > 1
    np.testing.assert_allclose(objects.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(objects.keypoints, expected.keypoints, atol=1e-3)
    assert (objects.keypoints[..., 2] > 0).any()
    for name in ("classes", "crowd", "masks"):
        np.testing.assert_array_equal(getattr(objects, name), getattr(expected, name))
    np.testing.assert_array_equal(
        to_annotated_objects(batch, config, 96, 96).boxes, GroundTruthObjects.from_batch(batch, 0).boxes
    )


def from_records(records, config):
    return to_annotated_objects(records, config, 96, 96)


def test_the_smallest_annotation_will_do():
    objects = from_coco([SQUARE])
    np.testing.assert_array_equal(objects.boxes, [[4, 6, 24, 16]])
    assert objects.classes.tolist() == [2] and not objects.crowd[0]
    assert objects.masks is None and objects.keypoints is None and objects.notes == []


def test_masks_of_polygons_and_run_lengths():
    polygon = {**SQUARE, "segmentation": [[4, 6, 24, 6, 24, 16, 4, 16]]}
    mask = np.zeros((40, 60), int)
    mask[6:16, 4:14] = 1  # the left half of the box
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    coded = {**SQUARE, "segmentation": {"size": [40, 60], "counts": runs}}
    objects = from_coco([polygon, coded])
    inner = objects.masks[:, 12:-12, 8:-8]  # small objects fade out at their outlines
    side = inner.shape[2]
    assert objects.masks.dtype == np.uint8 and (inner[0] == 255).all()
    assert (inner[1, :, : side // 2 - 4] == 255).all() and not inner[1, :, side // 2 + 4 :].any()


def test_one_without_a_mask_leaves_them_all_out():
    assert from_coco([SQUARE, {**SQUARE, "segmentation": [[4, 6, 24, 6, 24, 16]]}]).masks is None


def test_what_cannot_be_used_is_said():
    objects = from_coco([{**SQUARE, "id": 5, "category_id": 4}, {**SQUARE, "bbox": [1, 1, 0, 5]}, SQUARE])
    assert len(objects) == 1
    assert "Annotation 5 in the ground truth has category 4" in objects.notes[0] + objects.notes[1]


def test_nothing_is_fine():
    objects = from_coco([])
    assert len(objects) == 0 and objects.boxes.shape == (0, 4)
    assert to_annotated_objects(None, tiny_config(), 40, 60) is None
    assert to_annotated_objects(objects, tiny_config(), 40, 60) is objects


@pytest.mark.parametrize("wrong", ["val.json", [1, 2], 7])
def test_another_form_is_refused(wrong):
    with pytest.raises(UserError, match="list of COCO annotations"):
        to_annotated_objects(wrong, tiny_config(), 40, 60)


@pytest.fixture
def annotations(tmp_path):
    """A json whose annotations come before its images."""
    content = {
        "annotations": [{"id": 1, "image_id": 7}, {"id": 2, "image_id": 8}, {"id": 3, "image_id": 7}],
        "images": [{"id": 7, "file_name": "a/ü b.png"}, {"id": 8, "file_name": "c.png"}],
    }
    path = tmp_path / "val.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("image", ["a/ü b.png", "/data/images/a/ü b.png", "ü b.png", 7])
def test_records_of_one_image(annotations, image):
    assert [record["id"] for record in read_image_annotations(annotations, image)] == [1, 3]


def test_an_image_that_is_not_listed(annotations):
    with pytest.raises(UserError, match="lists no image 'd.png'"):
        read_image_annotations(annotations, "d.png")
